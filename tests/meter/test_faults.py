"""What goes wrong on a line or with a meter, one thing at a time, and what is then published.

`scripts/soak` mixes all of this at random.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
import json
from random import Random

import pytest

from custom_components.klefr.meter import (
    Bus,
    CommunicationError,
    LinkError,
    MBusBus,
    ModbusBus,
    Quantity,
    SerialLink,
    identify,
)
from custom_components.klefr.meter.guarded import GuardedReader
from custom_components.klefr.meter.link import BaudRate
from custom_components.klefr.meter.verdict import Decision, Memory, Moment, Verdict
from simulator import mbus, modbus
from simulator.faults import SCENE_FAULTS, Faults, MBusCodec, ModbusCodec, Scene
from simulator.line import Line, Piece
from simulator.mbus import MBusFace
from simulator.meter import VirtualMeter
from simulator.modbus import Framing, ModbusFace

PORT = "virtual://meter"
GATEWAY = "socket://gateway:502"
INTERVAL = 10  # seconds
ENERGIES = (
    Quantity.FORWARD_ACTIVE_ENERGY,
    Quantity.REVERSE_ACTIVE_ENERGY,
    Quantity.TOTAL_ACTIVE_ENERGY,
)


def serve(meter: VirtualMeter, port: str) -> AbstractAsyncContextManager[Line]:
    if meter.model.speaks_mbus:
        return mbus.serve(meter, virtual=port)
    return modbus.serve(meter, virtual=port)


@dataclass
class Polled:
    """A meter, its line, and what reads it."""

    meter: VirtualMeter
    line: Line
    bus: Bus
    reader: GuardedReader
    clock: float = 1_800_000_000.0
    """When the loop's time was zero, in seconds since 1970."""

    def now(self) -> Moment:
        time = asyncio.get_running_loop().time()
        return Moment(monotonic=time, wall=self.clock + time)

    def truth(self) -> tuple[float, ...]:
        meter = self.meter
        return (
            round(meter.forward_active_energy, 2),
            round(meter.reverse_active_energy, 2),
            round(meter.total_active_energy, 2),
        )

    async def poll(self) -> Verdict:
        verdict = await self.reader.read(ENERGIES)
        await asyncio.sleep(INTERVAL)
        return verdict

    async def polls_truly(self) -> bool:
        """Poll once, and say whether the meter shows what would be published."""
        before = self.truth()
        verdict = await self.reader.read(ENERGIES)
        after = self.truth()
        await asyncio.sleep(INTERVAL)
        values = [verdict.readings[quantity] for quantity in ENERGIES]
        return all(
            isinstance(value, float) and min(old, new) <= value <= max(old, new)
            for value, old, new in zip(values, before, after, strict=True)
        )

    async def recovers(self) -> bool:
        """Tell whether the truth is back with the second poll."""
        await self.poll()
        return await self.polls_truly()


@asynccontextmanager
async def polled(
    model: str, *, port: str = PORT, baud_rate: BaudRate = BaudRate.B9600
) -> AsyncIterator[Polled]:
    meter = VirtualMeter(
        model=model,
        serial_number="22091039",
        address=1,
        baud_rate=baud_rate,
        calculation_code=5,
        clock=asyncio.get_running_loop().time,
    )
    kind = MBusBus if meter.model.speaks_mbus else ModbusBus
    async with (
        serve(meter, port) as line,
        kind(SerialLink(port=port, baud_rate=baud_rate)) as bus,
    ):
        home = Polled(meter, line, bus, None)  # type: ignore[arg-type]  # set below
        home.reader = GuardedReader(await identify(bus, 1), Memory(), home.now)
        assert await home.recovers()
        yield home


both = pytest.mark.parametrize("model", ["6934", "6933"])


@both
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
async def test_an_adapter_that_is_unplugged_in_a_frame_is_used_again(
    model: str, share: float
) -> None:
    async with polled(model) as home:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await home.reader.read(ENERGIES)
        duration = loop.time() - began
        await asyncio.sleep(INTERVAL)
        poll = asyncio.create_task(home.poll())
        await asyncio.sleep(share * duration)
        await home.line.unplug()
        with pytest.raises(LinkError):
            await poll
        with pytest.raises(LinkError):
            await home.poll()
        await home.line.plug()
        assert await home.polls_truly()


