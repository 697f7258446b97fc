"""Poll a meter, and write to it."""

from abc import abstractmethod
import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
import logging
import math
from typing import Any, Final, Self, override

from homeassistant.config_entries import ConfigEntry
from homeassistant.const import (
    ATTR_DEVICE_ID,
    CONF_ADDRESS,
    CONF_PORT,
    EVENT_RECORDER_5MIN_STATISTICS_GENERATED,
)
from homeassistant.core import CALLBACK_TYPE, Event, HassJob, HomeAssistant, callback
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers.event import async_call_later
from homeassistant.helpers.update_coordinator import DataUpdateCoordinator, UpdateFailed
from homeassistant.util import dt as dt_util

from .const import (
    CONF_UPDATE_INTERVAL,
    DEFAULT_UPDATE_INTERVAL,
    DOMAIN,
    EVENT_FIRST_READINGS,
    LOGGER,
    STORE_DELAY,
)
from .health import MeterHealth
from .meter import (
    LOCKED_CODE,
    Bus,
    CalculationCode,
    Counter,
    Decision,
    GuardedReader,
    Jump,
    KlefrError,
    Memory,
    Meter,
    Moment,
    Quantity,
    Readings,
    Setting,
    Settings,
    SettingValue,
    Verdict,
    WrongMeterError,
)
from .meter.schedule import EVERYTHING, PACES, SETTING_PACES, Demand, Pace, Task, moment, task
from .statistics import async_correct_statistics, jumps_from_json, jumps_to_json, with_jumps
from .stores import energies_store, memory_store, written_store
from .wording import async_translation, port_name
from .wrong_meter import async_forget_wrong_meter, async_report_wrong_meter

STORED_JUMPS: Final = "jumps"
COMMIT_DELAY: Final = 10.0
"""Seconds after which statistics are in the database that Home Assistant says it has compiled."""

type KlefrConfigEntry = ConfigEntry[KlefrData]


@dataclass(frozen=True, kw_only=True)
class KlefrData:
    """What a loaded entry works with."""

    bus: Bus
    meter: Meter
    health: MeterHealth
    readings: ReadingsCoordinator
    settings: SettingsCoordinator


class KlefrCoordinator[DataT](DataUpdateCoordinator[DataT]):
    """Polls the readings or the settings of a meter."""

    config_entry: KlefrConfigEntry

    def __init__(
        self,
        hass: HomeAssistant,
        entry: KlefrConfigEntry,
        meter: Meter,
        *,
        kind: str,
    ) -> None:
        self.meter = meter
        super().__init__(
            hass,
            LOGGER,
            config_entry=entry,
            # Not the title: it has the serial number, which does not belong in a log.
            name=f"{kind} of the meter at address {entry.data[CONF_ADDRESS]}"
            f" on {port_name(entry.data[CONF_PORT])}",
            # Each meter has its own moments, which this class does not know.
            update_interval=None,
            always_update=False,
        )

    @abstractmethod
    async def _async_read(self) -> DataT:
        """Read the values. Raises KlefrError."""

    @override
    async def _async_update_data(self) -> DataT:
        with self._translated_errors(UpdateFailed):
            return await self._async_read()

    @contextmanager
    def _translated_errors(self, raised: type[HomeAssistantError]) -> Iterator[None]:
        """Raise what goes wrong with the meter as an error in the user's language."""
        try:
            yield
        except KlefrError as err:
            raise self._async_translated(err, raised) from err

    @callback
    def _async_translated[ErrorT: HomeAssistantError](
        self, error: KlefrError, raised: type[ErrorT]
    ) -> ErrorT:
        """Return what went wrong with the meter as an error in the user's language."""
        return raised(**async_translation(self.hass, self.config_entry.data, error))


@dataclass(frozen=True, kw_only=True)
class Again:
    """What has to be read again, and when at the latest, in the time of the event loop."""

    paces: frozenset[Pace]
    at: float

    def and_also(self, other: Self) -> Self:
        """Return what both have."""
        return replace(self, paces=self.paces | other.paces, at=min(self.at, other.at))


