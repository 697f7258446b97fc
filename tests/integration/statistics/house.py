"""Home Assistant with its recorder, and a meter, that live through hours in virtual time.

The wall clock moves along with the loop's, so Home Assistant polls and compiles statistics by
its own timers. The recorder's thread does its work in no time: whenever statistics are due, time
stands until they are compiled.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
import threading
from typing import Any, Literal, NamedTuple

from freezegun import freeze_time
from freezegun.api import FrozenDateTimeFactory
from homeassistant.components.recorder import CONF_COMMIT_INTERVAL, Recorder, get_instance
from homeassistant.components.recorder.statistics import statistics_during_period
from homeassistant.components.recorder.tasks import CommitTask
from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import Platform
from homeassistant.core import Event, HomeAssistant, callback
from homeassistant.helpers import device_registry as dr, entity_registry as er
from homeassistant.util import dt as dt_util
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.klefr.const import DOMAIN, EVENT_STATISTICS_CORRECTED
from simulator.meter import Count, Energy, VirtualMeter
from simulator.virtual_time import VirtualTimeLoop

START = datetime(2026, 3, 2, 10, tzinfo=UTC)
"""A full hour, at which a house has its first statistics."""
PERIOD = timedelta(minutes=5)
COMPILED = timedelta(seconds=10.5)
"""When Home Assistant has begun to compile a period that is over."""
NEAR = 0.01
"""KWh. The first and the last value are rounded, and so are those before and after each leap."""

ROUNDING = 0.0101
"""KWh. The Modbus registers are rounded, those of M-Bus are cut off."""

type Period = Literal["5minute", "hour"]
type RecorderSetup = Callable[..., AbstractAsyncContextManager[Recorder]]


@contextmanager
def standing_time() -> Iterator[None]:
    """Let time stand while a thread works that the loop does not know of."""
    done = threading.Event()
    asyncio.get_running_loop().run_in_executor(None, done.wait)
    try:
        yield
    finally:
        done.set()


@contextmanager
def wall_clock(start: datetime) -> Iterator[FrozenDateTimeFactory]:
    """Let the wall clock move along with the loop's."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    with freeze_time(start) as clock:
        assert isinstance(clock, FrozenDateTimeFactory)
        loop.follow_time(clock.tick)
        try:
            yield clock
        finally:
            loop.follow_time(None)


class MeterClock:
    """The meter's time, in seconds since a midnight. It stands until it is started."""

    def __init__(self) -> None:
        self._now = START.hour * 3600.0
        self._since: float | None = None

    def __call__(self) -> float:
        if self._since is None:
            return self._now
        return self._now + asyncio.get_running_loop().time() - self._since

    def start(self) -> None:
        self._since = asyncio.get_running_loop().time()

    def stop(self) -> None:
        self._now, self._since = self(), None


def energies(meter: VirtualMeter) -> Mapping[str, float]:
    """Give what a meter has in its registers, not rounded."""

    def of_kind(energy: Energy, kind: str) -> Iterator[tuple[str, float]]:
        columns = {
            "": (energy.forward.total, energy.reverse.total),
            **{
                f"_t{tariff}": (count, energy.reverse.tariffs[tariff])
                for tariff, count in energy.forward.tariffs.items()
            },
            **{
                f"_l{number}": counts
                for number, counts in enumerate(
                    zip(energy.forward.phases, energy.reverse.phases, strict=True), 1
                )
            },
        }
        for column, (forward, reverse) in columns.items():
            yield f"forward_{kind}{column}", forward
            yield f"reverse_{kind}{column}", reverse
            yield f"total_{kind}{column}", meter.combine(forward, reverse)

    return {
        **dict(of_kind(meter.active_energy, "active_energy")),
        **dict(of_kind(meter.reactive_energy, "reactive_energy")),
        "resettable_counter": meter.day_counter,
    }


class Miscounted(NamedTuple):
    """What statistics say of an energy, and what flowed."""

    counted: float
    flowed: float
    most: float
    """In five minutes."""
    hours_differ: bool
    """Whether an hour is something else than its twelve parts."""


