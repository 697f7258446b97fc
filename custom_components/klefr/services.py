"""Actions for one or more meters. The response says for each meter what was done.

A call is checked for all meters before anything is sent to the first.
"""

import asyncio
from collections.abc import Iterable, Mapping
from enum import StrEnum
import re
from typing import Any, Final

from homeassistant.auth.permissions.const import POLICY_CONTROL, POLICY_READ
from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import (
    ATTR_AREA_ID,
    ATTR_DEVICE_ID,
    ATTR_ENTITY_ID,
    ATTR_FLOOR_ID,
    ATTR_LABEL_ID,
)
from homeassistant.core import (
    HomeAssistant,
    ServiceCall,
    ServiceResponse,
    SupportsResponse,
    callback,
)
from homeassistant.exceptions import (
    HomeAssistantError,
    ServiceValidationError,
    Unauthorized,
    UnknownUser,
)
from homeassistant.helpers import (
    config_validation as cv,
    device_registry as dr,
    entity_registry as er,
)
from homeassistant.helpers.service import async_register_admin_service
from homeassistant.helpers.target import (
    SelectedEntities,
    TargetSelection,
    async_extract_referenced_entity_ids,
)
import voluptuous as vol

from .const import DOMAIN
from .coordinator import KlefrConfigEntry
from .meter import Counter, Setting, SettingValue
from .number import NUMBERS
from .select import SELECTS
from .wording import NOTHING

ATTR_ADDRESS: Final = "address"
ATTR_COUNT: Final = "count"
ATTR_COUNTER: Final = "counter"
ATTR_SERIAL_NUMBER: Final = "serial_number"

METER_TARGETS: Final = (ATTR_DEVICE_ID, ATTR_ENTITY_ID)
TARGETS: Final = (*METER_TARGETS, ATTR_AREA_ID, ATTR_FLOOR_ID, ATTR_LABEL_ID)

# The actions check the other fields themselves: their messages say what to do.
SCHEMA: Final = vol.Schema(
    {vol.Optional(key): vol.All(cv.ensure_list_csv, [cv.string]) for key in TARGETS},
    extra=vol.ALLOW_EXTRA,
)

HEX: Final = re.compile(r"0[xX][0-9a-fA-F]+")
NUMBER: Final = re.compile(r"[0-9]+(\.[0-9]+)?")

SELECT_BY_SETTING: Final = {Setting(description.key): description for description in SELECTS}


class Action(StrEnum):
    """The names of the actions."""

    WRITE_SETTINGS = "write_settings"
    RESET_COUNTER = "reset_counter"
    READ_REGISTERS = "read_registers"
    LOCK_CALCULATION_CODE_10 = "lock_calculation_code_10"


FIELDS: Final[Mapping[Action, tuple[str, ...]]] = {
    Action.WRITE_SETTINGS: tuple(description.key for description in (*SELECTS, *NUMBERS)),
    Action.RESET_COUNTER: (ATTR_COUNTER,),
    Action.READ_REGISTERS: (ATTR_ADDRESS, ATTR_COUNT),
    Action.LOCK_CALCULATION_CODE_10: (ATTR_SERIAL_NUMBER,),
}


class Problem(StrEnum):
    """What can be wrong with a call: the keys of the messages."""

    WRONG_TARGET = "wrong_target"
    NO_METER_IN_TARGET = "no_meter_in_target"
    SEVERAL_METERS = "several_meters"
    METER_NOT_LOADED = "meter_not_loaded"
    METER_UNAVAILABLE = "meter_unavailable"
    UNKNOWN_FIELD = "unknown_field"
    MISSING_FIELD = "missing_field"
    NO_SETTINGS = "no_settings"
    SETTING_NOT_AVAILABLE = "setting_not_available"
    VALUE_OUT_OF_RANGE = "value_out_of_range"
    CALCULATION_CODE_IRREVERSIBLE = "calculation_code_irreversible"
    CALCULATION_CODE_LOCKED = "calculation_code_locked"
    NO_REGISTERS = "no_registers"
    WRONG_CONFIRMATION = "wrong_confirmation"
    NOT_ALL_WRITTEN = "not_all_written"
    NOT_ALL_RESET = "not_all_reset"


