"""A meter's M-Bus face: what a frame does, and how it travels.

The frames are those of EN 13757-2, what is in them is as EN 13757-3 has it.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from random import Random

from .line import Line
from .meter import CalculationCode, Parity, Tariff, VirtualMeter
from .ports import open_line

PRIMARY_ADDRESSES = range(251)

SHORTEST_DELAY = 1  # characters of 11 bits
LONGEST_DELAY = 30  # characters
LONGEST_EXTRA_DELAY = 0.05  # seconds on top

ACKNOWLEDGEMENT = b"\xe5"
SHORT_START = 0x10
LONG_START = 0x68
STOP = 0x16
SHORT_LENGTH = 5
LONG_OVERHEAD = 6
SHORTEST_CONTENT = 3  # of a long frame
FRAME_COUNT_BIT = 0x20

ELECTRICITY = 2
STATUS_OK = 0
STATUS_ERROR = 2
SIGNATURE = bytes(2)
MORE_RECORDS_FOLLOW = b"\x1f"


class Control(IntEnum):
    """What a meter is sent, without the frame count bit."""

    SND_NKE = 0x40
    SND_UD = 0x53
    REQ_UD1 = 0x5A
    REQ_UD2 = 0x5B


RSP_UD = 0x08


class Address(IntEnum):
    """The addresses that are not one meter's."""

    SELECTED = 253
    EVERYBODY = 254


class Information(IntEnum):
    """What the data of a long frame is."""

    SEND = 0x51
    SELECT = 0x52
    ANSWER = 0x72


BAUD_RATES = {0xB8: 300, 0xB9: 600, 0xBA: 1200, 0xBB: 2400, 0xBC: 4800, 0xBD: 9600}
"""What the control information says that sets the baud rate."""


# Frames


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """A short frame, or a long one with information and data."""

    control: int
    count_bit: bool
    address: int
    information: int | None = None
    data: bytes = b""


def _decode(frame: bytes) -> _Frame | None:
    """Return what a frame says, None for what is none."""
    if len(frame) == SHORT_LENGTH and frame[0] == SHORT_START:
        content = frame[1:-2]
    elif (
        len(frame) >= LONG_OVERHEAD + SHORTEST_CONTENT
        and frame[0] == frame[3] == LONG_START
        and frame[1] == frame[2] == len(frame) - LONG_OVERHEAD
    ):
        content = frame[4:-2]
    else:
        return None
    if frame[-2] != sum(content) & 0xFF or frame[-1] != STOP:
        return None
    control, address, *rest = content
    return _Frame(
        control=control & ~FRAME_COUNT_BIT,
        count_bit=bool(control & FRAME_COUNT_BIT),
        address=address,
        information=rest[0] if rest else None,
        data=bytes(rest[1:]),
    )


def _encode(content: bytes) -> bytes:
    """Return the long frame with this content."""
    head = bytes((LONG_START, len(content), len(content), LONG_START))
    return head + content + bytes((sum(content) & 0xFF, STOP))


def _split(received: bytearray) -> Iterator[bytes]:
    """Take whole frames off the front of what was received."""
    while received:
        short = received[0] == SHORT_START
        length = SHORT_LENGTH if short else LONG_OVERHEAD + sum(received[1:2])
        frame = bytes(received[:length])
        if _decode(frame) is None:
            return
        yield frame
        del received[:length]


# Readouts

RECORDS = tuple(
    bytes.fromhex(head)
    for head in (
        *("0C 04", "8C 10 04", "8C 20 04"),
        *("1C 04", "9C 10 04", "9C 20 04"),
        *("2C 04", "AC 10 04", "AC 20 04"),
    )
)
"""What a readout's records begin with: a row each for total, forward and reverse active
energy, and in it both tariffs together, T1 and T2, in 10 Wh."""
COLUMNS = 3


def _bcd(number: int) -> bytes:
    """Return a number's last eight digits, low byte first."""
    digits = f"{abs(number) % 10**8:08d}"
    # The highest digit is also the place for a minus sign.
    return bytes.fromhex(f"F{digits[1:]}" if number < 0 else digits)[::-1]


def _number(bcd: bytes) -> int:
    """Return the number of digits, low byte first, or raise ValueError."""
    return int(bcd[::-1].hex())


def _records(meter: VirtualMeter) -> list[bytes]:
    """Return the records of a readout."""
    forward, reverse = (
        [count.total, *count.tariffs.values()]
        for count in (meter.active_energy.forward, meter.active_energy.reverse)
    )
    total = [meter.combine(*energies) for energies in zip(forward, reverse, strict=True)]
    records = [
        meter.record_overrides.get(place, head + _bcd(round(energy * 100)))
        for place, (head, energy) in enumerate(
            zip(RECORDS, (*total, *forward, *reverse), strict=True)
        )
    ]
    return records if meter.model.kind.tariffs_over_mbus else records[::COLUMNS]


