"""What goes wrong on a line or with a meter, one thing at a time, and what Home Assistant shows.

The same for the meters' library alone is in tests/meter/test_faults.py.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
import logging
from random import Random
from typing import Any

from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import STATE_UNAVAILABLE, STATE_UNKNOWN, Platform
from homeassistant.core import Event, EventStateChangedData, HomeAssistant, callback
from homeassistant.helpers.event import async_track_state_change_event
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from simulator import mbus, modbus
from simulator.faults import SCENE_FAULTS, Faults, MBusCodec, ModbusCodec, Scene
from simulator.gateway import Gateway
from simulator.line import Line, Piece
from simulator.mbus import MBusFace
from simulator.meter import VirtualMeter
from simulator.modbus import Framing, ModbusFace
from simulator.virtual import VirtualLine

from . import SERIAL_NUMBER, WallClock, entity_id

SERIAL = "virtual://meter"
GATEWAY = "socket://gateway:502"
INTERVAL = 10  # seconds

on_a_gateway = pytest.mark.parametrize("port", [GATEWAY])


@pytest.fixture(params=["modbus", "mbus"])
def protocol(request: pytest.FixtureRequest) -> str:
    protocol: str = request.param
    return protocol


@pytest.fixture
def port() -> str:
    return SERIAL


@pytest.fixture
async def virtual_meter(protocol: str) -> VirtualMeter:
    """A meter in a house that uses energy."""
    return VirtualMeter(
        model="6933" if protocol == "mbus" else "6934",
        serial_number=SERIAL_NUMBER,
        address=1,
        clock=asyncio.get_running_loop().time,
    )


@pytest.fixture
async def line(virtual_meter: VirtualMeter, port: str) -> AsyncIterator[Line]:
    serve = mbus.serve if virtual_meter.model.speaks_mbus else modbus.serve
    async with serve(virtual_meter, virtual=port) as line:
        yield line


@pytest.fixture
def entry_data(line: Line, protocol: str) -> dict[str, Any]:
    return {
        "port": line.port,
        "protocol": protocol,
        "address": 1,
        "baud_rate": 9600,
        "parity": "even",
    }


@dataclass
class Home:
    """Home Assistant with a meter, and all that it has shown of the meter's energy."""

    hass: HomeAssistant
    meter: VirtualMeter
    shown: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """What was shown though the meter never had it, or had it before what was shown before."""

    @property
    def energy(self) -> str:
        state = self.hass.states.get(entity_id(self.hass, Platform.SENSOR, "forward_active_energy"))
        assert state is not None
        return state.state

    @property
    def available(self) -> bool:
        return self.energy != STATE_UNAVAILABLE

    def truth(self) -> float:
        return round(self.meter.forward_active_energy, 2)

    def watch(self) -> Callable[[], None]:
        """Note what is shown from now on."""
        last = float(self.energy) if self.energy not in (STATE_UNAVAILABLE, STATE_UNKNOWN) else 0.0

        @callback
        def note(event: Event[EventStateChangedData]) -> None:
            nonlocal last
            state = event.data["new_state"]
            assert state is not None
            self.shown.append(state.state)
            if state.state in (STATE_UNAVAILABLE, STATE_UNKNOWN):
                return
            value = float(state.state)
            if not last <= value <= self.truth():
                self.wrong.append(state.state)
            last = value

        name = entity_id(self.hass, Platform.SENSOR, "forward_active_energy")
        return async_track_state_change_event(self.hass, name, note)

    async def shows_the_truth_after(self, polls: int) -> bool:
        """Let so many polls pass, and tell whether the last of them is shown."""
        await asyncio.sleep((polls - 1) * INTERVAL)
        before = self.truth()
        await asyncio.sleep(INTERVAL + 2)
        return self.available and before <= float(self.energy) <= self.truth()


@pytest.fixture
async def home(
    hass: HomeAssistant, loaded: MockConfigEntry, virtual_meter: VirtualMeter
) -> AsyncIterator[Home]:
    home = Home(hass, virtual_meter)
    assert await home.shows_the_truth_after(1)
    ignore = home.watch()
    yield home
    ignore()
    assert not home.wrong


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and "custom integration" not in record.getMessage()
    ]


# The adapter


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
async def test_an_adapter_that_is_unplugged_in_a_frame_and_replugged(
    home: Home, line: Line, caplog: pytest.LogCaptureFixture, share: float
) -> None:
    unplugging: list[asyncio.Task[None]] = []

    async def unplug_in(_request: bytes, answer: bytes) -> Sequence[Piece]:
        line.change_answer = None
        when = share * len(answer) * line.character_time
        loop = asyncio.get_running_loop()
        loop.call_later(when, lambda: unplugging.append(asyncio.create_task(line.unplug())))
        return [(0.0, answer)]

    line.change_answer = unplug_in
    caplog.clear()
    await asyncio.sleep(INTERVAL + 2)
    assert unplugging
    assert home.energy == STATE_UNAVAILABLE
    await asyncio.sleep(20 * INTERVAL)
    # Once for the readings and once for the settings, however long it lasts.
    assert 1 <= len(warnings(caplog)) <= 2
    await line.plug()
    assert await home.shows_the_truth_after(1)


# The gateway


