"""Every meter of the family is found, added, read and set."""

from dataclasses import fields

from homeassistant.const import ATTR_ENTITY_ID, STATE_UNAVAILABLE, STATE_UNKNOWN, Platform
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.helpers import device_registry as dr, entity_registry as er
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.klefr.binary_sensor import BINARY_SENSORS
from custom_components.klefr.const import DOMAIN
from custom_components.klefr.meter import Communication, Identity, Quantity, Setting
from custom_components.klefr.meter.family import QUANTITIES
from custom_components.klefr.meter.modbus.registers import REGISTERS, Identifier
from custom_components.klefr.number import NUMBERS
from custom_components.klefr.replacement import async_replace_meter
from custom_components.klefr.select import SELECTS
from custom_components.klefr.sensor import HEALTH_SENSORS, SENSORS
from simulator import mbus, modbus
from simulator.meter import KINDS, Tariff, VirtualMeter

from . import SERIAL_NUMBER, entity_id, state
from .test_config_flow import configure
from .test_search import offered, search

NEW = "22091040"

NAMES = {
    "6933": ("KLEFR 6933/6943", "6933/6943 / PRO380"),
    "6934": ("KLEFR 6934", "6934 / PRO380"),
    "6943": ("KLEFR 6933/6943", "6933/6943 / PRO380"),
    "6944": ("KLEFR 6944", "6944 / PRO380-CT"),
    "pro380": ("KLEFR 6934", "6934 / PRO380"),
    "pro380-ct": ("KLEFR 6944", "6944 / PRO380-CT"),
    "pro1": ("Inepro PRO1", "PRO1"),
    "pro2": ("Inepro PRO2", "PRO2"),
    "pro380-solar": ("Inepro PRO380 solar edition", "PRO380 solar edition"),
    "pro380-ct-solar": ("Inepro PRO380-CT solar edition", "PRO380-CT solar edition"),
    "pro1-solar": ("Inepro PRO1 solar edition", "PRO1 solar edition"),
    "pro2-solar": ("Inepro PRO2 solar edition", "PRO2 solar edition"),
    "pro1-mbus": ("Inepro PRO", "PRO"),
}


def test_every_meter_that_the_simulator_plays_is_tried() -> None:
    assert NAMES.keys() == KINDS.keys()


@pytest.mark.parametrize("name", NAMES)
async def test_a_meter_is_found_added_read_and_set(hass: HomeAssistant, name: str) -> None:
    meter = VirtualMeter(model=name, serial_number=SERIAL_NUMBER, clock=lambda: 0.0)
    over_mbus = meter.model.speaks_mbus
    face, protocol = (mbus, "mbus") if over_mbus else (modbus, "modbus")
    title, model = NAMES[name]
    async with face.serve(meter, virtual="virtual://family") as line:
        result = await search(hass, line.port, protocol)
        [found] = offered(result)
        assert SERIAL_NUMBER in found
        result = await configure(hass, result["flow_id"], {"meter": SERIAL_NUMBER})
        assert result["type"] is FlowResultType.CREATE_ENTRY
        [entry] = hass.config_entries.async_entries(DOMAIN)
        [device] = dr.async_entries_for_config_entry(dr.async_get(hass), entry.entry_id)
        assert (device.name, device.model) == (f"{title} {SERIAL_NUMBER}", model)
        assert entry.title == device.name

        shown = _shown(hass, entry.entry_id)
        assert shown == {str(quantity) for quantity in entry.runtime_data.meter.quantities}
        assert ("voltage_l1" in shown) is (not over_mbus and meter.model.kind.phases == 3)
        assert ("voltage" in shown) is (not over_mbus and meter.model.kind.phases == 1)
        enabled = hass.states.async_all((Platform.SENSOR, Platform.BINARY_SENSOR))
        assert not [each for each in enabled if each.state in (STATE_UNKNOWN, STATE_UNAVAILABLE)]
        energy = float(state(hass, Platform.SENSOR, "forward_active_energy") or "")
        assert energy == pytest.approx(meter.forward_active_energy, abs=0.02)

        for key, option in (("tariff", "t2"), ("calculation_code", "forward_plus_reverse")):
            await hass.services.async_call(
                Platform.SELECT,
                "select_option",
                {ATTR_ENTITY_ID: entity_id(hass, Platform.SELECT, key), "option": option},
                blocking=True,
            )
            assert state(hass, Platform.SELECT, key) == option
        assert meter.tariff is Tariff.T2
        assert meter.calculation_code == 5
        await hass.config_entries.async_unload(entry.entry_id)


async def test_a_new_meter_of_the_family_gets_its_own_name(hass: HomeAssistant) -> None:
    old = VirtualMeter(model="pro1", serial_number=SERIAL_NUMBER, clock=lambda: 0.0)
    new = VirtualMeter(model="pro2", serial_number=NEW, clock=lambda: 0.0)
    new.powered = False
    async with modbus.serve(old, new, virtual="virtual://family") as line:
        entry = MockConfigEntry(
            domain=DOMAIN,
            unique_id=SERIAL_NUMBER,
            title=f"Inepro PRO1 {SERIAL_NUMBER}",
            data={
                "port": line.port,
                "protocol": "modbus",
                "address": 1,
                "baud_rate": 9600,
                "parity": "even",
            },
        )
        entry.add_to_hass(hass)
        assert await hass.config_entries.async_setup(entry.entry_id)
        old.powered, new.powered = False, True
        await async_replace_meter(hass, entry, entry.data, found=NEW)
        assert entry.title == f"Inepro PRO2 {NEW}"
        await hass.config_entries.async_unload(entry.entry_id)


def test_every_quantity_has_an_entity_on_some_meter() -> None:
    described = {description.key for description in (*SENSORS, *BINARY_SENSORS)}
    assert described == set(Quantity)
    assert described == set().union(*QUANTITIES.values())


def test_every_register_can_be_seen() -> None:
    """The rest has entities too, belongs to the reconfigure form, or says which meter it is."""
    rest = REGISTERS.keys() - set(Quantity)
    rest -= {description.key for description in (*SELECTS, *NUMBERS)}
    rest -= {Setting(each.name) for each in fields(Communication) if each.name in set(Setting)}
    rest -= {Identifier(each.name) for each in fields(Identity) if each.name in set(Identifier)}
    # The diagnostics call these the currents of the transformers.
    assert rest == {Identifier.CT_RATIO, Identifier.CT_MODE}


def _shown(hass: HomeAssistant, entry_id: str) -> set[str]:
    """Return the quantities that have an entity."""
    entities = er.async_entries_for_config_entry(er.async_get(hass), entry_id)
    return {
        each.unique_id.removeprefix(f"{SERIAL_NUMBER}_")
        for each in entities
        if each.domain in (Platform.SENSOR, Platform.BINARY_SENSOR)
    } - {description.key for description in HEALTH_SENSORS}
