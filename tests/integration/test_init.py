"""Setting up, losing, finding again and unloading a meter."""

from collections.abc import Callable
import logging
from typing import Any

from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import STATE_UNAVAILABLE, Platform
from homeassistant.core import HomeAssistant
from homeassistant.helpers import device_registry as dr, entity_registry as er
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.klefr.const import DOMAIN
from custom_components.klefr.wording import port_name
from simulator.line import Line
from simulator.meter import VirtualMeter
from simulator.modbus import serve

from . import SERIAL_NUMBER, entity_id, state, wait


async def test_a_meter_is_a_device(hass: HomeAssistant, loaded: MockConfigEntry) -> None:
    assert loaded.state is ConfigEntryState.LOADED
    [device] = dr.async_entries_for_config_entry(dr.async_get(hass), loaded.entry_id)
    assert device.identifiers == {(DOMAIN, SERIAL_NUMBER)}
    assert device.name == "KLEFR 6934 22091039"
    assert device.manufacturer == "KLEFR / Inepro"
    assert device.model == "6934 / PRO380"
    assert device.serial_number == SERIAL_NUMBER
    assert device.sw_version == "2.18"
    assert device.hw_version == "1.32"


async def test_unloading_gives_the_port_back(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line
) -> None:
    assert await hass.config_entries.async_unload(loaded.entry_id)
    assert loaded.state is ConfigEntryState.NOT_LOADED
    line.requests.clear()
    await wait(hass)
    assert not line.requests
    assert await hass.config_entries.async_setup(loaded.entry_id)
    assert loaded.state is ConfigEntryState.LOADED


async def test_removing_leaves_nothing(hass: HomeAssistant, loaded: MockConfigEntry) -> None:
    await hass.config_entries.async_remove(loaded.entry_id)
    await hass.async_block_till_done()
    assert not er.async_entries_for_config_entry(er.async_get(hass), loaded.entry_id)
    assert not dr.async_entries_for_config_entry(dr.async_get(hass), loaded.entry_id)


async def test_a_port_that_is_missing_at_start_is_tried_again(
    hass: HomeAssistant, entry: MockConfigEntry, line: Line
) -> None:
    await line.unplug()
    await hass.config_entries.async_setup(entry.entry_id)
    assert entry.state is ConfigEntryState.SETUP_RETRY
    assert entry.error_reason_translation_key == "port_not_found_proxy"
    assert f"no serial proxy {port_name(line.port)}" in str(entry.reason)
    await line.plug()
    await wait(hass, seconds=60)
    assert entry.state is ConfigEntryState.LOADED


async def test_a_silent_meter_at_start_is_tried_again(
    hass: HomeAssistant, entry: MockConfigEntry, line: Line
) -> None:
    line.silent = True
    await hass.config_entries.async_setup(entry.entry_id)
    assert entry.state is ConfigEntryState.SETUP_RETRY
    assert entry.error_reason_translation_key == "no_answer_modbus"


async def unplug(line: Line, _meter: VirtualMeter) -> None:
    await line.unplug()


async def silence(line: Line, _meter: VirtualMeter) -> None:
    line.silent = True


async def garble(line: Line, _meter: VirtualMeter) -> None:
    line.garble = 1.0


async def refuse(_line: Line, meter: VirtualMeter) -> None:
    meter.max_read_count = 0


async def mend(line: Line, meter: VirtualMeter) -> None:
    await line.plug()
    line.silent = False
    line.garble = 0.0
    meter.max_read_count = None


@pytest.mark.parametrize("fail", [unplug, silence, garble, refuse])
async def test_a_lost_meter_is_unavailable_logged_once_and_comes_back_by_itself(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    line: Line,
    virtual_meter: VirtualMeter,
    caplog: pytest.LogCaptureFixture,
    fail: Callable[[Line, VirtualMeter], Any],
) -> None:
    caplog.clear()
    await fail(line, virtual_meter)
    for _ in range(3):
        await wait(hass)
    await wait(hass, seconds=301)
    assert {s.state for s in hass.states.async_all()} == {STATE_UNAVAILABLE}
    complaints = [r for r in caplog.records if r.levelno >= logging.WARNING]
    # The simulator speaks of refusals too.
    complaints = [r for r in complaints if not r.name.startswith("tmodbus")]
    assert len(complaints) == 1
    assert "readings of the meter at address 1" in complaints[0].getMessage()
    assert SERIAL_NUMBER not in complaints[0].getMessage()

    # Meanwhile it was set otherwise.
    virtual_meter.tariff = 2
    await mend(line, virtual_meter)
    await wait(hass)
    await wait(hass, seconds=0)
    assert STATE_UNAVAILABLE not in {s.state for s in hass.states.async_all()}
    assert state(hass, Platform.SELECT, "tariff") == "t2"


async def test_only_what_enabled_entities_need_is_read(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line
) -> None:
    entities = er.async_get(hass)
    kept = entity_id(hass, Platform.SENSOR, "voltage_l1")
    for registered in er.async_entries_for_config_entry(entities, loaded.entry_id):
        if registered.entity_id != kept:
            entities.async_update_entity(
                registered.entity_id, disabled_by=er.RegistryEntryDisabler.USER
            )
    await hass.async_block_till_done()
    line.requests.clear()
    await wait(hass)
    assert [request[1:6].hex() for request in line.requests] == ["0340000002", "0350020002"]


async def test_two_meters_share_a_port(
    hass: HomeAssistant, entry_data: dict[str, Any], virtual_meter: VirtualMeter
) -> None:
    other = VirtualMeter(serial_number="22091040", address=2, clock=lambda: 0.0)
    async with serve(virtual_meter, other, virtual="virtual://shared") as line:
        entries = [
            MockConfigEntry(
                domain=DOMAIN,
                unique_id=meter.serial_number,
                data={**entry_data, "port": line.port, "address": meter.address},
            )
            for meter in (virtual_meter, other)
        ]
        for entry in entries:
            entry.add_to_hass(hass)
        await hass.config_entries.async_setup(entries[0].entry_id)
        await hass.async_block_till_done()
        assert [entry.state for entry in entries] == [ConfigEntryState.LOADED] * 2
        await hass.config_entries.async_unload(entries[0].entry_id)
        line.requests.clear()
        await wait(hass)
        assert {request[0] for request in line.requests} == {2}
        await hass.config_entries.async_unload(entries[1].entry_id)


async def test_two_line_settings_on_one_port_are_an_error_that_mends_itself(
    hass: HomeAssistant, loaded: MockConfigEntry, entry_data: dict[str, Any]
) -> None:
    other = MockConfigEntry(
        domain=DOMAIN, unique_id="22091040", data={**entry_data, "address": 2, "baud_rate": 1200}
    )
    other.add_to_hass(hass)
    await hass.config_entries.async_setup(other.entry_id)
    assert other.state is ConfigEntryState.SETUP_RETRY
    assert other.error_reason_translation_key == "line_settings_in_use"
    assert loaded.state is ConfigEntryState.LOADED
    await hass.config_entries.async_unload(loaded.entry_id)
    await wait(hass, seconds=60)
    # The port is free for it now, though nobody answers there.
    assert other.error_reason_translation_key == "no_answer_modbus"
