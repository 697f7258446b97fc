"""Hand out the buses that config entries and config flows share.

A port can be opened once only, so all who want something on it hold the same bus.
"""

from collections.abc import Mapping
from typing import Any

from homeassistant.config_entries import ConfigEntry
from homeassistant.const import CONF_PORT
from homeassistant.core import HomeAssistant, callback
from homeassistant.util.hass_dict import HassKey

from .const import CONF_BAUD_RATE, CONF_PARITY, DOMAIN
from .meter import BaudRate, LineSettingsError, ModbusBus, Parity, SerialLink

DATA_BUSES: HassKey[dict[str, ModbusBus]] = HassKey(f"{DOMAIN}_buses")


def link_from(data: Mapping[str, Any]) -> SerialLink:
    """Read the link from the data of a config entry."""
    return SerialLink(
        port=data[CONF_PORT],
        baud_rate=BaudRate(data[CONF_BAUD_RATE]),
        parity=Parity(data[CONF_PARITY]),
    )


@callback
def async_find_bus(hass: HomeAssistant, link: SerialLink) -> ModbusBus:
    """Return the bus of a link, to be held while it is used.

    Raises LineSettingsError if others hold the port with other line settings.
    """
    buses = hass.data.setdefault(DATA_BUSES, {})
    bus = buses.get(link.port)
    if bus is None or (bus.link != link and not bus.held):
        bus = buses[link.port] = ModbusBus(link)
    elif bus.link != link:
        raise LineSettingsError(
            f"{bus.link.baud_rate} baud and parity {bus.link.parity} are in force on {link.port}"
        )
    return bus


@callback
def async_hold_bus(hass: HomeAssistant, entry: ConfigEntry) -> ModbusBus:
    """Return the entry's bus, held until the entry unloads.

    Raises LineSettingsError if others hold the port with other line settings.
    """
    bus = async_find_bus(hass, link_from(entry.data))
    bus.hold()
    entry.async_on_unload(bus.release)
    return bus
