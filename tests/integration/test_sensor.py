"""What a meter's values look like in Home Assistant."""

import asyncio
import math
from unittest.mock import patch

from homeassistant.components.binary_sensor import BinarySensorDeviceClass
from homeassistant.components.sensor import (
    DEVICE_CLASS_STATE_CLASSES,
    DEVICE_CLASS_UNITS,
    SensorDeviceClass,
    SensorStateClass,
)
from homeassistant.const import STATE_OFF, STATE_ON, STATE_UNKNOWN, Platform
from homeassistant.core import HomeAssistant
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers.entity import Entity
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.klefr.binary_sensor import BINARY_SENSORS
from custom_components.klefr.meter import Quantity
from custom_components.klefr.meter.family import QUANTITIES
from custom_components.klefr.meter.modbus.meter import READABLE
from custom_components.klefr.sensor import SENSORS
from simulator.meter import VirtualMeter
from simulator.registers import REGISTERS

from . import entity_id, state, wait

THREE_PHASE = READABLE & QUANTITIES[3]

ENABLED = {
    *(f"voltage_l{phase}" for phase in "123"),
    *(f"current_l{phase}" for phase in "123"),
    *(f"active_power_l{phase}" for phase in "123"),
    "active_power",
    "frequency",
    "power_factor",
    *(f"{way}_active_energy" for way in ("forward", "reverse")),
    *(f"{way}_active_energy_t{tariff}" for way in ("forward", "reverse") for tariff in "12"),
    "resettable_counter",
}


@pytest.fixture
async def all_enabled(hass: HomeAssistant, entry: MockConfigEntry) -> MockConfigEntry:
    with patch.object(Entity, "entity_registry_enabled_default", True):
        assert await hass.config_entries.async_setup(entry.entry_id)
        await hass.async_block_till_done()
    return entry


def test_every_quantity_has_one_entity() -> None:
    keys = [description.key for description in (*SENSORS, *BINARY_SENSORS)]
    assert len(keys) == len(set(keys))
    assert set(keys) == set(Quantity)


@pytest.mark.parametrize("description", SENSORS, ids=lambda description: description.key)
def test_units_and_classes_are_home_assistants(description: object) -> None:
    device_class = description.device_class  # type: ignore[attr-defined]
    unit = description.native_unit_of_measurement  # type: ignore[attr-defined]
    state_class = description.state_class  # type: ignore[attr-defined]
    if device_class is None:
        assert unit is None
    elif device_class is SensorDeviceClass.ENUM:
        assert description.options  # type: ignore[attr-defined]
        assert state_class is None
    else:
        assert unit in DEVICE_CLASS_UNITS[device_class]
        assert state_class in DEVICE_CLASS_STATE_CLASSES[device_class]


def test_energies_are_what_the_energy_dashboard_takes() -> None:
    by_key = {description.key: description for description in SENSORS}
    for way in ("forward", "reverse"):
        description = by_key[f"{way}_active_energy"]
        assert description.device_class is SensorDeviceClass.ENERGY
        assert description.state_class is SensorStateClass.TOTAL_INCREASING
        assert description.native_unit_of_measurement == "kWh"
    assert by_key["total_active_energy"].state_class is SensorStateClass.TOTAL
    assert by_key["total_reactive_energy"].state_class is SensorStateClass.TOTAL
    for counter in ("resettable_counter", "power_down_counter"):
        assert by_key[counter].state_class is SensorStateClass.TOTAL_INCREASING


async def test_total_active_energy_warns_of_the_energy_dashboard(
    hass: HomeAssistant, all_enabled: MockConfigEntry
) -> None:
    noted = {
        description.key
        for description in SENSORS
        if description.key in THREE_PHASE
        and (shown := hass.states.get(entity_id(hass, Platform.SENSOR, description.key)))
        and shown.attributes.get("note") == "not_for_energy_dashboard"
    }
    parts = ("", "_t1", "_t2", "_l1", "_l2", "_l3")
    assert noted == {f"total_active_energy{part}" for part in parts}


async def test_what_people_look_at_is_enabled(hass: HomeAssistant, loaded: MockConfigEntry) -> None:
    enabled = {
        description.key
        for description in SENSORS
        if description.key in THREE_PHASE
        and state(hass, Platform.SENSOR, description.key) is not None
    }
    assert enabled == ENABLED


async def test_every_sensor_shows_what_the_meter_holds(
    hass: HomeAssistant, all_enabled: MockConfigEntry, virtual_meter: VirtualMeter
) -> None:
    assert {
        description.key
        for description in SENSORS
        if description.key in THREE_PHASE
        and state(hass, Platform.SENSOR, description.key) == STATE_UNKNOWN
    } == set()
    phase = virtual_meter.sample.phases[2]
    for key, value in (
        ("voltage_l3", phase.voltage),
        ("current_l3", phase.current),
        ("active_power_l3", phase.active_power),
        ("forward_active_energy", virtual_meter.forward_active_energy),
        ("reverse_active_energy", virtual_meter.reverse_active_energy),
        ("resettable_counter", virtual_meter.day_counter),
    ):
        assert float(state(hass, Platform.SENSOR, key) or "") == pytest.approx(value, abs=0.06)
    assert state(hass, Platform.SENSOR, "current_direction_l3") == "reverse"
    assert state(hass, Platform.SENSOR, "quadrant_l3") in ("ii", "iii")
    assert state(hass, Platform.SENSOR, "power_down_counter") == str(
        virtual_meter.power_down_counter
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 1e12])
async def test_a_value_that_cannot_be_is_unknown(
    hass: HomeAssistant, loaded: MockConfigEntry, virtual_meter: VirtualMeter, value: float
) -> None:
    virtual_meter.overrides[0x5002] = value
    await wait(hass)
    assert state(hass, Platform.SENSOR, "voltage_l1") == STATE_UNKNOWN
    assert state(hass, Platform.SENSOR, "voltage_l2") != STATE_UNKNOWN
    virtual_meter.overrides.clear()
    await wait(hass)
    assert float(state(hass, Platform.SENSOR, "voltage_l1") or "") > 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 1e12])
