"""Binary sensors: what a meter reports about its own state."""

from typing import override

from homeassistant.components.binary_sensor import (
    BinarySensorDeviceClass,
    BinarySensorEntity,
    BinarySensorEntityDescription,
)
from homeassistant.const import EntityCategory
from homeassistant.core import HomeAssistant
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .coordinator import KlefrConfigEntry
from .entity import ReadingEntity
from .meter import Quantity

PARALLEL_UPDATES = 0

BINARY_SENSORS = tuple(
    BinarySensorEntityDescription(
        key=quantity,
        device_class=device_class,
        entity_category=EntityCategory.DIAGNOSTIC,
    )
    for quantity, device_class in (
        (Quantity.STATUS_OK, BinarySensorDeviceClass.PROBLEM),
        (Quantity.PROGRAM_OK, BinarySensorDeviceClass.PROBLEM),
        (Quantity.EEPROM_OK, BinarySensorDeviceClass.PROBLEM),
        (Quantity.SUPPLY_L1, BinarySensorDeviceClass.POWER),
        (Quantity.SUPPLY_L2, BinarySensorDeviceClass.POWER),
        (Quantity.SUPPLY_L3, BinarySensorDeviceClass.POWER),
    )
)


async def async_setup_entry(
    hass: HomeAssistant,
    entry: KlefrConfigEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
) -> None:
    """Set up the binary sensors of a meter."""
    data = entry.runtime_data
    async_add_entities(
        KlefrBinarySensor(data.readings, description)
        for description in BINARY_SENSORS
        if description.key in data.meter.quantities
    )


class KlefrBinarySensor(ReadingEntity, BinarySensorEntity):
    """A binary sensor that shows a part of the meter's status."""

    @property
    @override
    def is_on(self) -> bool | None:
        if (good := self._value) is None:
            return None
        is_problem = self.device_class is BinarySensorDeviceClass.PROBLEM
        return bool(good) is not is_problem
