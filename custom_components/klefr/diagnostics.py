"""What a bug report needs."""

from collections.abc import Collection, Sequence
from dataclasses import asdict
from functools import partial
import re
from typing import Any

from homeassistant.components.diagnostics import async_redact_data
from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import CONF_ADDRESS, CONF_PROTOCOL
from homeassistant.core import HomeAssistant
from homeassistant.helpers.update_coordinator import UpdateFailed

from .const import CONF_SECONDARY_ADDRESS, DOMAIN
from .coordinator import KlefrConfigEntry, KlefrCoordinator
from .health import async_get_health
from .meter import Exchange, Model, Protocol, Summary, hide
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
    if (health := async_get_health(hass, entry.entry_id)) is not None:
        now = hass.loop.time()
        own = _numbers(entry) | {
            communication.secondary_address
            for communication in change.values()
            if communication.secondary_address
        }
        others = {
            number
            for each in hass.config_entries.async_entries(DOMAIN)
            for number in _numbers(each)
        }
        diagnostics |= {
            "last_hour": _summary(health.counts.last_hour(now)),
            "last_day": [
                {"hours_ago": hours_ago, **_summary(hour)}
                for hours_ago, hour in sorted(health.counts.last_day(now).items())
            ],
            # Looking for serial numbers takes a moment.
            "around_failures": await hass.async_add_executor_job(
                partial(
                    _exchanges,
                    health.counts.exchanges,
                    Protocol(entry.data[CONF_PROTOCOL]),
                    now,
                    own=own,
                    others=others - own,
                )
            ),
        }
    if entry.state is ConfigEntryState.LOADED:
        data = entry.runtime_data
        identity = data.meter.identity
        if identity.model is Model.UNKNOWN:
            diagnostics["report"] = REPORT.format(code=identity.meter_code)
        diagnostics |= {
            "identity": async_redact_data(asdict(identity), TO_REDACT),
            "communication": data.meter.diagnostics,
            "schedule": {
                "interval": data.readings.interval,
                "bus_busy": round(data.bus.load.share(), 3),
            },
            "readings": _poll(data.readings),
            "settings": _poll(data.settings),
        }
    return diagnostics


def _summary(summary: Summary) -> dict[str, Any]:
    return {
        "requests": summary.requests,
        "failed": {str(outcome): count for outcome, count in summary.failures.items()},
        "response_time_ms": _milliseconds(summary.response_time),
        "suspect_readings": summary.suspect_readings,
    }


def _exchanges(
    exchanges: Sequence[Exchange],
    protocol: Protocol,
    now: float,
    *,
    own: Collection[str],
    others: Collection[str],
) -> list[dict[str, Any]]:
    """Return requests and answers. Over a shared connection the frames are not known."""
    return [
        {
            "seconds_ago": round(now - exchange.sent_at, 3),
            "outcome": str(exchange.outcome),
            "response_time_ms": _milliseconds(exchange.response_time),
            **hide(exchange, protocol, own=own, others=others),
        }
        for exchange in exchanges
    ]


def _numbers(entry: KlefrConfigEntry) -> set[str]:
    """Return the serial numbers that an entry has: its secondary address can be another one."""
    return {
        number
        for number in (entry.unique_id, entry.data.get(CONF_ADDRESS))
        if isinstance(number, str) and re.fullmatch("[0-9A-Fa-f]{8}", number)
    }


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _poll(coordinator: KlefrCoordinator[Any]) -> dict[str, Any]:
    failure = coordinator.last_exception
    return {
        "success": coordinator.last_update_success,
        # The error's text may contain serial numbers.
        "failure": type(_reason(failure)).__name__ if failure else None,
        "values": dict(sorted(coordinator.data.items())),
    }


def _reason(failure: BaseException) -> BaseException:
    """Return what a failed poll was translated from, or the failure if it was not translated."""
    return failure.__cause__ if isinstance(failure, UpdateFailed) and failure.__cause__ else failure
