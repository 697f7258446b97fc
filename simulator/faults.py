"""What can go wrong between a meter and Home Assistant, as tables: a kind, and what it does.

- `ANSWER_FAULTS` change the bytes of an answer. Those called unseen leave it with a checksum
  that is right, as damage does that the checksum does not see.
- `TIMING_FAULTS` change when an answer arrives, and what else arrives.
- `SCENE_FAULTS` happen to the line or to the meter, and last for a while.

`Faults` puts them on a line.
"""

from abc import ABC, abstractmethod
import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
import math
from random import Random
import struct
from typing import Final, override

from tmodbus.utils.crc import calculate_crc16

from .gateway import Gateway
from .line import Face, Line, Piece
from .meter import VirtualMeter
from .registers import FLOAT, REGISTERS

STEP: Final = 0.01
"""KWh or kvarh that the meter resolves."""
VALUE_LENGTH: Final = 4  # bytes
ENERGIES: Final = range(0x6000, 0x6048)
COUNTER: Final = 0x6049
FLOATS: Final = frozenset(
    address
    for address, register in REGISTERS.items()
    if register.data_type == FLOAT and address >= 0x5000
)
EARLIER_KEPT: Final = 8


class Codec(ABC):
    """How a protocol packs values into its answers."""

    zero: bytes
    no_number: bytes
    infinity: bytes
    huge: bytes

    @abstractmethod
    def content(self, frame: bytes) -> range:
        """Return where in a frame its data is."""

    @abstractmethod
    def seal(self, frame: bytes) -> bytes:
        """Give a frame the length and the checksum that its content asks for."""

    @abstractmethod
    def values(self, request: bytes, frame: bytes) -> Sequence[int]:
        """Return where in the answer to a request values begin, of four bytes each."""

    @abstractmethod
    def energies(self, request: bytes, frame: bytes) -> Sequence[int]:
        """Return the same for counters of energy only."""

    @abstractmethod
    def add(self, value: bytes, steps: int) -> bytes:
        """Return a value that is so many steps of what the meter resolves higher."""

    @abstractmethod
    def from_unit(self, frame: bytes, address: int) -> bytes:
        """Return a frame as the meter at another address sends it."""


class ModbusCodec(Codec):
    """Modbus on a serial line."""

    zero = struct.pack(">f", 0)
    no_number = struct.pack(">f", math.nan)
    infinity = struct.pack(">f", math.inf)
    huge = struct.pack(">f", 3e38)
    unit_at = 0
    """Where in a frame the address is."""
    checksum_length = 2

    @override
    def content(self, frame: bytes) -> range:
        return range(self.unit_at + 3, max(self.unit_at + 3, len(frame) - self.checksum_length))

    @override
    def seal(self, frame: bytes) -> bytes:
        return frame[:-2] + calculate_crc16(frame[:-2]) if len(frame) > 2 else frame

    def _addresses(self, request: bytes, frame: bytes) -> range:
        start, count = struct.unpack_from(">HH", request, self.unit_at + 2)
        fits = len(frame) == self.unit_at + 3 + 2 * count + self.checksum_length
        return range(start, start + count if fits else start)

    def _places(self, request: bytes, frame: bytes, wanted: Callable[[int], bool]) -> Sequence[int]:
        addresses = self._addresses(request, frame)
        return [
            self.unit_at + 3 + 2 * (address - addresses.start)
            for address in addresses
            if wanted(address) and address + 1 in addresses
        ]

    @override
    def values(self, request: bytes, frame: bytes) -> Sequence[int]:
        return self._places(request, frame, FLOATS.__contains__)

    @override
    def energies(self, request: bytes, frame: bytes) -> Sequence[int]:
        return self._places(
            request,
            frame,
            lambda address: address in FLOATS and (address in ENERGIES or address == COUNTER),
        )

    @override
    def add(self, value: bytes, steps: int) -> bytes:
        number = struct.unpack(">f", value)[0] + steps * STEP
        return struct.pack(">f", number) if abs(number) < 1e30 else self.huge

    @override
    def from_unit(self, frame: bytes, address: int) -> bytes:
        changed = bytearray(frame)
        if len(changed) > self.unit_at:
            changed[self.unit_at] = address
        return self.seal(bytes(changed))


