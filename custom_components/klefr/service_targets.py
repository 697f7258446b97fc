"""Which meters an action is for."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from homeassistant.const import (
    ATTR_AREA_ID,
    ATTR_DEVICE_ID,
    ATTR_ENTITY_ID,
    ATTR_FLOOR_ID,
    ATTR_LABEL_ID,
    CONF_EXCLUDE,
    ENTITY_MATCH_NONE,
)
from homeassistant.core import HomeAssistant, ServiceCall, callback
from homeassistant.exceptions import Unauthorized, UnknownUser
from homeassistant.helpers import (
    config_validation as cv,
    device_registry as dr,
    entity_registry as er,
)
from homeassistant.helpers.target import TargetSelection, async_extract_referenced_entity_ids

from .const import DOMAIN
from .coordinator import KlefrConfigEntry
from .service_errors import Problem, invalid
from .wording import quoted

METER_TARGETS: Final = (ATTR_DEVICE_ID, ATTR_ENTITY_ID)
TARGETS: Final = (*METER_TARGETS, ATTR_AREA_ID, ATTR_FLOOR_ID, ATTR_LABEL_ID)
TARGET_FIELDS: Final = (*TARGETS, CONF_EXCLUDE)


@callback
def async_targeted(call: ServiceCall) -> list[KlefrConfigEntry]:
    """Return the meters that are the target of a call.

    Its device, one of its entities, or an area, floor or label with one of these stands for a
    meter, both in the target and in what the target excludes.
    """
    entries = call.hass.config_entries.async_entries(DOMAIN)
    targeted: set[str] = set()
    for kind, name in _names(call.data):
        found = _async_found(call.hass, entries, kind, name)
        # An area or a label may also hold other devices. A device or entity must be a meter's.
        if found is None or (kind in METER_TARGETS and not found):
            raise invalid(Problem.WRONG_TARGET, target=quoted(name))
        targeted |= found
    if not targeted:
        raise invalid(Problem.NO_METER_IN_TARGET)
    targeted -= _async_excluded(call.hass, entries, call.data.get(CONF_EXCLUDE))
    if not targeted:
        raise invalid(Problem.NO_METER_LEFT)
    return [entry for entry in entries if entry.entry_id in targeted]


@callback
def _async_excluded(
    hass: HomeAssistant, entries: Iterable[KlefrConfigEntry], exclude: object
) -> set[str]:
    """Return the entry ids of the meters that a target excludes.

    Home Assistant 2026.11 and later offer this. It excludes entities, but an action is for a
    whole meter. So a meter is left out if any of its entities is.
    """
    if not exclude:
        return set()
    if not isinstance(exclude, Mapping):
        raise invalid(Problem.WRONG_EXCLUSION, target=quoted(exclude))
    for kind in exclude:
        if kind not in TARGETS:
            raise invalid(Problem.WRONG_EXCLUSION, target=quoted(kind))
    excluded: set[str] = set()
    for kind, name in _names(exclude):
        # A mistyped name would let through the meter that it should exclude.
        found = _async_found(hass, entries, kind, name)
        if found is None:
            raise invalid(Problem.WRONG_EXCLUSION, target=quoted(name))
        excluded |= found
    return excluded


def _names(target: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Return what a target names, each with the field that names it."""
    for kind in TARGETS:
        named = target.get(kind)
        if named != ENTITY_MATCH_NONE:
            for name in cv.ensure_list_csv(named):
                yield kind, name


@callback
def _async_found(
    hass: HomeAssistant, entries: Iterable[KlefrConfigEntry], kind: str, name: object
) -> set[str] | None:
    """Return the entry ids of the meters that a name stands for, None if nothing has the name."""
    if not isinstance(name, str):
        return None
    entities = er.async_get(hass)
    if kind == ATTR_ENTITY_ID and not (hass.states.get(name) or entities.async_get(name)):
        return None
    selected = async_extract_referenced_entity_ids(
        hass, TargetSelection({kind: name}), primary_entities_only=False
    )
    if (
        selected.missing_devices
        | selected.missing_areas
        | selected.missing_floors
        | selected.missing_labels
    ):
        return None
    devices = dr.async_get(hass)
    owners = {
        entity.config_entry_id
        for entity_id in selected.referenced | selected.indirectly_referenced
        if (entity := entities.async_get(entity_id)) is not None
    }
    identifiers = {
        identifier
        for device_id in selected.referenced_devices
        if (device := devices.async_get(device_id)) is not None
        for identifier in device.identifiers
    }
    return {
        entry.entry_id
        for entry in entries
        if entry.entry_id in owners or (DOMAIN, entry.unique_id) in identifiers
    }


async def async_check_permission(
    call: ServiceCall, entries: Iterable[KlefrConfigEntry], permission: str
) -> None:
    """Raise an error unless the user has the permission for all entities of the meters."""
    user_id = call.context.user_id
    if user_id is None:
        return
    user = await call.hass.auth.async_get_user(user_id)
    if user is None:
        raise UnknownUser(context=call.context, user_id=user_id, permission=permission)
    entities = er.async_get(call.hass)
    for entry in entries:
        for entity in er.async_entries_for_config_entry(entities, entry.entry_id):
            if not user.permissions.check_entity(entity.entity_id, permission):
                raise Unauthorized(
                    context=call.context,
                    user_id=user_id,
                    entity_id=entity.entity_id,
                    permission=permission,
                )
