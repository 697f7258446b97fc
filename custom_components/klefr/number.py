"""Number entities: the settings that are whole numbers."""

from typing import override

from homeassistant.components.number import (
    NumberDeviceClass,
    NumberEntity,
    NumberEntityDescription,
    NumberMode,
)
from homeassistant.const import EntityCategory, UnitOfTime
from homeassistant.core import HomeAssistant
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .coordinator import KlefrConfigEntry
from .entity import SettingEntity
from .meter import LCD_CYCLE_TIMES, Setting

PARALLEL_UPDATES = 1

NUMBERS = (
    NumberEntityDescription(
        key=Setting.LCD_CYCLE_TIME,
        device_class=NumberDeviceClass.DURATION,
        native_unit_of_measurement=UnitOfTime.SECONDS,
        native_min_value=LCD_CYCLE_TIMES[0],
        native_max_value=LCD_CYCLE_TIMES[-1],
        native_step=LCD_CYCLE_TIMES.step,
        mode=NumberMode.BOX,
        entity_category=EntityCategory.CONFIG,
    ),
)


async def async_setup_entry(
    hass: HomeAssistant,
    entry: KlefrConfigEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
) -> None:
    """Set up the number entities of a meter."""
    data = entry.runtime_data
    async_add_entities(
        KlefrNumber(data.settings, description)
        for description in NUMBERS
        if description.key in data.meter.settings
    )


class KlefrNumber(SettingEntity, NumberEntity):
    """A setting that is a whole number."""

    @property
    @override
    def native_value(self) -> float | None:
        return self._value if isinstance(self._value, int) else None

    @override
    async def async_set_native_value(self, value: float) -> None:
        await self._async_write(int(value) if value.is_integer() else value)
