"""The days that virtual meters live through before the demo, as long-term statistics."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import batched

from simulator.meter import VirtualMeter

from .clock import Clock

PER_HOUR = 12
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)

type Row = dict[str, str | float]


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What a meter showed: energies in kWh, power in kW."""

    at: datetime
    forward: float
    reverse: float
    power: float


def live_through(meters: Sequence[VirtualMeter], clock: Clock) -> list[list[Moment]]:
    """Let meters live up to now, and note for each what it showed every few minutes."""
    moments: list[list[Moment]] = [[] for _ in meters]
    at = clock.start
    while at < datetime.now(UTC):
        clock.stopped_at = at
        for meter, shown in zip(meters, moments, strict=True):
            shown.append(
                Moment(
                    at=at,
                    forward=meter.forward_active_energy,
                    reverse=meter.reverse_active_energy,
                    power=meter.power,
                )
            )
        at += timedelta(hours=1) / PER_HOUR
    clock.stopped_at = None
    return moments


def energy_rows(
    readings: Iterable[tuple[datetime, float]], now: float, price: float = 1
) -> list[Row]:
    """Make hourly sums of what a meter showed at the full hours before it shows this.

    With a price for each kWh they are the sums of what was paid.
    """
    times, states = zip(*readings, strict=True)
    # A row has what the meter showed at the end of its hour. A bar is the difference to the
    # row before and, where there is none, to zero: the row long ago keeps the first hour from
    # showing the whole history as negative.
    starts = [LONG_AGO, *times]
    return [
        # Home Assistant's own sum begins at zero with the reading of now, so this ends there.
        {"start": start.isoformat(), "state": state * price, "sum": (state - now) * price}
        for start, state in zip(starts, states, strict=False)
    ]


def power_rows(moments: list[Moment]) -> list[Row]:
    """Make the hourly means of power."""
    rows: list[Row] = []
    for hour in batched(moments, PER_HOUR, strict=False):
        powers = [moment.power for moment in hour]
        if len(powers) == PER_HOUR:
            mean = sum(powers) / PER_HOUR
            start = hour[0].at.isoformat()
            rows.append({"start": start, "mean": mean, "min": min(powers), "max": max(powers)})
    return rows