@on_a_gateway
async def test_a_gateway_that_restarts_is_used_again(home: Home, line: Line) -> None:
    assert isinstance(line, Gateway)
    # It ends the connection, and a new one is accepted at once.
    line.hang_up_next = 1
    assert await home.shows_the_truth_after(2)
    # It is off for a while.
    await line.unplug()
    await asyncio.sleep(30)
    assert home.energy == STATE_UNAVAILABLE
    await line.plug()
    assert await home.shows_the_truth_after(2)


@on_a_gateway
async def test_a_gateway_that_accepts_and_never_answers(
    hass: HomeAssistant,
    home: Home,
    loaded: MockConfigEntry,
    line: Line,
    caplog: pytest.LogCaptureFixture,
) -> None:
    line.silent = True
    caplog.clear()
    await asyncio.sleep(3 * INTERVAL)
    assert home.energy == STATE_UNAVAILABLE
    tasks = len(asyncio.all_tasks())
    await asyncio.sleep(60 * INTERVAL)
    assert len(asyncio.all_tasks()) <= tasks
    assert 1 <= len(warnings(caplog)) <= 2
    # Nor does it when Home Assistant starts.
    await hass.config_entries.async_reload(loaded.entry_id)
    assert loaded.state is ConfigEntryState.SETUP_RETRY
    assert str(loaded.error_reason_translation_key).startswith("no_answer")
    line.silent = False
    await asyncio.sleep(3 * INTERVAL)
    assert await hass.config_entries.async_reload(loaded.entry_id)
    assert await home.shows_the_truth_after(2)


# Devices that do not stop


async def test_a_meter_that_answers_a_byte_a_second(home: Home, line: Line) -> None:
    async def drip(_request: bytes, answer: bytes) -> Sequence[Piece]:
        return [(1.0, bytes((byte,))) for byte in answer]

    line.change_answer = drip
    await asyncio.sleep(60)
    assert home.energy == STATE_UNAVAILABLE
    line.change_answer = None
    # It still sends what it was asked for.
    await asyncio.sleep(1000)
    assert await home.shows_the_truth_after(2)


async def test_a_device_that_sends_a_byte_a_second_between_the_answers(
    home: Home, line: Line
) -> None:
    assert isinstance(line, VirtualLine)
    receiver = line._receiver
    assert receiver is not None
    random = Random(1)
    for _ in range(600):
        await asyncio.sleep(1.0)
        line._send(receiver, random.randbytes(1))
        assert home.available
    assert await home.shows_the_truth_after(1)


# The meter


def scene_of(line: Line, meter: VirtualMeter, seed: int) -> Scene:
    """Put a line's faults in place."""
    other = VirtualMeter(
        model=meter.model, serial_number="22091040", address=1, clock=lambda: 0.0, seed=2
    )
    scene = Scene(line=line, meter=meter, random=Random(seed), other=other)
    if meter.model.speaks_mbus:
        Faults(scene, MBusCodec(), MBusFace([other]))
    else:
        Faults(scene, ModbusCodec(), ModbusFace([other], Framing.RTU))
    return scene


@pytest.mark.parametrize("seed", range(3))
async def test_a_meter_that_loses_its_power_and_returns(
    home: Home, line: Line, virtual_meter: VirtualMeter, seed: int
) -> None:
    # Its energies read zero at first. `home` sees to it that this is never shown.
    await SCENE_FAULTS["power cut"](scene_of(line, virtual_meter, seed))
    assert await home.shows_the_truth_after(2)
    assert "0.0" not in home.shown


async def test_zeros_after_power_up_are_not_shown_when_home_assistant_starts(
    hass: HomeAssistant,
    home: Home,
    loaded: MockConfigEntry,
    line: Line,
    virtual_meter: VirtualMeter,
    hass_storage: dict[str, Any],
) -> None:
    scene = scene_of(line, virtual_meter, 1)
    for remembers in (True, False):
        assert await hass.config_entries.async_unload(loaded.entry_id)
        if not remembers:
            del hass_storage[f"klefr.{loaded.entry_id}.energies"]
        scene.zeros = 1
        assert await hass.config_entries.async_setup(loaded.entry_id)
        await asyncio.sleep(50)
        assert home.energy == STATE_UNKNOWN
        scene.zeros = 0
        assert await home.shows_the_truth_after(2)


# The clock


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
async def test_a_clock_that_jumps_by_an_hour(
    hass: HomeAssistant,
    wall_clock: WallClock,
    home: Home,
    loaded: MockConfigEntry,
    line: Line,
    caplog: pytest.LogCaptureFixture,
    jump: float,
) -> None:
    caplog.clear()
    for _ in range(3):
        line.requests.clear()
        wall_clock.offset += jump
        for _ in range(6):
            assert await home.shows_the_truth_after(1)
        assert line.requests
    assert loaded.runtime_data.readings.suspect_readings == 0
    # What is stored may have been believed in the future, or long ago.
    assert await hass.config_entries.async_unload(loaded.entry_id)
    wall_clock.offset += jump
    assert await hass.config_entries.async_setup(loaded.entry_id)
    assert await home.shows_the_truth_after(1)
    assert loaded.runtime_data.readings.suspect_readings == 0
    assert not warnings(caplog)
