"""The forms of the flows: their fields, and what is entered there."""

from collections.abc import Mapping
from typing import Any, Final

from homeassistant.const import CONF_ADDRESS, CONF_HOST, CONF_PORT, CONF_PROTOCOL, UnitOfTime
from homeassistant.data_entry_flow import section
from homeassistant.helpers.selector import (
    BooleanSelector,
    NumberSelector,
    NumberSelectorConfig,
    NumberSelectorMode,
    SelectOptionDict,
    SelectSelector,
    SelectSelectorConfig,
    SelectSelectorMode,
    SerialPortSelector,
    TextSelector,
)
import voluptuous as vol

from .const import (
    CONF_BAUD_RATE,
    CONF_PARITY,
    CONF_SECONDARY_ADDRESS,
    CONF_UPDATE_INTERVAL,
    DEFAULT_MBUS_ADDRESS,
    DEFAULT_MODBUS_ADDRESS,
    DEFAULT_TCP_PORT,
    DEFAULT_UPDATE_INTERVAL,
    MAXIMUM_UPDATE_INTERVAL,
    MINIMUM_UPDATE_INTERVAL,
)
from .meter import (
    MODBUS_ADDRESSES,
    PRIMARY_ADDRESSES,
    BaudRate,
    Communication,
    Parity,
    Protocol,
    SerialLink,
    is_gateway,
    parse_address,
)

SECTION_LINE_SETTINGS: Final = "line_settings"
CONF_ALL_LINE_SETTINGS: Final = "all_line_settings"
CONF_METER: Final = "meter"


def _number(lowest: int, highest: int, unit: str | None = None) -> vol.All[Any]:
    config = NumberSelectorConfig(min=lowest, max=highest, step=1, mode=NumberSelectorMode.BOX)
    if unit is not None:
        config["unit_of_measurement"] = unit
    return vol.All(NumberSelector(config), vol.Coerce(int))


def _choice(translation_key: str, options: list[str]) -> SelectSelector:
    return SelectSelector(
        SelectSelectorConfig(
            options=options, mode=SelectSelectorMode.DROPDOWN, translation_key=translation_key
        )
    )


SERIAL: Final = vol.Schema(
    {
        vol.Required(CONF_PORT): SerialPortSelector(),
        vol.Required(CONF_PROTOCOL, default=Protocol.MODBUS): _choice(
            CONF_PROTOCOL, [Protocol.MODBUS, Protocol.MBUS]
        ),
    }
)
GATEWAY: Final = vol.Schema(
    {
        vol.Required(CONF_HOST): TextSelector(),
        vol.Required(CONF_PORT, default=DEFAULT_TCP_PORT): _number(1, 65535),
        vol.Required(CONF_PROTOCOL, default=Protocol.MODBUS_TCP): _choice(
            "gateway_protocol", [Protocol.MODBUS_TCP, Protocol.MODBUS, Protocol.MBUS]
        ),
    }
)
OPTIONS: Final = vol.Schema(
    {
        vol.Required(CONF_UPDATE_INTERVAL, default=DEFAULT_UPDATE_INTERVAL): _number(
            MINIMUM_UPDATE_INTERVAL, MAXIMUM_UPDATE_INTERVAL, UnitOfTime.SECONDS
        ),
    }
)

BAUD_RATE: Final[Mapping[Any, Any]] = {
    vol.Required(CONF_BAUD_RATE, default=str(BaudRate.B9600)): _choice(
        CONF_BAUD_RATE, [str(rate) for rate in reversed(BaudRate)]
    )
}
PARITY: Final[Mapping[Any, Any]] = {
    vol.Required(CONF_PARITY, default=Parity.EVEN): _choice(CONF_PARITY, list(Parity))
}


def line_settings_schema(protocol: Protocol, port: str) -> Mapping[Any, Any]:
    """Return the fields for the line settings that matter to Home Assistant.

    On M-Bus parity is always even. A gateway has line settings that Home Assistant does not
    see, but its baud rate says how long to wait for an answer, except over Modbus TCP.
    """
    if protocol is Protocol.MODBUS_TCP:
        return {}
    if protocol is Protocol.MBUS or is_gateway(port):
        return BAUD_RATE
    return {**BAUD_RATE, **PARITY}


