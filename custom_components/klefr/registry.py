"""What Home Assistant's registries keep of a meter: its entry, its device and its entities."""

from collections.abc import Collection, Mapping
from typing import Any

from homeassistant.const import Platform
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers import device_registry as dr, entity_registry as er

from .const import DOMAIN
from .coordinator import KlefrConfigEntry
from .meter import Meter, Quantity, Setting


async def async_renumber(
    hass: HomeAssistant,
    entry: KlefrConfigEntry,
    before: Collection[str],
    serial_number: str,
    *,
    data: Mapping[str, Any],
    title: str,
) -> None:
    """Give an entry, its device and its entities a serial number, and the entry data and title.

    They stay the same device and entities, whichever of the serial numbers `before` each had when
    Home Assistant last saved it.
    """
    devices = dr.async_get(hass)
    for device in dr.async_entries_for_config_entry(devices, entry.entry_id):
        if any((DOMAIN, number) in device.identifiers for number in before):
            devices.async_update_device(device.id, new_identifiers={(DOMAIN, serial_number)})

    @callback
    def new_unique_id(entity: er.RegistryEntry) -> dict[str, Any] | None:
        owner, _, key = entity.unique_id.partition("_")
        return {"new_unique_id": f"{serial_number}_{key}"} if owner in before else None

    await er.async_migrate_entries(hass, entry.entry_id, new_unique_id)
    hass.config_entries.async_update_entry(entry, data=data, unique_id=serial_number, title=title)


@callback
def async_remove_obsolete(hass: HomeAssistant, entry: KlefrConfigEntry, meter: Meter) -> None:
    """Remove the entities of quantities and settings that an entry's meter does not have."""
    entities = er.async_get(hass)
    for entity in er.async_entries_for_config_entry(entities, entry.entry_id):
        key = entity.unique_id.partition("_")[2]
        if entity.domain in (Platform.SENSOR, Platform.BINARY_SENSOR):
            is_obsolete = key in Quantity and key not in meter.quantities
        else:
            is_obsolete = key in Setting and key not in meter.settings
        if is_obsolete:
            entities.async_remove(entity.entity_id)
