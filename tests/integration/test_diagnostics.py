"""What goes into a bug report."""

import json

from homeassistant.core import HomeAssistant
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers.json import JSONEncoder
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.klefr.diagnostics import async_get_config_entry_diagnostics
from simulator.line import Line
from simulator.meter import VirtualMeter

from . import SERIAL_NUMBER, wait


async def test_diagnostics_tell_all_but_whose_meter_it_is(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line
) -> None:
    await wait(hass)
    diagnostics = await async_get_config_entry_diagnostics(hass, loaded)
    text = json.dumps(diagnostics, cls=JSONEncoder)
    assert SERIAL_NUMBER not in text
    assert diagnostics["identity"]["model"] == "6934"
    assert diagnostics["identity"]["firmware_version"] == "2.18"
    assert diagnostics["data"]["port"] == line.port
    assert diagnostics["readings"]["success"] is True
    assert diagnostics["readings"]["values"]["forward_active_energy"] > 0
    assert diagnostics["settings"]["values"]["tariff"] == 1
    assert diagnostics["communication"]["bus"]["requests"] == len(line.requests)


async def test_diagnostics_of_a_meter_in_trouble(
    hass: HomeAssistant, loaded: MockConfigEntry, virtual_meter: VirtualMeter, line: Line
) -> None:
    line.silent = True
    await wait(hass)
    diagnostics = await async_get_config_entry_diagnostics(hass, loaded)
    assert diagnostics["readings"]["success"] is False
    assert diagnostics["readings"]["failure"] == "NoAnswerError"
    assert diagnostics["communication"]["bus"]["no_answer"] == 3
    json.dumps(diagnostics, cls=JSONEncoder)


async def test_diagnostics_name_an_error_that_nobody_expected(
    hass: HomeAssistant, loaded: MockConfigEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_quantities: object, **_kwargs: object) -> None:
        raise ZeroDivisionError from KeyError(SERIAL_NUMBER)

    monkeypatch.setattr(loaded.runtime_data.meter, "read_along", fail)
    await wait(hass)
    diagnostics = await async_get_config_entry_diagnostics(hass, loaded)
    assert diagnostics["readings"]["failure"] == "ZeroDivisionError"
    assert SERIAL_NUMBER not in json.dumps(diagnostics, cls=JSONEncoder)


async def test_diagnostics_of_a_meter_that_cannot_be_set_up(
    hass: HomeAssistant, entry: MockConfigEntry, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.serial_number = "87654321"
    await hass.config_entries.async_setup(entry.entry_id)
    diagnostics = await async_get_config_entry_diagnostics(hass, entry)
    assert diagnostics["reason"] == "wrong_meter"
    text = json.dumps(diagnostics, cls=JSONEncoder)
    assert SERIAL_NUMBER not in text
    assert "87654321" not in text


async def test_diagnostics_of_a_meter_with_an_unknown_code_ask_for_a_report(
    hass: HomeAssistant, entry: MockConfigEntry, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.overrides[0x4002] = 0x0199
    assert await hass.config_entries.async_setup(entry.entry_id)
    [device] = dr.async_entries_for_config_entry(dr.async_get(hass), entry.entry_id)
    assert (device.name, device.model) == (f"Inepro 0199 {SERIAL_NUMBER}", "0199")
    diagnostics = await async_get_config_entry_diagnostics(hass, entry)
    assert "0199" in diagnostics["report"]
    assert "open an issue" in diagnostics["report"]


async def test_diagnostics_of_a_known_meter_ask_for_nothing(
    hass: HomeAssistant, loaded: MockConfigEntry
) -> None:
    assert "report" not in await async_get_config_entry_diagnostics(hass, loaded)