class ReadingsCoordinator(KlefrCoordinator[Readings]):
    """Polls what the meter measures, and holds energies that cannot be true.

    A poll reads what is due on a bus that other meters share. The rest keeps its value.
    """

    def __init__(
        self,
        hass: HomeAssistant,
        entry: KlefrConfigEntry,
        bus: Bus,
        meter: Meter,
        memory: Mapping[str, Any] | None,
        health: MeterHealth,
    ) -> None:
        """Take what is stored of what had to be learned about the meter."""
        super().__init__(hass, entry, meter, kind="readings")
        self._bus = bus
        self.interval: float = entry.options.get(CONF_UPDATE_INTERVAL, DEFAULT_UPDATE_INTERVAL)
        """Seconds."""
        self._place = bus.load.join(entry.entry_id)
        entry.async_on_unload(self._async_leave_bus)
        self._task = EVERYTHING
        self._again: Again | None = None
        self._settings: SettingsCoordinator | None = None
        self._unschedule: CALLBACK_TYPE | None = None
        self._polling = False
        entry.async_on_unload(self._async_stop_polling)
        self._reader = GuardedReader(meter, Memory(), self._now)
        self._store = energies_store(hass, entry.entry_id)
        self._stored: Mapping[Quantity, float] = {}
        self._next_store = 0.0
        self._health = health
        self._jumps: tuple[Jump, ...] = ()
        """Those that statistics may have to be corrected for."""
        self._correcting = asyncio.Lock()
        self._memory_store = memory_store(hass, entry.entry_id)
        self._stored_memory = memory or {}

    @override
    async def _async_setup(self) -> None:
        stored = await self._store.async_load()
        self._reader.memory = Memory.from_json(stored)
        self._jumps = jumps_from_json(stored and stored.get(STORED_JUMPS))
        self.config_entry.async_on_unload(self._async_store)
        self.config_entry.async_on_unload(
            self.hass.bus.async_listen(
                EVENT_RECORDER_5MIN_STATISTICS_GENERATED, self._async_follow_statistics
            )
        )

    @override
    async def _async_update_data(self) -> Readings:
        try:
            readings = await super()._async_update_data()
        except UpdateFailed as err:
            if isinstance(err.__cause__, WrongMeterError):
                async_report_wrong_meter(
                    self.hass,
                    self.config_entry.entry_id,
                    self.config_entry.data,
                    err.__cause__,
                )
            raise
        async_forget_wrong_meter(self.hass, self.config_entry.entry_id)
        return readings

    @callback
    def async_bring_settings(self, settings: SettingsCoordinator) -> None:
        """Read the settings too from now on, when they are due."""
        self._settings = settings

    @callback
    def async_start_polling(self) -> None:
        """Poll the meter at its moments until the entry unloads."""
        self._async_say_demand()
        if not self.config_entry.pref_disable_polling:
            self._polling = True
            self._async_schedule()

    @callback
    def _async_stop_polling(self) -> None:
        self._polling = False
        if self._unschedule is not None:
            self._unschedule()

    @callback
    def _async_schedule(self) -> None:
        """Schedule the next poll."""
        now = self.hass.loop.time()
        place = moment(self._place)
        number = math.floor(now / self.interval - place) + 1
        at = (number + place) * self.interval
        if self._again is not None and now < self._again.at:
            at = min(at, self._again.at)

        @callback
        def poll(_: datetime) -> None:
            self._task = task(self._bus.load.timetable, self.interval, number + self._place)
            self.config_entry.async_create_background_task(
                self.hass, self._async_poll(), f"poll of the {self.name}"
            )

        self._unschedule = async_call_later(
            self.hass, at - now, HassJob(poll, cancel_on_shutdown=True)
        )

    async def _async_poll(self) -> None:
        await self.async_refresh()
        if self._polling:
            self._async_schedule()

    @override
    async def _async_read(self) -> Readings:
        due, self._task = self._task, EVERYTHING
        # Entities give the quantity that they show as their context. Before there are entities,
        # everything is read, to know which phases have a supply.
        shown = self.meter.quantities if self.data is None else frozenset(self.async_contexts())
        known = self.data or {}
        paces = self._paces_due(due)
        quantities = {
            quantity for quantity in shown if PACES[quantity] in paces or quantity not in known
        }
        identified = due.identified or paces > due.paces
        verdict = await self._async_read_with_settings(quantities, paces, identified=identified)
        if self.meter.memory != self._stored_memory:
            self._stored_memory = self.meter.memory
            await self._memory_store.async_save(dict(self._stored_memory))
        self._report(verdict)
        if verdict.jumps:
            self._jumps = with_jumps(self._jumps, verdict.jumps)
            # A jump must not be believed a second time after a restart, nor be forgotten.
            await self._async_store()
        elif self._energies != self._stored and self.hass.loop.time() >= self._next_store:
            self._next_store = self.hass.loop.time() + STORE_DELAY
            self._store.async_delay_save(self._content, STORE_DELAY)
        if self._again is not None and self._again.paces <= paces:
            self._again = None
        if verdict.read_again_after is not None:
            # A surprise is looked at often enough to know within three minutes whether it stays.
            again = Again(paces=paces, at=self.hass.loop.time() + verdict.read_again_after)
            self._again = again if self._again is None else self._again.and_also(again)
        if Pace.STATE in paces and self.data is not None:
            # It depends on how long the meter takes to answer.
            self._async_say_demand()
        read = {quantity: verdict.readings[quantity] for quantity in quantities}
        return {quantity: read.get(quantity, known.get(quantity)) for quantity in shown}

    @callback
    def _paces_due(self, due: Task) -> frozenset[Pace]:
        """Return what is due now: all of it if the last poll failed."""
        if self.meter.all_at_once or not self.last_update_success:
            return EVERYTHING.paces
        if self._again is not None and self._again.at < self.hass.loop.time() + self.interval:
            return due.paces | self._again.paces
        return due.paces

    async def _async_read_with_settings(
        self, quantities: Collection[Quantity], paces: Collection[Pace], *, identified: bool
    ) -> Verdict:
        """Read quantities, and settings if they are due and the last poll succeeded."""
        coordinator = self._settings
        if coordinator is None or not self.meter.reports_settings or not self.last_update_success:
            settings = frozenset[Setting]()
        elif coordinator.last_update_success:
            settings = _settings_with(paces)
        else:
            settings = frozenset(Setting)
        if coordinator is None or not settings:
            return await self._reader.read(quantities, identified=identified)
        before = coordinator.data
        try:
            verdict = await self._reader.read(quantities, settings=settings)
        except KlefrError as err:
            # Controls may be unavailable where all else can be read.
            verdict = await self._reader.read(quantities)
            coordinator.async_fail(err)
        else:
            # Settings that were written meanwhile were read afterwards.
            if coordinator.data is before:
                coordinator.async_take(self._reader.settings)
        return verdict

    @callback
    def _async_say_demand(self) -> None:
        """Say what this meter demands of the bus."""
        shown = frozenset(self.async_contexts())

        def seconds(task: Task) -> float:
            return self._reader.line_time(
                {quantity for quantity in shown if PACES[quantity] in task.paces},
                settings=_settings_with(task.paces),
                identified=task.identified,
            )

        self._bus.load.demands[self.config_entry.entry_id] = Demand(
            interval=self.interval, seconds=cache(seconds)
        )

    @callback
    def _async_leave_bus(self) -> None:
        self._bus.load.leave(self.config_entry.entry_id)

    @callback
    def _report(self, verdict: Verdict) -> None:
        if verdict.suspect:
            self._health.counts.add_suspect(self.hass.loop.time())
        for jump in verdict.jumps:
            # A new calculation code and a reset were wanted.
            expected = jump.reason is not Decision.PERSISTENT
            LOGGER.log(
                logging.INFO if expected else logging.WARNING,
                "%s: %s went from %s to %s: %s",
                self.name,
                jump.quantity,
                jump.before,
                jump.after,
                jump.reason,
            )
        if first := {
            str(jump.quantity): jump.after
            for jump in verdict.jumps
            if jump.reason is Decision.REPLACED
        }:
            self._report_first_readings(first)

    def _report_first_readings(self, readings: Mapping[str, float]) -> None:
        """Say in the logbook with which readings a meter began that replaced another."""
        serial_number = self.meter.identity.serial_number
        device = dr.async_get(self.hass).async_get_device({(DOMAIN, serial_number)})
        self.hass.bus.async_fire(
            EVENT_FIRST_READINGS,
            {
                ATTR_DEVICE_ID: device and device.id,
                "meter": serial_number,
                "readings": readings,
            },
        )

    @property
    def _energies(self) -> Mapping[Quantity, float]:
        """The energies that were believed last."""
        accepted = self._reader.memory.accepted
        return {quantity: energy.value for quantity, energy in accepted.items()}

    @callback
    def _content(self) -> dict[str, Any]:
        self._stored = self._energies
        return {**self._reader.memory.to_json(), STORED_JUMPS: jumps_to_json(self._jumps)}

    async def _async_store(self) -> None:
        await self._store.async_save(self._content())

    @callback
    def _async_follow_statistics(self, _: Event) -> None:
        if self._jumps and not self._correcting.locked():
            self.config_entry.async_create_background_task(
                self.hass, self._async_correct_statistics(), f"statistics of the {self.name}"
            )

    async def _async_correct_statistics(self) -> None:
        async with self._correcting:
            await asyncio.sleep(COMMIT_DELAY)
            serial_number = self.meter.identity.serial_number
            done = await async_correct_statistics(self.hass, self.name, serial_number, self._jumps)
            if done:
                self._jumps = tuple(jump for jump in self._jumps if jump not in done)
                await self._async_store()

    @callback
    def _now(self) -> Moment:
        return Moment(monotonic=self.hass.loop.time(), wall=dt_util.utcnow().timestamp())

    @callback
    def async_assume_code(self, code: CalculationCode | None) -> None:
        """Judge energies by this calculation code."""
        self._reader.assume_code(code)

    async def async_reset(self, counter: Counter) -> None:
        """Reset a counter and show its new value. Raises HomeAssistantError."""
        try:
            with self._translated_errors(HomeAssistantError):
                await self.meter.reset(counter)
            if counter is Counter.RESETTABLE:
                self._reader.expect_reset()
        finally:
            await self.async_refresh()

    async def async_dump(self, registers: range | None) -> Mapping[str, Any]:
        """Return registers, or everything, as `Meter.dump` does. Raises HomeAssistantError."""
        with self._translated_errors(HomeAssistantError):
            return await self.meter.dump(registers)