class ModbusTcpCodec(ModbusCodec):
    """Modbus over the network, which has no checksum."""

    unit_at = 6
    checksum_length = 0

    @override
    def seal(self, frame: bytes) -> bytes:
        length = max(len(frame) - self.unit_at, 0)
        return frame[:4] + length.to_bytes(2) + frame[6:]


class MBusCodec(Codec):
    """M-Bus."""

    zero = bytes(4)
    no_number = b"\xee" * 4
    infinity = b"\xff" * 4
    huge = b"\x99" * 4
    records_at = 19
    """Where in a frame the first record begins."""

    @override
    def content(self, frame: bytes) -> range:
        # What comes before tells frames apart, as address and function do on Modbus.
        return range(6, max(6, len(frame) - 2))

    @override
    def seal(self, frame: bytes) -> bytes:
        content = frame[4:-2][:255]
        head = bytes((0x68, len(content), len(content), 0x68))
        return head + content + bytes((sum(content) & 0xFF, 0x16))

    @override
    def values(self, request: bytes, frame: bytes) -> Sequence[int]:
        places = []
        position = self.records_at
        while position < len(frame) - 2 and frame[position] & 0x0F == 0x0C:
            while frame[position] & 0x80 and position < len(frame) - 2:
                position += 1
            position += 2
            if position + VALUE_LENGTH > len(frame) - 2:
                break
            places.append(position)
            position += VALUE_LENGTH
        return places

    @override
    def energies(self, request: bytes, frame: bytes) -> Sequence[int]:
        return self.values(request, frame)

    @override
    def add(self, value: bytes, steps: int) -> bytes:
        digits = value[::-1].hex()
        if not digits.isdecimal():
            return value
        return bytes.fromhex(f"{(int(digits) + steps) % 10**8:08d}")[::-1]

    @override
    def from_unit(self, frame: bytes, address: int) -> bytes:
        changed = bytearray(frame)
        if len(changed) > 5:
            changed[5] = address
        return self.seal(bytes(changed))


@dataclass(frozen=True, kw_only=True)
class Passage:
    """An answer on its way, and what may get in its way."""

    request: bytes
    answer: bytes
    """As the meter gave it."""
    other: bytes
    """What another meter answers to the same request."""
    earlier: Sequence[bytes]
    """Answers to earlier requests, the latest last."""
    codec: Codec
    random: Random


# Damage that no checksum was mended after.


def _flip(frame: bytes, places: range, random: Random) -> bytes:
    changed = bytearray(frame)
    for _ in range(random.randint(1, 4) if places else 0):
        changed[random.choice(places)] ^= 1 << random.randrange(8)
    return bytes(changed)


def _swap(frame: bytes, places: range, random: Random) -> bytes:
    changed = bytearray(frame)
    if len(places) > 1:
        one = random.choice(places)
        two = random.choice([one + 1 if one + 1 in places else one - 1, random.choice(places)])
        changed[one], changed[two] = changed[two], changed[one]
    return bytes(changed)


def _burst(frame: bytes, places: range, random: Random) -> bytes:
    changed = bytearray(frame)
    if places:
        start = random.choice(places)
        part = range(start, min(start + random.randint(2, 20), places.stop))
        changed[part.start : part.stop] = random.randbytes(len(part))
    return bytes(changed)


def _lose(frame: bytes, places: range, random: Random) -> bytes:
    changed = bytearray(frame)
    if places:
        start = random.choice(places)
        del changed[start : min(start + random.randint(1, 3), places.stop)]
    return bytes(changed)


def _add(frame: bytes, places: range, random: Random) -> bytes:
    position = random.choice(places) if places else 0
    return frame[:position] + random.randbytes(random.randint(1, 3)) + frame[position:]


def _duplicate(frame: bytes, places: range, random: Random) -> bytes:
    position = random.choice(places) if places else 0
    end = position + random.randint(1, 8)
    return frame[:end] + frame[position:]


def _zeros(frame: bytes, places: range, random: Random) -> bytes:
    position = random.choice([0, len(frame), random.choice(places) if places else 0])
    return frame[:position] + bytes(random.randint(1, 4)) + frame[position:]


type Damage = Callable[[bytes, range, Random], bytes]
type AnswerFault = Callable[[bytes, Passage], bytes]


def _seen(damage: Damage) -> AnswerFault:
    """Damage any byte."""
    return lambda frame, passage: damage(frame, range(len(frame)), passage.random)


