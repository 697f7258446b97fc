"""Words for the user: what things are called, and errors of the meter library, translated.

What cannot be wrong is not mentioned, so many errors have one message for each kind of bus, or
for each thing that connects Home Assistant to it.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from functools import singledispatch
from reprlib import Repr
from typing import Any, Final, TypedDict
from urllib.parse import parse_qs, urlsplit

from homeassistant.const import (
    CONF_ADDRESS,
    CONF_PORT,
    CONF_PROTOCOL,
    Platform,
    UnitOfEnergy,
    UnitOfTime,
)
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.translation import async_get_cached_translations, async_translate_state

from .const import DOMAIN, INEPRO, NAME
from .entry_errors import AlreadyAddedError, EntriesError, NotYetError, OldMeterAnswersError
from .meter import (
    AddressTakenError,
    Communication,
    Counter,
    Identity,
    InvalidValueError,
    KlefrError,
    LineSettingsError,
    MeterLostError,
    Model,
    NotAcceptedError,
    NotMovedError,
    NotResetError,
    Outcome,
    PortInUseError,
    Protocol,
    RefusedError,
    Setting,
    SettingValue,
    Summary,
    is_gateway,
    split_gateway_port,
)
from .port_users import async_port_users

PROTOCOL_NAMES: Final[Mapping[Protocol, str]] = {
    Protocol.MODBUS: "Modbus RTU",
    Protocol.MODBUS_TCP: "Modbus TCP",
    Protocol.MBUS: "M-Bus",
}

# What Inepro prints on the meters that KLEFR has a number for.
INEPRO_NAMES: Final[Mapping[Model, str]] = {
    Model.KLEFR_6934: "PRO380",
    Model.KLEFR_6944: "PRO380-CT",
    Model.KLEFR_6933_OR_6943: "PRO380",
}

QUOTED_LENGTH: Final = 60
"""Characters."""
SHORT: Final = Repr(maxlevel=2)


class Translation(TypedDict):
    """What a Home Assistant error needs to say its message in the user's language."""

    translation_domain: str
    translation_key: str
    translation_placeholders: dict[str, str]


def listed(names: Iterable[str]) -> str:
    """Return names as a message lists them."""
    return ", ".join(names)


def quoted(value: object) -> str:
    """Return what a user entered as a message can quote it: in one line that is not too long."""
    text = value if isinstance(value, str) else SHORT.repr(value)
    line = "".join(
        character if character.isprintable() else " " if character.isspace() else "�"
        for character in text[:QUOTED_LENGTH]
    )
    return line if len(text) <= QUOTED_LENGTH else f"{line}…"


@callback
def async_text(hass: HomeAssistant, key: str, default: str | None = None) -> str:
    """Return a text of strings.json in Home Assistant's language, by its path with dots."""
    category = key.partition(".")[0]
    texts = async_get_cached_translations(hass, hass.config.language, category, DOMAIN)
    return texts.get(f"component.{DOMAIN}.{key}", default or key)


@callback
def async_parity_name(hass: HomeAssistant, parity: str) -> str:
    """Return a parity in Home Assistant's language."""
    return async_text(hass, f"selector.parity.options.{parity}")


@callback
def async_message(hass: HomeAssistant, key: str, placeholders: Mapping[str, str] | None) -> str:
    """Return the message of an error in Home Assistant's language, to put into another one."""
    return async_text(hass, f"exceptions.{key}.message").format(**(placeholders or {}))


def meter_name(identity: Identity) -> str:
    """Return the name of a meter: its maker, its model and its serial number."""
    return f"{_maker(identity.model)} {_model_or_code(identity)} {identity.serial_number}"


def names_of(serial_number: str) -> list[str]:
    """Return the names that a meter of a known model can have, by its serial number."""
    return [f"{_maker(model)} {model} {serial_number}" for model in Model]


def _maker(model: Model) -> str:
    return NAME if model in INEPRO_NAMES else INEPRO


def model_name(identity: Identity) -> str:
    """Return the model as it is printed on meters: KLEFR's number and Inepro's name."""
    names = (_model_or_code(identity), INEPRO_NAMES.get(identity.model))
    return " / ".join(name for name in names if name)


def _model_or_code(identity: Identity) -> str:
    unknown = identity.model is Model.UNKNOWN
    return (unknown and identity.meter_code) or identity.model


def port_name(port: str) -> str:
    """Return a port as the user knows it, without scheme, user name and secrets."""
    if is_gateway(port):
        host, tcp_port = split_gateway_port(port)
        return f"[{host}]:{tcp_port}" if ":" in host else f"{host}:{tcp_port}"
    if "://" not in port:
        return port
    proxy = urlsplit(port)
    if names := parse_qs(proxy.query).get("port_name"):
        return names[0]
    return proxy.netloc.rpartition("@")[2] or proxy.path


