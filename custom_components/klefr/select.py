"""Select entities: the settings that are one of a few values."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import override

from homeassistant.components.select import SelectEntity, SelectEntityDescription
from homeassistant.const import EntityCategory
from homeassistant.core import HomeAssistant
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .coordinator import KlefrConfigEntry, SettingsCoordinator
from .entity import SettingEntity
from .meter import LOCKED_CODE, S0_RATES, CalculationCode, Setting, SettingValue, Tariff

PARALLEL_UPDATES = 1


@dataclass(frozen=True, kw_only=True)
class KlefrSelectEntityDescription(SelectEntityDescription):
    """Describes a setting: its values, by the option that stands for each."""

    values: Mapping[str, SettingValue]
    irreversible: SettingValue | None = None
    """A value that the meter never changes again."""

    def offered(self, coordinator: SettingsCoordinator) -> Mapping[str, SettingValue]:
        """Return the values that the meter can be set to now, by option."""
        setting = Setting(self.key)
        offered: Collection[SettingValue] = coordinator.meter.settings[setting]
        if self.irreversible is not None and coordinator.data[setting] == self.irreversible:
            offered = (self.irreversible,)
        return {option: value for option, value in self.values.items() if value in offered}


SELECTS = (
    KlefrSelectEntityDescription(
        key=Setting.TARIFF,
        values={tariff.name.lower(): tariff for tariff in Tariff},
    ),
    KlefrSelectEntityDescription(
        key=Setting.CALCULATION_CODE,
        values={code.name.lower(): code for code in CalculationCode},
        irreversible=LOCKED_CODE,
        entity_category=EntityCategory.CONFIG,
    ),
    KlefrSelectEntityDescription(
        key=Setting.S0_RATE,
        # The options have no translations, because keys of translations cannot have a point.
        values={f"{rate:g}": rate for rate in S0_RATES},
        entity_category=EntityCategory.CONFIG,
    ),
)


async def async_setup_entry(
    hass: HomeAssistant,
    entry: KlefrConfigEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
) -> None:
    """Set up the select entities of a meter."""
    data = entry.runtime_data
    async_add_entities(
        KlefrSelect(data.settings, description)
        for description in SELECTS
        if description.key in data.meter.settings
    )


class KlefrSelect(SettingEntity, SelectEntity):
    """A setting that is one of a few values."""

    entity_description: KlefrSelectEntityDescription

    @property
    @override
    def options(self) -> list[str]:
        return list(self.entity_description.offered(self.coordinator))

    @property
    @override
    def current_option(self) -> str | None:
        return next(
            (
                option
                for option, value in self.entity_description.values.items()
                if value == self._value
            ),
            None,
        )

    @override
    async def async_select_option(self, option: str) -> None:
        await self._async_write(self.entity_description.values[option])