@callback
def async_setup_services(hass: HomeAssistant) -> None:
    """Register the actions."""
    for action, handler, response in (
        (Action.WRITE_SETTINGS, _async_write_settings, SupportsResponse.OPTIONAL),
        (Action.RESET_COUNTER, _async_reset_counter, SupportsResponse.OPTIONAL),
        (Action.READ_REGISTERS, _async_read_registers, SupportsResponse.ONLY),
    ):
        hass.services.async_register(DOMAIN, action, handler, SCHEMA, response)
    async_register_admin_service(
        hass,
        DOMAIN,
        Action.LOCK_CALCULATION_CODE_10,
        _async_lock_calculation_code_10,
        SCHEMA,
        SupportsResponse.OPTIONAL,
    )


async def _async_write_settings(call: ServiceCall) -> ServiceResponse:
    entries, fields = await _async_checked_call(call, POLICY_CONTROL)
    wanted = [_wanted_settings(entry, fields) for entry in entries]

    async def write(
        entry: KlefrConfigEntry, settings: Mapping[Setting, tuple[str | int, SettingValue]]
    ) -> dict[str, Any]:
        failures = await entry.runtime_data.settings.async_write(
            {setting: value for setting, (_, value) in settings.items()}
        )
        return {
            "written": {
                setting.value: shown
                for setting, (shown, _) in settings.items()
                if setting not in failures
            },
            "not_written": {
                setting.value: {"value": settings[setting][0], **_failure(error)}
                for setting, error in failures.items()
            },
        }

    reports = await asyncio.gather(*map(write, entries, wanted, strict=True))
    if not call.return_response and any(report["not_written"] for report in reports):
        outcomes = list(zip(_names(entries), reports, strict=True))
        raise _not_all(
            Problem.NOT_ALL_WRITTEN,
            done=(
                f"{name}: {setting} {shown}"
                for name, report in outcomes
                for setting, shown in report["written"].items()
            ),
            failed=(
                f"{name}: {setting} {failure['value']} ({failure['message']})"
                for name, report in outcomes
                for setting, failure in report["not_written"].items()
            ),
        )
    return _response(call, entries, reports)


async def _async_reset_counter(call: ServiceCall) -> ServiceResponse:
    entries, fields = await _async_checked_call(call, POLICY_CONTROL)
    wanted = [_wanted_counter(entry, fields) for entry in entries]

    async def reset(entry: KlefrConfigEntry, counter: Counter) -> dict[str, Any]:
        try:
            await entry.runtime_data.readings.async_reset(counter)
        except HomeAssistantError as err:
            return {"reset": False, **_failure(err)}
        return {"reset": True}

    reports = await asyncio.gather(*map(reset, entries, wanted, strict=True))
    if not call.return_response and not all(report["reset"] for report in reports):
        outcomes = list(zip(_names(entries), reports, strict=True))
        raise _not_all(
            Problem.NOT_ALL_RESET,
            done=(name for name, report in outcomes if report["reset"]),
            failed=(
                f"{name} ({report['message']})" for name, report in outcomes if not report["reset"]
            ),
        )
    return _response(call, entries, reports)


async def _async_read_registers(call: ServiceCall) -> ServiceResponse:
    entries, fields = await _async_checked_call(call, POLICY_READ)
    wanted = [_wanted_registers(entry, fields) for entry in entries]

    async def dump(entry: KlefrConfigEntry, registers: range | None) -> Mapping[str, Any]:
        try:
            return await entry.runtime_data.readings.async_dump(registers)
        except HomeAssistantError as err:
            return _failure(err)

    reports = await asyncio.gather(*map(dump, entries, wanted, strict=True))
    return _response(call, entries, reports)


async def _async_lock_calculation_code_10(call: ServiceCall) -> ServiceResponse:
    entries, fields = await _async_checked_call(call, POLICY_CONTROL)
    if len(entries) > 1:
        raise _invalid(Problem.SEVERAL_METERS, meter=", ".join(_names(entries)))
    [entry] = entries
    serial_number = entry.runtime_data.meter.identity.serial_number
    if ATTR_SERIAL_NUMBER not in fields:
        raise _invalid(Problem.MISSING_FIELD, meter=entry.title, field=ATTR_SERIAL_NUMBER)
    confirmation = str(fields[ATTR_SERIAL_NUMBER])
    if confirmation != serial_number:
        raise _invalid(
            Problem.WRONG_CONFIRMATION,
            meter=entry.title,
            field=ATTR_SERIAL_NUMBER,
            value=confirmation,
        )
    report: dict[str, Any] = {"locked": True}
    try:
        await entry.runtime_data.settings.async_lock_calculation_code(confirmation)
    except HomeAssistantError as err:
        if not call.return_response:
            raise
        report = {"locked": False, **_failure(err)}
    return _response(call, entries, [report])