async def test_an_energy_that_cannot_be_is_held_and_unknown_if_that_stays(
    hass: HomeAssistant, loaded: MockConfigEntry, virtual_meter: VirtualMeter, value: float
) -> None:
    before = state(hass, Platform.SENSOR, "forward_active_energy")
    virtual_meter.overrides[0x600C] = value
    await asyncio.sleep(60)
    assert state(hass, Platform.SENSOR, "forward_active_energy") == before
    await asyncio.sleep(120)
    for _ in range(30):
        await asyncio.sleep(10)
        assert state(hass, Platform.SENSOR, "forward_active_energy") == STATE_UNKNOWN
    virtual_meter.overrides.clear()
    await asyncio.sleep(20)
    assert state(hass, Platform.SENSOR, "forward_active_energy") == before


async def test_zeros_are_held_until_they_have_stayed_for_two_minutes(
    hass: HomeAssistant, loaded: MockConfigEntry, virtual_meter: VirtualMeter
) -> None:
    before = state(hass, Platform.SENSOR, "forward_active_energy")
    energies = [register.address for register in REGISTERS.values() if register.address >= 0x6000]
    virtual_meter.overrides.update(dict.fromkeys(set(energies) - {0x6048}, 0.0))
    await asyncio.sleep(110)
    assert state(hass, Platform.SENSOR, "forward_active_energy") == before
    await asyncio.sleep(70)
    assert state(hass, Platform.SENSOR, "forward_active_energy") == "0.0"


async def test_readings_follow_the_meter(
    hass: HomeAssistant, loaded: MockConfigEntry, virtual_meter: VirtualMeter
) -> None:
    before = float(state(hass, Platform.SENSOR, "forward_active_energy") or "")
    await asyncio.sleep(5)
    virtual_meter.add_energy(l1=0.1)
    await wait(hass)
    after = float(state(hass, Platform.SENSOR, "forward_active_energy") or "")
    assert after - before == pytest.approx(0.1, abs=0.011)


async def test_more_than_can_have_flowed_is_held(
    hass: HomeAssistant, loaded: MockConfigEntry, virtual_meter: VirtualMeter
) -> None:
    before = state(hass, Platform.SENSOR, "forward_active_energy")
    virtual_meter.add_energy(l1=1.5)
    await wait(hass)
    assert state(hass, Platform.SENSOR, "forward_active_energy") == before


async def test_phases_without_supply_start_disabled(
    hass: HomeAssistant, entry: MockConfigEntry, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.supplied = (True, False, False)
    await hass.config_entries.async_setup(entry.entry_id)
    await hass.async_block_till_done()
    for key in ("voltage", "current", "active_power"):
        assert state(hass, Platform.SENSOR, f"{key}_l1") is not None
        assert state(hass, Platform.SENSOR, f"{key}_l2") is None
        assert state(hass, Platform.SENSOR, f"{key}_l3") is None
    assert state(hass, Platform.SENSOR, "active_power") is not None
    disabled = er.async_get(hass).async_get(entity_id(hass, Platform.SENSOR, "voltage_l2"))
    assert disabled is not None
    assert disabled.disabled_by is er.RegistryEntryDisabler.INTEGRATION


async def test_the_status_word(
    hass: HomeAssistant, loaded: MockConfigEntry, virtual_meter: VirtualMeter
) -> None:
    def states() -> dict[str, str | None]:
        return {
            description.key: state(hass, Platform.BINARY_SENSOR, description.key)
            for description in BINARY_SENSORS
            if description.key in THREE_PHASE
        }

    assert states() == {
        "program_ok": STATE_OFF,
        "eeprom_ok": STATE_OFF,
        "supply_l1": STATE_ON,
        "supply_l2": STATE_ON,
        "supply_l3": STATE_ON,
    }
    virtual_meter.eeprom_ok = False
    virtual_meter.supplied = (True, True, False)
    await wait(hass, seconds=61)
    assert states() == {
        "program_ok": STATE_OFF,
        "eeprom_ok": STATE_ON,
        "supply_l1": STATE_ON,
        "supply_l2": STATE_ON,
        "supply_l3": STATE_OFF,
    }
    virtual_meter.overrides[0x401D] = 0x00420111
    await wait(hass, seconds=61)
    assert states()["program_ok"] == STATE_UNKNOWN


def test_problems_are_problems() -> None:
    classes = {description.key: description.device_class for description in BINARY_SENSORS}
    assert classes["program_ok"] is classes["eeprom_ok"] is BinarySensorDeviceClass.PROBLEM
    assert classes["supply_l1"] is BinarySensorDeviceClass.POWER
