"""Sensors: all that a meter measures and counts, and how well it can be reached."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import override

from homeassistant.components.sensor import (
    SensorDeviceClass,
    SensorEntity,
    SensorEntityDescription,
    SensorStateClass,
)
from homeassistant.const import (
    PERCENTAGE,
    EntityCategory,
    UnitOfApparentPower,
    UnitOfElectricCurrent,
    UnitOfElectricPotential,
    UnitOfEnergy,
    UnitOfFrequency,
    UnitOfPower,
    UnitOfReactiveEnergy,
    UnitOfReactivePower,
    UnitOfTime,
)
from homeassistant.core import HomeAssistant
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback
from homeassistant.helpers.typing import StateType

from .coordinator import KlefrConfigEntry, KlefrData, ReadingsCoordinator
from .entity import ATTR_NOTE, MeterEntity, Note, ReadingEntity
from .meter import Direction, Health, Quadrant, Quantity

PARALLEL_UPDATES = 0
# How often the sensors of a meter's health look at what was counted.
SCAN_INTERVAL = timedelta(minutes=1)

RESPONSE_TIME_STEP = 5  # ms


@dataclass(frozen=True, kw_only=True)
class KlefrSensorEntityDescription(SensorEntityDescription):
    """Describes a sensor, with a note if its value can be misunderstood."""

    note: Note | None = None


_measurement = partial(KlefrSensorEntityDescription, state_class=SensorStateClass.MEASUREMENT)
_voltage = partial(
    _measurement,
    device_class=SensorDeviceClass.VOLTAGE,
    native_unit_of_measurement=UnitOfElectricPotential.VOLT,
    suggested_display_precision=1,
)
_current = partial(
    _measurement,
    device_class=SensorDeviceClass.CURRENT,
    native_unit_of_measurement=UnitOfElectricCurrent.AMPERE,
    suggested_display_precision=2,
)
_active_power = partial(
    _measurement,
    device_class=SensorDeviceClass.POWER,
    native_unit_of_measurement=UnitOfPower.KILO_WATT,
    suggested_display_precision=3,
)
_reactive_power = partial(
    _measurement,
    device_class=SensorDeviceClass.REACTIVE_POWER,
    native_unit_of_measurement=UnitOfReactivePower.KILO_VOLT_AMPERE_REACTIVE,
    suggested_display_precision=3,
    entity_registry_enabled_default=False,
)
_apparent_power = partial(
    _measurement,
    device_class=SensorDeviceClass.APPARENT_POWER,
    native_unit_of_measurement=UnitOfApparentPower.KILO_VOLT_AMPERE,
    suggested_display_precision=3,
    entity_registry_enabled_default=False,
)
_power_factor = partial(
    _measurement,
    device_class=SensorDeviceClass.POWER_FACTOR,
    suggested_display_precision=2,
)
_active_energy = partial(
    KlefrSensorEntityDescription,
    device_class=SensorDeviceClass.ENERGY,
    state_class=SensorStateClass.TOTAL_INCREASING,
    native_unit_of_measurement=UnitOfEnergy.KILO_WATT_HOUR,
    suggested_display_precision=2,
)
_reactive_energy = partial(
    KlefrSensorEntityDescription,
    device_class=SensorDeviceClass.REACTIVE_ENERGY,
    state_class=SensorStateClass.TOTAL_INCREASING,
    native_unit_of_measurement=UnitOfReactiveEnergy.KILO_VOLT_AMPERE_REACTIVE_HOUR,
    suggested_display_precision=2,
    entity_registry_enabled_default=False,
)
_forward_active_energy = partial(_active_energy, note=Note.IMPORTED)
_reverse_active_energy = partial(_active_energy, note=Note.EXPORTED)
# The calculation code says what the totals mean. With most codes they can go down.
_total_active_energy = partial(
    _active_energy,
    state_class=SensorStateClass.TOTAL,
    entity_registry_enabled_default=False,
    note=Note.NOT_FOR_ENERGY_DASHBOARD,
)
_total_reactive_energy = partial(_reactive_energy, state_class=SensorStateClass.TOTAL)
_direction = partial(
    KlefrSensorEntityDescription,
    device_class=SensorDeviceClass.ENUM,
    options=list(Direction),
    entity_category=EntityCategory.DIAGNOSTIC,
    entity_registry_enabled_default=False,
)
_quadrant = partial(
    KlefrSensorEntityDescription,
    device_class=SensorDeviceClass.ENUM,
    options=[quadrant.name.lower() for quadrant in Quadrant],
    entity_category=EntityCategory.DIAGNOSTIC,
    entity_registry_enabled_default=False,
)

SENSORS = (
    _voltage(key=Quantity.VOLTAGE),
    _voltage(key=Quantity.VOLTAGE_L1),
    _voltage(key=Quantity.VOLTAGE_L2),
    _voltage(key=Quantity.VOLTAGE_L3),
    _measurement(
        key=Quantity.FREQUENCY,
        device_class=SensorDeviceClass.FREQUENCY,
        native_unit_of_measurement=UnitOfFrequency.HERTZ,
        suggested_display_precision=2,
    ),
    _current(key=Quantity.CURRENT),
    _current(key=Quantity.CURRENT_L1),
    _current(key=Quantity.CURRENT_L2),
    _current(key=Quantity.CURRENT_L3),
    _active_power(key=Quantity.ACTIVE_POWER),
    _active_power(key=Quantity.ACTIVE_POWER_L1),
    _active_power(key=Quantity.ACTIVE_POWER_L2),
    _active_power(key=Quantity.ACTIVE_POWER_L3),
    _reactive_power(key=Quantity.REACTIVE_POWER),
    _reactive_power(key=Quantity.REACTIVE_POWER_L1),
    _reactive_power(key=Quantity.REACTIVE_POWER_L2),
    _reactive_power(key=Quantity.REACTIVE_POWER_L3),
    _apparent_power(key=Quantity.APPARENT_POWER),
    _apparent_power(key=Quantity.APPARENT_POWER_L1),
    _apparent_power(key=Quantity.APPARENT_POWER_L2),
    _apparent_power(key=Quantity.APPARENT_POWER_L3),
    _power_factor(key=Quantity.POWER_FACTOR),
    _power_factor(key=Quantity.POWER_FACTOR_L1, entity_registry_enabled_default=False),
    _power_factor(key=Quantity.POWER_FACTOR_L2, entity_registry_enabled_default=False),
    _power_factor(key=Quantity.POWER_FACTOR_L3, entity_registry_enabled_default=False),
    _total_active_energy(key=Quantity.TOTAL_ACTIVE_ENERGY),
    _total_active_energy(key=Quantity.TOTAL_ACTIVE_ENERGY_T1),
    _total_active_energy(key=Quantity.TOTAL_ACTIVE_ENERGY_T2),
    _total_active_energy(key=Quantity.TOTAL_ACTIVE_ENERGY_L1),
    _total_active_energy(key=Quantity.TOTAL_ACTIVE_ENERGY_L2),
    _total_active_energy(key=Quantity.TOTAL_ACTIVE_ENERGY_L3),
    _forward_active_energy(key=Quantity.FORWARD_ACTIVE_ENERGY),
    _forward_active_energy(key=Quantity.FORWARD_ACTIVE_ENERGY_T1),
    _forward_active_energy(key=Quantity.FORWARD_ACTIVE_ENERGY_T2),
    _forward_active_energy(
        key=Quantity.FORWARD_ACTIVE_ENERGY_L1, entity_registry_enabled_default=False
    ),
    _forward_active_energy(
        key=Quantity.FORWARD_ACTIVE_ENERGY_L2, entity_registry_enabled_default=False
    ),
    _forward_active_energy(
        key=Quantity.FORWARD_ACTIVE_ENERGY_L3, entity_registry_enabled_default=False
    ),
    _reverse_active_energy(key=Quantity.REVERSE_ACTIVE_ENERGY),
    _reverse_active_energy(key=Quantity.REVERSE_ACTIVE_ENERGY_T1),
    _reverse_active_energy(key=Quantity.REVERSE_ACTIVE_ENERGY_T2),
    _reverse_active_energy(
        key=Quantity.REVERSE_ACTIVE_ENERGY_L1, entity_registry_enabled_default=False
    ),
    _reverse_active_energy(
        key=Quantity.REVERSE_ACTIVE_ENERGY_L2, entity_registry_enabled_default=False
    ),
    _reverse_active_energy(
        key=Quantity.REVERSE_ACTIVE_ENERGY_L3, entity_registry_enabled_default=False
    ),
    _total_reactive_energy(key=Quantity.TOTAL_REACTIVE_ENERGY),
    _total_reactive_energy(key=Quantity.TOTAL_REACTIVE_ENERGY_T1),
    _total_reactive_energy(key=Quantity.TOTAL_REACTIVE_ENERGY_T2),
    _total_reactive_energy(key=Quantity.TOTAL_REACTIVE_ENERGY_L1),
    _total_reactive_energy(key=Quantity.TOTAL_REACTIVE_ENERGY_L2),
    _total_reactive_energy(key=Quantity.TOTAL_REACTIVE_ENERGY_L3),
    _reactive_energy(key=Quantity.FORWARD_REACTIVE_ENERGY),
    _reactive_energy(key=Quantity.FORWARD_REACTIVE_ENERGY_T1),
    _reactive_energy(key=Quantity.FORWARD_REACTIVE_ENERGY_T2),
    _reactive_energy(key=Quantity.FORWARD_REACTIVE_ENERGY_L1),
    _reactive_energy(key=Quantity.FORWARD_REACTIVE_ENERGY_L2),
    _reactive_energy(key=Quantity.FORWARD_REACTIVE_ENERGY_L3),
    _reactive_energy(key=Quantity.REVERSE_REACTIVE_ENERGY),
    _reactive_energy(key=Quantity.REVERSE_REACTIVE_ENERGY_T1),
    _reactive_energy(key=Quantity.REVERSE_REACTIVE_ENERGY_T2),
    _reactive_energy(key=Quantity.REVERSE_REACTIVE_ENERGY_L1),
    _reactive_energy(key=Quantity.REVERSE_REACTIVE_ENERGY_L2),
    _reactive_energy(key=Quantity.REVERSE_REACTIVE_ENERGY_L3),
    _active_energy(key=Quantity.RESETTABLE_COUNTER),
    KlefrSensorEntityDescription(
        key=Quantity.POWER_DOWN_COUNTER,
        state_class=SensorStateClass.TOTAL_INCREASING,
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
    ),
    KlefrSensorEntityDescription(
        key=Quantity.ERROR_CODE,
        entity_category=EntityCategory.DIAGNOSTIC,
    ),
    KlefrSensorEntityDescription(
        key=Quantity.ACCESS_NUMBER,
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
    ),
    _direction(key=Quantity.CURRENT_DIRECTION_L1),
    _direction(key=Quantity.CURRENT_DIRECTION_L2),
    _direction(key=Quantity.CURRENT_DIRECTION_L3),
    _quadrant(key=Quantity.QUADRANT),
    _quadrant(key=Quantity.QUADRANT_L1),
    _quadrant(key=Quantity.QUADRANT_L2),
    _quadrant(key=Quantity.QUADRANT_L3),
)


@dataclass(frozen=True, kw_only=True)
class HealthSensorEntityDescription(SensorEntityDescription):
    """Describes a sensor of how well a meter can be reached."""

    value: Callable[[Health, float], StateType]
    """Takes the time of the event loop, in seconds."""


def _response_time(health: Health, now: float) -> int | None:
    """Return the average of the last hour in ms, in steps, so that the state seldom changes."""
    seconds = health.last_hour(now).response_time
    if seconds is None:
        return None
    return RESPONSE_TIME_STEP * round(seconds * 1000 / RESPONSE_TIME_STEP)


def _failed_requests(health: Health, now: float) -> int | None:
    share = health.last_hour(now).share
    return None if share is None else round(share * 100)


_health = partial(
    HealthSensorEntityDescription,
    entity_category=EntityCategory.DIAGNOSTIC,
    entity_registry_enabled_default=False,
)

HEALTH_SENSORS = (
    _health(
        key="response_time",
        device_class=SensorDeviceClass.DURATION,
        state_class=SensorStateClass.MEASUREMENT,
        native_unit_of_measurement=UnitOfTime.MILLISECONDS,
        value=_response_time,
    ),
    _health(
        key="failed_requests",
        state_class=SensorStateClass.MEASUREMENT,
        native_unit_of_measurement=PERCENTAGE,
        value=_failed_requests,
    ),
    _health(
        key="suspect_readings",
        state_class=SensorStateClass.TOTAL_INCREASING,
        value=lambda health, now: health.suspect_readings,
    ),
)

# A phase without a supply has no meaningful values, so its sensors start disabled.
SUPPLIES = {
    "_l1": Quantity.SUPPLY_L1,
    "_l2": Quantity.SUPPLY_L2,
    "_l3": Quantity.SUPPLY_L3,
}


async def async_setup_entry(
    hass: HomeAssistant,
    entry: KlefrConfigEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
) -> None:
    """Set up the sensors of a meter."""
    data = entry.runtime_data
    async_add_entities(
        KlefrSensor(data.readings, description)
        for description in SENSORS
        if description.key in data.meter.quantities
    )
    async_add_entities(HealthSensor(data, description) for description in HEALTH_SENSORS)


class KlefrSensor(ReadingEntity, SensorEntity):
    """A sensor that shows a quantity."""

    def __init__(
        self, coordinator: ReadingsCoordinator, description: KlefrSensorEntityDescription
    ) -> None:
        super().__init__(coordinator, description)
        supply = SUPPLIES.get(description.key[-3:])
        if supply is not None and coordinator.data.get(supply) is False:
            self._attr_entity_registry_enabled_default = False
        if description.note is not None:
            self._attr_extra_state_attributes = {ATTR_NOTE: description.note}

    @property
    @override
    def native_value(self) -> StateType:
        reading = self._value
        return reading.name.lower() if isinstance(reading, Quadrant) else reading


class HealthSensor(MeterEntity, SensorEntity):
    """A sensor that shows how well a meter can be reached.

    It does not depend on the polls, so it stays available while the meter does not answer.
    """

    entity_description: HealthSensorEntityDescription

    def __init__(self, data: KlefrData, description: HealthSensorEntityDescription) -> None:
        self._counts = data.health.counts
        super().__init__(data.meter.identity, description)

    @property
    @override
    def native_value(self) -> StateType:
        return self.entity_description.value(self._counts, self.hass.loop.time())