def _unseen(damage: Damage) -> AnswerFault:
    """Damage the data, and mend the checksum."""

    def change(frame: bytes, passage: Passage) -> bytes:
        codec = passage.codec
        return codec.seal(damage(frame, codec.content(frame), passage.random))

    return change


def _value(new: Callable[[bytes, Passage], bytes], *, most: int = 3) -> AnswerFault:
    """Change one value or some, and mend the checksum."""

    def change(frame: bytes, passage: Passage) -> bytes:
        changed = bytearray(frame)
        places = passage.codec.values(passage.request, frame)
        number = min(len(places), most, passage.random.choice((1, 1, 2, 3)))
        for place in passage.random.sample(places, number):
            part = slice(place, place + VALUE_LENGTH)
            changed[part] = new(bytes(changed[part]), passage)
        return passage.codec.seal(bytes(changed)) if places else frame

    return change


def zero_energies(frame: bytes, passage: Passage) -> bytes:
    """Let all counters be zero, as meters do for a moment after power-up."""
    changed = bytearray(frame)
    places = passage.codec.energies(passage.request, frame)
    for place in places:
        changed[place : place + VALUE_LENGTH] = passage.codec.zero
    return passage.codec.seal(bytes(changed)) if places else frame


def _swap_values(frame: bytes, passage: Passage) -> bytes:
    changed = bytearray(frame)
    places = passage.codec.values(passage.request, frame)
    if len(places) < 2:
        return frame
    one, two = (slice(at, at + VALUE_LENGTH) for at in passage.random.sample(places, 2))
    changed[one], changed[two] = changed[two], changed[one]
    return passage.codec.seal(bytes(changed))


def _merge(frame: bytes, passage: Passage) -> bytes:
    random = passage.random
    other = random.choice(passage.earlier) if passage.earlier else passage.other
    return random.choice(
        (
            other + frame,
            frame + other,
            other[: random.randrange(len(other) + 1)] + frame,
            frame[: random.randrange(len(frame) + 1)] + other,
        )
    )


def _noise(random: Random) -> bytes:
    return random.randbytes(random.choice((1, 2, 5, 40)))


SMALL: Final = (1, 2, 3, 5, 10, 30, 100, 500)
"""By how many steps of 0.01 kWh a value is slightly lower or higher."""

ANSWER_FAULTS: Final[Mapping[str, AnswerFault]] = {
    "flipped bits": _seen(_flip),
    "lost bytes": _seen(_lose),
    "added bytes": _seen(_add),
    "swapped bytes": _seen(_swap),
    "duplicated bytes": _seen(_duplicate),
    "burst": _seen(_burst),
    "zero bytes": _seen(_zeros),
    "truncated frame": lambda frame, passage: frame[: passage.random.randrange(len(frame) + 1)],
    "merged frames": _merge,
    "echo": lambda frame, passage: passage.request + frame,
    "noise in front": lambda frame, passage: _noise(passage.random) + frame,
    "noise behind": lambda frame, passage: frame + _noise(passage.random),
    "unseen flipped bits": _unseen(_flip),
    "unseen lost bytes": _unseen(_lose),
    "unseen added bytes": _unseen(_add),
    "unseen swapped bytes": _unseen(_swap),
    "unseen duplicated bytes": _unseen(_duplicate),
    "unseen burst": _unseen(_burst),
    "value reads 0": _value(lambda _, passage: passage.codec.zero),
    "value reads NaN": _value(lambda _, passage: passage.codec.no_number),
    "value reads infinity": _value(lambda _, passage: passage.codec.infinity),
    "value reads huge": _value(lambda _, passage: passage.codec.huge),
    "value slightly lower": _value(
        lambda value, passage: passage.codec.add(value, -passage.random.choice(SMALL)), most=1
    ),
    "value slightly higher": _value(
        lambda value, passage: passage.codec.add(value, passage.random.choice(SMALL)), most=1
    ),
    "words swapped": _value(lambda value, _: value[2:] + value[:2]),
    "values swapped": _swap_values,
    "all energies read 0": zero_energies,
    "answer of another meter": lambda _, passage: passage.other,
    "answer of another unit": lambda frame, passage: passage.codec.from_unit(
        frame, passage.random.randrange(1, 248)
    ),
    "answer to an earlier request": lambda frame, passage: (
        passage.random.choice(passage.earlier) if passage.earlier else frame
    ),
    "no answer": lambda _frame, _passage: b"",
}

