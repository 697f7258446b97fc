"""Hand out the buses that config entries and config flows share.

A port can be opened once only, so all who want something on it hold the same bus.
"""

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from homeassistant.config_entries import ConfigEntry
from homeassistant.const import CONF_PORT
from homeassistant.core import HomeAssistant, callback
from homeassistant.util.hass_dict import HassKey

from .const import CONF_BAUD_RATE, CONF_PARITY, DOMAIN
from .meter import BaudRate, LineSettingsError, ModbusBus, Parity, SerialLink

DATA_BUSES: HassKey[dict[str, _SharedBus]] = HassKey(f"{DOMAIN}_buses")


@dataclass(kw_only=True)
class _SharedBus:
    """A bus and how many hold it."""

    bus: ModbusBus
    holders: int = 0


def link_from(data: Mapping[str, Any]) -> SerialLink:
    """Read the link from the data of a config entry."""
    return SerialLink(
        port=data[CONF_PORT],
        baud_rate=BaudRate(data[CONF_BAUD_RATE]),
        parity=Parity(data[CONF_PARITY]),
    )


@callback
def _async_acquire(
    hass: HomeAssistant, link: SerialLink
) -> tuple[ModbusBus, Callable[[], Coroutine[Any, Any, None]]]:
    """Take a hold on the bus of this link, and tell how to give it up.

    Raises LineSettingsError if others hold the port with other line settings.
    """
    buses = hass.data.setdefault(DATA_BUSES, {})
    shared = buses.get(link.port)
    if shared is None or (not shared.holders and shared.bus.link != link):
        shared = buses[link.port] = _SharedBus(bus=ModbusBus(link))
    elif shared.bus.link != link:
        raise LineSettingsError(
            f"{link.port} is in use with {shared.bus.link.baud_rate} baud"
            f" and parity {shared.bus.link.parity}"
        )
    shared.holders += 1

    async def release() -> None:
        shared.holders -= 1
        if not shared.holders:
            await shared.bus.close()

    return shared.bus, release


@callback
def async_get_bus(hass: HomeAssistant, entry: ConfigEntry) -> ModbusBus:
    """Return the entry's bus, held until the entry unloads.

    Raises LineSettingsError if others hold the port with other line settings.
    """
    bus, release = _async_acquire(hass, link_from(entry.data))
    entry.async_on_unload(release)
    return bus


@asynccontextmanager
async def async_borrow_bus(hass: HomeAssistant, link: SerialLink) -> AsyncIterator[ModbusBus]:
    """Hold the bus of a link for a while, as a config flow does.

    Raises LineSettingsError if others hold the port with other line settings.
    """
    bus, release = _async_acquire(hass, link)
    try:
        yield bus
    finally:
        await release()
