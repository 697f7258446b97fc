"""Actions for one or more meters. The response says for each meter what was done.

A call is checked for all meters before anything is sent to the first.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from homeassistant.auth.permissions.const import POLICY_CONTROL, POLICY_READ
from homeassistant.config_entries import ConfigEntryState
from homeassistant.core import (
    HomeAssistant,
    ServiceCall,
    ServiceResponse,
    SupportsResponse,
    callback,
)
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers.service import async_register_admin_service
import voluptuous as vol

from .const import DOMAIN
from .coordinator import KlefrConfigEntry
from .meter import Counter, Setting
from .service_errors import Problem, invalid
from .service_targets import TARGET_FIELDS, async_check_permission, async_targeted
from .service_values import (
    FIELDS,
    Action,
    Change,
    async_changes,
    async_check_confirmation,
    async_counter,
    async_field_names,
    async_registers,
)
from .wording import async_message, quoted

# The actions check all fields themselves: their messages say what to do.
SCHEMA: Final = vol.Schema({}, extra=vol.ALLOW_EXTRA)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an action did with a meter."""

    report: Mapping[str, Any]
    """What the response says about the meter."""
    done: Sequence[str] = ()
    """What was done, as a message names it."""
    failed: Sequence[tuple[str, HomeAssistantError]] = ()
    """What was not done, as a message names it, with its error."""


@callback
def async_setup_services(hass: HomeAssistant) -> None:
    """Register the actions."""
    for action, handler, response in (
        (Action.CHANGE_SETTINGS, _async_change_settings, SupportsResponse.OPTIONAL),
        (Action.READ_REGISTERS, _async_read_registers, SupportsResponse.ONLY),
        (Action.RESET_COUNTER, _async_reset_counter, SupportsResponse.OPTIONAL),
    ):
        hass.services.async_register(DOMAIN, action, handler, SCHEMA, response)
    async_register_admin_service(
        hass,
        DOMAIN,
        Action.SET_CALCULATION_CODE_10,
        _async_set_calculation_code_10,
        SCHEMA,
        SupportsResponse.OPTIONAL,
    )


async def _async_change_settings(call: ServiceCall) -> ServiceResponse:
    entries, fields = await _async_checked_call(call, POLICY_CONTROL)
    wanted = [async_changes(call.hass, entry, fields) for entry in entries]

    async def change(entry: KlefrConfigEntry, changes: Mapping[Setting, Change]) -> Outcome:
        failures = await entry.runtime_data.settings.async_write(
            {setting: change.value for setting, change in changes.items()}
        )
        names = {setting: f"{entry.title}: {change.name}" for setting, change in changes.items()}
        return Outcome(
            report={
                "changed": {
                    setting.value: change.option
                    for setting, change in changes.items()
                    if setting not in failures
                },
                "not_changed": {
                    setting.value: {
                        "value": changes[setting].option,
                        **_async_failure(call.hass, error),
                    }
                    for setting, error in failures.items()
                },
            },
            done=[name for setting, name in names.items() if setting not in failures],
            failed=[(names[setting], error) for setting, error in failures.items()],
        )

    outcomes = await asyncio.gather(*map(change, entries, wanted, strict=True))
    _async_check_done(
        call, outcomes, nothing=Problem.NOTHING_CHANGED, partly=Problem.NOT_ALL_CHANGED
    )
    return _response(call, entries, outcomes)


async def _async_read_registers(call: ServiceCall) -> ServiceResponse:
    entries, fields = await _async_checked_call(call, POLICY_READ)
    wanted = [async_registers(call.hass, entry, fields) for entry in entries]

    async def dump(entry: KlefrConfigEntry, registers: range | None) -> Outcome:
        try:
            report = await entry.runtime_data.readings.async_dump(registers)
        except HomeAssistantError as err:
            return Outcome(report=_async_failure(call.hass, err), failed=[(entry.title, err)])
        return Outcome(report=report, done=[entry.title])

    outcomes = await asyncio.gather(*map(dump, entries, wanted, strict=True))
    _async_check_done(call, outcomes, nothing=Problem.NOTHING_READ)
    return _response(call, entries, outcomes)


