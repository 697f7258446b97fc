"""A house with a meter, whose energies Home Assistant's recorder counts."""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
import logging
from typing import Any
from unittest.mock import patch

from homeassistant.core import HomeAssistant
from homeassistant.helpers.entity import Entity
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.klefr.const import CONF_UPDATE_INTERVAL, DOMAIN
from simulator import mbus, modbus
from simulator.line import Line
from simulator.meter import VirtualMeter

from .. import SERIAL_NUMBER
from .house import START, House, MeterClock, RecorderSetup, recorded, wall_clock

PORT = "virtual://meter"


@pytest.fixture(params=["modbus", "mbus"])
def protocol(request: pytest.FixtureRequest) -> str:
    protocol: str = request.param
    return protocol


@pytest.fixture
def meter_clock() -> MeterClock:
    return MeterClock()


@pytest.fixture
def speed() -> int:
    """How many times as much energy flows. What is not counted shall show."""
    return 5


@pytest.fixture
def virtual_meter(protocol: str, meter_clock: MeterClock, speed: int) -> VirtualMeter:
    model = "6934" if protocol == "modbus" else "6933"
    return VirtualMeter(model=model, serial_number=SERIAL_NUMBER, clock=meter_clock, speed=speed)


@pytest.fixture
async def line(protocol: str, virtual_meter: VirtualMeter) -> AsyncIterator[Line]:
    serve = modbus.serve if protocol == "modbus" else mbus.serve
    async with serve(virtual_meter, virtual=PORT) as line:
        yield line


@pytest.fixture
def update_interval() -> int:
    """Seconds."""
    return 20


@pytest.fixture
def entry(
    hass: HomeAssistant,
    protocol: str,
    virtual_meter: VirtualMeter,
    line: Line,
    update_interval: int,
) -> MockConfigEntry:
    entry = MockConfigEntry(
        domain=DOMAIN,
        unique_id=SERIAL_NUMBER,
        data={
            "port": line.port,
            "protocol": protocol,
            "address": virtual_meter.address,
            "baud_rate": 9600,
            "parity": "even",
        },
        options={CONF_UPDATE_INTERVAL: update_interval},
    )
    entry.add_to_hass(hass)
    return entry


@pytest.fixture(autouse=True)
def _all_enabled() -> Iterator[None]:
    with patch.object(Entity, "entity_registry_enabled_default", True):
        yield


@pytest.fixture(autouse=True)
def _short_log() -> Iterator[None]:
    """Home Assistant tells of every state, and the recorder of all that it writes."""
    with ExitStack() as stack:
        for name in ("homeassistant", "sqlalchemy.engine"):
            stack.enter_context(patch.object(logging.getLogger(name), "level", logging.WARNING))
        yield


@pytest.fixture
def enable_statistics() -> bool:
    return True


@pytest.fixture
def persistent_database() -> bool:
    """A database in memory could not be read while something waits to be written."""
    return True


@pytest.fixture
def enable_missing_statistics() -> bool:
    return True


@pytest.fixture
async def empty_house(
    hass: HomeAssistant,
    entry: MockConfigEntry,
    virtual_meter: VirtualMeter,
    meter_clock: MeterClock,
    async_test_recorder: RecorderSetup,
    recorder_config: dict[str, Any] | None,
) -> AsyncIterator[House]:
    """A house at ten o'clock, in which the meter is not set up yet."""
    with wall_clock(START):
        async with recorded(hass, async_test_recorder, **(recorder_config or {})):
            house = House(hass, entry, virtual_meter, meter_clock)
            yield house
            await house.unload()


@pytest.fixture
async def house(empty_house: House) -> House:
    await empty_house.load()
    empty_house.meter_clock.start()
    return empty_house
