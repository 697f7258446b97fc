"""One exchange on a line that carries more than requests and answers, over both protocols."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
import gc
from random import Random
from typing import Any

import pytest

from custom_components.klefr.meter import (
    Bus,
    GarbledAnswerError,
    LinkError,
    MBusBus,
    ModbusBus,
    ModbusTcpBus,
    NeverSilentError,
    NoAnswerError,
    SerialLink,
)
from simulator import mbus, modbus
from simulator.line import Face, Line
from simulator.meter import Parity, VirtualMeter
from simulator.virtual import VirtualLine
from tests.simulator.client import frame

PORT = "virtual://meter"
GATEWAY = "socket://gateway:502"
CHARACTER = 11 / 9600  # seconds
LONGEST_FRAME = 261  # characters

# What the meter says of itself.
ANSWERS: dict[type[Bus], object] = {
    ModbusBus: [0x2209, 0x1039],
    ModbusTcpBus: [0x2209, 0x1039],
    MBusBus: "22091039",
}

# Beginnings of answers that never come: they hold back what is behind them.
BEGINNINGS: dict[type[Bus], bytes] = {
    ModbusBus: bytes.fromhex("010304"),
    ModbusTcpBus: bytes.fromhex("000100000007"),
    MBusBus: bytes.fromhex("68FFFF68"),
}

both = pytest.mark.parametrize("kind", [ModbusBus, MBusBus])
all_kinds = pytest.mark.parametrize("kind", [ModbusBus, ModbusTcpBus, MBusBus])


async def ask(bus: Bus) -> object:
    """Ask the meter at address 1 who it is."""
    if isinstance(bus, MBusBus):
        return (await bus.read(1))[0].header.identification
    assert isinstance(bus, ModbusBus)
    return list(await bus.read_registers(1, 0x4000, 2))


def serve(kind: type[Bus], *, pacing: bool = True) -> AbstractAsyncContextManager[Line]:
    """Connect one meter."""
    model = "6933" if kind is MBusBus else "6934"
    meter = VirtualMeter(model=model, serial_number="22091039", address=1, clock=lambda: 0.0)
    if kind is MBusBus:
        return mbus.serve(meter, virtual=PORT, pacing=pacing)
    if kind is ModbusTcpBus:
        return modbus.serve(meter, virtual=GATEWAY, framing="socket", pacing=pacing)
    return modbus.serve(meter, virtual=PORT, pacing=pacing)


def bus_on(kind: type[Bus], port: str) -> Bus:
    return kind(SerialLink(port=port))


@dataclass
class Saying:
    """Something on the line that says always the same."""

    say: Callable[[bytes], bytes]

    async def hear(self, frame: bytes, line: Line) -> bytes:
        return self.say(frame)


class Around:
    """A meter whose answers have something in front of them and behind them."""

    def __init__(self, line: Line, *, front: bytes = b"", behind: bytes = b"") -> None:
        self._hear = line._face.hear
        self._front, self._behind = front, behind
        line._face = self

    async def hear(self, frame: bytes, line: Line) -> bytes:
        answer = await self._hear(frame, line)
        return self._front + answer + self._behind if answer else b""


def line_with(face: Face, *, pacing: bool = True) -> VirtualLine:
    return VirtualLine(face, port=PORT, baud_rate=9600, parity=Parity.EVEN, pacing=pacing)


async def timed(awaitable: Awaitable[object]) -> float:
    """Return how many seconds of line time something takes."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await awaitable
    return loop.time() - began


@both
@pytest.mark.parametrize("seed", range(20))
async def test_noise_in_front_of_an_answer_costs_only_its_time(kind: type[Bus], seed: int) -> None:
    noise = Random(seed).randbytes(150)
    async with serve(kind) as line, bus_on(kind, PORT) as bus:
        await ask(bus)
        loop = asyncio.get_running_loop()
        answered_at: list[float] = []
        # Meters take a moment to answer, and not always the same.
        line.before_answering = lambda _: answered_at.append(loop.time())
        await ask(bus)
        undisturbed = loop.time() - answered_at[-1]
        line.noise = noise
        await ask(bus)
        disturbed = loop.time() - answered_at[-1]
        assert disturbed == pytest.approx(undisturbed + 150 * CHARACTER, abs=0.001)
        assert len(answered_at) == 2
        assert await ask(bus) == ANSWERS[kind]


@both
async def test_the_beginnings_of_answers_in_front_of_one_do_not_hide_it(
    kind: type[Bus],
) -> None:
    async with serve(kind) as line, bus_on(kind, PORT) as bus:
        await ask(bus)
        line.noise = BEGINNINGS[kind] * 3
        assert await ask(bus) == ANSWERS[kind]
        assert bus.tally.keys() == {"requests"}


