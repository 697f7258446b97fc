"""The forms of the flows: their fields, and what is entered there.

Home Assistant refuses what does not fit a field in English. So a form takes whatever is entered,
and `entered` reads it: what is wrong then has a message in the user's language, at its field.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
import re
from typing import Any, Final, override

from homeassistant.const import CONF_ADDRESS, CONF_HOST, CONF_PORT, CONF_PROTOCOL, UnitOfTime
from homeassistant.data_entry_flow import section
from homeassistant.helpers.selector import (
    BooleanSelector,
    NumberSelector,
    NumberSelectorConfig,
    NumberSelectorMode,
    SelectOptionDict,
    Selector,
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
    InvalidAddressError,
    Parity,
    Protocol,
    SerialLink,
    is_gateway,
    is_secondary_address,
    parse_address,
)
from .wording import quoted

SECTION_LINE_SETTINGS: Final = "line_settings"
CONF_ALL_LINE_SETTINGS: Final = "all_line_settings"
CONF_METER: Final = "meter"

SEARCH_ON: Final = "search_on"
"""The choice among the meters found that is none of them."""

BEYOND_ALL_NUMBERS: Final = 1_000_000
"""No number that can be entered is as high."""
LONGEST_NAME: Final = 255
"""Characters of a host's name or a port's."""
LABEL: Final = re.compile(r"(?!-)(?:[^\W\d]|[0-9-]){1,63}(?<!-)")
"""One part of a host's name. Digits of other scripts are none of it."""


class FieldError(Exception):
    """What is entered in a field cannot be used."""

    def __init__(self, key: str, **placeholders: str) -> None:
        """Keep the message and what it quotes."""
        super().__init__(key)
        self.key = key
        self.placeholders = placeholders


class FormError(Exception):
    """What is entered in a form cannot be used."""

    def __init__(self, errors: Mapping[str, FieldError]) -> None:
        """Keep the messages by the fields to show them at, and all that they quote."""
        super().__init__(", ".join(errors))
        self.errors = {field: error.key for field, error in errors.items()}
        self.placeholders = {
            name: text for error in errors.values() for name, text in error.placeholders.items()
        }


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field of a form."""

    shown: Selector[Any]
    read: Callable[[object], Any]
    """Returns what is entered in the type that an entry stores. Raises FieldError."""
    default: Any = None
    """None where something has to be entered."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """Fields of a form that can be collapsed."""

    fields: Mapping[str, Field]
    collapsed: bool


type Form = Mapping[str, Field | Section]


class _Unchecked(vol.Schema):
    """The schema of a form that takes whatever is entered."""

    @override
    def __call__(self, data: Any, **_: Any) -> Any:
        return data


def unchecked(schema: vol.Schema) -> vol.Schema:
    """Return a form's schema that takes whatever is entered."""
    return _Unchecked(schema.schema)


def form_schema(form: Form) -> vol.Schema:
    """Return what Home Assistant needs to show a form."""
    fields: dict[Any, Any] = {}
    for name, field in form.items():
        if isinstance(field, Section):
            shown = section(form_schema(field.fields), {"collapsed": field.collapsed})
            fields[vol.Required(name)] = shown
        elif field.default is None:
            fields[vol.Required(name)] = field.shown
        else:
            fields[vol.Required(name, default=field.default)] = field.shown
    return vol.Schema(fields)