def connection_kind(protocol: Protocol, port: str) -> str:
    """Return what connects Home Assistant to the bus, as the keys of messages name it."""
    if is_gateway(port):
        return "gateway"
    if "://" in port:
        return "proxy"
    return "level_converter" if protocol is Protocol.MBUS else "adapter"


def bus_kind(protocol: Protocol, port: str) -> str:
    """Return which bus it is, and whether behind a gateway, as the keys of messages name it."""
    return f"{protocol}_gateway" if is_gateway(port) else protocol


# What the message of an error depends on, by the error's key.
KINDS: Final[Mapping[str, Callable[[Protocol, str], str]]] = {
    "link_failed": connection_kind,
    "port_not_found": connection_kind,
    "host_not_found": connection_kind,
    "host_refused": connection_kind,
    "host_silent": connection_kind,
    "never_silent": connection_kind,
    "no_answer": bus_kind,
    "garbled_answer": bus_kind,
}


def wire_kind(protocol: Protocol, port: str) -> str:
    """Return what wires the bus has, and whether behind a gateway, as the keys of messages do."""
    wires = Protocol.MBUS if protocol is Protocol.MBUS else Protocol.MODBUS
    return bus_kind(wires, port)


# What is wrong if no request succeeds.
ALWAYS: Final = {Outcome.NO_ANSWER: "silent", Outcome.GARBLED: "always_garbled"}

# What the message about requests that often fail depends on, by the kind of failure.
FAILURE_KINDS: Final[Mapping[str, Callable[[Protocol, str], str]]] = {
    "silent": bus_kind,
    "no_answer": wire_kind,
    "always_garbled": bus_kind,
    "garbled_answer": wire_kind,
    "late_answer": connection_kind,
    "link_failed": connection_kind,
    "refused": lambda protocol, port: "",
}


def failure_case(summary: Summary, protocol: Protocol, port: str) -> str:
    """Return which message says why requests often fail, as the end of its key."""
    failure = str(summary.prevailing)
    if summary.failed == summary.requests:
        failure = ALWAYS.get(summary.prevailing, failure)
    return "_".join(filter(None, (failure, FAILURE_KINDS[failure](protocol, port))))


@callback
def communication_names(
    hass: HomeAssistant, communications: Iterable[Communication], *, gateway: bool
) -> list[str]:
    """Return how a meter communicates, such as "address 17, 9600 baud", in the user's language.

    Parity and secondary address are named if the communications differ in them. The line settings
    of a gateway are not known.
    """
    communications = list(communications)
    several_parities = len({each.parity for each in communications}) > 1
    several_secondary_addresses = len({each.secondary_address for each in communications}) > 1
    names: list[str] = []
    for each in communications:
        if several_parities and not gateway:
            kind = f"parity_{each.parity}"
        else:
            kind = "secondary_address" if several_secondary_addresses else "address"
            kind = kind if gateway else f"{kind}_baud_rate"
        text = async_text(hass, f"selector.communication.options.{kind}")
        names.append(
            text.format(
                address=each.address,
                secondary_address=each.secondary_address,
                baud_rate=each.baud_rate.value,
            )
        )
    return names


@callback
def setting_value(hass: HomeAssistant, setting: Setting, value: SettingValue) -> str:
    """Return the value of a setting as its entity shows it."""
    match setting:
        case Setting.TARIFF | Setting.CALCULATION_CODE if isinstance(value, IntEnum):
            option = value.name.lower()
            return async_translate_state(hass, option, Platform.SELECT, DOMAIN, setting, None)
        case Setting.S0_RATE:
            return f"{value:g}"
        case Setting.LCD_CYCLE_TIME:
            return f"{value} {UnitOfTime.SECONDS}"
    return str(value)


def counter_value(counter: Counter, value: float) -> str:
    """Return the value of a counter as its entity shows it."""
    if counter is Counter.RESETTABLE:
        return f"{value:.2f} {UnitOfEnergy.KILO_WATT_HOUR}"
    return f"{value:g}"


