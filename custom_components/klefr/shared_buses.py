"""Hand out the buses that config entries and config flows share.

A port can be opened only once, so all that need it hold the same bus. If Home Assistant has
opened the port for another integration, the bus uses that connection.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
import os
from typing import Any, Final

from homeassistant.const import CONF_ADDRESS, CONF_PORT, CONF_PROTOCOL
from homeassistant.core import HomeAssistant, callback
from homeassistant.util.hass_dict import HassKey

from .const import CONF_BAUD_RATE, CONF_PARITY, DOMAIN
from .coordinator import KlefrConfigEntry
from .entry_errors import NotYetError
from .meter import (
    BUSES,
    BaudRate,
    Bus,
    LineSettingsError,
    Parity,
    Protocol,
    SerialLink,
    is_gateway,
    split_gateway_port,
)
from .meter.bus import OwnBus
from .port_users import async_expected_sharers

DATA_BUSES: Final[HassKey[dict[str, Bus]]] = HassKey(f"{DOMAIN}_buses")

# The modbus integration has this key under the same name. Importing it would load that
# integration, and Home Assistant before 2026.9 does not have it.
DATA_MODBUS_CONNECTIONS: Final[HassKey[dict[tuple[Any, ...], Any]]] = HassKey("modbus_connections")


async def async_canonical_port(hass: HomeAssistant, port: str) -> str:
    """Return the name under which a port is open already, or else the name given."""
    while True:
        open_ports = _open_ports(hass)
        names = await _async_names_of(hass, port, open_ports)
        # Another entry on this port may have opened it meanwhile.
        if open_ports == _open_ports(hass):
            return next(iter(names), port)


def _open_ports(hass: HomeAssistant) -> list[str]:
    held = [bus.link.port for bus in hass.data.get(DATA_BUSES, {}).values() if bus.held]
    shared = [
        where[1] for where in hass.data.get(DATA_MODBUS_CONNECTIONS, {}) if where[0] == "serial"
    ]
    return held + shared


async def async_is_same_port(hass: HomeAssistant, port: str, other: str) -> bool:
    """Return whether two names are those of one port."""
    return bool(await _async_names_of(hass, port, [other]))


async def async_entries_on_port(
    hass: HomeAssistant, entry: KlefrConfigEntry
) -> list[KlefrConfigEntry]:
    """Return the entries of all other meters on an entry's port."""
    others = [
        each
        for each in hass.config_entries.async_entries(DOMAIN, include_ignore=False)
        if each.entry_id != entry.entry_id
    ]
    names = await _async_names_of(
        hass, entry.data[CONF_PORT], [each.data[CONF_PORT] for each in others]
    )
    return [each for each in others if each.data[CONF_PORT] in names]


async def _async_names_of(hass: HomeAssistant, port: str, names: Collection[str]) -> list[str]:
    """Return those of the names that are names of a port."""

    def find_same_device() -> list[str]:
        device = _device(port)
        return [name for name in names if _device(name) == device]

    return await hass.async_add_executor_job(find_same_device)


def _device(port: str) -> str:
    """Return what all names of a port have in common, by the links in the file system.

    The name of a host means the same in capital letters.
    """
    scheme, separator, place = port.partition("://")
    if not separator:
        return os.path.realpath(port)
    host, slash, path = place.partition("/")
    return f"{scheme}{separator}{host.lower()}{slash}{path}"


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
    """Return the bus of a link that has the name under which its port is open.

    Hold the bus while you use it. Raises LineSettingsError if the port is held with another protocol or other line settings.
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


async def async_find_bus(hass: HomeAssistant, protocol: Protocol, link: SerialLink) -> Bus:
    """Return the bus of a link, whatever name its port is open under. Hold it while you use it.

    Raises LineSettingsError if the port is held with another protocol or other line settings.
    """
    port = await async_canonical_port(hass, link.port)
    return async_get_bus(hass, protocol, replace(link, port=port))


async def async_give_way(hass: HomeAssistant, entry: KlefrConfigEntry) -> None:
    """Make sure that no other integration is about to share the port of an entry.

    It has to come first: a connection that it shares can be used here, but not the other way
    around. Raises NotYetError.
    """
    if entry.data[CONF_PROTOCOL] == Protocol.MBUS:
        return
    port = entry.data[CONF_PORT]
    host = split_gateway_port(port)[0].lower() if is_gateway(port) else None
    first = [
        name
        for name, stored in (await async_expected_sharers(hass)).items()
        if host in {each.lower() for each in stored}
        or await _async_names_of(
            hass, port, [each for each in stored if "/" in each and each.isprintable()]
        )
    ]
    if first:
        raise NotYetError(first)


async def async_hold_bus(hass: HomeAssistant, entry: KlefrConfigEntry) -> Bus:
    """Return an entry's bus, held until the entry unloads.

    Raises LineSettingsError if the port is held with another protocol or other line settings, and
    PortInUseError.
    """
    bus = await async_find_bus(hass, Protocol(entry.data[CONF_PROTOCOL]), link_from(entry.data))
    bus.hold()
    entry.async_on_unload(bus.release)
    if not isinstance(bus, OwnBus):
        # It is there, so all that this import needs is loaded.
        from .shared_modbus import SharedModbusBus  # noqa: PLC0415

        assert isinstance(bus, SharedModbusBus)
        bus.hold_unit(entry, entry.data[CONF_ADDRESS])
    return bus
