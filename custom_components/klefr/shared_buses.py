"""Hand out the buses that config entries and config flows share.

A port can be opened once only, so all who want something on it hold the same bus. One that
Home Assistant has opened for another integration is used as it is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
import os
from typing import Any

from homeassistant.config_entries import ConfigEntry
from homeassistant.const import CONF_PORT, CONF_PROTOCOL
from homeassistant.core import HomeAssistant, callback
from homeassistant.util.hass_dict import HassKey

from .const import CONF_BAUD_RATE, CONF_PARITY, DOMAIN
from .meter import BUSES, BaudRate, Bus, LineSettingsError, Parity, Protocol, SerialLink

DATA_BUSES: HassKey[dict[str, Bus]] = HassKey(f"{DOMAIN}_buses")

# What the modbus integration itself calls DATA_MODBUS_CONNECTIONS. Importing it from there
# would load that integration for all who do not use it, and Home Assistant before 2026.9
# does not have it.
DATA_MODBUS_CONNECTIONS: HassKey[dict[tuple[Any, ...], Any]] = HassKey("modbus_connections")


async def async_canonical_port(hass: HomeAssistant, port: str) -> str:
    """Return the name by which others hold the same serial port, if any do."""

    def same_port() -> str:
        device = os.path.realpath(port)
        return next((each for each in held if os.path.realpath(each) == device), port)

    held = [bus.link.port for bus in hass.data.get(DATA_BUSES, {}).values() if bus.held]
    held += [
        where[1] for where in hass.data.get(DATA_MODBUS_CONNECTIONS, {}) if where[0] == "serial"
    ]
    return await hass.async_add_executor_job(same_port)


async def async_entries_on_port(hass: HomeAssistant, entry: ConfigEntry) -> list[ConfigEntry]:
    """Return the other meters that are set up to be reached through an entry's port."""

    def same_port() -> list[ConfigEntry]:
        device = os.path.realpath(entry.data[CONF_PORT])
        return [each for each in others if os.path.realpath(each.data[CONF_PORT]) == device]

    others = [
        each
        for each in hass.config_entries.async_entries(DOMAIN, include_ignore=False)
        if each.entry_id != entry.entry_id
    ]
    return await hass.async_add_executor_job(same_port)


@callback
def async_port_users(hass: HomeAssistant, port: str) -> list[str]:
    """Name the other integrations that are set up to use a port."""
    return [
        f"{entry.title} ({entry.domain})"
        for entry in hass.config_entries.async_entries()
        if entry.domain != DOMAIN and port in _strings({**entry.data, **entry.options})
    ]


def _strings(data: object) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, Mapping):
        for value in data.values():
            yield from _strings(value)
    elif isinstance(data, (list, tuple)):
        for value in data:
            yield from _strings(value)


def link_from(data: Mapping[str, Any]) -> SerialLink:
    """Read the link from the data of a config entry."""
    return SerialLink(
        port=data[CONF_PORT],
        baud_rate=BaudRate(data[CONF_BAUD_RATE]),
        parity=Parity(data[CONF_PARITY]),
    )


@callback
def async_held_bus(hass: HomeAssistant, port: str) -> Bus | None:
    """Return the bus that others hold on a port."""
    return _held_bus(hass, SerialLink(port=port))


def _held_bus(hass: HomeAssistant, link: SerialLink) -> Bus | None:
    bus = hass.data.get(DATA_BUSES, {}).get(link.port)
    if bus is not None and bus.held:
        return bus
    if not hass.data.get(DATA_MODBUS_CONNECTIONS):
        return None
    # Whoever holds these connections has loaded all that this needs.
    from .shared_modbus import async_shared_bus  # noqa: PLC0415

    return async_shared_bus(hass, link)


@callback
def async_find_bus(hass: HomeAssistant, protocol: Protocol, link: SerialLink) -> Bus:
    """Return the bus of a link, to be held while it is used.

    Raises LineSettingsError if others hold the port with another protocol or other line
    settings.
    """
    buses = hass.data.setdefault(DATA_BUSES, {})
    bus = _held_bus(hass, link)
    if bus is None:
        bus = buses.get(link.port)
        if bus is None or (type(bus), bus.link) != (BUSES[protocol], link):
            bus = BUSES[protocol](link)
    elif (bus.protocol, bus.link) != (protocol, link):
        raise LineSettingsError(
            f"{bus.protocol}, {bus.link.baud_rate} baud and parity {bus.link.parity} are in force"
            f" on {link.port}"
        )
    buses[link.port] = bus
    return bus


async def async_hold_bus(hass: HomeAssistant, entry: ConfigEntry) -> Bus:
    """Return the entry's bus, held until the entry unloads.

    Raises LineSettingsError if others hold the port with another protocol or other line
    settings.
    """
    link = link_from(entry.data)
    link = replace(link, port=await async_canonical_port(hass, link.port))
    bus = async_find_bus(hass, Protocol(entry.data[CONF_PROTOCOL]), link)
    bus.hold()
    entry.async_on_unload(bus.release)
    return bus