@both
async def test_a_gateway_that_never_answers_does_not_hold_up_for_long(model: str) -> None:
    async with polled(model, port=GATEWAY) as home:
        loop = asyncio.get_running_loop()
        home.line.silent = True
        for _ in range(3):
            began = loop.time()
            with pytest.raises(CommunicationError):
                await home.poll()
            assert loop.time() - began < 30
        await home.line.unplug()
        with pytest.raises(LinkError):
            await home.poll()
        home.line.silent = False
        await home.line.plug()
        assert await home.polls_truly()


@both
async def test_a_device_that_sends_a_byte_a_second_does_not_hold_up_for_long(model: str) -> None:
    async def drip(_request: bytes, answer: bytes) -> Sequence[Piece]:
        return [(1.0, bytes((byte,))) for byte in answer]

    async with polled(model) as home:
        loop = asyncio.get_running_loop()
        home.line.change_answer = drip
        began = loop.time()
        with pytest.raises(CommunicationError):
            await home.poll()
        assert loop.time() - began < 60
        home.line.change_answer = None
        # It still sends what it was asked for.
        await asyncio.sleep(1000)
        assert await home.recovers()


def scene_of(home: Polled, seed: int) -> Scene:
    """Put a line's faults in place."""
    other = VirtualMeter(
        model=home.meter.model, serial_number="22091040", address=1, clock=lambda: 0.0, seed=2
    )
    scene = Scene(line=home.line, meter=home.meter, random=Random(seed), other=other)
    if home.meter.model.speaks_mbus:
        Faults(scene, MBusCodec(), MBusFace([other]))
    else:
        Faults(scene, ModbusCodec(), ModbusFace([other], Framing.RTU))
    return scene


@both
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["zeros after power-up", "power cut", "two meters on one address"])
async def test_what_a_meter_says_for_a_while_is_never_published(
    model: str, kind: str, seed: int
) -> None:
    async with polled(model) as home:
        least = home.truth()
        fault = asyncio.ensure_future(SCENE_FAULTS[kind](scene_of(home, seed)))
        while not fault.done():
            try:
                verdict = await home.poll()
            except CommunicationError:
                await asyncio.sleep(INTERVAL)
                continue
            for quantity, low in zip(ENERGIES, least, strict=True):
                value = verdict.readings[quantity]
                assert isinstance(value, float)
                assert low <= value <= low + 1
        assert await home.recovers()


@both
async def test_zeros_after_power_up_are_not_published_after_a_start_either(model: str) -> None:
    async with polled(model) as home:
        scene = scene_of(home, 1)
        stored = json.loads(json.dumps(home.reader.memory.to_json()))
        for memory in (Memory.from_json(stored), Memory()):
            home.reader.memory = memory
            scene.zeros = 1
            for _ in range(6):
                verdict = await home.poll()
                assert {verdict.readings[quantity] for quantity in ENERGIES} == {None}
            scene.zeros = 0
            assert await home.recovers()


@both
@pytest.mark.parametrize("after", [0.0, 0.02, 0.1, 0.15, 0.3])
async def test_a_restart_during_a_poll_costs_at_most_one_more(model: str, after: float) -> None:
    async with polled(model) as home:
        stored = json.dumps(home.reader.memory.to_json())
        poll = asyncio.create_task(home.poll())
        await asyncio.sleep(after)
        poll.cancel()
        await asyncio.wait((poll,))
        await home.bus.release()
        home.bus.hold()
        meter = await identify(home.bus, 1)
        home.reader = GuardedReader(meter, Memory.from_json(json.loads(stored)), home.now)
        assert await home.recovers()


@both
@pytest.mark.parametrize("jump", [3600.0, -3600.0])
async def test_a_clock_that_jumps_by_an_hour_changes_nothing(model: str, jump: float) -> None:
    async with polled(model) as home:
        for _ in range(3):
            home.clock += jump
            verdict = await home.poll()
            assert set(verdict.decisions.values()) <= {Decision.STEADY, Decision.PLAUSIBLE}
            assert not verdict.jumps
        stored = json.dumps(home.reader.memory.to_json())
        home.clock += jump
        home.reader.memory = Memory.from_json(json.loads(stored))
        assert await home.recovers()


@both
async def test_polls_that_take_longer_than_the_interval_still_say_the_truth(model: str) -> None:
    async with polled(model, baud_rate=BaudRate.B300) as home:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await home.reader.read(ENERGIES)
        assert loop.time() - began > 2
        # Nothing is left of one poll when the next one begins at once.
        for _ in range(5):
            verdict = await home.reader.read(ENERGIES)
            assert not verdict.suspect
            assert set(verdict.decisions.values()) <= {Decision.STEADY, Decision.PLAUSIBLE}
        assert await home.polls_truly()
