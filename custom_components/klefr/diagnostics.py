"""What belongs into a bug report."""

from dataclasses import asdict
from typing import Any

from homeassistant.components.diagnostics import async_redact_data
from homeassistant.core import HomeAssistant

from .coordinator import KlefrConfigEntry, KlefrCoordinator

TO_REDACT = {"serial_number"}


async def async_get_config_entry_diagnostics(
    hass: HomeAssistant, entry: KlefrConfigEntry
) -> dict[str, Any]:
    """Return how the meter is reached, what it is, and what it last said."""
    data = entry.runtime_data
    return {
        "data": dict(entry.data),
        "options": dict(entry.options),
        "identity": async_redact_data(asdict(data.meter.identity), TO_REDACT),
        "communication": data.meter.diagnostics,
        "readings": _poll(data.readings),
        "settings": _poll(data.settings),
    }


def _poll(coordinator: KlefrCoordinator[Any]) -> dict[str, Any]:
    interval = coordinator.update_interval
    return {
        "interval": interval and interval.total_seconds(),
        "success": coordinator.last_update_success,
        "error": coordinator.last_exception and repr(coordinator.last_exception.__cause__),
        "values": dict(coordinator.data),
    }