async def _async_checked_call(
    call: ServiceCall, permission: str
) -> tuple[list[KlefrConfigEntry], dict[str, Any]]:
    """Return the meters of a call and its fields, after checking that all meters are available."""
    entries = _async_targeted(call)
    await _async_check_permission(call, entries, permission)
    fields = {key: value for key, value in call.data.items() if key not in TARGETS}
    known = FIELDS[Action(call.service)]
    for field in fields:
        if field not in known:
            raise _invalid(
                Problem.UNKNOWN_FIELD,
                meter=", ".join(_names(entries)),
                field=field,
                allowed=", ".join(known),
            )
    for entry in entries:
        if entry.state is not ConfigEntryState.LOADED:
            error = entry.reason
        elif not entry.runtime_data.readings.last_update_success:
            error = str(entry.runtime_data.readings.last_exception)
        else:
            continue
        if error is None:
            raise _invalid(Problem.METER_NOT_LOADED, meter=entry.title)
        raise _invalid(Problem.METER_UNAVAILABLE, meter=entry.title, error=error)
    return entries, fields


@callback
def _async_targeted(call: ServiceCall) -> list[KlefrConfigEntry]:
    """Return the meters that are the target of a call."""
    entries = call.hass.config_entries.async_entries(DOMAIN)
    targeted: set[str] = set()
    for kind in TARGETS:
        for name in call.data.get(kind, ()):
            selected = async_extract_referenced_entity_ids(
                call.hass, TargetSelection({kind: name}), primary_entities_only=False
            )
            found = _async_owners(call.hass, entries, selected)
            missing = (
                selected.missing_devices
                | selected.missing_areas
                | selected.missing_floors
                | selected.missing_labels
            )
            # An area or a label may also hold other devices. A device or entity must be a meter's.
            if missing or (kind in METER_TARGETS and not found):
                raise _invalid(Problem.WRONG_TARGET, target=name)
            targeted |= found
    if not targeted:
        raise _invalid(Problem.NO_METER_IN_TARGET)
    return [entry for entry in entries if entry.entry_id in targeted]


@callback
def _async_owners(
    hass: HomeAssistant, entries: Iterable[KlefrConfigEntry], selected: SelectedEntities
) -> set[str]:
    """Return the entry ids of the meters that have a device or an entity in a selection."""
    entities = er.async_get(hass)
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


