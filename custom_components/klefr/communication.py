"""Change how a meter communicates, and let its entry follow it.

What is about to change is stored first, and until the meter is found and its entry saved, it is
looked for wherever it can be: so it is not lost when its power, or that of Home Assistant, fails
meanwhile.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

from homeassistant.config_entries import ConfigEntry, ConfigEntryState
from homeassistant.const import CONF_ADDRESS, CONF_PORT, CONF_PROTOCOL
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers import device_registry as dr, entity_registry as er
from homeassistant.helpers.event import async_call_later
from homeassistant.helpers.storage import Store

from .const import CONF_BAUD_RATE, CONF_PARITY, DOMAIN
from .meter import (
    BaudRate,
    Bus,
    Communication,
    NotMovedError,
    Parity,
    Protocol,
    Way,
    check_free,
    find,
    is_gateway,
    move,
    places_between,
)
from .shared_buses import async_canonical_port, async_entries_on_port, async_find_bus, link_from

# By then Home Assistant has written the entry, its device and its entities to its disk.
ENTRY_SAVED = timedelta(minutes=5)

STORED_NOW = "now"
STORED_WANTED = "wanted"


def change_store(hass: HomeAssistant, entry: ConfigEntry) -> Store[dict[str, Any]]:
    """Return where is kept what a meter is about to change, until it is known to have."""
    return Store(hass, 1, f"{DOMAIN}.{entry.entry_id}.change")


async def async_change_communication(
    hass: HomeAssistant, entry: ConfigEntry, now: Communication, wanted: Communication
) -> None:
    """Let a meter communicate otherwise, and its entry follow it to where it then is.

    Raises AddressTakenError and LinkError, with nothing changed, NotMovedError, and
    MeterLostError, after which the meter is looked for whenever the entry is set up.
    """
    way = await _async_way(hass, entry)
    async with _port_set_free(hass, entry, places_between(now, wanted)):
        await check_free(way, now, wanted)
        await change_store(hass, entry).async_save(
            {STORED_NOW: asdict(now), STORED_WANTED: asdict(wanted)}
        )
        try:
            await move(way, now, wanted)
        except NotMovedError as err:
            await _async_follow(hass, entry, way, err.found)
            raise
        await _async_follow(hass, entry, way, wanted)


async def async_read_communication(hass: HomeAssistant, entry: ConfigEntry) -> Communication:
    """Ask a meter how it communicates, wherever it may be, and let its entry follow it.

    Raises KlefrError.
    """
    if entry.state is ConfigEntryState.LOADED:
        communication: Communication = await entry.runtime_data.meter.read_communication()
        return communication
    places = await _async_places(hass, entry)
    async with _port_set_free(hass, entry, places):
        way = await _async_way(hass, entry)
        found = await find(way, places)
        await _async_follow(hass, entry, way, found)
        return found


async def async_follow_change(hass: HomeAssistant, entry: ConfigEntry) -> None:
    """Look for a meter that was to change how it communicates, and let its entry follow it.

    To be called when the entry is set up. Raises MeterLostError.
    """
    store = change_store(hass, entry)
    if await store.async_load() is None:
        return
    way = await _async_way(hass, entry)
    found = await find(way, await _async_places(hass, entry), rounds=1)
    await _async_follow(hass, entry, way, found)

    async def forget_change(_: datetime) -> None:
        await store.async_remove()

    entry.async_on_unload(async_call_later(hass, ENTRY_SAVED, forget_change))


async def _async_way(hass: HomeAssistant, entry: ConfigEntry) -> Way:
    link = link_from(entry.data)
    link = replace(link, port=await async_canonical_port(hass, link.port))

    def open_bus(baud_rate: BaudRate, parity: Parity) -> Bus:
        set_otherwise = replace(link, baud_rate=baud_rate, parity=parity)
        return async_find_bus(
            hass,
            Protocol(entry.data[CONF_PROTOCOL]),
            # A gateway has been set by itself.
            link if is_gateway(link.port) else set_otherwise,
        )

    return Way(
        open_bus=open_bus,
        serial_number=str(entry.unique_id),
        by_secondary_address=isinstance(entry.data[CONF_ADDRESS], str),
    )


async def _async_places(hass: HomeAssistant, entry: ConfigEntry) -> list[Communication]:
    """Return where the meter can be: where it was last, and between what it was to change."""
    link, address = link_from(entry.data), entry.data[CONF_ADDRESS]
    on_mbus = entry.data[CONF_PROTOCOL] == Protocol.MBUS
    places = [
        Communication(
            # Not asked by it where it is not known.
            address=address if isinstance(address, int) else 0,
            secondary_address=entry.unique_id if on_mbus else None,
            baud_rate=link.baud_rate,
            parity=link.parity,
        )
    ]
    if (stored := await change_store(hass, entry).async_load()) is not None:
        places += places_between(*map(_restore, (stored[STORED_NOW], stored[STORED_WANTED])))
    return places


def _restore(stored: Mapping[str, Any]) -> Communication:
    return Communication(
        address=stored["address"],
        secondary_address=stored["secondary_address"],
        baud_rate=BaudRate(stored["baud_rate"]),
        parity=Parity(stored["parity"]),
    )


@asynccontextmanager
async def _port_set_free(
    hass: HomeAssistant, entry: ConfigEntry, places: Iterable[Communication]
) -> AsyncIterator[None]:
    """Set an entry aside, and all others that keep its port from being set for these places.

    Afterwards the entry itself is the first to say how it is set.
    """
    link = link_from(entry.data)
    links = {
        link
        if is_gateway(link.port)
        else replace(link, baud_rate=place.baud_rate, parity=place.parity)
        for place in places
    }
    in_the_way = [
        other
        for other in await async_entries_on_port(hass, entry)
        if other.data[CONF_PROTOCOL] != entry.data[CONF_PROTOCOL]
        or {replace(link_from(other.data), port=link.port)} != links
    ]
    set_aside = [
        entry,
        *(
            other
            for other in in_the_way
            if other.state in (ConfigEntryState.LOADED, ConfigEntryState.SETUP_RETRY)
        ),
    ]
    for each in set_aside:
        await hass.config_entries.async_unload(each.entry_id)
    try:
        yield
    finally:
        for each in set_aside:
            if each.state is ConfigEntryState.NOT_LOADED and not each.disabled_by:
                await hass.config_entries.async_setup(each.entry_id)


async def _async_follow(
    hass: HomeAssistant, entry: ConfigEntry, way: Way, found: Communication
) -> None:
    """Let an entry reach its meter where that has been found."""
    data = {**entry.data, CONF_ADDRESS: way.address(found)}
    if not is_gateway(data[CONF_PORT]):
        data |= {CONF_BAUD_RATE: int(found.baud_rate), CONF_PARITY: str(found.parity)}
    serial_number = way.name(found)
    # Over M-Bus a meter is known by its secondary address. It stays the same device, whatever
    # of this was saved before Home Assistant stopped the last time.
    for place in await _async_places(hass, entry):
        if (before := way.name(place)) != serial_number:
            await _async_rename(hass, entry, before, serial_number)
    hass.config_entries.async_update_entry(
        entry,
        data=data,
        unique_id=serial_number,
        title=entry.title.replace(str(entry.unique_id), serial_number),
    )


async def _async_rename(
    hass: HomeAssistant, entry: ConfigEntry, before: str, serial_number: str
) -> None:
    devices = dr.async_get(hass)
    for device in dr.async_entries_for_config_entry(devices, entry.entry_id):
        if (DOMAIN, before) in device.identifiers:
            devices.async_update_device(device.id, new_identifiers={(DOMAIN, serial_number)})

    @callback
    def renamed(entity: er.RegistryEntry) -> dict[str, Any] | None:
        owner, _, key = entity.unique_id.partition("_")
        return {"new_unique_id": f"{serial_number}_{key}"} if owner == before else None

    await er.async_migrate_entries(hass, entry.entry_id, renamed)