class House:
    """What a test does there, and what it sees."""

    def __init__(
        self,
        hass: HomeAssistant,
        entry: MockConfigEntry,
        meter: VirtualMeter,
        clock: MeterClock,
    ) -> None:
        self.meter = meter
        self.meter_clock = clock
        self.corrections: list[Mapping[str, Any]] = []
        """What the integration says that it has corrected."""
        self._flowed: dict[str, float] = {}
        self._since = energies(meter)
        self.move(hass, entry)

    def move(self, hass: HomeAssistant, entry: MockConfigEntry) -> None:
        """Move to another Home Assistant with the same meter."""
        self.hass = hass
        self.entry = entry
        hass.bus.async_listen(EVENT_STATISTICS_CORRECTED, self._note)

    @callback
    def _note(self, event: Event[Any]) -> None:
        self.corrections.append(event.data)

    @contextmanager
    def leap(self) -> Iterator[None]:
        """Let the meter's energies change without a flow of energy."""
        self._flowed = dict(self.flowed)
        try:
            yield
        finally:
            self._since = energies(self.meter)

    @property
    def flowed(self) -> Mapping[str, float]:
        """What the energies have counted since the beginning, without leaps."""
        return {
            key: self._flowed.get(key, 0.0) + energy - self._since[key]
            for key, energy in energies(self.meter).items()
        }

    async def load(self) -> None:
        """Set the meter up, or let Home Assistant try it again later."""
        await self.hass.config_entries.async_setup(self.entry.entry_id)
        await self.hass.async_block_till_done()

    @property
    def is_loaded(self) -> bool:
        return self.entry.state is ConfigEntryState.LOADED

    @property
    def shows_the_truth(self) -> bool:
        """Whether every energy is what the meter has in its registers."""
        readings = self.entry.runtime_data.readings.data
        return all(
            key not in readings
            or (readings[key] is not None and abs(readings[key] - energy) < ROUNDING)
            for key, energy in energies(self.meter).items()
        )

    async def unload(self) -> None:
        await self.hass.config_entries.async_unload(self.entry.entry_id)

    async def poll(self) -> None:
        await self.entry.runtime_data.readings.async_refresh()

    @property
    def device_id(self) -> str:
        devices = dr.async_get(self.hass)
        [device] = dr.async_entries_for_config_entry(devices, self.entry.entry_id)
        return device.id

    def clear_meter(self) -> None:
        """Let the meter start from zero, as in the factory. Wants `leap`."""
        for energy in (self.meter.active_energy, self.meter.reactive_energy):
            energy.forward, energy.reverse = Count(), Count()
        self.meter.day_counter = 0

    async def until(self, minutes: float, *, compile_: bool = True) -> None:
        """Live until so many minutes after the start, with statistics or without."""
        end = START + timedelta(minutes=minutes)
        while (now := dt_util.utcnow()) < end:
            due = now.replace(minute=now.minute // 5 * 5, second=0, microsecond=0) + COMPILED
            if due <= now:
                due += PERIOD
            await asyncio.sleep((min(due, end) - now).total_seconds())
            if due <= end and compile_:
                await self.compiled()

    async def compiled(self) -> None:
        """Wait until the recorder has written all that it knows, while time stands."""
        recorder = get_instance(self.hass)
        recorder.queue_task(CommitTask())
        await self.hass.async_add_executor_job(recorder.block_till_done)

    async def sums(self, period: Period = "5minute") -> Mapping[str, Mapping[float, float]]:
        """Give the sum of each energy at the end of each period, in kWh or kvarh."""
        registry = er.async_get(self.hass)
        ids = {
            key: statistic_id
            for key in energies(self.meter)
            if (
                statistic_id := registry.async_get_entity_id(
                    Platform.SENSOR, DOMAIN, f"{self.meter.serial_number}_{key}"
                )
            )
        }
        await self.compiled()
        rows = await get_instance(self.hass).async_add_executor_job(
            lambda: statistics_during_period(
                self.hass,
                START - timedelta(days=1),
                None,
                set(ids.values()),
                period,
                {"energy": "kWh", "reactive_energy": "kvarh"},
                {"sum"},
            )
        )
        return {
            key: {row["end"]: row["sum"] or 0.0 for row in rows[statistic_id]}
            for key, statistic_id in ids.items()
            if statistic_id in rows
        }

    async def miscounted(self, most: float = 2.0, *, leaps: int = 1) -> Mapping[str, Miscounted]:
        """Let the meter stand, and give what was not counted right until then.

        No five minutes may hold more than `most`. An energy made so many leaps at most.
        """
        self.meter_clock.stop()
        # All has to be read, compiled and corrected, and the hour summed up.
        now = (dt_util.utcnow() - START) / timedelta(minutes=1)
        await self.until(now // 60 * 60 + 66 if now % 60 > 40 else now + 22)
        flowed = self.flowed
        wrong = {}
        hours = await self.sums("hour")
        for key, sums in (await self.sums()).items():
            steps = [then - before for before, then in pairwise([0.0, *sums.values()])]
            found = Miscounted(
                counted=round(list(sums.values())[-1], 4),
                flowed=round(flowed[key], 4),
                most=round(max(map(abs, steps)), 4),
                hours_differ=any(
                    abs(counted - next(sums[each] for each in reversed(sums) if each <= end)) > 1e-6
                    for end, counted in hours[key].items()
                ),
            )
            off = abs(found.counted - found.flowed) > NEAR * (1 + leaps)
            if off or found.most > most or found.hours_differ:
                wrong[key] = found
        return wrong


@asynccontextmanager
async def recorded(hass: HomeAssistant, setup: RecorderSetup, **config: Any) -> AsyncIterator[None]:
    """Give Home Assistant a recorder that keeps energies."""
    with standing_time():
        only = {"include": {"entity_globs": ["sensor.*_energy*", "sensor.*_counter"]}}
        recorder = setup(hass, {CONF_COMMIT_INTERVAL: 60, **only, **config})
        await recorder.__aenter__()
    try:
        yield
    finally:
        with standing_time(), suppress(asyncio.CancelledError):
            await recorder.__aexit__(None, None, None)
