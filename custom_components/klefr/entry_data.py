"""Make what an entry stores usable, however it was damaged.

Someone may have edited Home Assistant's files. What cannot be right is replaced by what the
factory sets, with a warning in the log. That can do no harm, because a meter is known by its
serial number.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from homeassistant.const import CONF_ADDRESS, CONF_PORT, CONF_PROTOCOL
from homeassistant.core import HomeAssistant, callback

from .const import (
    CONF_BAUD_RATE,
    CONF_PARITY,
    CONF_UPDATE_INTERVAL,
    DEFAULT_MODBUS_ADDRESS,
    DEFAULT_UPDATE_INTERVAL,
    LOGGER,
    MAXIMUM_UPDATE_INTERVAL,
    MINIMUM_UPDATE_INTERVAL,
)
from .coordinator import KlefrConfigEntry
from .meter import (
    MODBUS_ADDRESSES,
    PRIMARY_ADDRESSES,
    BaudRate,
    Parity,
    Protocol,
    is_gateway,
    is_secondary_address,
    split_gateway_port,
)

NO_PORT: Final = ""
TCP_PORTS: Final = range(1, 65536)


@callback
def async_make_usable(hass: HomeAssistant, entry: KlefrConfigEntry) -> bool:
    """Replace what is damaged of an entry, and return whether its meter can then be looked for."""
    data, options = _replaced_data(entry), _replaced_options(entry)
    if data or options:
        LOGGER.warning(
            "Damaged settings of the entry %s were replaced: %s",
            entry.entry_id,
            ", ".join((*data, *options)),
        )
        hass.config_entries.async_update_entry(
            entry, data={**entry.data, **data}, options={**entry.options, **options}
        )
    return entry.data[CONF_PORT] != NO_PORT and isinstance(entry.unique_id, str)


def _replaced_data(entry: KlefrConfigEntry) -> Mapping[str, Any]:
    protocol = entry.data.get(CONF_PROTOCOL)
    if not _is_protocol(protocol):
        # Only M-Bus has addresses that are stored as text.
        text = isinstance(entry.data.get(CONF_ADDRESS), str)
        protocol = Protocol.MBUS if text else Protocol.MODBUS
    on_mbus = protocol == Protocol.MBUS
    fields: Mapping[str, tuple[Callable[[Any], bool], Any]] = {
        CONF_PORT: (_is_port, NO_PORT),
        CONF_PROTOCOL: (_is_protocol, str(protocol)),
        # The factory makes the secondary address of the serial number.
        CONF_ADDRESS: (_is_mbus_address, entry.unique_id)
        if on_mbus
        else (_is_modbus_address, DEFAULT_MODBUS_ADDRESS),
        CONF_BAUD_RATE: (_is_baud_rate, int(BaudRate.B9600)),
        CONF_PARITY: (_is_parity, str(Parity.EVEN)),
    }
    return {
        key: default
        for key, (is_right, default) in fields.items()
        if not is_right(entry.data.get(key))
    }


def _replaced_options(entry: KlefrConfigEntry) -> Mapping[str, Any]:
    interval = entry.options.get(CONF_UPDATE_INTERVAL, DEFAULT_UPDATE_INTERVAL)
    if type(interval) not in (int, float):
        return {CONF_UPDATE_INTERVAL: DEFAULT_UPDATE_INTERVAL}
    if MINIMUM_UPDATE_INTERVAL <= interval <= MAXIMUM_UPDATE_INTERVAL:
        return {}
    # This way around, nan becomes the shortest.
    longer = max(MINIMUM_UPDATE_INTERVAL, interval)
    return {CONF_UPDATE_INTERVAL: min(longer, MAXIMUM_UPDATE_INTERVAL)}


def _is_port(value: Any) -> bool:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        return False
    if not is_gateway(value):
        return True
    try:
        host, tcp_port = split_gateway_port(value)
    except ValueError:
        return False
    return bool(host) and tcp_port in TCP_PORTS


def _is_protocol(value: Any) -> bool:
    return value in list(Protocol)


def _is_modbus_address(value: Any) -> bool:
    return type(value) is int and value in MODBUS_ADDRESSES


def _is_mbus_address(value: Any) -> bool:
    if isinstance(value, str):
        return is_secondary_address(value)
    return type(value) is int and value in PRIMARY_ADDRESSES


def _is_baud_rate(value: Any) -> bool:
    return type(value) is int and value in list(BaudRate)


def _is_parity(value: Any) -> bool:
    return value in list(Parity)
