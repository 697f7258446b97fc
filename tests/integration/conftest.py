"""Home Assistant, in virtual time, with a meter in software on a line in memory."""

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from homeassistant.core import HomeAssistant
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.klefr.const import DOMAIN
from simulator import mbus, modbus
from simulator.line import Line
from simulator.meter import VirtualMeter

from . import SERIAL_NUMBER, WallClock


@pytest.fixture(autouse=True)
def _custom_integrations(recorder_db_url: str, enable_custom_integrations: None) -> None:
    """Let Home Assistant find the integration, which a recorder's database has to precede."""


@pytest.fixture(autouse=True)
def _no_usb_scan() -> Iterator[None]:
    """Keep the tests' machine out of it: its USB devices are not watched."""
    with patch("homeassistant.components.usb.async_setup", return_value=True):
        yield


@pytest.fixture
def wall_clock() -> Iterator[WallClock]:
    """Let Home Assistant's clock go as fast as time passes in the test, until the test sets it."""
    clock = WallClock()
    with patch("homeassistant.util.dt.utcnow", clock.utcnow):
        yield clock


@pytest.fixture
def protocol() -> str:
    """What the meter speaks."""
    return "modbus"


@pytest.fixture
def virtual_meter(protocol: str) -> VirtualMeter:
    """A meter whose clock stands still."""
    model = "6933" if protocol == "mbus" else "6934"
    return VirtualMeter(model=model, serial_number=SERIAL_NUMBER, address=1, clock=lambda: 0.0)


@pytest.fixture
def meters(virtual_meter: VirtualMeter) -> Sequence[VirtualMeter]:
    """All meters on the line."""
    return [virtual_meter]


@pytest.fixture
def where(in_real_time: bool, tmp_path: Path) -> dict[str, Any]:
    """How to serve a line: in memory, or in real time as a terminal that takes no time."""
    if in_real_time:
        return {"link": tmp_path / "meter", "pacing": False}
    return {"virtual": "virtual://meter"}


@pytest.fixture
async def line(
    protocol: str, meters: Sequence[VirtualMeter], where: dict[str, Any]
) -> AsyncIterator[Line]:
    serve = mbus.serve if protocol == "mbus" else modbus.serve
    async with serve(*meters, **where) as line:
        yield line


@pytest.fixture
def entry_data(line: Line, protocol: str, virtual_meter: VirtualMeter) -> dict[str, Any]:
    return {
        "port": line.port,
        "protocol": protocol,
        "address": virtual_meter.address,
        "baud_rate": 9600,
        "parity": "even",
    }


@pytest.fixture
async def entry(hass: HomeAssistant, entry_data: dict[str, Any]) -> AsyncIterator[MockConfigEntry]:
    """An entry that is not set up yet."""
    entry = MockConfigEntry(
        domain=DOMAIN,
        unique_id=SERIAL_NUMBER,
        title=f"KLEFR 6934 {SERIAL_NUMBER}",
        data=entry_data,
    )
    entry.add_to_hass(hass)
    yield entry
    # The line goes before Home Assistant does.
    if entry.state.recoverable and hass.config_entries.async_get_entry(entry.entry_id):
        await hass.config_entries.async_unload(entry.entry_id)


@pytest.fixture
async def loaded(hass: HomeAssistant, entry: MockConfigEntry) -> MockConfigEntry:
    """An entry that is set up."""
    assert await hass.config_entries.async_setup(entry.entry_id)
    await hass.async_block_till_done()
    return entry
