"""What all entities of a meter have in common."""

from enum import StrEnum
from typing import Any, Final, override

from homeassistant.core import callback
from homeassistant.helpers.device_registry import DeviceInfo
from homeassistant.helpers.entity import Entity, EntityDescription
from homeassistant.helpers.update_coordinator import CoordinatorEntity

from .const import DOMAIN, MANUFACTURER
from .coordinator import KlefrCoordinator, ReadingsCoordinator, SettingsCoordinator
from .meter import Identity, Quantity, Setting, SettingValue, Value
from .wording import meter_name, model_name

ATTR_NOTE: Final = "note"


class Note(StrEnum):
    """What to know before using an entity, shown as its attribute."""

    IMPORTED = "imported"
    EXPORTED = "exported"
    NOT_FOR_ENERGY_DASHBOARD = "not_for_energy_dashboard"
    NOT_REPORTED = "not_reported"


def device_info(identity: Identity) -> DeviceInfo:
    """Return what a meter is as a device."""
    return DeviceInfo(
        identifiers={(DOMAIN, identity.serial_number)},
        manufacturer=MANUFACTURER,
        model=model_name(identity),
        name=meter_name(identity),
        serial_number=identity.serial_number,
        sw_version=identity.firmware_version,
        hw_version=identity.hardware_version,
    )


class MeterEntity(Entity):
    """An entity of a meter."""

    _attr_has_entity_name = True

    def __init__(self, identity: Identity, description: EntityDescription) -> None:
        self.entity_description = description
        self._attr_translation_key = description.key
        self._attr_unique_id = f"{identity.serial_number}_{description.key}"
        self._attr_device_info = device_info(identity)


class KlefrEntity[CoordinatorT: KlefrCoordinator[Any]](
    CoordinatorEntity[CoordinatorT], MeterEntity
):
    """An entity that shows what a coordinator polls."""

    _unrecorded_attributes = frozenset({ATTR_NOTE})

    def __init__(
        self,
        coordinator: CoordinatorT,
        description: EntityDescription,
        context: Quantity | None = None,
    ) -> None:
        CoordinatorEntity.__init__(self, coordinator, context)
        MeterEntity.__init__(self, coordinator.meter.identity, description)
        # Polls begin when all entities have been added.
        self._shown = (self.available, self._value)

    @property
    def _value(self) -> object:
        """What the state is made of."""
        return None

    @callback
    @override
    def _handle_coordinator_update(self) -> None:
        # Most polls change a few values of many.
        shown = (self.available, self._value)
        if shown != self._shown:
            self._shown = shown
            super()._handle_coordinator_update()


class ReadingEntity(KlefrEntity[ReadingsCoordinator]):
    """An entity that shows a quantity."""

    def __init__(self, coordinator: ReadingsCoordinator, description: EntityDescription) -> None:
        self._quantity = Quantity(description.key)
        super().__init__(coordinator, description, context=self._quantity)

    @property
    @override
    def _value(self) -> Value | None:
        return self.coordinator.data.get(self._quantity)


class SettingEntity(KlefrEntity[SettingsCoordinator]):
    """An entity that shows a setting and writes it."""

    def __init__(self, coordinator: SettingsCoordinator, description: EntityDescription) -> None:
        self._setting = Setting(description.key)
        if not coordinator.meter.reports_settings:
            self._attr_assumed_state = True
            self._attr_extra_state_attributes = {ATTR_NOTE: Note.NOT_REPORTED}
        super().__init__(coordinator, description)

    @property
    @override
    def available(self) -> bool:
        return super().available and self.coordinator.reachable

    @property
    @override
    def _value(self) -> SettingValue | None:
        return self.coordinator.data[self._setting]

    async def _async_write(self, value: SettingValue) -> None:
        failures = await self.coordinator.async_write({self._setting: value})
        for failure in failures.values():
            raise failure
