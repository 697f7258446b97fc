"""What a bug report needs."""

from dataclasses import asdict
from typing import Any

from homeassistant.components.diagnostics import async_redact_data
from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import CONF_ADDRESS
from homeassistant.core import HomeAssistant
from homeassistant.helpers.update_coordinator import UpdateFailed

from .const import CONF_SECONDARY_ADDRESS
from .coordinator import KlefrConfigEntry, KlefrCoordinator
from .meter import Model
from .stores import change_store

TO_REDACT = {"serial_number"}

REPORT = (
    "The meter code {code} is not known yet. Report it: open an issue with this file and with"
    " what is printed on the meter."
)


async def async_get_config_entry_diagnostics(
    hass: HomeAssistant, entry: KlefrConfigEntry
) -> dict[str, Any]:
    """Return how the meter is reached, how it identifies itself, and what was last read."""
    # A secondary address is also the serial number.
    secondary = isinstance(entry.data[CONF_ADDRESS], str)
    change = await change_store(hass, entry.entry_id).async_load() or {}
    diagnostics = {
        "data": async_redact_data(dict(entry.data), {CONF_ADDRESS} if secondary else ()),
        "options": dict(entry.options),
        "change": {
            stored: async_redact_data(asdict(communication), {CONF_SECONDARY_ADDRESS})
            for stored, communication in change.items()
        },
        "state": entry.state.value,
        "reason": entry.error_reason_translation_key,
    }
    if entry.state is ConfigEntryState.LOADED:
        data = entry.runtime_data
        identity = data.meter.identity
        if identity.model is Model.UNKNOWN:
            diagnostics["report"] = REPORT.format(code=identity.meter_code)
        diagnostics |= {
            "identity": async_redact_data(asdict(identity), TO_REDACT),
            "communication": data.meter.diagnostics,
            "readings": _poll(data.readings),
            "settings": _poll(data.settings),
        }
    return diagnostics


def _poll(coordinator: KlefrCoordinator[Any]) -> dict[str, Any]:
    interval = coordinator.update_interval
    failure = coordinator.last_exception
    return {
        "interval": interval.total_seconds() if interval else None,
        "success": coordinator.last_update_success,
        # The error's text may contain serial numbers.
        "failure": type(_reason(failure)).__name__ if failure else None,
        "values": dict(sorted(coordinator.data.items())),
    }


def _reason(failure: BaseException) -> BaseException:
    """Return what a failed poll was translated from, or the failure if it was not translated."""
    return failure.__cause__ if isinstance(failure, UpdateFailed) and failure.__cause__ else failure
