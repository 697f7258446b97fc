"""What Home Assistant keeps about a meter beside its entry: a file for each kind of memory."""

from pathlib import Path
from typing import Any, Final, override

from homeassistant.const import CONF_ADDRESS
from homeassistant.core import HomeAssistant
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers.storage import Store
from homeassistant.util import dt as dt_util
import voluptuous as vol

from .const import CONF_BAUD_RATE, CONF_PARITY, CONF_SECONDARY_ADDRESS, DOMAIN, LOGGER
from .meter import (
    MODBUS_ADDRESSES,
    PRIMARY_ADDRESSES,
    BaudRate,
    Communication,
    Parity,
    is_secondary_address,
)

STORED_CURRENT: Final = "current"
STORED_WANTED: Final = "wanted"
STORED_BEFORE: Final = "before"
STORED_AFTER: Final = "after"
STORED_DATA: Final = "data"
STORED_TITLE: Final = "title"


def _communication(stored: Any) -> Communication:
    return Communication(**COMMUNICATION(stored))


def _secondary_address(stored: Any) -> str | None:
    if stored is None or (isinstance(stored, str) and is_secondary_address(stored)):
        return stored
    raise vol.Invalid("This is not a secondary address")


COMMUNICATION: Final = vol.Schema(
    {
        vol.Required(CONF_ADDRESS): vol.All(int, vol.In({*MODBUS_ADDRESSES, *PRIMARY_ADDRESSES})),
        vol.Required(CONF_SECONDARY_ADDRESS): _secondary_address,
        vol.Required(CONF_BAUD_RATE): vol.Coerce(BaudRate),
        vol.Required(CONF_PARITY): vol.Coerce(Parity),
    }
)
CHANGE: Final = vol.Schema(
    {vol.Required(STORED_CURRENT): _communication, vol.Required(STORED_WANTED): _communication}
)
REPLACEMENT: Final = vol.Schema(
    {
        vol.Required(STORED_BEFORE): str,
        vol.Required(STORED_AFTER): str,
        vol.Required(STORED_DATA): dict,
        vol.Required(STORED_TITLE): str,
    }
)
ANYTHING: Final = vol.Schema(dict)


class MeterStore(Store[dict[str, Any]]):
    """A file about one meter. If it is damaged, it is set aside and counts as none."""

    def __init__(
        self, hass: HomeAssistant, entry_id: str, suffix: str = "", schema: vol.Schema = ANYTHING
    ) -> None:
        """Name the file by the meter's entry and what it is about."""
        super().__init__(hass, 1, f"{DOMAIN}.{entry_id}{suffix}")
        self._schema = schema

    @override
    async def async_load(self) -> dict[str, Any] | None:
        """Return what the file holds, as its schema has it."""
        try:
            stored = await super().async_load()
            return None if stored is None else self._schema(stored)
        except (
            HomeAssistantError,
            LookupError,
            NotImplementedError,
            TypeError,
            vol.Invalid,
        ) as err:
            await self._async_set_aside(err)
            return None

    async def _async_set_aside(self, err: Exception) -> None:
        """Rename the file, as Home Assistant does with one that is no JSON."""
        aside = f"{self.path}.corrupt.{dt_util.utcnow().isoformat()}"
        LOGGER.warning("%s is damaged (%s) and was renamed to %s", self.path, err, aside)
        await self.hass.async_add_executor_job(_rename, self.path, aside)


def _rename(path: str, aside: str) -> None:
    try:
        Path(path).rename(aside)
    except OSError as err:
        LOGGER.warning("%s cannot be renamed: %s", path, err)


def change_store(hass: HomeAssistant, entry_id: str) -> MeterStore:
    """Return the store of a change that was begun and may not have been finished.

    It holds how the meter communicated before, and how it shall communicate.
    """
    return MeterStore(hass, entry_id, ".change", CHANGE)


def energies_store(hass: HomeAssistant, entry_id: str) -> MeterStore:
    """Return the store of the energies that were believed last."""
    return MeterStore(hass, entry_id, ".energies")


def memory_store(hass: HomeAssistant, entry_id: str) -> MeterStore:
    """Return the store of what had to be learned about a meter."""
    return MeterStore(hass, entry_id, ".memory")


def replacement_store(hass: HomeAssistant, entry_id: str) -> MeterStore:
    """Return the store of a replacement of which not everything may have been saved.

    It holds the serial numbers of the old and the new meter, and the new data and title of the
    entry.
    """
    return MeterStore(hass, entry_id, ".replacement", REPLACEMENT)


def written_store(hass: HomeAssistant, entry_id: str) -> MeterStore:
    """Return the store of the settings written to a meter that does not report its settings."""
    return MeterStore(hass, entry_id)


async def async_remove_stores(hass: HomeAssistant, entry_id: str) -> None:
    """Remove all that is kept about a meter."""
    for store in (
        change_store,
        energies_store,
        memory_store,
        replacement_store,
        written_store,
    ):
        await store(hass, entry_id).async_remove()