def entered(form: Form, user_input: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is entered in a form, that in sections too. Raises FormError."""
    values: dict[str, Any] = {}
    invalid: dict[str, FieldError] = {}
    if unknown := [name for name in user_input if name not in form]:
        invalid["base"] = FieldError("no_such_field", field=quoted(repr(unknown[0])))
    for name, field in form.items():
        try:
            if isinstance(field, Section):
                values |= _entered_in_section(field, user_input.get(name, {}))
            else:
                values[name] = _entered_in_field(field, user_input.get(name))
        except FieldError as err:
            invalid[name] = err
    if invalid:
        raise FormError(invalid)
    return values


def _entered_in_field(field: Field, value: object) -> Any:
    if value is None:
        value = field.default
    if value is None or (isinstance(value, str) and not value.strip()):
        raise FieldError("missing")
    return field.read(value)


def _entered_in_section(part: Section, values: object) -> dict[str, Any]:
    if not isinstance(values, Mapping) or not values.keys() <= part.fields.keys():
        raise FieldError("invalid_choice")
    return {name: _entered_in_field(field, values.get(name)) for name, field in part.fields.items()}


def to_show_again(form: Form, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the values that the fields of a form can show."""
    shown: dict[str, Any] = {}
    for name, field in form.items():
        match values.get(name):
            case Mapping() as inner if isinstance(field, Section):
                shown[name] = to_show_again(field.fields, inner)
            case _ if isinstance(field, Section):
                pass
            case str() as value if len(value) <= LONGEST_NAME and value.isprintable():
                shown[name] = value
            case int() | float() as value if abs(value) < BEYOND_ALL_NUMBERS:
                shown[name] = value
    return shown


# Kinds of fields


def _number(
    lowest: int, highest: int, error: str, *, default: int | None = None, unit: str | None = None
) -> Field:
    """Return a field for a whole number, and the message for what is none or out of range."""

    def read(value: object) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise FieldError(error)
        return value

    config = NumberSelectorConfig(min=lowest, max=highest, step=1, mode=NumberSelectorMode.BOX)
    if unit is not None:
        config["unit_of_measurement"] = unit
    return Field(shown=NumberSelector(config), read=read, default=default)


def _choice[T](
    translation_key: str, options: Iterable[str], default: str, *, read: Callable[[str], T]
) -> Field:
    """Return a field for one of several options."""
    options = list(options)

    def read_choice(value: object) -> T:
        if not isinstance(value, str) or value not in options:
            raise FieldError("invalid_choice")
        return read(value)

    config = SelectSelectorConfig(
        options=options, mode=SelectSelectorMode.DROPDOWN, translation_key=translation_key
    )
    return Field(shown=SelectSelector(config), read=read_choice, default=default)


def _read_yes_or_no(value: object) -> bool:
    if not isinstance(value, bool):
        raise FieldError("invalid_choice")
    return value


def _read_serial_port(value: object) -> str:
    port = value.strip() if isinstance(value, str) else ""
    if not port or not port.isprintable() or len(port) > LONGEST_NAME:
        raise FieldError("invalid_port", entered=quoted(value))
    if is_gateway(port.lower()):
        raise FieldError("port_is_gateway")
    return port


def _read_host(value: object) -> str:
    """Return a host's name or IP address."""
    host = value.strip() if isinstance(value, str) else ""
    if "://" in host:
        raise FieldError("host_is_url", entered=quoted(value))
    if re.fullmatch(r"[^:/@\s]+:[0-9]+", host) or re.fullmatch(r"\[[^]]*\]:[0-9]+", host):
        raise FieldError("host_has_port", entered=quoted(value))
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not _is_host(host):
        raise FieldError("invalid_host", entered=quoted(value))
    return host


def _is_host(host: str) -> bool:
    if ":" in host:
        try:
            ip_address(host)
        except ValueError:
            return False
        return host.isascii() and host.isprintable()
    labels = host.removesuffix(".").split(".")
    if len(host) > LONGEST_NAME or not all(LABEL.fullmatch(label) for label in labels):
        return False
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def _read_mbus_address(value: object) -> int | str:
    if not isinstance(value, str):
        raise FieldError(InvalidAddressError.key)
    try:
        return parse_address(value)
    except InvalidAddressError as err:
        raise FieldError(err.key) from err


def _read_secondary_address(value: object) -> str:
    if not isinstance(value, str) or not is_secondary_address(value.strip()):
        raise FieldError("invalid_secondary_address")
    return value.strip()


# Forms

SERIAL: Final[Form] = {
    CONF_PORT: Field(shown=SerialPortSelector(), read=_read_serial_port),
    CONF_PROTOCOL: _choice(
        CONF_PROTOCOL, [Protocol.MODBUS, Protocol.MBUS], Protocol.MODBUS, read=str
    ),
}
GATEWAY: Final[Form] = {
    CONF_HOST: Field(shown=TextSelector(), read=_read_host),
    CONF_PORT: _number(1, 65535, "invalid_tcp_port", default=DEFAULT_TCP_PORT),
    CONF_PROTOCOL: _choice(
        "gateway_protocol",
        [Protocol.MODBUS_TCP, Protocol.MODBUS, Protocol.MBUS],
        Protocol.MODBUS_TCP,
        read=str,
    ),
}
OPTIONS: Final[Form] = {
    CONF_UPDATE_INTERVAL: _number(
        MINIMUM_UPDATE_INTERVAL,
        MAXIMUM_UPDATE_INTERVAL,
        "invalid_interval",
        default=DEFAULT_UPDATE_INTERVAL,
        unit=UnitOfTime.SECONDS,
    ),
}
CONFIRM: Final[Form] = {}

BAUD_RATE: Final[Mapping[str, Field]] = {
    CONF_BAUD_RATE: _choice(
        CONF_BAUD_RATE,
        [str(rate) for rate in reversed(BaudRate)],
        str(BaudRate.B9600),
        read=lambda text: BaudRate(int(text)),
    )
}
PARITY: Final[Mapping[str, Field]] = {
    CONF_PARITY: _choice(CONF_PARITY, list(Parity), Parity.EVEN, read=Parity)
}


def line_settings_form(protocol: Protocol, port: str) -> Mapping[str, Field]:
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


def meter_form(protocol: Protocol, port: str, *, line_settings_open: bool = False) -> Form:
    """Return the fields for a meter on a bus.

    The line settings are collapsed unless they may be wrong: nearly all meters have those of the
    factory.
    """
    form: dict[str, Field | Section] = {}
    if protocol is Protocol.MBUS:
        form[CONF_ADDRESS] = Field(
            shown=TextSelector(), read=_read_mbus_address, default=DEFAULT_MBUS_ADDRESS
        )
    else:
        form[CONF_ADDRESS] = _modbus_address(default=DEFAULT_MODBUS_ADDRESS)
    if fields := line_settings_form(protocol, port):
        form[SECTION_LINE_SETTINGS] = Section(fields=fields, collapsed=not line_settings_open)
    return form


def entered_meter(form: Form, user_input: Mapping[str, Any]) -> dict[str, Any]:
    """Return the address and the line settings entered for a meter, as an entry stores them.

    Raises FormError.
    """
    values = entered(form, user_input)
    return {
        CONF_ADDRESS: values[CONF_ADDRESS],
        CONF_BAUD_RATE: int(values.get(CONF_BAUD_RATE, BaudRate.B9600)),
        CONF_PARITY: str(values.get(CONF_PARITY, Parity.EVEN)),
    }


def search_form(protocol: Protocol, port: str) -> Form:
    """Return the fields for the line settings that a search tries."""
    return {
        **line_settings_form(protocol, port),
        CONF_ALL_LINE_SETTINGS: Field(shown=BooleanSelector(), read=_read_yes_or_no, default=False),
    }


def found_form(meters: Mapping[str, str], *, search_on: bool) -> Form:
    """Return the field for one of the meters found: serial numbers, and how to show each.

    The last choice is to search on, if there is anything left to search.
    """
    labels = {**meters, **({SEARCH_ON: SEARCH_ON} if search_on else {})}

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in labels:
            raise FieldError("invalid_choice")
        return value

    config = SelectSelectorConfig(
        options=[SelectOptionDict(value=value, label=label) for value, label in labels.items()],
        mode=SelectSelectorMode.LIST,
        translation_key="found",
    )
    return {CONF_METER: Field(shown=SelectSelector(config), read=read, default=next(iter(meters)))}


def change_form(protocol: Protocol, port: str) -> Form:
    """Return the fields for how a meter itself communicates.

    Line settings cannot be changed behind a gateway: the gateway's would have to change at the
    same time.
    """
    if protocol is not Protocol.MBUS:
        form = {CONF_ADDRESS: _modbus_address()}
    else:
        form = {
            CONF_ADDRESS: _number(
                PRIMARY_ADDRESSES[0], PRIMARY_ADDRESSES[-1], "invalid_primary_address"
            ),
            CONF_SECONDARY_ADDRESS: Field(shown=TextSelector(), read=_read_secondary_address),
        }
    if not is_gateway(port):
        form |= line_settings_form(protocol, port)
    return form


def _modbus_address(*, default: int | None = None) -> Field:
    return _number(
        MODBUS_ADDRESSES[0], MODBUS_ADDRESSES[-1], "invalid_modbus_address", default=default
    )


def entered_communication(
    form: Form, current: Communication, user_input: Mapping[str, Any]
) -> Communication:
    """Return how a meter shall communicate: as entered, and as now where there is no field.

    Raises FormError.
    """
    values = entered(form, user_input)
    return Communication(
        address=values[CONF_ADDRESS],
        secondary_address=values.get(CONF_SECONDARY_ADDRESS, current.secondary_address),
        baud_rate=values.get(CONF_BAUD_RATE, current.baud_rate),
        parity=values.get(CONF_PARITY, current.parity),
    )