async def _async_reset_counter(call: ServiceCall) -> ServiceResponse:
    entries, fields = await _async_checked_call(call, POLICY_CONTROL)
    wanted = [async_counter(call.hass, entry, fields) for entry in entries]

    async def reset(entry: KlefrConfigEntry, counter: Counter) -> Outcome:
        try:
            await entry.runtime_data.readings.async_reset(counter)
        except HomeAssistantError as err:
            failure = _async_failure(call.hass, err)
            return Outcome(report={"reset": False, **failure}, failed=[(entry.title, err)])
        return Outcome(report={"reset": True}, done=[entry.title])

    outcomes = await asyncio.gather(*map(reset, entries, wanted, strict=True))
    _async_check_done(call, outcomes, nothing=Problem.NOTHING_RESET, partly=Problem.NOT_ALL_RESET)
    return _response(call, entries, outcomes)


async def _async_set_calculation_code_10(call: ServiceCall) -> ServiceResponse:
    entries, fields = await _async_checked_call(call, POLICY_CONTROL)
    if len(entries) > 1:
        raise invalid(Problem.SEVERAL_METERS, meters=", ".join(entry.title for entry in entries))
    [entry] = entries
    async_check_confirmation(call.hass, entry, fields)
    data = entry.runtime_data
    await data.settings.async_lock_calculation_code(data.meter.identity.serial_number)
    return _response(call, entries, [Outcome(report={"set": True})])


async def _async_checked_call(
    call: ServiceCall, permission: str
) -> tuple[list[KlefrConfigEntry], dict[str, Any]]:
    """Return the meters of a call and its fields, after checking that all meters are available."""
    entries = async_targeted(call)
    await async_check_permission(call, entries, permission)
    fields = {key: value for key, value in call.data.items() if key not in TARGET_FIELDS}
    action = Action(call.service)
    for field in fields:
        if field not in FIELDS[action]:
            raise invalid(
                Problem.UNKNOWN_FIELD,
                field=quoted(field),
                allowed=async_field_names(call.hass, action, FIELDS[action]),
            )
    for entry in entries:
        _async_check_available(call.hass, entry)
    return entries, fields


@callback
def _async_check_available(hass: HomeAssistant, entry: KlefrConfigEntry) -> None:
    key = entry.error_reason_translation_key
    placeholders = entry.error_reason_translation_placeholders
    if entry.state is ConfigEntryState.LOADED:
        readings = entry.runtime_data.readings
        if readings.last_update_success:
            return
        error = readings.last_exception
        key = getattr(error, "translation_key", None)
        placeholders = getattr(error, "translation_placeholders", None)
    if key is None:
        raise invalid(Problem.METER_NOT_LOADED, meter=entry.title)
    raise invalid(
        Problem.METER_UNAVAILABLE,
        meter=entry.title,
        error=async_message(hass, key, placeholders),
    )


@callback
def _async_check_done(
    call: ServiceCall,
    outcomes: Iterable[Outcome],
    *,
    nothing: Problem,
    partly: Problem | None = None,
) -> None:
    """Raise an error if nothing was done, or if only a part was and no response can say so."""
    done = [name for outcome in outcomes for name in outcome.done]
    failed = [failure for outcome in outcomes for failure in outcome.failed]
    if not failed or (done and call.return_response):
        return
    if len(failed) == 1 and not done:
        [(_, error)] = failed
        raise error
    placeholders = {
        "failed": "; ".join(
            f"{name} ({_async_failure(call.hass, error)['message'].removesuffix('.')})"
            for name, error in failed
        )
    }
    if done:
        placeholders["done"] = "; ".join(done)
    raise HomeAssistantError(
        translation_domain=DOMAIN,
        translation_key=partly if done else nothing,
        translation_placeholders=placeholders,
    )


@callback
def _async_failure(hass: HomeAssistant, error: HomeAssistantError) -> dict[str, str]:
    """Return what a response says about an error."""
    key = str(error.translation_key)
    return {"error": key, "message": async_message(hass, key, error.translation_placeholders)}


def _response(
    call: ServiceCall, entries: Iterable[KlefrConfigEntry], outcomes: Iterable[Outcome]
) -> ServiceResponse:
    """Return the reports by serial number, if the caller wants a response."""
    if not call.return_response:
        return None
    return {
        "meters": {
            str(entry.unique_id): {"name": entry.title, **outcome.report}
            for entry, outcome in zip(entries, outcomes, strict=True)
        }
    }