def _settings_with(paces: Collection[Pace]) -> frozenset[Setting]:
    return frozenset(setting for setting, pace in SETTING_PACES.items() if pace in paces)


class SettingsCoordinator(KlefrCoordinator[Settings]):
    """Has the settings of a meter, which are read with its readings when they are due.

    A meter that does not report its settings is assumed to have those last written.
    """

    def __init__(
        self,
        hass: HomeAssistant,
        entry: KlefrConfigEntry,
        meter: Meter,
        readings: ReadingsCoordinator,
    ) -> None:
        super().__init__(hass, entry, meter, kind="settings")
        self._readings = readings
        self._store = written_store(hass, entry.entry_id)
        self._written: dict[Setting, SettingValue] = {}
        self.reachable = True
        """Whether the last poll of the readings succeeded."""
        entry.async_on_unload(readings.async_add_listener(self._async_follow_readings))
        readings.async_bring_settings(self)

    @override
    async def _async_setup(self) -> None:
        if self.meter.reports_settings:
            return
        stored = await self._store.async_load() or {}
        # The irreversible code is not among the settings that can be written.
        possible = {**self.meter.settings, Setting.CALCULATION_CODE: CalculationCode}
        self._written = {
            setting: value
            for setting, values in possible.items()
            for value in values
            if stored.get(setting) == value
        }

    @override
    async def _async_read(self) -> Settings:
        if not self.reachable:
            return self.data
        settings = {**await self.meter.read_settings(), **self._written}
        self._async_say_code(settings)
        return settings

    @callback
    def _async_say_code(self, settings: Settings) -> None:
        """Let energies be judged by the calculation code among the settings."""
        code = settings[Setting.CALCULATION_CODE]
        self._readings.async_assume_code(code if isinstance(code, CalculationCode) else None)

    @callback
    def async_take(self, settings: Settings) -> None:
        """Take settings that were read with the readings."""
        settings = {**self.data, **settings}
        self._async_say_code(settings)
        if settings != self.data or not self.last_update_success:
            self.async_set_updated_data(settings)

    @callback
    def async_fail(self, error: KlefrError) -> None:
        """Take note that the settings could not be read with the readings."""
        self.async_set_update_error(self._async_translated(error, UpdateFailed))

    async def async_write(
        self, values: Mapping[Setting, SettingValue]
    ) -> Mapping[Setting, HomeAssistantError]:
        """Write settings, one after the other, and return the errors of those that failed.

        Then read what the meter holds: after an error that may be the old or the new value.
        """
        failures: dict[Setting, KlefrError] = {}
        try:
            for setting, value in values.items():
                try:
                    async with self._remembering(setting, value):
                        await self.meter.write(setting, value)
                except KlefrError as err:
                    failures[setting] = err
        finally:
            await self.async_refresh()
        return {
            setting: self._async_translated(err, HomeAssistantError)
            for setting, err in failures.items()
        }

    async def async_lock_calculation_code(self, serial_number: str) -> None:
        """Write calculation code 10, which is irreversible. Raises HomeAssistantError."""
        try:
            with self._translated_errors(HomeAssistantError):
                async with self._remembering(Setting.CALCULATION_CODE, LOCKED_CODE):
                    await self.meter.lock_calculation_code(serial_number)
        finally:
            await self.async_refresh()

    @asynccontextmanager
    async def _remembering(self, setting: Setting, value: SettingValue) -> AsyncIterator[None]:
        """Remember a value that is written now, if the meter does not report it.

        If Home Assistant is killed meanwhile, or stops waiting, it does not know which value the
        meter has: the setting is then unknown. After an error it has the old value.
        """
        if self.meter.reports_settings:
            yield
            return
        before = self._written.pop(setting, None)
        await self._async_store()
        try:
            yield
        except KlefrError:
            if before is not None:
                self._written[setting] = before
                await self._async_store()
            raise
        self._written[setting] = value
        await self._async_store()

    async def _async_store(self) -> None:
        await self._store.async_save(dict(self._written.items()))

    @callback
    def _async_follow_readings(self) -> None:
        if self.reachable is self._readings.last_update_success:
            return
        self.reachable = self._readings.last_update_success
        self.async_update_listeners()
        if self.reachable:
            # Meanwhile its settings may have been changed, or its power was off.
            self.config_entry.async_create_background_task(
                self.hass, self.async_refresh(), f"{self.name} after recovery"
            )