@callback
def async_translation(
    hass: HomeAssistant, entry_data: Mapping[str, Any], error: KlefrError
) -> Translation:
    """Return the message that says what went wrong with a meter.

    `entry_data` is the data of the meter's entry, or as much of it as is known: at least the port
    and the protocol.
    """
    port, protocol = entry_data[CONF_PORT], Protocol(entry_data[CONF_PROTOCOL])
    kind = KINDS[error.key](protocol, port) if error.key in KINDS else ""
    case, details = _case(error, hass, protocol, port)
    return Translation(
        translation_domain=DOMAIN,
        translation_key="_".join(filter(None, (error.key, kind, case))),
        translation_placeholders={
            "port": port_name(port),
            "address": str(entry_data.get(CONF_ADDRESS, "")),
            **details,
        },
    )


@callback
def async_error_text(hass: HomeAssistant, entry_data: Mapping[str, Any], error: KlefrError) -> str:
    """Return what went wrong with a meter in Home Assistant's language, to put into another text."""
    translation = async_translation(hass, entry_data, error)
    return async_message(
        hass, translation["translation_key"], translation["translation_placeholders"]
    )


type Case = tuple[str, Mapping[str, str]]
"""What the key of a message ends in, and what only this message says."""


@singledispatch
def _case(error: KlefrError, hass: HomeAssistant, protocol: Protocol, port: str) -> Case:
    """Return which of an error's messages is needed, and what it says of the error."""
    return "", {}


@_case.register
def _(error: PortInUseError, hass: HomeAssistant, protocol: Protocol, port: str) -> Case:
    users = async_port_users(hass, port)
    return ("by", {"users": ", ".join(users)}) if users else ("", {})


@_case.register
def _(error: LineSettingsError, hass: HomeAssistant, protocol: Protocol, port: str) -> Case:
    used = {
        "protocol": PROTOCOL_NAMES[error.protocol],
        "baud_rate": str(error.used.baud_rate),
    }
    if error.protocol is Protocol.MODBUS_TCP:
        return "tcp", used
    if error.protocol is protocol and error.used.baud_rate == error.wanted.baud_rate:
        return error.used.parity, used
    return "", used


@_case.register
def _(error: RefusedError, hass: HomeAssistant, protocol: Protocol, port: str) -> Case:
    return "", {"code": str(error.code)}


@_case.register
def _(error: InvalidValueError, hass: HomeAssistant, protocol: Protocol, port: str) -> Case:
    return "", {"value": setting_value(hass, error.setting, error.value)}


@_case.register
def _(error: NotAcceptedError, hass: HomeAssistant, protocol: Protocol, port: str) -> Case:
    written = {"written": setting_value(hass, error.setting, error.written)}
    if error.found is None:
        return "unknown", written
    return "", {**written, "found": setting_value(hass, error.setting, error.found)}


@_case.register
def _(error: NotResetError, hass: HomeAssistant, protocol: Protocol, port: str) -> Case:
    if error.found is None:
        return "unknown", {}
    return "", {"found": counter_value(error.counter, error.found)}


@_case.register
def _(error: AddressTakenError, hass: HomeAssistant, protocol: Protocol, port: str) -> Case:
    taken = {"address": str(error.address)}
    return ("by", {**taken, "holder": error.holder}) if error.holder else ("", taken)


@_case.register
def _(error: NotYetError, hass: HomeAssistant, protocol: Protocol, port: str) -> Case:
    return "", {"users": listed(error.users)}


@_case.register
def _(error: AlreadyAddedError, hass: HomeAssistant, protocol: Protocol, port: str) -> Case:
    return "", {"meter": error.meter, "holder": error.holder}


@_case.register
def _(error: OldMeterAnswersError, hass: HomeAssistant, protocol: Protocol, port: str) -> Case:
    return "", {"meter": error.meter}


@_case.register
def _(error: EntriesError, hass: HomeAssistant, protocol: Protocol, port: str) -> Case:
    return "", {"meters": listed(error.meters)}


@_case.register
def _(error: NotMovedError, hass: HomeAssistant, protocol: Protocol, port: str) -> Case:
    wanted, found = communication_names(hass, (error.wanted, error.found), gateway=is_gateway(port))
    moved = {"wanted": wanted, "found": found}
    if isinstance(refusal := error.__cause__, RefusedError):
        return "refused", {**moved, "code": str(refusal.code)}
    return "", moved


@_case.register
def _(error: MeterLostError, hass: HomeAssistant, protocol: Protocol, port: str) -> Case:
    names = communication_names(hass, (*error.tried, *error.untried), gateway=is_gateway(port))
    tried, untried = (
        "; ".join(dict.fromkeys(part))
        for part in (names[: len(error.tried)], names[len(error.tried) :])
    )
    if not tried:
        return "nowhere_tried", {}
    if not untried:
        return "", {"tried": tried}
    return "untried", {"tried": tried, "untried": untried}
