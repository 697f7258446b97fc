"""Let a new meter take the place of an old one, which keeps entities and history.

What Home Assistant keeps about the old meter is moved to the serial number of the new one. The
energies of the new meter are then believed without those of the old one, and go on in statistics
from where the old meter ended.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

from homeassistant.config_entries import SOURCE_IGNORE, SOURCE_INTEGRATION_DISCOVERY, UnknownEntry
from homeassistant.const import ATTR_DEVICE_ID, CONF_ADDRESS, CONF_PROTOCOL
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers import device_registry as dr
from homeassistant.util.hass_dict import HassKey

from .communication import async_put_back, async_remove_when_saved, async_set_aside
from .const import DOMAIN, EVENT_METER_REPLACED
from .coordinator import KlefrConfigEntry
from .entity import device_info
from .entry_errors import (
    AlreadyAddedError,
    NotPutBackError,
    OldMeterAnswersError,
    ThirdMeterAnswersError,
)
from .meter import (
    Identity,
    KlefrError,
    Memory,
    Protocol,
    WrongMeterError,
    check_serial_number,
    identify,
)
from .registry import async_renumber
from .shared_buses import async_find_bus, link_from
from .stores import (
    STORED_AFTER,
    STORED_BEFORE,
    STORED_DATA,
    STORED_TITLE,
    async_remove_stores,
    change_store,
    energies_store,
    memory_store,
    replacement_store,
    written_store,
)
from .wording import async_error_text, async_translation, meter_name, names_of
from .wrong_meter import async_forget_wrong_meter

DATA_LOCKS: Final[HassKey[defaultdict[str, asyncio.Lock]]] = HassKey(f"{DOMAIN}_replacing")


async def async_replace_meter(
    hass: HomeAssistant, entry: KlefrConfigEntry, data: Mapping[str, Any], found: str
) -> None:
    """Let the meter with the serial number `found` take the place of an entry's meter.

    `data` says where it answers. If it does not answer there now, nothing is changed. Raises
    UnknownEntry if the entry was deleted, AlreadyAddedError, OldMeterAnswersError,
    ThirdMeterAnswersError, and what `identify` raises. Raises NotPutBackError if all was changed.

    It goes on when the caller is cancelled, such as by a user who closes the window.
    """
    await asyncio.shield(
        hass.async_create_task(_async_replace(hass, entry, data, found), eager_start=False)
    )


@callback
def async_not_replaced(
    hass: HomeAssistant, entry_data: Mapping[str, Any], error: KlefrError
) -> tuple[str, Mapping[str, str]]:
    """Return why a flow ends with which a meter was not replaced, and what its message names."""
    if isinstance(error, NotPutBackError):
        translation = async_translation(hass, entry_data, error)
        return translation["translation_key"], translation["translation_placeholders"]
    return "not_replaced", {"error": async_error_text(hass, entry_data, error)}


async def async_follow_replacement(hass: HomeAssistant, entry: KlefrConfigEntry) -> None:
    """Finish a replacement of which Home Assistant may not have saved everything.

    Call this when the entry is set up.
    """
    store = replacement_store(hass, entry.entry_id)
    if (stored := await store.async_load()) is None:
        return
    before, after = stored[STORED_BEFORE], stored[STORED_AFTER]
    if entry.unique_id in (before, after):
        # What was changed since the entry was saved is newer than what is stored.
        is_saved = entry.unique_id == after
        await async_renumber(
            hass,
            entry,
            [before],
            after,
            data=entry.data if is_saved else stored[STORED_DATA],
            title=entry.title if is_saved else stored[STORED_TITLE],
        )
    async_remove_when_saved(hass, entry, store)


async def _async_replace(
    hass: HomeAssistant, entry: KlefrConfigEntry, data: Mapping[str, Any], found: str
) -> None:
    if isinstance(data[CONF_ADDRESS], str):
        # A secondary address is the serial number.
        data = {**data, CONF_ADDRESS: found}
    locks = hass.data.setdefault(DATA_LOCKS, defaultdict(asyncio.Lock))
    async with locks[entry.entry_id]:
        hass.config_entries.async_get_known_entry(entry.entry_id)
        if entry.unique_id == found:
            # It was confirmed in another window too.
            return
        _check_not_added(hass, entry, found)
        await async_set_aside(hass, entry)
        try:
            identity = await _async_confirm(hass, entry, data, found)
            hass.config_entries.async_get_known_entry(entry.entry_id)
            _check_not_added(hass, entry, found)
            await _async_move(hass, entry, data, identity)
        finally:
            is_back = await async_put_back(hass, entry)
    if not is_back:
        raise NotPutBackError([entry.title])


def _check_not_added(hass: HomeAssistant, entry: KlefrConfigEntry, found: str) -> None:
    for other in hass.config_entries.async_entries(DOMAIN, include_ignore=False):
        if other.unique_id == found:
            raise AlreadyAddedError(meter=entry.title, holder=other.title)


async def _async_confirm(
    hass: HomeAssistant, entry: KlefrConfigEntry, data: Mapping[str, Any], found: str
) -> Identity:
    """Ask twice whether it is the meter that was found that answers."""
    bus = await async_find_bus(hass, Protocol(data[CONF_PROTOCOL]), link_from(data))
    async with bus:
        try:
            for _ in range(2):
                identity = (await identify(bus, data[CONF_ADDRESS])).identity
                check_serial_number(expected=found, found=identity.serial_number)
        except WrongMeterError as err:
            if err.found == entry.unique_id:
                raise OldMeterAnswersError(entry.title) from err
            raise ThirdMeterAnswersError from err
    return identity


async def _async_move(
    hass: HomeAssistant, entry: KlefrConfigEntry, data: Mapping[str, Any], identity: Identity
) -> None:
    before, after = str(entry.unique_id), identity.serial_number
    store = energies_store(hass, entry.entry_id)
    stored = await store.async_load() or {}
    memory = Memory.from_json(stored)
    await store.async_save({**stored, **memory.with_another_meter().to_json()})
    for of_old_meter in (change_store, memory_store, written_store):
        await of_old_meter(hass, entry.entry_id).async_remove()
    title = _new_title(entry.title, before, identity)
    # From here on it is finished at the next start if Home Assistant is killed.
    await replacement_store(hass, entry.entry_id).async_save(
        {STORED_BEFORE: before, STORED_AFTER: after, STORED_DATA: dict(data), STORED_TITLE: title}
    )
    await _async_withdraw_offers(hass, after)
    try:
        await async_renumber(hass, entry, [before], after, data=data, title=title)
    except UnknownEntry:
        # It was deleted meanwhile.
        await async_remove_stores(hass, entry.entry_id)
        raise
    devices = dr.async_get(hass)
    device = next(iter(dr.async_entries_for_config_entry(devices, entry.entry_id)), None)
    if device is not None:
        info = device_info(identity)
        devices.async_update_device(
            device.id,
            name=info["name"],
            model=info["model"],
            serial_number=info["serial_number"],
            sw_version=info["sw_version"],
            hw_version=info["hw_version"],
        )
    async_forget_wrong_meter(hass, entry.entry_id)
    hass.bus.async_fire(
        EVENT_METER_REPLACED,
        {
            ATTR_DEVICE_ID: device and device.id,
            "before": before,
            "after": after,
            "readings": {
                str(quantity): {"value": accepted.value, "read": accepted.wall}
                for quantity, accepted in memory.accepted.items()
            },
        },
    )


def _new_title(title: str, before: str, identity: Identity) -> str:
    """Return an entry's title for a new meter. What a user wrote stays, but for the number."""
    if title in names_of(before):
        return meter_name(identity)
    return title.replace(before, identity.serial_number)


async def _async_withdraw_offers(hass: HomeAssistant, serial_number: str) -> None:
    """Offer a meter no longer that a search found, and forget that the user ignored the offer."""
    flows = hass.config_entries.flow
    for flow in flows.async_progress_by_handler(
        DOMAIN,
        match_context={"source": SOURCE_INTEGRATION_DISCOVERY, "unique_id": serial_number},
    ):
        flows.async_abort(flow["flow_id"])
    for entry in hass.config_entries.async_entries(DOMAIN):
        if entry.source == SOURCE_IGNORE and entry.unique_id == serial_number:
            await hass.config_entries.async_remove(entry.entry_id)
