"""Poll a meter."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, override

from homeassistant.config_entries import ConfigEntry, ConfigEntryState
from homeassistant.const import CONF_ADDRESS, CONF_PORT
from homeassistant.core import HomeAssistant, callback
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers.storage import Store
from homeassistant.helpers.update_coordinator import DataUpdateCoordinator, UpdateFailed

from .const import CONF_UPDATE_INTERVAL, DEFAULT_UPDATE_INTERVAL, DOMAIN, LOGGER, SETTINGS_INTERVAL
from .meter import (
    LOCKED_CODE,
    AddressTakenError,
    CalculationCode,
    Communication,
    Counter,
    KlefrError,
    Meter,
    MeterLostError,
    NotMovedError,
    PortInUseError,
    Readings,
    Setting,
    Settings,
    SettingValue,
    WrongMeterError,
)
from .shared_buses import async_port_users

NOTHING = "–"

type KlefrConfigEntry = ConfigEntry[KlefrData]


@dataclass(frozen=True, kw_only=True)
class KlefrData:
    """What a loaded entry works with."""

    meter: Meter
    readings: ReadingsCoordinator
    settings: SettingsCoordinator


def listed(names: Iterable[str]) -> str:
    """Name things in a message."""
    return ", ".join(names) or NOTHING


def place_name(place: Communication) -> str:
    """Name how a meter communicates the way the field does: addresses, and 9600 Bd, 8E1."""
    addresses = [str(place.address), *filter(None, [place.secondary_address])]
    parity = place.parity[0].upper()
    return f"{' / '.join(addresses)} ({place.baud_rate} Bd, 8{parity}1)"


def error_translation(
    hass: HomeAssistant, entry_data: Mapping[str, Any], err: KlefrError
) -> dict[str, Any]:
    """Give a Home Assistant error the words for what went wrong with the meter."""
    port = str(entry_data.get(CONF_PORT, ""))
    placeholders = {
        "port": port,
        "address": str(entry_data.get(CONF_ADDRESS, "")),
        "error": str(err),
    }
    users: list[str] = []
    match err:
        case PortInUseError():
            users = async_port_users(hass, port)
        case AddressTakenError():
            placeholders["address"] = str(err.address)
            users = [err.holder] if err.holder else []
        case NotMovedError():
            placeholders["error"] = str(err.__cause__ or NOTHING)
            placeholders["wanted"] = place_name(err.wanted)
            placeholders["found"] = place_name(err.found)
        case MeterLostError():
            placeholders["tried"] = listed(place_name(place) for place in err.tried)
            placeholders["untried"] = listed(place_name(place) for place in err.untried)
    if users:
        placeholders["error"] = listed(users)
    return {
        "translation_domain": DOMAIN,
        "translation_key": f"{err.key}_by" if users else err.key,
        "translation_placeholders": placeholders,
    }


@callback
def async_translate[ErrorT: HomeAssistantError](
    hass: HomeAssistant, entry: KlefrConfigEntry, err: KlefrError, raised: type[ErrorT]
) -> ErrorT:
    """Return what went wrong with the meter as an error that the user can read.

    When another meter answers, the entry is loaded again, which ends with that error
    on its card instead of going on with the wrong meter.
    """
    if isinstance(err, WrongMeterError) and entry.state is ConfigEntryState.LOADED:
        hass.config_entries.async_schedule_reload(entry.entry_id)
    return raised(**error_translation(hass, entry.data, err))


@contextmanager
def translated_errors(
    hass: HomeAssistant, entry: KlefrConfigEntry, raised: type[HomeAssistantError]
) -> Iterator[None]:
    """Raise what goes wrong with the meter as an error that the user can read."""
    try:
        yield
    except KlefrError as err:
        raise async_translate(hass, entry, err, raised) from err


class KlefrCoordinator[DataT](DataUpdateCoordinator[DataT]):
    """Polls one kind of a meter's values."""

    config_entry: KlefrConfigEntry

    def __init__(
        self,
        hass: HomeAssistant,
        entry: KlefrConfigEntry,
        meter: Meter,
        *,
        kind: str,
        interval: timedelta | None,
    ) -> None:
        self.meter = meter
        super().__init__(
            hass,
            LOGGER,
            config_entry=entry,
            # Not the title: it has the serial number, which does not belong in a log.
            name=f"{kind} of the meter at address {entry.data[CONF_ADDRESS]}"
            f" on {entry.data[CONF_PORT]}",
            update_interval=interval,
            always_update=False,
        )

    @abstractmethod
    async def _async_read(self) -> DataT:
        """Read the values."""

    @override
    async def _async_update_data(self) -> DataT:
        with translated_errors(self.hass, self.config_entry, UpdateFailed):
            return await self._async_read()