def _secondary_address(meter: VirtualMeter) -> bytes:
    """Return identification, manufacturer, version and medium."""
    manufacturer = b"\x25\xcd" if meter.manufacturer_swapped else b"\xcd\x25"
    identification = bytes.fromhex(meter.secondary_address)[::-1]
    return identification + manufacturer + bytes((meter.model.kind.mbus_version or 0, ELECTRICITY))


def _telegram(meter: VirtualMeter, records: bytes) -> bytes:
    """Return the frame that carries records."""
    status = STATUS_OK if meter.program_ok and meter.eeprom_ok else STATUS_ERROR
    return _encode(
        bytes((RSP_UD, meter.address, Information.ANSWER))
        + _secondary_address(meter)
        + bytes((meter.access_number, status))
        + SIGNATURE
        + records
    )


# Commands. They raise ValueError for what a meter refuses.


def _set_address(meter: VirtualMeter, value: bytes) -> None:
    if value[0] not in PRIMARY_ADDRESSES:
        raise ValueError(f"no meter has address {value[0]}")
    meter.address = value[0]


def _set_secondary_address(meter: VirtualMeter, value: bytes) -> None:
    meter.secondary_address = f"{_number(value):08d}"


def _set_tariff(meter: VirtualMeter, value: bytes) -> None:
    tariff = Tariff(_number(value))
    if tariff is not tariff.counted:
        raise ValueError("over M-Bus a tariff is set for good")
    meter.tariff = tariff


def _set_calculation_code(meter: VirtualMeter, value: bytes) -> None:
    meter.calculation_code = CalculationCode(_number(value))


def _set_s0_rate(meter: VirtualMeter, value: bytes) -> None:
    meter.s0_rate = _number(value) / 100


def _reset_day_counter(meter: VirtualMeter, _value: bytes) -> None:
    meter.day_counter = 0


def _reset_power_down_counter(meter: VirtualMeter, _value: bytes) -> None:
    meter.power_down_counter = 0


COMMANDS: Mapping[bytes, tuple[int, Callable[[VirtualMeter, bytes], None]]] = {
    bytes.fromhex("01 7A"): (1, _set_address),
    bytes.fromhex("0C 79"): (4, _set_secondary_address),
    bytes.fromhex("09 7C 01 54"): (1, _set_tariff),
    bytes.fromhex("09 FD 3A"): (1, _set_calculation_code),
    bytes.fromhex("0C FD 3A"): (4, _set_s0_rate),
    bytes.fromhex("0C 04"): (4, _reset_day_counter),
    bytes.fromhex("0A FD 60"): (2, _reset_power_down_counter),
}
"""What the data of a command begins with, how long its value is, and what it does."""


def _obey(meter: VirtualMeter, frame: _Frame) -> None:
    """Do what a frame commands."""
    if meter.refuse_writes:
        raise ValueError("writes are refused")
    if frame.information in BAUD_RATES and not frame.data:
        if not meter.ignore_writes:
            meter.baud_rate = BAUD_RATES[frame.information]
        return
    for start, (length, command) in COMMANDS.items():
        value = frame.data[len(start) :]
        if (
            frame.information == Information.SEND
            and frame.data.startswith(start)
            and len(value) == length
        ):
            if not meter.ignore_writes:
                command(meter, value)
            return
    raise ValueError("there is no such command")


