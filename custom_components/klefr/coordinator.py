"""Poll a meter."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
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

from .bus import async_port_users
from .const import CONF_UPDATE_INTERVAL, DEFAULT_UPDATE_INTERVAL, DOMAIN, LOGGER, SETTINGS_INTERVAL
from .meter import (
    KlefrError,
    Meter,
    PortInUseError,
    Readings,
    Setting,
    Settings,
    SettingValue,
    WrongMeterError,
)

type KlefrConfigEntry = ConfigEntry[KlefrData]


@dataclass(frozen=True, kw_only=True)
class KlefrData:
    """What a loaded entry works with."""

    meter: Meter
    readings: ReadingsCoordinator
    settings: SettingsCoordinator


def error_translation(
    hass: HomeAssistant, entry_data: Mapping[str, Any], err: KlefrError
) -> dict[str, Any]:
    """Give a Home Assistant error the words for what went wrong with the meter."""
    port = str(entry_data.get(CONF_PORT, ""))
    users = async_port_users(hass, port) if isinstance(err, PortInUseError) else []
    return {
        "translation_domain": DOMAIN,
        "translation_key": f"{err.key}_by" if users else err.key,
        "translation_placeholders": {
            "port": port,
            "address": str(entry_data.get(CONF_ADDRESS, "")),
            "error": ", ".join(users) or str(err),
        },
    }


@contextmanager
def translated_errors(
    hass: HomeAssistant, entry: KlefrConfigEntry, raised: type[HomeAssistantError]
) -> Iterator[None]:
    """Raise what goes wrong with the meter as an error that the user can read.

    When another meter answers, the entry is loaded again, which ends with that error
    on its card instead of going on with the wrong meter.
    """
    try:
        yield
    except KlefrError as err:
        if isinstance(err, WrongMeterError) and entry.state is ConfigEntryState.LOADED:
            hass.config_entries.async_schedule_reload(entry.entry_id)
        raise raised(**error_translation(hass, entry.data, err)) from err


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
        self._written = {
            setting: value
            for setting, values in self.meter.settings.items()
            for value in values
            if stored.get(setting) == value
        }

    @override
    async def _async_read(self) -> Settings:
        if not self.reachable:
            return self.data
        return {**await self.meter.read_settings(), **self._written}

    async def async_write(self, setting: Setting, value: SettingValue) -> None:
        """Set the meter and show what it then holds, which after an error may be anything."""
        try:
            with translated_errors(self.hass, self.config_entry, HomeAssistantError):
                await self.meter.write(setting, value)
            if not self.meter.tells_settings:
                self._written[setting] = value
                await self._store.async_save(dict(self._written.items()))
        finally:
            await self.async_refresh()

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