class ReadingsCoordinator(KlefrCoordinator[Readings]):
    """Polls what the meter measures."""

    def __init__(self, hass: HomeAssistant, entry: KlefrConfigEntry, meter: Meter) -> None:
        super().__init__(
            hass,
            entry,
            meter,
            kind="readings",
            interval=timedelta(
                seconds=entry.options.get(CONF_UPDATE_INTERVAL, DEFAULT_UPDATE_INTERVAL)
            ),
        )

    @override
    async def _async_read(self) -> Readings:
        # Entities name the quantity they show as their context. Before there are any,
        # everything is read, to know which phases have a supply.
        if self.data is None:
            return await self.meter.read(self.meter.quantities)
        return await self.meter.read(set(self.async_contexts()))

    async def async_reset(self, counter: Counter) -> None:
        """Let a counter start from zero and show what it then holds."""
        try:
            with translated_errors(self.hass, self.config_entry, HomeAssistantError):
                await self.meter.reset(counter)
        finally:
            await self.async_refresh()


def written_store(hass: HomeAssistant, entry: KlefrConfigEntry) -> Store[dict[str, Any]]:
    """Return where is kept what was written to a meter that does not tell its settings."""
    return Store(hass, 1, f"{DOMAIN}.{entry.entry_id}")


class SettingsCoordinator(KlefrCoordinator[Settings]):
    """Polls what the meter is set to, as long as its readings can be polled.

    A meter that does not tell is assumed to be set to what was written last.
    """

    def __init__(
        self,
        hass: HomeAssistant,
        entry: KlefrConfigEntry,
        meter: Meter,
        readings: ReadingsCoordinator,
    ) -> None:
        super().__init__(
            hass,
            entry,
            meter,
            kind="settings",
            interval=SETTINGS_INTERVAL if meter.tells_settings else None,
        )
        self._readings = readings
        self._store = written_store(hass, entry)
        self._written: dict[Setting, SettingValue] = {}
        self.reachable = True
        entry.async_on_unload(readings.async_add_listener(self._async_follow_readings))

    @override
    async def _async_setup(self) -> None:
        if self.meter.tells_settings:
            return
        stored = await self._store.async_load() or {}
        # The code that is not among those to be written is kept once it is locked.
        known = {**self.meter.settings, Setting.CALCULATION_CODE: CalculationCode}
        self._written = {
            setting: value
            for setting, values in known.items()
            for value in values
            if stored.get(setting) == value
        }

    @override
    async def _async_read(self) -> Settings:
        if not self.reachable:
            return self.data
        return {**await self.meter.read_settings(), **self._written}

    async def async_write(
        self, values: Mapping[Setting, SettingValue]
    ) -> Mapping[Setting, HomeAssistantError]:
        """Set the meter, one value after the other, and give the errors of those that failed.

        Then it is shown what the meter holds, which after an error may be anything.
        """
        failures: dict[Setting, KlefrError] = {}
        try:
            for setting, value in values.items():
                try:
                    await self.meter.write(setting, value)
                except KlefrError as err:
                    failures[setting] = err
                else:
                    await self._async_keep(setting, value)
        finally:
            await self.async_refresh()
        # Not before: it may unload the entry.
        return {
            setting: async_translate(self.hass, self.config_entry, err, HomeAssistantError)
            for setting, err in failures.items()
        }

    async def async_lock_calculation_code(self, serial_number: str) -> None:
        """Set calculation code 10, which can never be undone, and show what the meter holds."""
        try:
            with translated_errors(self.hass, self.config_entry, HomeAssistantError):
                await self.meter.lock_calculation_code(serial_number)
            await self._async_keep(Setting.CALCULATION_CODE, LOCKED_CODE)
        finally:
            await self.async_refresh()

    async def _async_keep(self, setting: Setting, value: SettingValue) -> None:
        if not self.meter.tells_settings:
            self._written[setting] = value
            await self._store.async_save(dict(self._written.items()))

    @callback
    def _async_follow_readings(self) -> None:
        if self.reachable is self._readings.last_update_success:
            return
        self.reachable = self._readings.last_update_success
        self.async_update_listeners()
        if self.reachable:
            # It may have been set otherwise meanwhile, or restarted.
            self.config_entry.async_create_background_task(
                self.hass, self.async_refresh(), f"{self.name} after recovery"
            )