async def _async_check_permission(
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


def _wanted_settings(
    entry: KlefrConfigEntry, fields: Mapping[str, Any]
) -> dict[Setting, tuple[str | int, SettingValue]]:
    """Return the settings to write, each as its entity shows it and as the meter takes it."""
    if not fields:
        raise _invalid(
            Problem.NO_SETTINGS,
            meter=entry.title,
            allowed=", ".join(FIELDS[Action.WRITE_SETTINGS]),
        )
    return {
        Setting(field): _wanted_setting(entry, Setting(field), raw) for field, raw in fields.items()
    }


def _wanted_setting(
    entry: KlefrConfigEntry, setting: Setting, raw: Any
) -> tuple[str | int, SettingValue]:
    data = entry.runtime_data
    if setting not in data.meter.settings:
        raise _invalid(Problem.SETTING_NOT_AVAILABLE, meter=entry.title, field=setting)
    description = SELECT_BY_SETTING.get(setting)
    if description is None:
        amounts = data.meter.settings[setting]
        amount = _whole_number(raw)
        if amount is not None and amount in amounts:
            return amount, amount
        raise _out_of_range(entry, setting, raw, f"{min(amounts)} – {max(amounts)}")
    offered = description.offered(data.settings)
    if description.irreversible in offered.values():
        raise _invalid(Problem.CALCULATION_CODE_LOCKED, meter=entry.title, field=setting)
    for option, value in offered.items():
        # A rate may be given as a number. A value with a name may not.
        if raw == option or (isinstance(value, float) and _number(raw) == value):
            return option, value
    if any(
        raw == option
        for option, value in description.values.items()
        if value is description.irreversible
    ):
        raise _invalid(
            Problem.CALCULATION_CODE_IRREVERSIBLE, meter=entry.title, field=setting, value=raw
        )
    raise _out_of_range(entry, setting, raw, ", ".join(offered))


def _wanted_counter(entry: KlefrConfigEntry, fields: Mapping[str, Any]) -> Counter:
    if ATTR_COUNTER not in fields:
        raise _invalid(Problem.MISSING_FIELD, meter=entry.title, field=ATTR_COUNTER)
    offered = [counter for counter in Counter if counter in entry.runtime_data.meter.counters]
    for counter in offered:
        if counter == fields[ATTR_COUNTER]:
            return counter
    raise _out_of_range(entry, ATTR_COUNTER, fields[ATTR_COUNTER], ", ".join(offered))


def _wanted_registers(entry: KlefrConfigEntry, fields: Mapping[str, Any]) -> range | None:
    if not fields:
        return None
    blocks = entry.runtime_data.meter.registers
    if not blocks:
        raise _invalid(Problem.NO_REGISTERS, meter=entry.title, field=", ".join(fields))
    if ATTR_ADDRESS not in fields:
        raise _invalid(Problem.MISSING_FIELD, meter=entry.title, field=ATTR_ADDRESS)
    raw = fields[ATTR_ADDRESS]
    is_hex = isinstance(raw, str) and HEX.fullmatch(raw)
    address = int(raw, 16) if is_hex else _whole_number(raw)
    block = next((block for block in blocks if address in block), None)
    if address is None or block is None:
        allowed = ", ".join(f"0x{block[0]:04X} – 0x{block[-1]:04X}" for block in blocks)
        raise _out_of_range(entry, ATTR_ADDRESS, raw, allowed)
    raw = fields.get(ATTR_COUNT, 1)
    count = _whole_number(raw)
    most = block.stop - address
    if count is None or not 1 <= count <= most:
        raise _out_of_range(entry, ATTR_COUNT, raw, f"1 – {most}")
    return range(address, address + count)


def _number(raw: object) -> float | None:
    """Return a number, also from the text that a template made of it."""
    if isinstance(raw, str) and NUMBER.fullmatch(raw):
        return float(raw)
    return raw if isinstance(raw, (int, float)) and not isinstance(raw, bool) else None


def _whole_number(raw: object) -> int | None:
    number = _number(raw)
    return int(number) if number is not None and number.is_integer() else None


def _names(entries: Iterable[KlefrConfigEntry]) -> list[str]:
    return [entry.title for entry in entries]


def _invalid(problem: Problem, **placeholders: object) -> ServiceValidationError:
    return ServiceValidationError(
        translation_domain=DOMAIN,
        translation_key=problem,
        translation_placeholders={key: str(value) for key, value in placeholders.items()},
    )


def _out_of_range(
    entry: KlefrConfigEntry, field: str, value: object, allowed: str
) -> ServiceValidationError:
    return _invalid(
        Problem.VALUE_OUT_OF_RANGE, meter=entry.title, field=field, value=value, allowed=allowed
    )


def _not_all(problem: Problem, *, done: Iterable[str], failed: Iterable[str]) -> HomeAssistantError:
    return HomeAssistantError(
        translation_domain=DOMAIN,
        translation_key=problem,
        translation_placeholders={"done": "; ".join(done) or NOTHING, "failed": "; ".join(failed)},
    )


def _failure(error: HomeAssistantError) -> dict[str, Any]:
    return {"error": error.translation_key, "message": str(error)}


def _response(
    call: ServiceCall,
    entries: Iterable[KlefrConfigEntry],
    reports: Iterable[Mapping[str, Any]],
) -> ServiceResponse:
    """Return the reports by serial number, if the caller wants a response."""
    if not call.return_response:
        return None
    return {
        "meters": {
            str(entry.unique_id): {"name": entry.title, **report}
            for entry, report in zip(entries, reports, strict=True)
        }
    }
