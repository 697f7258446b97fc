"""Change how a meter communicates, and let its entry follow the meter.

The change is stored before it begins. Until the meter has been found and Home Assistant has saved
its entry, the meter is looked for in every way in which it may communicate. So it is not lost when
its power, or that of Home Assistant, fails in between.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Final

from homeassistant.config_entries import (
    ConfigEntryState,
    ConfigError,
    OperationNotAllowed,
    UnknownEntry,
)
from homeassistant.const import CONF_ADDRESS, CONF_PORT, CONF_PROTOCOL
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.event import async_call_later

from .const import CONF_BAUD_RATE, CONF_PARITY, LOGGER
from .coordinator import KlefrConfigEntry
from .entry_errors import NotPutBackError, NotSetAsideError
from .meter import (
    BaudRate,
    Bus,
    Communication,
    MeterAccess,
    NotMovedError,
    Parity,
    Protocol,
    check_free,
    find,
    is_gateway,
    move,
    possible_communications,
)
from .registry import async_renumber
from .shared_buses import async_canonical_port, async_entries_on_port, async_get_bus, link_from
from .stores import STORED_CURRENT, STORED_WANTED, MeterStore, async_remove_stores, change_store

# By then Home Assistant has written the entry, its device and its entities to its disk.
ENTRY_SAVED: Final = timedelta(minutes=5)

# In these states an entry has the port open, or will soon.
USING_PORT: Final = (
    ConfigEntryState.LOADED,
    ConfigEntryState.SETUP_IN_PROGRESS,
    ConfigEntryState.SETUP_RETRY,
)


async def async_change_communication(
    hass: HomeAssistant, entry: KlefrConfigEntry, current: Communication, wanted: Communication
) -> None:
    """Change how a meter communicates, and let its entry follow the meter.

    Raises AddressTakenError, LinkError and NotSetAsideError if nothing was changed, NotMovedError
    if the meter did not take all of it, and MeterLostError if it does not answer any more: then it
    is looked for whenever the entry is set up. Raises NotPutBackError if all of it was changed.
    """
    access = await _async_access(hass, entry)
    async with _port_set_free(hass, entry, possible_communications(current, wanted)):
        await check_free(access, current, wanted)
        await change_store(hass, entry.entry_id).async_save(
            {STORED_CURRENT: asdict(current), STORED_WANTED: asdict(wanted)}
        )
        try:
            await move(access, current, wanted)
        except NotMovedError as err:
            await _async_follow(hass, entry, access, err.found)
            raise
        await _async_follow(hass, entry, access, wanted)


async def async_read_communication(hass: HomeAssistant, entry: KlefrConfigEntry) -> Communication:
    """Ask a meter how it communicates. If its entry is not loaded, find the meter first.

    The entry follows a meter that was found. Raises KlefrError.
    """
    await _async_settled(entry)
    if entry.state is ConfigEntryState.LOADED:
        return await entry.runtime_data.meter.read_communication()
    candidates = await _async_candidates(hass, entry)
    async with _port_set_free(hass, entry, candidates):
        access = await _async_access(hass, entry)
        found = await find(access, candidates)
        await _async_follow(hass, entry, access, found)
        return found


async def async_follow_change(hass: HomeAssistant, entry: KlefrConfigEntry) -> None:
    """Find a meter whose change may not have been finished, and let its entry follow it.

    Call this when the entry is set up. Raises MeterLostError.
    """
    store = change_store(hass, entry.entry_id)
    if await store.async_load() is None:
        return
    access = await _async_access(hass, entry)
    found = await find(access, await _async_candidates(hass, entry), rounds=1)
    await _async_follow(hass, entry, access, found)
    async_remove_when_saved(hass, entry, store)


@callback
def async_remove_when_saved(
    hass: HomeAssistant, entry: KlefrConfigEntry, store: MeterStore
) -> None:
    """Remove a store once Home Assistant has saved the entry, unless that is unloaded before."""

    async def remove(_: datetime) -> None:
        await store.async_remove()

    entry.async_on_unload(async_call_later(hass, ENTRY_SAVED, remove))


async def _async_access(hass: HomeAssistant, entry: KlefrConfigEntry) -> MeterAccess:
    link = link_from(entry.data)
    link = replace(link, port=await async_canonical_port(hass, link.port))

    def open_bus(baud_rate: BaudRate, parity: Parity) -> Bus:
        # Home Assistant cannot change the line settings of a gateway.
        wanted = (
            link if is_gateway(link.port) else replace(link, baud_rate=baud_rate, parity=parity)
        )
        return async_get_bus(hass, Protocol(entry.data[CONF_PROTOCOL]), wanted)

    return MeterAccess(
        open_bus=open_bus,
        serial_number=str(entry.unique_id),
        by_secondary_address=isinstance(entry.data[CONF_ADDRESS], str),
    )


async def _async_candidates(hass: HomeAssistant, entry: KlefrConfigEntry) -> list[Communication]:
    """Return how the meter may communicate: as its entry says, or as a change left it."""
    link, address = link_from(entry.data), entry.data[CONF_ADDRESS]
    on_mbus = entry.data[CONF_PROTOCOL] == Protocol.MBUS
    candidates = [
        Communication(
            # A meter that is reached by its secondary address is not asked at this one.
            address=address if isinstance(address, int) else 0,
            secondary_address=entry.unique_id if on_mbus else None,
            baud_rate=link.baud_rate,
            parity=link.parity,
        )
    ]
    if (stored := await change_store(hass, entry.entry_id).async_load()) is not None:
        candidates += possible_communications(stored[STORED_CURRENT], stored[STORED_WANTED])
    return candidates


@asynccontextmanager
async def _port_set_free(
    hass: HomeAssistant, entry: KlefrConfigEntry, candidates: Iterable[Communication]
) -> AsyncIterator[None]:
    """Unload an entry, and all others that keep its port from having the line settings needed.

    Afterwards the entry is set up first, so the port gets the line settings of its meter. Raises
    NotSetAsideError at first, and NotPutBackError at last if nothing else went wrong.
    """
    link = link_from(entry.data)
    links = {
        link
        if is_gateway(link.port)
        else replace(link, baud_rate=candidate.baud_rate, parity=candidate.parity)
        for candidate in candidates
    }
    others = [
        other
        for other in await async_entries_on_port(hass, entry)
        if other.state in USING_PORT
        and (
            other.data[CONF_PROTOCOL] != entry.data[CONF_PROTOCOL]
            or {replace(link_from(other.data), port=link.port)} != links
        )
    ]
    set_aside: list[KlefrConfigEntry] = []
    try:
        for each in (entry, *others):
            await async_set_aside(hass, each)
            set_aside.append(each)
        yield
    finally:
        not_back = [each.title for each in set_aside if not await async_put_back(hass, each)]
        if not_back:
            LOGGER.error("Entries that were set aside could not be loaded again")
    if not_back:
        raise NotPutBackError(not_back)


async def async_set_aside(hass: HomeAssistant, entry: KlefrConfigEntry) -> None:
    """Unload an entry. Raises NotSetAsideError if it keeps the port."""
    await _async_settled(entry)
    try:
        unloaded = await hass.config_entries.async_unload(entry.entry_id)
    except UnknownEntry:
        # It was deleted meanwhile.
        return
    except OperationNotAllowed:
        unloaded = False
    if not unloaded:
        raise NotSetAsideError([entry.title])


async def _async_settled(entry: KlefrConfigEntry) -> None:
    """Wait until an entry is neither being set up nor being unloaded.

    Until then Home Assistant refuses to unload it, and a lost meter's entry is being set up most of
    the time.
    """
    while entry.setup_lock.locked():
        async with entry.setup_lock:
            pass


async def async_put_back(hass: HomeAssistant, entry: KlefrConfigEntry) -> bool:
    """Set up an entry, unless it was disabled, deleted or set up meanwhile.

    Returns whether that could be tried. Why a meter does not answer is on the card of its entry.
    """
    if (
        hass.config_entries.async_get_entry(entry.entry_id) is None
        or entry.state is not ConfigEntryState.NOT_LOADED
        or entry.disabled_by
    ):
        return True
    try:
        await hass.config_entries.async_setup(entry.entry_id)
    except ConfigError:
        return entry.state is not ConfigEntryState.NOT_LOADED
    return True


async def _async_follow(
    hass: HomeAssistant, entry: KlefrConfigEntry, access: MeterAccess, found: Communication
) -> None:
    """Let an entry reach its meter, which was found to communicate like this."""
    if hass.config_entries.async_get_entry(entry.entry_id) is None:
        # It was deleted meanwhile.
        await async_remove_stores(hass, entry.entry_id)
        return
    data = {**entry.data, CONF_ADDRESS: access.address(found)}
    if not is_gateway(data[CONF_PORT]):
        data |= {CONF_BAUD_RATE: int(found.baud_rate), CONF_PARITY: str(found.parity)}
    serial_number = access.reported_number(found)
    # With another secondary address an M-Bus meter reports another serial number. It stays the
    # same device, whatever of this was saved when Home Assistant last stopped.
    candidates = await _async_candidates(hass, entry)
    await async_renumber(
        hass,
        entry,
        {access.reported_number(each) for each in candidates} - {serial_number},
        serial_number,
        data=data,
        title=entry.title.replace(str(entry.unique_id), serial_number),
    )
