"""A meter on M-Bus in Home Assistant, from the form to the settings."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from homeassistant.components.diagnostics import REDACTED
from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import (
    ATTR_ASSUMED_STATE,
    STATE_OFF,
    STATE_ON,
    STATE_UNAVAILABLE,
    STATE_UNKNOWN,
    Platform,
)
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.exceptions import HomeAssistantError, ServiceValidationError
from homeassistant.helpers import device_registry as dr, entity_registry as er
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.klefr.const import DOMAIN
from custom_components.klefr.diagnostics import async_get_config_entry_diagnostics
from simulator import modbus
from simulator.line import Line
from simulator.mbus import serve
from simulator.meter import Tariff, VirtualMeter

from . import HEALTH, SERIAL_NUMBER, enable, entity_id, state, wait
from .test_config_flow import choose_bus, configure, filled_in, start, start_reconfigure
from .test_settings import options, press, select


@pytest.fixture
def virtual_meter() -> VirtualMeter:
    """A meter whose clock stands still."""
    return VirtualMeter(model="6933", serial_number=SERIAL_NUMBER, clock=lambda: 0.0)


@pytest.fixture
async def line(virtual_meter: VirtualMeter) -> AsyncIterator[Line]:
    async with serve(virtual_meter, virtual="virtual://meter") as line:
        yield line


@pytest.fixture(params=[0, SERIAL_NUMBER], ids=["primary", "secondary"])
def entry_data(line: Line, request: pytest.FixtureRequest) -> dict[str, Any]:
    return {
        "port": line.port,
        "protocol": "mbus",
        "address": request.param,
        "baud_rate": 9600,
        "parity": "even",
    }


@pytest.fixture(autouse=True)
async def _unload(hass: HomeAssistant) -> AsyncIterator[None]:
    yield
    for entry in hass.config_entries.async_entries(DOMAIN):
        if entry.state.recoverable:
            await hass.config_entries.async_unload(entry.entry_id)


async def add(hass: HomeAssistant, port: str, address: str, baud_rate: int = 9600) -> Any:
    result = await choose_bus(hass, await start(hass), {"port": port, "protocol": "mbus"})
    assert result["step_id"] == "mbus"
    return await configure(
        hass,
        result["flow_id"],
        {"address": address, "line_settings": {"baud_rate": str(baud_rate)}},
    )


async def test_a_meter_is_added_by_either_address(
    hass: HomeAssistant, entry_data: dict[str, Any]
) -> None:
    result = await add(hass, entry_data["port"], str(entry_data["address"]))
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert result["title"] == "KLEFR 6933/6943 22091039"
    assert result["data"] == entry_data
    assert result["result"].unique_id == SERIAL_NUMBER
    assert result["result"].state is ConfigEntryState.LOADED
    [device] = dr.async_entries_for_config_entry(dr.async_get(hass), result["result"].entry_id)
    assert device.model == "6933/6943 / PRO380"
    assert device.serial_number == SERIAL_NUMBER
    assert device.sw_version == "1"
    assert device.hw_version is None


async def test_the_factorys_settings_are_the_defaults(hass: HomeAssistant, line: Line) -> None:
    flow_id = await start(hass)
    await choose_bus(hass, flow_id, {"port": line.port, "protocol": "mbus"})
    result = await configure(hass, flow_id, {"line_settings": {}})
    assert result["data"] == {
        "port": line.port,
        "protocol": "mbus",
        "address": 0,
        "baud_rate": 9600,
        "parity": "even",
    }


async def test_a_meter_left_at_other_settings_is_added(
    hass: HomeAssistant, virtual_meter: VirtualMeter, line: Line
) -> None:
    virtual_meter.address = 1
    virtual_meter.baud_rate = 2400
    virtual_meter.manufacturer_swapped = True
    result = await add(hass, line.port, " 1 ", 2400)
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert result["data"]["address"] == 1
    result = await add(hass, line.port, SERIAL_NUMBER, 2400)
    assert result["reason"] == "already_configured"


@pytest.mark.parametrize("address", ["251", "-1", "1234", "123456789", "1234567F", "0x01"])
async def test_what_is_no_address_is_explained_and_can_be_mended(
    hass: HomeAssistant, line: Line, address: str
) -> None:
    line.requests.clear()
    result = await add(hass, line.port, address, 2400)
    assert result["errors"] == {"address": "invalid_address"}
    assert filled_in(result["data_schema"]) == {
        "address": address,
        "line_settings": {"baud_rate": "2400"},
    }
    assert not line.requests
    result = await configure(
        hass, result["flow_id"], {"address": "0", "line_settings": {"baud_rate": "9600"}}
    )
    assert result["type"] is FlowResultType.CREATE_ENTRY


@pytest.mark.parametrize("address", ["5", "12345678"])
async def test_an_address_at_which_nobody_answers_is_explained(
    hass: HomeAssistant, line: Line, address: str
) -> None:
    result = await add(hass, line.port, address)
    assert result["errors"] == {"base": "no_answer_mbus"}
    assert result["description_placeholders"]["address"] == address


async def test_a_modbus_meter_is_not_taken_for_one(hass: HomeAssistant, line: Line) -> None:
    meter = VirtualMeter(serial_number="22091041", clock=lambda: 0.0)
    async with modbus.serve(meter, virtual="virtual://modbus") as other:
        result = await add(hass, other.port, "1")
        assert result["errors"] == {"base": "no_answer_mbus"}


async def test_another_protocol_on_a_port_in_use_is_refused(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line
) -> None:
    result = await choose_bus(hass, await start(hass), {"port": line.port, "protocol": "modbus"})
    assert result["errors"] == {"port": "line_settings_in_use"}
    assert result["description_placeholders"]["protocol"] == "M-Bus"
    assert result["description_placeholders"]["baud_rate"] == "9600"
    assert loaded.state is ConfigEntryState.LOADED


async def test_the_line_settings_in_force_are_filled_in(
    hass: HomeAssistant, virtual_meter: VirtualMeter, line: Line
) -> None:
    virtual_meter.baud_rate = 1200
    await add(hass, line.port, "0", 1200)
    result = await choose_bus(hass, await start(hass), {"port": line.port, "protocol": "mbus"})
    [section] = [v for k, v in result["data_schema"].schema.items() if k == "line_settings"]
    assert filled_in(section.schema) == {"baud_rate": "1200"}


async def test_a_meter_is_found_again_under_its_other_address(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line
) -> None:
    entities = set(hass.states.async_entity_ids())
    result = await start_reconfigure(hass, loaded)
    shown = filled_in(result["data_schema"])
    assert shown == {"port": line.port, "protocol": "mbus"}
    result = await choose_bus(hass, result["flow_id"], shown)
    assert filled_in(result["data_schema"]) == {
        "address": str(loaded.data["address"]),
        "line_settings": {"baud_rate": "9600"},
    }
    other = SERIAL_NUMBER if loaded.data["address"] == 0 else "0"
    result = await configure(
        hass, result["flow_id"], {"address": other, "line_settings": {"baud_rate": "9600"}}
    )
    assert result["reason"] == "reconfigure_successful"
    assert str(loaded.data["address"]) == other
    assert loaded.state is ConfigEntryState.LOADED
    assert set(hass.states.async_entity_ids()) == entities


async def test_an_address_on_m_bus_is_not_suggested_for_modbus(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line
) -> None:
    result = await start_reconfigure(hass, loaded)
    result = await choose_bus(hass, result["flow_id"], {"port": line.port, "protocol": "modbus"})
    assert result["step_id"] == "reach_modbus"
    assert "address" not in filled_in(result["data_schema"])


async def test_it_has_what_m_bus_offers_and_nothing_else(
    hass: HomeAssistant, loaded: MockConfigEntry
) -> None:
    entities = er.async_entries_for_config_entry(er.async_get(hass), loaded.entry_id)
    energies = {
        f"{which}_active_energy{tariff}"
        for which in ("total", "forward", "reverse")
        for tariff in ("", "_t1", "_t2")
    }
    assert {entity.unique_id.removeprefix(f"{SERIAL_NUMBER}_") for entity in entities} == {
        *energies,
        "access_number",
        "status_ok",
        "tariff",
        "calculation_code",
        "s0_rate",
        "reset_resettable_counter",
        "reset_power_down_counter",
        *HEALTH,
    }
    disabled = {entity.translation_key for entity in entities if entity.disabled_by}
    assert disabled == {
        *HEALTH,
        "access_number",
        "total_active_energy",
        "total_active_energy_t1",
        "total_active_energy_t2",
        "reset_resettable_counter",
        "reset_power_down_counter",
    }


async def test_energies_are_the_meters(
    hass: HomeAssistant, loaded: MockConfigEntry, virtual_meter: VirtualMeter
) -> None:
    await enable(hass, entity_id(hass, Platform.SENSOR, "total_active_energy"))
    await asyncio.sleep(5)
    virtual_meter.add_energy(l1=0.1, l2=-0.05)
    await wait(hass)
    energy = virtual_meter.active_energy
    for key, expected in (
        ("total_active_energy", virtual_meter.total_active_energy),
        ("forward_active_energy", energy.forward.total),
        ("forward_active_energy_t1", energy.forward.tariffs[Tariff.T1]),
        ("forward_active_energy_t2", energy.forward.tariffs[Tariff.T2]),
        ("reverse_active_energy", energy.reverse.total),
        ("reverse_active_energy_t1", energy.reverse.tariffs[Tariff.T1]),
    ):
        shown = hass.states.get(entity_id(hass, Platform.SENSOR, key))
        assert shown is not None
        assert float(shown.state) == pytest.approx(expected, abs=0.006)
        assert shown.attributes["unit_of_measurement"] == "kWh"
        assert shown.attributes["device_class"] == "energy"


async def test_a_broken_meter_is_a_problem(
    hass: HomeAssistant, loaded: MockConfigEntry, virtual_meter: VirtualMeter
) -> None:
    assert state(hass, Platform.BINARY_SENSOR, "status_ok") == STATE_OFF
    virtual_meter.eeprom_ok = False
    await wait(hass)
    assert state(hass, Platform.BINARY_SENSOR, "status_ok") == STATE_ON


@pytest.mark.parametrize(
    ("key", "option", "attribute", "value"),
    [
        ("tariff", "t2", "tariff", 2),
        ("calculation_code", "forward_plus_reverse", "calculation_code", 5),
        ("calculation_code", "forward_minus_reverse_net_pulses", "calculation_code", 11),
        ("s0_rate", "10000", "s0_rate", 10000),
        ("s0_rate", "100", "s0_rate", 100),
        ("s0_rate", "0.01", "s0_rate", 0.01),
    ],
)
async def test_a_setting_is_unknown_until_it_is_written_and_kept_from_then_on(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    virtual_meter: VirtualMeter,
    key: str,
    option: str,
    attribute: str,
    value: float,
) -> None:
    assert state(hass, Platform.SELECT, key) == STATE_UNKNOWN
    await select(hass, key, option)
    assert getattr(virtual_meter, attribute) == pytest.approx(value)
    shown = hass.states.get(entity_id(hass, Platform.SELECT, key))
    assert shown is not None
    assert shown.state == option
    assert shown.attributes[ATTR_ASSUMED_STATE] is True
    assert shown.attributes["note"] == "not_reported"

    await wait(hass)
    assert state(hass, Platform.SELECT, key) == option
    await hass.config_entries.async_reload(loaded.entry_id)
    await hass.async_block_till_done()
    assert state(hass, Platform.SELECT, key) == option


async def test_what_was_written_is_kept_although_the_meter_cannot_be_reached(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line
) -> None:
    await select(hass, "tariff", "t2")
    line.silent = True
    await wait(hass)
    assert state(hass, Platform.SELECT, "tariff") == STATE_UNAVAILABLE
    await hass.config_entries.async_unload(loaded.entry_id)
    line.silent = False
    await hass.config_entries.async_setup(loaded.entry_id)
    assert state(hass, Platform.SELECT, "tariff") == "t2"


async def test_what_was_written_is_stored_at_once_and_forgotten_with_the_meter(
    hass: HomeAssistant, loaded: MockConfigEntry, hass_storage: dict[str, Any]
) -> None:
    key = f"klefr.{loaded.entry_id}"
    assert key not in hass_storage
    await select(hass, "tariff", "t2")
    await select(hass, "s0_rate", "0.1")
    assert hass_storage[key]["data"] == {"tariff": 2, "s0_rate": 0.1}
    await hass.config_entries.async_remove(loaded.entry_id)
    await hass.async_block_till_done()
    assert key not in hass_storage


async def test_stored_nonsense_is_not_shown(
    hass: HomeAssistant, entry: MockConfigEntry, hass_storage: dict[str, Any]
) -> None:
    key = f"klefr.{entry.entry_id}"
    hass_storage[key] = {
        "version": 1,
        "minor_version": 1,
        "key": key,
        "data": {"tariff": 11, "calculation_code": 7, "s0_rate": "fast", "colour": 3},
    }
    assert await hass.config_entries.async_setup(entry.entry_id)
    await hass.async_block_till_done()
    for setting in ("tariff", "calculation_code", "s0_rate"):
        assert state(hass, Platform.SELECT, setting) == STATE_UNKNOWN


async def test_only_what_m_bus_can_set_is_offered(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line
) -> None:
    assert options(hass, "tariff") == ["t1", "t2"]
    assert "forward_minus_reverse_net" not in options(hass, "calculation_code")
    line.requests.clear()
    for key, option in (
        ("tariff", "t1_until_restart"),
        ("calculation_code", "forward_minus_reverse_net"),
    ):
        with pytest.raises(ServiceValidationError):
            await select(hass, key, option)
    assert not line.requests


@pytest.fixture
async def reset_buttons(hass: HomeAssistant, loaded: MockConfigEntry) -> None:
    """The buttons that reset counters, which start disabled."""
    buttons = ("reset_resettable_counter", "reset_power_down_counter")
    await enable(hass, *(entity_id(hass, Platform.BUTTON, button) for button in buttons))


@pytest.mark.usefixtures("reset_buttons")
async def test_without_acknowledgement_it_is_an_error_and_nothing_changes(
    hass: HomeAssistant, virtual_meter: VirtualMeter
) -> None:
    await select(hass, "tariff", "t2")
    virtual_meter.refuse_writes = True
    for action in (
        select(hass, "tariff", "t1"),
        select(hass, "s0_rate", "10"),
        press(hass, "reset_resettable_counter"),
        press(hass, "reset_power_down_counter"),
    ):
        with pytest.raises(HomeAssistantError) as error:
            await action
        assert error.value.translation_key == "not_acknowledged"
    assert state(hass, Platform.SELECT, "tariff") == "t2"
    assert state(hass, Platform.SELECT, "s0_rate") == STATE_UNKNOWN
    assert virtual_meter.tariff == 2
    assert virtual_meter.power_down_counter


async def test_a_write_that_is_given_up_leaves_the_setting_unknown(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line, virtual_meter: VirtualMeter
) -> None:
    await select(hass, "tariff", "t2")

    def give_up(frame: bytes) -> None:
        # The command follows the selection or a request to read.
        if frame[0] == 0x68 and frame[4] in (0x53, 0x73) and frame[6] == 0x51:
            line.before_hearing = None
            call.cancel()

    line.before_hearing = give_up
    call = asyncio.create_task(select(hass, "tariff", "t1"))
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.sleep(5)
    assert virtual_meter.tariff is Tariff.T1
    assert state(hass, Platform.SELECT, "tariff") == STATE_UNKNOWN


async def test_a_locked_calculation_code_is_an_error(
    hass: HomeAssistant, loaded: MockConfigEntry, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.calculation_code = 10
    with pytest.raises(HomeAssistantError) as error:
        await select(hass, "calculation_code", "forward")
    assert error.value.translation_key == "code_not_acknowledged"
    assert state(hass, Platform.SELECT, "calculation_code") == STATE_UNKNOWN


@pytest.mark.usefixtures("reset_buttons")
async def test_counters_are_reset(hass: HomeAssistant, virtual_meter: VirtualMeter) -> None:
    assert virtual_meter.day_counter
    assert virtual_meter.power_down_counter
    energy = state(hass, Platform.SENSOR, "forward_active_energy")
    await press(hass, "reset_resettable_counter")
    await press(hass, "reset_power_down_counter")
    assert virtual_meter.day_counter == 0
    assert virtual_meter.power_down_counter == 0
    assert state(hass, Platform.SENSOR, "forward_active_energy") == energy


async def test_no_setting_is_ever_written_unasked(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line
) -> None:
    for _ in range(3):
        await wait(hass, seconds=301)
    await hass.config_entries.async_reload(loaded.entry_id)
    await hass.async_block_till_done()
    data_sent = [frame for frame in line.requests if frame[0] == 0x68 and frame[6] == 0x51]
    assert not data_sent


async def test_a_lost_meter_is_unavailable_and_comes_back_by_itself(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line
) -> None:
    await line.unplug()
    await wait(hass)
    assert {s.state for s in hass.states.async_all()} == {STATE_UNAVAILABLE}
    await line.plug()
    await wait(hass)
    assert STATE_UNAVAILABLE not in {s.state for s in hass.states.async_all()}


async def test_meters_with_the_same_primary_address_are_told_apart_by_the_secondary(
    hass: HomeAssistant, virtual_meter: VirtualMeter
) -> None:
    other = VirtualMeter(model="6943", serial_number="22091040", clock=lambda: 0.0)
    async with serve(virtual_meter, other, virtual="virtual://shared") as line:
        for meter in (virtual_meter, other):
            result = await add(hass, line.port, meter.serial_number)
            assert result["result"].unique_id == meter.serial_number
        result = await add(hass, line.port, "0")
        assert result["errors"] == {"base": "garbled_answer_mbus"}
        for entry in hass.config_entries.async_entries(DOMAIN):
            assert entry.state is ConfigEntryState.LOADED
            await hass.config_entries.async_unload(entry.entry_id)


async def test_diagnostics_tell_nothing_of_whose_meter_it_is(
    hass: HomeAssistant, loaded: MockConfigEntry
) -> None:
    diagnostics = await async_get_config_entry_diagnostics(hass, loaded)
    assert SERIAL_NUMBER not in str(diagnostics)
    assert diagnostics["data"]["address"] == (0 if loaded.data["address"] == 0 else REDACTED)
    assert diagnostics["identity"]["firmware_version"] == "1"
    assert diagnostics["schedule"]["interval"] == 10
    assert 0 < diagnostics["schedule"]["bus_busy"] < 0.03