@both
@pytest.mark.parametrize("zeros", [1, 2, 5, 20, 120])
async def test_zero_bytes_around_frames_cost_at_most_a_repetition(
    kind: type[Bus], zeros: int
) -> None:
    async with serve(kind) as line, bus_on(kind, PORT) as bus:
        Around(line, front=bytes(zeros), behind=bytes(zeros))
        for _ in range(50):
            before = bus.tally["requests"]
            assert await ask(bus) == ANSWERS[kind]
            # An M-Bus meter is reset first, once.
            assert bus.tally["requests"] - before <= (4 if before == 0 else 2)


@both
async def test_an_echo_alone_is_no_answer(kind: type[Bus]) -> None:
    async with line_with(Saying(lambda request: request)), bus_on(kind, PORT) as bus:
        with pytest.raises(NoAnswerError):
            await ask(bus)


@both
async def test_an_echo_in_front_of_the_answer_does_no_harm(kind: type[Bus]) -> None:
    async with serve(kind) as line, bus_on(kind, PORT) as bus:
        hear = line._face.hear

        async def echo(request: bytes, line: Line) -> bytes:
            return request + await hear(request, line)

        line._face = type("Echo", (), {"hear": staticmethod(echo)})()
        for _ in range(3):
            assert await ask(bus) == ANSWERS[kind]
        assert bus.tally.keys() == {"requests"}


@both
async def test_an_exchange_ends_however_many_answers_begin(kind: type[Bus]) -> None:
    """A minute of beginnings that never become an answer."""
    endless = BEGINNINGS[kind] * 17_000
    async with line_with(Saying(lambda _: endless)), bus_on(kind, PORT) as bus:
        # Three attempts, each of them bounded by the longest frame of all.
        took = await timed(asyncio.create_task(_fail(bus, (GarbledAnswerError, LinkError))))
        assert took < 3 * (3 * LONGEST_FRAME * CHARACTER + 2)


async def _fail(bus: Bus, errors: tuple[type[Exception], ...]) -> None:
    with pytest.raises(errors):
        await ask(bus)


@both
async def test_a_request_waits_for_the_end_of_what_is_arriving(kind: type[Bus]) -> None:
    async with serve(kind) as line, bus_on(kind, PORT) as bus:
        await ask(bus)
        Around(line, behind=bytes(100))
        await ask(bus)
        # By now it is known that more arrives.
        await asyncio.sleep(20 * CHARACTER)
        assert await ask(bus) == ANSWERS[kind]
        assert bus.tally.keys() == {"requests"}


@all_kinds
async def test_garbage_at_full_speed_ends_the_connection(kind: type[Bus]) -> None:
    port = GATEWAY if kind is ModbusTcpBus else PORT
    async with serve(kind, pacing=False) as line, bus_on(kind, port) as bus:
        await ask(bus)
        meter = line._face
        line._face = Saying(lambda _: b"\x68" * 5000)
        with pytest.raises(NeverSilentError):
            await ask(bus)
        line._face = meter
        line.requests.clear()
        # The port is left alone for a while.
        await asyncio.sleep(29)
        with pytest.raises(NeverSilentError):
            await ask(bus)
        assert not line.requests
        await asyncio.sleep(2)
        assert await ask(bus) == ANSWERS[kind]


async def test_a_late_answer_of_another_transaction_is_no_garbage() -> None:
    async with serve(ModbusTcpBus) as line, bus_on(ModbusTcpBus, GATEWAY) as bus:
        other = bytes.fromhex("7777 0000 0007 01 03 04 DEADBEEF")
        line._face = Saying(lambda _: other)
        with pytest.raises(NoAnswerError):
            await ask(bus)


async def test_answers_of_other_units_and_lengths_are_not_taken() -> None:
    async with serve(ModbusBus) as line, bus_on(ModbusBus, PORT) as bus:
        line.noise = frame(2, bytes.fromhex("0304deadbeef")) + frame(1, bytes.fromhex("0302dead"))
        assert await ask(bus) == ANSWERS[ModbusBus]


@all_kinds
@pytest.mark.parametrize("moments", range(3))
async def test_a_link_that_fails_leaves_no_error_behind_that_nothing_takes(
    kind: type[Bus], moments: int
) -> None:
    """Home Assistant would log it, without a word on which meter it is about."""
    left_behind: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: left_behind.append(context))
    async with serve(kind) as line, kind(SerialLink(port=line.port)) as bus:
        await ask(bus)
        await line.unplug()
        for _ in range(moments):
            await asyncio.sleep(0)
        with pytest.raises(LinkError):
            await ask(bus)
    gc.collect()
    assert not left_behind