def shown_line_settings(link: SerialLink) -> dict[str, str]:
    """Return the line settings of a link as the form shows them."""
    return {CONF_BAUD_RATE: str(link.baud_rate), CONF_PARITY: link.parity}


def meter_schema(protocol: Protocol, port: str) -> vol.Schema:
    """Return the fields for a meter on a bus.

    The line settings are collapsed: nearly all meters have those of the factory.
    """
    fields: dict[Any, Any] = {}
    if protocol is Protocol.MBUS:
        fields[vol.Required(CONF_ADDRESS, default=DEFAULT_MBUS_ADDRESS)] = TextSelector()
    else:
        fields[vol.Required(CONF_ADDRESS, default=DEFAULT_MODBUS_ADDRESS)] = _number(
            MODBUS_ADDRESSES[0], MODBUS_ADDRESSES[-1]
        )
    if line_settings := line_settings_schema(protocol, port):
        fields[vol.Required(SECTION_LINE_SETTINGS)] = section(
            vol.Schema(line_settings), {"collapsed": True}
        )
    return vol.Schema(fields)


def entered_meter(protocol: Protocol, user_input: Mapping[str, Any]) -> dict[str, Any]:
    """Return the address and the line settings entered for a meter, as an entry stores them.

    Raises InvalidAddressError.
    """
    address = user_input[CONF_ADDRESS]
    line_settings = user_input.get(SECTION_LINE_SETTINGS, {})
    return {
        CONF_ADDRESS: parse_address(address) if protocol is Protocol.MBUS else address,
        CONF_BAUD_RATE: int(line_settings.get(CONF_BAUD_RATE, BaudRate.B9600)),
        CONF_PARITY: line_settings.get(CONF_PARITY, Parity.EVEN),
    }


def search_schema(protocol: Protocol, port: str) -> vol.Schema:
    """Return the fields for the line settings that a search tries."""
    return vol.Schema(
        {
            **line_settings_schema(protocol, port),
            vol.Required(CONF_ALL_LINE_SETTINGS, default=False): BooleanSelector(),
        }
    )


def found_schema(meters: Mapping[str, str]) -> vol.Schema:
    """Return the field for one of the meters found: serial numbers, and how to show each."""
    options = [SelectOptionDict(value=number, label=label) for number, label in meters.items()]
    return vol.Schema(
        {
            vol.Required(CONF_METER, default=next(iter(meters))): SelectSelector(
                SelectSelectorConfig(options=options, mode=SelectSelectorMode.LIST)
            )
        }
    )


def change_schema(protocol: Protocol, port: str) -> vol.Schema:
    """Return the fields for how a meter itself communicates.

    Line settings cannot be changed behind a gateway: the gateway's would have to change at the
    same time.
    """
    on_mbus = protocol is Protocol.MBUS
    addresses = PRIMARY_ADDRESSES if on_mbus else MODBUS_ADDRESSES
    fields: dict[Any, Any] = {vol.Required(CONF_ADDRESS): _number(addresses[0], addresses[-1])}
    if on_mbus:
        fields[vol.Required(CONF_SECONDARY_ADDRESS)] = TextSelector()
    if not is_gateway(port):
        fields |= line_settings_schema(protocol, port)
    return vol.Schema(fields)


def entered_communication(current: Communication, user_input: Mapping[str, Any]) -> Communication:
    """Return how a meter shall communicate: as entered, and as now where there is no field."""
    secondary_address = user_input.get(CONF_SECONDARY_ADDRESS)
    return Communication(
        address=user_input[CONF_ADDRESS],
        secondary_address=secondary_address and secondary_address.strip(),
        baud_rate=BaudRate(int(user_input.get(CONF_BAUD_RATE, current.baud_rate))),
        parity=Parity(user_input.get(CONF_PARITY, current.parity)),
    )
