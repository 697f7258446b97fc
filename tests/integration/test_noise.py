"""A port on which garbage arrives at full speed, in Home Assistant."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import STATE_UNAVAILABLE, Platform
from homeassistant.core import HomeAssistant
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from simulator import mbus, modbus
from simulator.line import Line
from simulator.meter import VirtualMeter

from . import SERIAL_NUMBER, state, wait


@pytest.fixture(params=["modbus", "modbus_tcp", "mbus"])
def protocol(request: pytest.FixtureRequest) -> str:
    protocol: str = request.param
    return protocol


@pytest.fixture
async def line(protocol: str) -> AsyncIterator[Line]:
    """A line that carries noise as fast as it is sent."""
    if protocol == "mbus":
        meter = VirtualMeter(model="6933", serial_number=SERIAL_NUMBER, address=1)
        served = mbus.serve(meter, virtual="virtual://meter", pacing=False)
    elif protocol == "modbus":
        served = modbus.serve(
            VirtualMeter(serial_number=SERIAL_NUMBER), virtual="virtual://meter", pacing=False
        )
    else:
        served = modbus.serve(
            VirtualMeter(serial_number=SERIAL_NUMBER),
            virtual="socket://gateway:502",
            framing="socket",
            pacing=False,
        )
    async with served as line:
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


async def test_the_meter_is_unavailable_the_log_says_why_and_it_comes_back(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    line.noise = b"\x68" * 10_000
    for _ in range(3):
        await wait(hass)
    assert state(hass, Platform.SENSOR, "forward_active_energy") == STATE_UNAVAILABLE
    assert "than a meter can send" in caplog.text
    line.noise = b""
    await asyncio.sleep(31)
    await wait(hass)
    assert float(state(hass, Platform.SENSOR, "forward_active_energy") or "") > 0
    assert loaded.state is ConfigEntryState.LOADED


async def test_the_entry_says_why_it_cannot_be_set_up(
    hass: HomeAssistant, entry: MockConfigEntry, line: Line
) -> None:
    line.noise = b"\x68" * 10_000
    await hass.config_entries.async_setup(entry.entry_id)
    assert entry.state is ConfigEntryState.SETUP_RETRY
    assert str(entry.error_reason_translation_key).startswith("never_silent")
    line.noise = b""
    await asyncio.sleep(31)
    await wait(hass, seconds=60)
    assert entry.state is ConfigEntryState.LOADED
