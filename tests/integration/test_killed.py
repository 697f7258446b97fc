"""Home Assistant is killed at any moment, and starts again with what is on the disk.

A Home Assistant that is killed runs in a thread and an event loop of its own. At that moment the
loop ends. What is done to clean up after it is not seen by the one that starts then.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from homeassistant.const import STATE_UNKNOWN, Platform
from homeassistant.core import HomeAssistant
from homeassistant.loader import DATA_CUSTOM_COMPONENTS
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry, async_test_home_assistant

from custom_components.klefr.const import DOMAIN
from simulator import mbus, modbus
from simulator.line import Line
from simulator.meter import Tariff, VirtualMeter
from simulator.virtual_time import VirtualTimeLoop

from . import SERIAL_NUMBER, WallClock, entity_id, state

PORT = "virtual://meter"
WRITES = {"modbus": (6, 16), "mbus": (0x53, 0x73)}
"""What stands in the second or fifth byte of a frame that sets something."""


class Killed(KeyboardInterrupt):
    """Home Assistant is killed. An event loop ends at once with such an exception."""


@pytest.fixture(params=["modbus", "mbus"])
def protocol(request: pytest.FixtureRequest) -> str:
    protocol: str = request.param
    return protocol


@pytest.fixture
async def virtual_meter(protocol: str, wall_clock: WallClock) -> VirtualMeter:
    """A meter in a house that uses a lot of energy."""
    return VirtualMeter(
        model="6933" if protocol == "mbus" else "6934",
        serial_number=SERIAL_NUMBER,
        address=1,
        clock=wall_clock.time,
        speed=20,
    )


@dataclass
class World:
    """What is there whether Home Assistant runs or not."""

    protocol: str
    meter: VirtualMeter
    storage: dict[str, Any]
    """What is on the disk."""
    wall_clock: WallClock

    def line(self) -> Any:
        serve = mbus.serve if self.protocol == "mbus" else modbus.serve
        return serve(self.meter, virtual=PORT)

    def entry(self, interval: int = 10) -> MockConfigEntry:
        return MockConfigEntry(
            domain=DOMAIN,
            entry_id="meter",
            unique_id=SERIAL_NUMBER,
            title=f"KLEFR {SERIAL_NUMBER}",
            data={
                "port": PORT,
                "protocol": self.protocol,
                "address": 1,
                "baud_rate": 9600,
                "parity": "even",
            },
            options={"update_interval": interval},
        )

    def truth(self) -> float:
        return round(self.meter.forward_active_energy, 2)

    def is_write(self, frame: bytes) -> bool:
        """Whether a frame sets something in the meter, or selects one on M-Bus."""
        if self.protocol == "mbus":
            return frame[0] == 0x68 and frame[4] in WRITES["mbus"]
        return frame[1] in WRITES["modbus"]


@pytest.fixture
def world(
    protocol: str,
    virtual_meter: VirtualMeter,
    hass_storage: dict[str, Any],
    wall_clock: WallClock,
) -> World:
    return World(protocol, virtual_meter, hass_storage, wall_clock)


type Story = Callable[[HomeAssistant, Line], Awaitable[None]]


def kill() -> None:
    raise Killed


async def killed(world: World, story: Story) -> None:
    """Let Home Assistant read the meter and live through a story until it is killed."""
    clock = world.wall_clock
    now = clock.time()

    async def live() -> None:
        clock.offset = now - asyncio.get_running_loop().time()
        async with world.line() as line, async_test_home_assistant() as hass:
            hass.data.pop(DATA_CUSTOM_COMPONENTS)
            try:
                entry = world.entry()
                entry.add_to_hass(hass)
                assert await hass.config_entries.async_setup(entry.entry_id)
                await hass.async_block_till_done()
                await story(hass, line)
            finally:
                await line.unplug()
                await hass.async_stop(force=True)

    def live_and_be_buried() -> float:
        loop = VirtualTimeLoop()
        asyncio.set_event_loop(loop)
        life = loop.create_task(live())
        with pytest.raises(Killed):
            loop.run_until_complete(life)
        ended: float = clock.offset + loop.time()
        on_the_disk = deepcopy(world.storage)
        life.cancel()
        while not life.done():
            # Whatever waits for a task that was killed is killed too.
            with suppress(Killed):
                loop.run_until_complete(asyncio.wait((life,)))
        assert life.cancelled() or isinstance(life.exception(), Killed)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        world.storage.clear()
        world.storage.update(on_the_disk)
        return ended

    ended = await asyncio.to_thread(live_and_be_buried)
    clock.offset = ended - asyncio.get_running_loop().time()


async def started_again(hass: HomeAssistant, world: World) -> MockConfigEntry:
    entry = world.entry()
    entry.add_to_hass(hass)
    assert await hass.config_entries.async_setup(entry.entry_id)
    await hass.async_block_till_done()
    return entry


def shown(hass: HomeAssistant) -> float | None:
    value = state(hass, Platform.SENSOR, "forward_active_energy")
    return None if value in (None, STATE_UNKNOWN) else float(value)


@pytest.mark.parametrize("after", [0.0, 0.02, 0.1, 0.15, 0.3])
async def test_killed_during_a_poll(hass: HomeAssistant, world: World, after: float) -> None:
    seen: list[float] = []

    async def story(hass: HomeAssistant, line: Line) -> None:
        await asyncio.sleep(301)
        seen.append(shown(hass) or 0.0)

        def die_soon(_frame: bytes) -> None:
            line.before_hearing = None
            asyncio.get_running_loop().call_later(after, kill)

        line.before_hearing = die_soon
        await asyncio.sleep(100)

    await killed(world, story)
    # Home Assistant takes a while to start, and energy goes on being used.
    world.wall_clock.offset += 60
    before = world.truth()
    async with world.line() as line:
        entry = await started_again(hass, world)
        await asyncio.sleep(11)
        value = shown(hass)
        assert value is not None
        assert seen[0] <= before <= value <= world.truth()
        assert entry.runtime_data.readings.suspect_readings == 0
        assert not [frame for frame in line.requests if world.is_write(frame)]
        await hass.config_entries.async_unload(entry.entry_id)


async def set_tariff(hass: HomeAssistant, option: str) -> None:
    await hass.services.async_call(
        "select",
        "select_option",
        {"entity_id": entity_id(hass, Platform.SELECT, "tariff"), "option": option},
        blocking=True,
    )


@pytest.mark.parametrize("moment", ["before_hearing", "before_answering", "answered"])
async def test_killed_during_a_write(hass: HomeAssistant, world: World, moment: str) -> None:
    async def story(hass: HomeAssistant, line: Line) -> None:
        await set_tariff(hass, "t2")
        await set_tariff(hass, "t1")
        assert state(hass, Platform.SELECT, "tariff") == "t1"
        await asyncio.sleep(60)

        def die(frame: bytes) -> None:
            if world.is_write(frame):
                kill()

        async def die_when_answered(frame: bytes, answer: bytes) -> list[tuple[float, bytes]]:
            if world.is_write(frame):
                when = len(answer) * line.character_time
                asyncio.get_running_loop().call_later(when, kill)
            return [(0.0, answer)]

        if moment == "answered":
            line.change_answer = die_when_answered
        else:
            setattr(line, moment, die)
        await set_tariff(hass, "t2")

    assert world.meter.tariff is Tariff.T1
    await killed(world, story)
    written = moment != "before_hearing"
    assert world.meter.tariff is (Tariff.T2 if written else Tariff.T1)
    # Somebody sets the meter with its buttons. That counts.
    world.meter.tariff = Tariff.T1
    async with world.line() as line:
        entry = await started_again(hass, world)
        await asyncio.sleep(700)
        assert not [frame for frame in line.requests if world.is_write(frame)]
        assert world.meter.tariff is Tariff.T1
        # Whether the meter took it cannot be known on M-Bus.
        expected = STATE_UNKNOWN if world.protocol == "mbus" else "t1"
        assert state(hass, Platform.SELECT, "tariff") == expected
        await hass.config_entries.async_unload(entry.entry_id)


@pytest.mark.parametrize("interval", [5, 10, 300])
async def test_stored_energies_are_at_most_a_minute_old(
    hass: HomeAssistant, world: World, interval: int
) -> None:
    async with world.line():
        entry = world.entry(interval)
        entry.add_to_hass(hass)
        assert await hass.config_entries.async_setup(entry.entry_id)
        await asyncio.sleep(interval + 5)
        history: list[float | None] = []
        writes: set[float] = set()
        for _ in range(60 + max(300, 2 * interval)):
            await asyncio.sleep(1)
            history.append(shown(hass))
            if len(history) > 60:
                stored = world.storage["klefr.meter.energies"]["data"]["accepted"]
                value, *_ = stored["forward_active_energy"]
                a_minute_ago = history[-61]
                assert a_minute_ago is not None
                assert a_minute_ago <= value
                writes.add(value)
        # The disk is spared as far as that allows.
        assert len(writes) <= 8
        await hass.config_entries.async_unload(entry.entry_id)
