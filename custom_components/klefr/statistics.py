"""Keep statistics true where the meter's energies jump.

Home Assistant counts what a value changes by, whatever the reason, or all of a value that fell
far: it takes that for a new meter. So once it has compiled the five minutes in which a jump was
published, their sum is corrected to what flowed. That is the change of the value less the part
that did not flow, and what Home Assistant counted instead is read from its own rows. Where it
has counted right, as it mostly does when a counter is reset, nothing is left to correct. And a
correction that was made, even just before Home Assistant was killed, is not made again.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import reduce
import json
import math
from typing import Any, Final
from zlib import crc32

from homeassistant.components.recorder import get_instance, is_entity_recorded
from homeassistant.components.recorder.history import state_changes_during_period
from homeassistant.components.recorder.statistics import statistics_during_period
from homeassistant.const import (
    ATTR_DEVICE_ID,
    ATTR_ENTITY_ID,
    ATTR_UNIT_OF_MEASUREMENT,
    Platform,
    UnitOfEnergy,
    UnitOfReactiveEnergy,
)
from homeassistant.core import HomeAssistant, callback
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers import entity_registry as er
from homeassistant.util import dt as dt_util
from homeassistant.util.unit_conversion import EnergyConverter, ReactiveEnergyConverter

from .const import DOMAIN, EVENT_STATISTICS_CORRECTED, LOGGER
from .meter import Decision, Jump, Quantity

RESOLUTION: Final = 0.01
"""KWh or kvarh that the meter resolves. Less than half of it is no error."""
MOST_PENDING: Final = 10
"""Jumps of one quantity that are kept apart."""
CLOCK_RESOLUTION: Final = 0.001  # seconds
ROWS_BEFORE: Final = timedelta(days=10)
"""How long Home Assistant keeps its rows of five minutes, unless it is told to keep more."""
HISTORY_KEPT: Final = 86400.0
"""Seconds for which Home Assistant keeps its history at least."""

UNITS: Final[Mapping[str, str]] = {
    EnergyConverter.UNIT_CLASS: UnitOfEnergy.KILO_WATT_HOUR,
    ReactiveEnergyConverter.UNIT_CLASS: UnitOfReactiveEnergy.KILO_VOLT_AMPERE_REACTIVE_HOUR,
}
"""The meter's units. All numbers here are in them."""


@dataclass(frozen=True, kw_only=True)
class _Row:
    """What Home Assistant counted by the end of five minutes."""

    start: float
    end: float
    state: float
    sum: float


@dataclass(frozen=True, kw_only=True)
class _Published:
    """A number that Home Assistant has recorded."""

    at: float
    value: float


@dataclass(frozen=True, kw_only=True)
class _Finding:
    """What the rows say about jumps that were compiled together."""

    jumps: Sequence[Jump]
    start: float
    """Of the row that they are in."""
    correction: float
    """What its sum lacks."""


def with_jumps(pending: Collection[Jump], jumps: Iterable[Jump]) -> tuple[Jump, ...]:
    """Return the jumps that statistics may have to be corrected for, with new ones among them."""
    kept: list[Jump] = []
    by_quantity: dict[Quantity, list[Jump]] = defaultdict(list)
    for jump in (*pending, *jumps):
        by_quantity[jump.quantity].append(jump)
    for of_quantity in by_quantity.values():
        recent = of_quantity[-MOST_PENDING:]
        # Without a recorder none is ever corrected. Should there be one again, it sees them as one.
        early = of_quantity[: -len(recent)]
        kept += [reduce(_joined, [*early, recent[0]]), *recent[1:]]
    return tuple(jump for jump in kept if _is_error(_excess(jump)))


def jumps_to_json(jumps: Iterable[Jump]) -> dict[str, Any]:
    """Return what to store, in values that JSON has."""
    stored = [asdict(jump) for jump in jumps]
    return {"list": stored, "checksum": _checksum(stored)}


def jumps_from_json(stored: Any) -> tuple[Jump, ...]:
    """Return what was stored. If it is damaged in any way, that is nothing."""
    try:
        if stored["checksum"] != _checksum(stored["list"]):
            return ()
        return tuple(
            Jump(
                quantity=Quantity(jump["quantity"]),
                reason=Decision(jump["reason"]),
                **{key: float(jump[key]) for key in ("before", "after", "consumed", "wall")},
            )
            for jump in stored["list"]
        )
    except AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError:
        return ()


async def async_correct_statistics(
    hass: HomeAssistant, meter_name: str, serial_number: str, pending: Collection[Jump]
) -> frozenset[Jump]:
    """Correct the sums of jumps that were compiled, and say so in the log and the logbook.

    Return the jumps of which nothing is left to do. One that was corrected is not among them
    until the rows show it, so this has to be called again after the next compilation.
    """
    registry = er.async_get(hass)
    done: set[Jump] = set()
    for quantity in dict.fromkeys(jump.quantity for jump in pending):
        jumps = [jump for jump in pending if jump.quantity is quantity]
        entity_id = registry.async_get_entity_id(
            Platform.SENSOR, DOMAIN, f"{serial_number}_{quantity}"
        )
        if entity_id is None or not is_entity_recorded(hass, entity_id):
            done.update(jumps)
            continue
        findings = await get_instance(hass).async_add_executor_job(
            _findings, hass, entity_id, jumps, dt_util.utcnow().timestamp()
        )
        for finding in findings:
            if _is_error(finding.correction):
                _async_correct(hass, meter_name, entity_id, finding)
            else:
                done.update(finding.jumps)
    return frozenset(done)