@dataclass(kw_only=True)
class _Station:
    """A meter on the line, and what it remembers of the conversation."""

    meter: VirtualMeter
    selected: bool = False
    answered: dict[bool, tuple[bool, bytes]] = field(default_factory=dict)
    """The last frame count bit and the answer to it, by whether the meter was selected:
    the two ways of addressing it have a bit each."""
    position: int = 0
    """Where in the readout the next telegram begins."""
    restarts: int = 0

    def hear(self, frame: _Frame) -> bytes:
        """Act on a frame and return the answer, empty for none."""
        if self.restarts != self.meter.restarts:
            self.restarts = self.meter.restarts
            self.selected = False
            self._forget()
        if (frame.control, frame.address, frame.information) == (
            Control.SND_UD,
            Address.SELECTED,
            Information.SELECT,
        ):
            return self._select(frame.data)
        if frame.control not in Control or not self._is_meant(frame):
            return b""
        if frame.control == Control.SND_NKE:
            self.selected = self.selected and frame.address != Address.SELECTED
            self._forget()
            return ACKNOWLEDGEMENT
        return self._answer_once(frame)

    def _forget(self) -> None:
        self.answered.clear()
        self.position = 0

    def _select(self, data: bytes) -> bytes:
        """Be selected, or no longer."""
        # Identification is compared digit by digit, the rest byte by byte.
        own = _secondary_address(self.meter)
        self.selected = (
            len(data) == len(own)
            and all(a in ("f", b) for a, b in zip(data[:4].hex(), own[:4].hex(), strict=True))
            and data[4:6] in (own[4:6], b"\xff\xff")
            and all(a in (0xFF, b) for a, b in zip(data[6:], own[6:], strict=True))
        )
        if not self.selected:
            return b""
        self.answered.pop(True, None)
        self.position = 0
        return ACKNOWLEDGEMENT

    def _is_meant(self, frame: _Frame) -> bool:
        match frame.address:
            case Address.SELECTED:
                return self.selected
            case Address.EVERYBODY:
                return frame.control != Control.SND_UD
            case address:
                return address == self.meter.address

    def _answer_once(self, frame: _Frame) -> bytes:
        """Answer, or repeat the answer if the same frame count bit says that it got lost."""
        as_selected = frame.address == Address.SELECTED
        bit, answer = self.answered.get(as_selected, (None, b""))
        if bit is frame.count_bit:
            return answer
        if answer := self._answer(frame):
            self.answered[as_selected] = (frame.count_bit, answer)
        return answer

    def _answer(self, frame: _Frame) -> bytes:
        if frame.control == Control.REQ_UD2:
            return self._read_on()
        if frame.control == Control.SND_UD:
            try:
                _obey(self.meter, frame)
            except ValueError:
                return b""
        return ACKNOWLEDGEMENT

    def _read_on(self) -> bytes:
        """Return the next telegram of the readout."""
        meter = self.meter
        meter.access_number = (meter.access_number + 1) % 256
        records = _records(meter)
        end = self.position + (meter.records_per_telegram or len(records))
        part = b"".join(records[self.position : end])
        if end < len(records):
            self.position = end
            return _telegram(meter, part + MORE_RECORDS_FOLLOW)
        self.position = 0
        return _telegram(meter, part + meter.extra_records)


class MBusFace:
    """Meters that answer M-Bus frames on one line."""

    def __init__(
        self, meters: Sequence[VirtualMeter], *, answer_delay: float | None = None, seed: int = 1
    ) -> None:
        """Connect meters.

        They take `answer_delay` seconds to answer. Without it they take as long as the
        standard allows, some shorter, some longer, and no time on a line without pacing.
        """
        self._stations = [_Station(meter=meter, restarts=meter.restarts) for meter in meters]
        self._answer_delay = answer_delay
        self._random = Random(seed)  # noqa: S311

    async def hear(self, frame: bytes, line: Line) -> bytes:
        """Act on a frame and return the answer, empty for none."""
        decoded = _decode(frame)
        if decoded is None:
            return b""
        answers = [
            answer
            for station in self._stations
            if station.meter.powered
            and line.reaches(station.meter.baud_rate, Parity.EVEN)
            and (answer := station.hear(decoded))
        ]
        if answers:
            await asyncio.sleep(self._delay(line.character_time))
        return line.collide(answers)

    def _delay(self, character: float) -> float:
        if self._answer_delay is not None:
            return self._answer_delay
        if not character:
            return 0.0
        return self._random.uniform(
            SHORTEST_DELAY * character, LONGEST_DELAY * character + LONGEST_EXTRA_DELAY
        )


def serve(
    *meters: VirtualMeter,
    baud_rate: int | None = None,
    pacing: bool = True,
    link: str | Path | None = None,
    tcp: tuple[str, int] | None = None,
    virtual: str | None = None,
    answer_delay: float | None = None,
    seed: int = 1,
) -> AbstractAsyncContextManager[Line]:
    """Connect meters to a line while the context is open.

    The line is a pseudo-terminal, with `link` as a link to it, or a gateway listening
    on `tcp`, a host and a port. With `virtual` it is in memory: a serial port, called
    `virtual://` and any name, or a gateway, called `socket://` and any host and port. `baud_rate` is set on the meters first; without it the
    line runs as the first meter is set. `answer_delay` is how many seconds every answer
    takes, instead of any time that the standard allows.
    """
    for meter in meters:
        meter.baud_rate = baud_rate or meter.baud_rate
        meter.parity = Parity.EVEN
    return open_line(
        MBusFace(meters, answer_delay=answer_delay, seed=seed),
        baud_rate=meters[0].baud_rate,
        parity=Parity.EVEN,
        pacing=pacing,
        link=link,
        tcp=tcp,
        virtual=virtual,
        split=_split,
        seed=seed,
    )
