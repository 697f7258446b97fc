"""Words for the user: what meters are called, and errors of the meter library, translated."""

from collections.abc import Iterable, Mapping
from reprlib import Repr
from typing import Any, Final, TypedDict

from homeassistant.const import CONF_ADDRESS, CONF_PORT
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.translation import async_get_cached_translations

from .const import DOMAIN, MANUFACTURER
from .meter import (
    AddressTakenError,
    Communication,
    Identity,
    KlefrError,
    MeterLostError,
    NotMovedError,
    PortInUseError,
)
from .meter.link import GATEWAY_PREFIX
from .port_users import async_port_users

NOTHING = "–"

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
    return ", ".join(names) or NOTHING


def quoted(value: object) -> str:
    """Return what a user entered as a message can quote it: in one line that is not too long."""
    text = value if isinstance(value, str) else SHORT.repr(value)
    line = "".join(
        character if character.isprintable() else " " if character.isspace() else "�"
        for character in text[:QUOTED_LENGTH]
    )
    return line if len(text) <= QUOTED_LENGTH else f"{line}…"


def port_name(port: str) -> str:
    """Return a port as the user knows it: the name of a serial port, or a gateway's host and port."""
    return port.removeprefix(GATEWAY_PREFIX)


@callback
def async_text(hass: HomeAssistant, key: str, default: str | None = None) -> str:
    """Return a text of strings.json in Home Assistant's language, by its path with dots."""
    category = key.partition(".")[0]
    texts = async_get_cached_translations(hass, hass.config.language, category, DOMAIN)
    return texts.get(f"component.{DOMAIN}.{key}", default or key)


@callback
def async_message(hass: HomeAssistant, key: str, placeholders: Mapping[str, str] | None) -> str:
    """Return the message of an error in Home Assistant's language, to put into another one."""
    return async_text(hass, f"exceptions.{key}.message").format(**(placeholders or {}))


def meter_name(identity: Identity) -> str:
    """Return a name that tells a meter from others of its model."""
    return f"{MANUFACTURER} {identity.model} {identity.serial_number}"


def communication_name(communication: Communication) -> str:
    """Return how a meter communicates, such as "17 / 30000040 (9600 Bd, 8E1)"."""
    addresses = [str(communication.address), *filter(None, [communication.secondary_address])]
    parity = communication.parity[0].upper()
    return f"{' / '.join(addresses)} ({communication.baud_rate} Bd, 8{parity}1)"


@callback
def async_translation(
    hass: HomeAssistant, entry_data: Mapping[str, Any], error: KlefrError
) -> Translation:
    """Return the message that says what went wrong with a meter.

    `entry_data` is the data of the meter's entry, or as much of it as is known.
    """
    port = str(entry_data.get(CONF_PORT, ""))
    placeholders = {
        "port": port,
        "address": str(entry_data.get(CONF_ADDRESS, "")),
        "error": str(error),
    }
    users: list[str] = []
    match error:
        case PortInUseError():
            users = async_port_users(hass, port)
        case AddressTakenError():
            placeholders["address"] = str(error.address)
            users = [error.holder] if error.holder else []
        case NotMovedError():
            placeholders["error"] = str(error.__cause__ or NOTHING)
            placeholders["wanted"] = communication_name(error.wanted)
            placeholders["found"] = communication_name(error.found)
        case MeterLostError():
            placeholders["tried"] = listed(map(communication_name, error.tried))
            placeholders["untried"] = listed(map(communication_name, error.untried))
    if users:
        placeholders["error"] = listed(users)
    return Translation(
        translation_domain=DOMAIN,
        translation_key=f"{error.key}_by" if users else error.key,
        translation_placeholders=placeholders,
    )
