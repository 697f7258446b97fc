"""Hand out the buses that config entries and config flows share.

A port can be opened only once, so all that need it hold the same bus. If Home Assistant has
opened the port for another integration, the bus uses that connection.
"""

from collections.abc import Mapping
from dataclasses import replace
import os
from typing import Any, Final

from homeassistant.const import CONF_PORT, CONF_PROTOCOL
from homeassistant.core import HomeAssistant, callback
from homeassistant.util.hass_dict import HassKey

from .const import CONF_BAUD_RATE, CONF_PARITY, DOMAIN
from .coordinator import KlefrConfigEntry
from .meter import BUSES, BaudRate, Bus, LineSettingsError, Parity, Protocol, SerialLink

DATA_BUSES: Final[HassKey[dict[str, Bus]]] = HassKey(f"{DOMAIN}_buses")

# The modbus integration has this key under the same name. Importing it would load that
# integration, and Home Assistant before 2026.9 does not have it.
DATA_MODBUS_CONNECTIONS: Final[HassKey[dict[tuple[Any, ...], Any]]] = HassKey("modbus_connections")


async def async_canonical_port(hass: HomeAssistant, port: str) -> str:
    """Return the name under which a serial port is open already, or else the name given."""

    def find_same_device() -> str:
        device = os.path.realpath(port)
        return next((each for each in open_ports if os.path.realpath(each) == device), port)

    open_ports = [bus.link.port for bus in hass.data.get(DATA_BUSES, {}).values() if bus.held]
    open_ports += [
        where[1] for where in hass.data.get(DATA_MODBUS_CONNECTIONS, {}) if where[0] == "serial"
    ]
    return await hass.async_add_executor_job(find_same_device)


async def async_entries_on_port(
    hass: HomeAssistant, entry: KlefrConfigEntry
) -> list[KlefrConfigEntry]:
    """Return the entries of all other meters on an entry's port."""

    def find_same_device() -> list[KlefrConfigEntry]:
        device = os.path.realpath(entry.data[CONF_PORT])
        return [each for each in others if os.path.realpath(each.data[CONF_PORT]) == device]

    others = [
        each
        for each in hass.config_entries.async_entries(DOMAIN, include_ignore=False)
        if each.entry_id != entry.entry_id
    ]
    return await hass.async_add_executor_job(find_same_device)


def link_from(entry_data: Mapping[str, Any]) -> SerialLink:
    """Return the link that an entry stores."""
    return SerialLink(
        port=entry_data[CONF_PORT],
        baud_rate=BaudRate(entry_data[CONF_BAUD_RATE]),
        parity=Parity(entry_data[CONF_PARITY]),
    )


@callback
def async_held_bus(hass: HomeAssistant, link: SerialLink) -> Bus | None:
    """Return the bus that is held on a link's port, with whatever protocol and line settings."""
    bus = hass.data.get(DATA_BUSES, {}).get(link.port)
    if bus is not None and bus.held:
        return bus
    if not hass.data.get(DATA_MODBUS_CONNECTIONS):
        return None
    # The integration that uses these connections has loaded all that this import needs.
    from .shared_modbus import async_shared_bus  # noqa: PLC0415

    return async_shared_bus(hass, link)


@callback
def async_get_bus(hass: HomeAssistant, protocol: Protocol, link: SerialLink) -> Bus:
    """Return the bus of a link. Hold it while you use it.

    Raises LineSettingsError if the port is held with another protocol or other line settings.
    """
    buses = hass.data.setdefault(DATA_BUSES, {})
    bus = async_held_bus(hass, link)
    if bus is None:
        bus = buses.get(link.port)
        if bus is None or (type(bus), bus.link) != (BUSES[protocol], link):
            bus = BUSES[protocol](link)
    elif (bus.protocol, bus.link) != (protocol, link):
        raise LineSettingsError(protocol=bus.protocol, used=bus.link, wanted=link)
    buses[link.port] = bus
    return bus


async def async_hold_bus(hass: HomeAssistant, entry: KlefrConfigEntry) -> Bus:
    """Return an entry's bus, held until the entry unloads.

    Raises LineSettingsError if the port is held with another protocol or other line settings.
    """
    link = link_from(entry.data)
    link = replace(link, port=await async_canonical_port(hass, link.port))
    bus = async_get_bus(hass, Protocol(entry.data[CONF_PROTOCOL]), link)
    bus.hold()
    entry.async_on_unload(bus.release)
    return bus
