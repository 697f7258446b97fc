"""Buttons: the counters that can be reset."""

from dataclasses import dataclass
from typing import override

from homeassistant.components.button import ButtonEntity, ButtonEntityDescription
from homeassistant.const import EntityCategory
from homeassistant.core import HomeAssistant
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .coordinator import KlefrConfigEntry, ReadingsCoordinator
from .entity import KlefrEntity
from .meter import Counter, Quantity

PARALLEL_UPDATES = 1


@dataclass(frozen=True, kw_only=True)
class KlefrButtonEntityDescription(ButtonEntityDescription):
    """Describes the counter that a button resets, and the quantity that shows it."""

    counter: Counter
    quantity: Quantity


BUTTONS = (
    KlefrButtonEntityDescription(
        key="reset_resettable_counter",
        counter=Counter.RESETTABLE,
        quantity=Quantity.RESETTABLE_COUNTER,
        entity_category=EntityCategory.CONFIG,
    ),
    KlefrButtonEntityDescription(
        key="reset_power_down_counter",
        counter=Counter.POWER_DOWN,
        quantity=Quantity.POWER_DOWN_COUNTER,
        entity_category=EntityCategory.CONFIG,
    ),
)


async def async_setup_entry(
    hass: HomeAssistant,
    entry: KlefrConfigEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
) -> None:
    """Set up the buttons of a meter."""
    data = entry.runtime_data
    async_add_entities(
        KlefrButton(data.readings, description)
        for description in BUTTONS
        if description.counter in data.meter.counters
    )


class KlefrButton(KlefrEntity[ReadingsCoordinator], ButtonEntity):
    """A button that resets a counter to zero."""

    entity_description: KlefrButtonEntityDescription

    def __init__(
        self, coordinator: ReadingsCoordinator, description: KlefrButtonEntityDescription
    ) -> None:
        super().__init__(coordinator, description)
        # Over M-Bus a meter does not report these counters: what a reset does cannot be seen.
        self._attr_entity_registry_enabled_default = (
            description.quantity in coordinator.meter.quantities
        )

    @override
    async def async_press(self) -> None:
        await self.coordinator.async_reset(self.entity_description.counter)