# When an answer arrives

type TimingFault = Callable[[bytes, Passage], Sequence[Piece]]


def _paused(frame: bytes, passage: Passage) -> Sequence[Piece]:
    cut = passage.random.randrange(len(frame) + 1)
    return (0.0, frame[:cut]), (passage.random.uniform(0.001, 0.3), frame[cut:])


TIMING_FAULTS: Final[Mapping[str, TimingFault]] = {
    "delay": lambda frame, passage: ((passage.random.uniform(0, 0.3), frame),),
    "late answer": lambda frame, passage: ((passage.random.uniform(0.3, 4), frame),),
    "pause in the frame": _paused,
    "noise between frames": lambda frame, passage: (
        (0.0, frame),
        (passage.random.uniform(0.005, 0.5), _noise(passage.random)),
    ),
    "frame sent twice": lambda frame, passage: (
        (0.0, frame),
        (passage.random.uniform(0.005, 1), frame),
    ),
}


# What happens to the line and to the meter


@dataclass(kw_only=True)
class Scene:
    """A meter on a line, and what goes wrong there for a while."""

    line: Line
    meter: VirtualMeter
    random: Random
    zeros: int = 0
    """How many causes there are for the energies to read zero."""
    collisions: int = 0
    """How many causes there are for another meter to answer at the same time."""
    other: VirtualMeter


type SceneFault = Callable[[Scene], Awaitable[None]]


async def _unplugged(scene: Scene) -> None:
    await asyncio.sleep(scene.random.uniform(0, 0.3))
    await scene.line.unplug()
    await asyncio.sleep(scene.random.uniform(0.1, 30))
    await scene.line.plug()


async def _hung_up(scene: Scene) -> None:
    if isinstance(scene.line, Gateway):
        scene.line.hang_up_next = scene.random.randint(1, 3)


async def _zeros_after_power_up(scene: Scene) -> None:
    scene.meter.power_cycle()
    scene.zeros += 1
    await asyncio.sleep(scene.random.uniform(1, 60))
    scene.zeros -= 1


async def _power_cut(scene: Scene) -> None:
    if not scene.meter.powered:
        return
    scene.meter.power_down()
    await asyncio.sleep(scene.random.uniform(0.1, 60))
    scene.meter.power_up()
    await _zeros_after_power_up(scene)


async def _two_meters(scene: Scene) -> None:
    scene.collisions += 1
    await asyncio.sleep(scene.random.uniform(1, 30))
    scene.collisions -= 1


SCENE_FAULTS: Final[Mapping[str, SceneFault]] = {
    "unplugged": _unplugged,
    "connection ended": _hung_up,
    "zeros after power-up": _zeros_after_power_up,
    "power cut": _power_cut,
    "two meters on one address": _two_meters,
}


class Faults:
    """Lets faults happen to the answers on a line."""

    def __init__(self, scene: Scene, codec: Codec, other_face: Face) -> None:
        """Take over the line. `other_face` is where the scene's other meter answers."""
        self.next: Callable[[], tuple[Sequence[str], str | None]] | None = None
        """Says which faults the next answer has: of its bytes in turn, and of its time."""
        self.scene = scene
        self._codec = codec
        self._other_face = other_face
        self._earlier: deque[bytes] = deque(maxlen=EARLIER_KEPT)
        scene.line.change_answer = self._change

    async def _change(self, request: bytes, answer: bytes) -> Sequence[Piece]:
        scene = self.scene
        kinds, timing = self.next() if self.next else ((), None)
        if not (kinds or timing or scene.zeros or scene.collisions):
            self._earlier.append(answer)
            return ((0.0, answer),)
        passage = Passage(
            request=request,
            answer=answer,
            other=await self._other_face.hear(request, scene.line),
            earlier=tuple(self._earlier),
            codec=self._codec,
            random=scene.random,
        )
        self._earlier.append(answer)
        frame = zero_energies(answer, passage) if scene.zeros else answer
        if scene.collisions and passage.other:
            frame = scene.line.collide([frame, passage.other])
        for kind in kinds:
            frame = ANSWER_FAULTS[kind](frame, passage)
        return TIMING_FAULTS[timing](frame, passage) if timing else ((0.0, frame),)