def _checksum(stored: Any) -> int:
    return crc32(json.dumps(stored, sort_keys=True).encode())


def _is_error(energy: float) -> bool:
    return abs(energy) >= RESOLUTION / 2


def _excess(jump: Jump) -> float:
    """Return by how much a value moved without a flow of energy."""
    return jump.after - jump.before - jump.consumed


def _joined(first: Jump, then: Jump) -> Jump:
    """Return two jumps as one. What flowed between them is part of what was consumed."""
    return Jump(
        quantity=first.quantity,
        before=first.before,
        after=then.after,
        consumed=then.after - first.before - _excess(first) - _excess(then),
        wall=first.wall,
        reason=max(first, then, key=lambda jump: abs(_excess(jump))).reason,
    )


type _Converter = type[EnergyConverter | ReactiveEnergyConverter]


def _converter(quantity: Quantity) -> _Converter:
    return ReactiveEnergyConverter if "reactive" in quantity else EnergyConverter


def _findings(
    hass: HomeAssistant, entity_id: str, jumps: Sequence[Jump], now: float
) -> list[_Finding]:
    """Find the rows that jumps of one quantity are in. What is in none yet has no finding."""
    converter = _converter(jumps[0].quantity)
    since = min(jump.wall for jump in jumps) - CLOCK_RESOLUTION
    rows = _rows(hass, entity_id, since)
    published = _published(hass, entity_id, converter, since, with_start=False)
    together: dict[int, list[Jump]] = {}
    times: dict[int, float] = {}
    findings = []
    for jump in jumps:
        # If Home Assistant was killed, that may be long after it was believed.
        at = next(
            (each.at for each in published if each.at >= jump.wall - CLOCK_RESOLUTION), math.inf
        )
        index = next((index for index, row in enumerate(rows) if row.end > at), None)
        if index is not None:
            together.setdefault(index, []).append(jump)
            times.setdefault(index, at)
        elif not rows and jump.wall < now - HISTORY_KEPT:
            # There are no statistics of this entity, or no longer.
            findings.append(_Finding(jumps=(jump,), start=now, correction=0.0))
    for index, group in together.items():
        row = rows[index]
        if index:
            state, counted = rows[index - 1].state, rows[index - 1].sum
            # What was published so long ago may be forgotten, and this row be a later one.
            is_counted = group[0].wall > now - HISTORY_KEPT or abs(state - group[0].before) < abs(
                state - group[0].after
            )
        else:
            # The first row counts from its first number.
            first, *_ = _published(
                hass, entity_id, converter, row.start - CLOCK_RESOLUTION, with_start=True
            )
            state, counted = first.value, 0.0
            is_counted = first.at < times[index]
        flowed = row.state - state - sum(map(_excess, group))
        correction = flowed - (row.sum - counted) if is_counted else 0.0
        findings.append(_Finding(jumps=group, start=row.start, correction=round(correction, 4)))
    return findings


def _rows(hass: HomeAssistant, entity_id: str, since: float) -> list[_Row]:
    """Return the rows since a time, and those before it that there may be."""
    found = statistics_during_period(
        hass,
        dt_util.utc_from_timestamp(since) - ROWS_BEFORE,
        None,
        {entity_id},
        "5minute",
        dict(UNITS),
        {"state", "sum"},
    )
    return [
        _Row(start=row["start"], end=row["end"], state=state, sum=total)
        for row in found.get(entity_id, ())
        if (state := row.get("state")) is not None and (total := row.get("sum")) is not None
    ]


def _published(
    hass: HomeAssistant, entity_id: str, converter: _Converter, since: float, *, with_start: bool
) -> list[_Published]:
    """Return the numbers that were recorded since a time, and the one at that time if wanted."""
    changes = state_changes_during_period(
        hass,
        dt_util.utc_from_timestamp(since),
        entity_id=entity_id,
        include_start_time_state=with_start,
    )
    published = []
    for state in changes.get(entity_id, ()):
        unit = state.attributes.get(ATTR_UNIT_OF_MEASUREMENT)
        with suppress(ValueError, HomeAssistantError):
            value = converter.convert(float(state.state), unit, UNITS[converter.UNIT_CLASS])
            published.append(_Published(at=state.last_updated_timestamp, value=value))
    return published


@callback
def _async_correct(hass: HomeAssistant, meter_name: str, entity_id: str, finding: _Finding) -> None:
    """Correct a sum, and say so in the log and, with an event, in the logbook."""
    jump = reduce(_joined, finding.jumps)
    unit = UNITS[_converter(jump.quantity).UNIT_CLASS]
    get_instance(hass).async_adjust_statistics(
        entity_id, dt_util.utc_from_timestamp(finding.start), finding.correction, unit
    )
    LOGGER.info(
        "%s: corrected the statistics of %s by %+.2f %s, because it went from %.2f to %.2f: %s",
        meter_name,
        jump.quantity,
        finding.correction,
        unit,
        jump.before,
        jump.after,
        jump.reason,
    )
    entity = er.async_get(hass).async_get(entity_id)
    hass.bus.async_fire(
        EVENT_STATISTICS_CORRECTED,
        {
            ATTR_DEVICE_ID: entity and entity.device_id,
            ATTR_ENTITY_ID: entity_id,
            "quantity": jump.quantity,
            "reason": jump.reason,
            "before": jump.before,
            "after": jump.after,
            "correction": finding.correction,
            ATTR_UNIT_OF_MEASUREMENT: unit,
        },
    )
