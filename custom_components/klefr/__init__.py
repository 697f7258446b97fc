"""KLEFR energy meters."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from homeassistant.config_entries import SIGNAL_CONFIG_ENTRY_CHANGED, ConfigEntryChange
from homeassistant.const import CONF_ADDRESS, CONF_PORT, Platform
from homeassistant.core import HomeAssistant, callback
from homeassistant.exceptions import ConfigEntryError, ConfigEntryNotReady
from homeassistant.helpers import config_validation as cv
from homeassistant.helpers.dispatcher import async_dispatcher_connect
from homeassistant.helpers.typing import ConfigType

from .communication import async_follow_change
from .const import DOMAIN
from .coordinator import KlefrConfigEntry, KlefrData, ReadingsCoordinator, SettingsCoordinator
from .entry_data import async_make_usable
from .entry_errors import DamagedEntryError
from .health import async_forget_health, async_load_health
from .issues import async_check, async_setup_issues
from .meter import Bus, KlefrError, Meter, WrongMeterError, check_serial_number, confirmed, identify
from .registry import async_remove_obsolete
from .replacement import async_follow_replacement
from .services import async_setup_services
from .shared_buses import async_canonical_port, async_give_way, async_hold_bus
from .stores import async_remove_stores, memory_store
from .wording import async_translation
from .wrong_meter import async_forget_wrong_meter, async_report_wrong_meter

CONFIG_SCHEMA = cv.config_entry_only_config_schema(DOMAIN)

PLATFORMS = [
    Platform.BINARY_SENSOR,
    Platform.BUTTON,
    Platform.NUMBER,
    Platform.SELECT,
    Platform.SENSOR,
]


async def async_setup(hass: HomeAssistant, config: ConfigType) -> bool:
    """Set up the actions, also while no meter is loaded."""
    async_setup_services(hass)
    async_setup_issues(hass)
    # Forms and the entries of other meters read this too, also of an entry that is disabled.
    for entry in hass.config_entries.async_entries(DOMAIN, include_ignore=False):
        async_make_usable(hass, entry)

    @callback
    def forget_repair(change: ConfigEntryChange, entry: KlefrConfigEntry) -> None:
        if entry.domain == DOMAIN and (change is ConfigEntryChange.REMOVED or entry.disabled_by):
            async_forget_wrong_meter(hass, entry.entry_id)

    async_dispatcher_connect(hass, SIGNAL_CONFIG_ENTRY_CHANGED, forget_repair)
    return True


async def async_setup_entry(hass: HomeAssistant, entry: KlefrConfigEntry) -> bool:
    """Set up a meter."""
    await async_follow_replacement(hass, entry)
    if not async_make_usable(hass, entry):
        raise ConfigEntryError(**async_translation(hass, entry.data, DamagedEntryError()))
    memory = await memory_store(hass, entry.entry_id).async_load()
    port = await async_canonical_port(hass, entry.data[CONF_PORT])
    health = await async_load_health(hass, entry.entry_id, port)
    try:
        await async_give_way(hass, entry)
        await async_follow_change(hass, entry)
        bus = await async_hold_bus(hass, entry)
        entry.async_on_unload(bus.watch(entry.data[CONF_ADDRESS], health.counts))
        meter = await confirmed(partial(_async_identify, bus, entry, memory))
    except KlefrError as err:
        health.failure = err
        if isinstance(err, WrongMeterError):
            async_report_wrong_meter(hass, entry.entry_id, entry.data, err)
        raise ConfigEntryNotReady(**async_translation(hass, entry.data, err)) from err
    health.failure = None
    readings = ReadingsCoordinator(hass, entry, bus, meter, memory, health)
    await readings.async_config_entry_first_refresh()
    settings = SettingsCoordinator(hass, entry, meter, readings)
    await settings.async_config_entry_first_refresh()
    entry.runtime_data = KlefrData(
        bus=bus, meter=meter, health=health, readings=readings, settings=settings
    )
    async_remove_obsolete(hass, entry, meter)
    await hass.config_entries.async_forward_entry_setups(entry, PLATFORMS)
    readings.async_start_polling()
    return True


async def _async_identify(
    bus: Bus, entry: KlefrConfigEntry, memory: Mapping[str, Any] | None
) -> Meter:
    """Return the entry's meter if it is the one that answers. Raises KlefrError."""
    meter = await identify(bus, entry.data[CONF_ADDRESS], memory=memory)
    check_serial_number(expected=str(entry.unique_id), found=meter.identity.serial_number)
    return meter


async def async_unload_entry(hass: HomeAssistant, entry: KlefrConfigEntry) -> bool:
    """Unload a meter."""
    unloaded = await hass.config_entries.async_unload_platforms(entry, PLATFORMS)
    async_check(hass)
    return unloaded


async def async_remove_entry(hass: HomeAssistant, entry: KlefrConfigEntry) -> None:
    """Remove all that is known and stored about a meter."""
    async_forget_health(hass, entry.entry_id)
    async_check(hass)
    await async_remove_stores(hass, entry.entry_id)
