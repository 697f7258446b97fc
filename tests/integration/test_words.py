"""Every message in every case in which it can be shown, and rules for every word."""

from collections.abc import Callable, Iterator
import json
from pathlib import Path
import re
from string import Formatter
from typing import Any, Final

from homeassistant.core import HomeAssistant
from homeassistant.helpers.translation import async_load_integrations
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

import custom_components.klefr as integration
from custom_components.klefr.const import DOMAIN
from custom_components.klefr.entry_errors import (
    AlreadyAddedError,
    DamagedEntryError,
    NotPutBackError,
    NotSetAsideError,
    NotYetError,
    OldMeterAnswersError,
    ThirdMeterAnswersError,
)
from custom_components.klefr.meter import (
    AddressTakenError,
    BaudRate,
    CalculationCode,
    Communication,
    Counter,
    KlefrError,
    LineSettingsError,
    MeterLostError,
    NotAcceptedError,
    NotMovedError,
    NotResetError,
    Parity,
    Protocol,
    RefusedError,
    SerialLink,
    Setting,
    Tariff,
    WrongMeterError,
    errors,
)
from custom_components.klefr.meter.errors import InvalidValueError
from custom_components.klefr.service_errors import Problem
from custom_components.klefr.wording import (
    KINDS,
    Translation,
    async_translation,
    communication_names,
    port_name,
    setting_value,
)

FOLDER: Final = Path(integration.__file__).parent
STRINGS: Final[dict[str, Any]] = json.loads((FOLDER / "translations" / "en.json").read_text())
MANIFEST: Final[dict[str, Any]] = json.loads((FOLDER / "manifest.json").read_text())
EXCEPTIONS: Final[dict[str, str]] = {
    key: value["message"] for key, value in STRINGS["exceptions"].items()
}

SERIAL: Final = "/dev/ttyUSB0"
HELD: Final = "/dev/ttyUSB1"
PROXY: Final = "esphome-hass://esphome/0123456789?port_name=RS485"
GATEWAY: Final = "socket://192.168.1.20:502"
PLACES: Final = [
    *(
        (protocol, port)
        for protocol in (Protocol.MODBUS, Protocol.MBUS)
        for port in (SERIAL, PROXY)
    ),
    *((protocol, GATEWAY) for protocol in Protocol),
]

HERE: Final = Communication(address=1, baud_rate=BaudRate.B9600, parity=Parity.EVEN)
THERE: Final = Communication(address=17, baud_rate=BaudRate.B1200, parity=Parity.EVEN)

# What only a serial port, or only a host on the network, can have.
ONLY_SERIAL: Final = {"port_not_found", "not_a_serial_port", "port_permission", "port_in_use"}
ONLY_NETWORK: Final = {"host_not_found", "host_refused", "host_silent"}


def refused_move() -> NotMovedError:
    error = NotMovedError(wanted=THERE, found=HERE)
    error.__cause__ = RefusedError(3)
    return error


def settings_in_use(**used: Any) -> Callable[[Protocol, str], KlefrError]:
    def error(protocol: Protocol, port: str) -> KlefrError:
        return LineSettingsError(
            protocol=used.get("protocol", protocol),
            used=SerialLink(
                port=port,
                baud_rate=used.get("baud_rate", BaudRate.B9600),
                parity=used.get("parity", Parity.EVEN),
            ),
            wanted=SerialLink(port=port),
        )

    return error


# The errors that say more than what kind of error they are.
DETAILED: Final[list[Callable[[], KlefrError]]] = [
    lambda: RefusedError(6),
    lambda: WrongMeterError(expected="22091039", found="22091040"),
    lambda: AlreadyAddedError(meter="KLEFR 6934 22091039", holder="KLEFR 6934 22091040"),
    lambda: OldMeterAnswersError("KLEFR 6934 22091039"),
    lambda: InvalidValueError(Setting.LCD_CYCLE_TIME, 99),
    lambda: NotAcceptedError(Setting.TARIFF, written=Tariff.T2, found=Tariff.T1),
    lambda: NotAcceptedError(Setting.TARIFF, written=Tariff.T2, found=None),
    lambda: NotResetError(Counter.RESETTABLE, found=12.3),
    lambda: NotResetError(Counter.POWER_DOWN, found=None),
    lambda: AddressTakenError(17),
    lambda: AddressTakenError("30000040", "KLEFR 6934 22091040"),
    lambda: NotMovedError(wanted=THERE, found=HERE),
    refused_move,
    lambda: NotYetError(["Heat pump (solar)"]),
    lambda: NotSetAsideError(["KLEFR 6934 22091040"]),
    lambda: NotPutBackError(["KLEFR 6934 22091040", "KLEFR 6934 22091041"]),
    lambda: MeterLostError(tried=[THERE, HERE], untried=[]),
    lambda: MeterLostError(tried=[HERE], untried=[THERE]),
    lambda: MeterLostError(tried=[], untried=[HERE, THERE]),
]
PLAIN: Final = [
    error
    for error in (*vars(errors).values(), DamagedEntryError, ThirdMeterAnswersError)
    if isinstance(error, type)
    and issubclass(error, KlefrError)
    and hasattr(error, "key")
    and error not in {type(make()) for make in DETAILED}
    and error is not LineSettingsError
]
IN_USE: Final = [
    settings_in_use(protocol=Protocol.MBUS, baud_rate=BaudRate.B2400),
    settings_in_use(protocol=Protocol.MODBUS_TCP),
    *(settings_in_use(parity=parity) for parity in Parity),
]


def cases() -> Iterator[tuple[Protocol, str, KlefrError]]:
    """Every error wherever it can happen."""
    for protocol, port in PLACES:
        for make in DETAILED:
            yield protocol, port, make()
        for plain in PLAIN:
            impossible = ONLY_NETWORK if port == SERIAL else set()
            impossible = ONLY_SERIAL - {"port_not_found"} if port == PROXY else impossible
            impossible = ONLY_SERIAL if port == GATEWAY else impossible
            if plain.key not in impossible:
                yield protocol, port, plain("English text that no user may see")
        for in_use in IN_USE:
            yield protocol, port, in_use(protocol, port)
    yield Protocol.MODBUS, HELD, errors.PortInUseError("English text that no user may see")


@pytest.fixture
async def translations(hass: HomeAssistant) -> list[tuple[Protocol, str, Translation]]:
    await async_load_integrations(hass, {DOMAIN})
    MockConfigEntry(domain="zha", title="Zigbee stick", data={"path": HELD}).add_to_hass(hass)
    return [
        (
            protocol,
            port,
            async_translation(hass, {"port": port, "protocol": protocol, "address": 1}, error),
        )
        for protocol, port, error in cases()
    ]


def message(translation: Translation) -> str:
    text = EXCEPTIONS[translation["translation_key"]]
    return text.format_map(translation["translation_placeholders"])


async def test_every_case_has_its_message_and_every_message_its_case(
    translations: list[tuple[Protocol, str, Translation]],
) -> None:
    keys = {each["translation_key"] for _, _, each in translations}
    assert keys | set(Problem) == EXCEPTIONS.keys()
    assert {error.key for error in PLAIN} >= KINDS.keys()


async def test_every_placeholder_is_given_and_none_is_empty(
    translations: list[tuple[Protocol, str, Translation]],
) -> None:
    for _, _, translation in translations:
        text = EXCEPTIONS[translation["translation_key"]]
        for _, field, _, _ in Formatter().parse(text):
            if field:
                value = translation["translation_placeholders"][field]
                assert value.strip(" –-")
                assert value not in ("None", "[]")


async def test_no_message_shows_what_is_inside(
    translations: list[tuple[Protocol, str, Translation]],
) -> None:
    for _, _, translation in translations:
        assert not re.search(r"://|English|Errno|0123456789|_", message(translation))


async def test_what_cannot_be_wrong_is_not_mentioned(
    translations: list[tuple[Protocol, str, Translation]],
) -> None:
    for protocol, port, translation in translations:
        text = message(translation)
        key = translation["translation_key"]
        if key.startswith("line_settings_in_use"):
            continue  # It says what is in use.
        if protocol is Protocol.MBUS:
            assert not re.search(r"parity|Ω|\bA and B\b|\badapter", text), key
        elif not key.startswith("no_answer_mbus"):
            assert "level converter" not in text, key
        if port == GATEWAY:
            assert not re.search(r"Ω|\bA and B\b|cable|adapter|terminal|serial p", text), key
        else:
            assert "gateway" not in text.lower(), key


async def test_no_answer_through_a_gateway_suggests_the_other_protocol(
    translations: list[tuple[Protocol, str, Translation]],
) -> None:
    texts = {
        protocol: message(translation)
        for protocol, port, translation in translations
        if port == GATEWAY and translation["translation_key"].startswith("no_answer")
    }
    assert "choose the protocol Modbus RTU over TCP" in texts[Protocol.MODBUS_TCP]
    assert "choose the protocol Modbus TCP" in texts[Protocol.MODBUS]
    assert "choose a Modbus protocol" in texts[Protocol.MBUS]


async def test_a_communication_is_named_by_what_differs(hass: HomeAssistant) -> None:
    await async_load_integrations(hass, {DOMAIN})
    odd = Communication(address=1, baud_rate=BaudRate.B9600, parity=Parity.ODD)
    assert communication_names(hass, (THERE, HERE), gateway=False) == [
        "address 17, 1200 baud",
        "address 1, 9600 baud",
    ]
    assert communication_names(hass, (odd, HERE), gateway=False) == [
        "address 1, 9600 baud, odd parity",
        "address 1, 9600 baud, even parity",
    ]
    first, second = (
        Communication(
            address=1,
            secondary_address=digits,
            baud_rate=BaudRate.B9600,
            parity=Parity.EVEN,
        )
        for digits in ("30000040", "30000041")
    )
    assert communication_names(hass, (first, second), gateway=False) == [
        "address 1, secondary address 30000040, 9600 baud",
        "address 1, secondary address 30000041, 9600 baud",
    ]
    assert communication_names(hass, (THERE,), gateway=True) == ["address 17"]


@pytest.mark.parametrize(
    ("language", "shown"),
    [
        ("de", "Adresse 17, 1200 Baud"),
        ("fr", "adresse 17, 1200 bauds"),
        ("pl", "adres 17, 1200 bodów"),
    ],
)
async def test_what_a_message_names_is_in_the_language_of_the_message(
    hass: HomeAssistant, caplog: pytest.LogCaptureFixture, language: str, shown: str
) -> None:
    hass.config.language = language
    await async_load_integrations(hass, {DOMAIN})
    assert communication_names(hass, (THERE, HERE), gateway=False)[0] == shown
    # Home Assistant leaves out a translation with other placeholders than English, and says so.
    assert "Validation of translation placeholders" not in caplog.text


async def test_values_are_shown_as_the_entities_show_them(hass: HomeAssistant) -> None:
    await async_load_integrations(hass, {DOMAIN})
    hass.config.components.add(DOMAIN)
    hass.config.top_level_components.add(DOMAIN)
    for setting, value, shown in (
        (Setting.CALCULATION_CODE, CalculationCode.FORWARD_PLUS_REVERSE, "05: forward + reverse"),
        (Setting.TARIFF, Tariff.T2_UNTIL_RESTART, "T2 until the meter restarts"),
        (Setting.S0_RATE, 10000.0, "10000"),
        (Setting.S0_RATE, 0.01, "0.01"),
        (Setting.LCD_CYCLE_TIME, 7, "7 s"),
    ):
        assert setting_value(hass, setting, value) == shown


@pytest.mark.parametrize(
    ("port", "shown"),
    [
        (SERIAL, SERIAL),
        (GATEWAY, "192.168.1.20:502"),
        ("socket://[fe80::1]:502", "[fe80::1]:502"),
        (PROXY, "RS485"),
        ("rfc2217://user:secret@proxy.local:2217/x?logging=debug", "proxy.local:2217"),
        ("esphome://proxy.local:6053/?key=secret&port_name=RS485", "RS485"),
    ],
)
def test_a_port_is_shown_without_scheme_and_secrets(port: str, shown: str) -> None:
    assert port_name(port) == shown


@pytest.mark.parametrize("typed", ["inepro", "pro380", "klefr"])
def test_a_search_for_any_of_its_names_finds_the_integration(typed: str) -> None:
    assert typed in MANIFEST["name"].lower()


# Words.

FORBIDDEN: Final = re.compile(
    r"\b(please|otherwise|nobody|whoever|is to be|to be had|all the same|set alike|of its own"
    r"|by itself|many a|worth it|tells?|told|look who|converter(?<!level converter)|e\.g\.|i\.e\."
    r"|etc|via|may not|in another way)\b"
    r"|\bday counter|socket://|errno|\d,\d{3}\b|[–]",
    re.IGNORECASE,
)


def texts(strings: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(strings, str):
        yield path, strings
    else:
        for key, value in strings.items():
            yield from texts(value, f"{path}/{key}")


ALL_TEXTS: Final = list(texts(STRINGS))


@pytest.mark.parametrize(("path", "text"), ALL_TEXTS, ids=[path for path, _ in ALL_TEXTS])
def test_every_text_keeps_to_plain_words(path: str, text: str) -> None:
    assert not (found := FORBIDDEN.search(text)), found
    assert text == text.strip()
    assert "  " not in text
    if path.endswith(("/name", "/title")):
        assert not text.endswith(".")
    if re.match(r"/config/(error|abort)/|/exceptions/", path):
        # What is behind a colon or a semicolon is a sentence too.
        assert len(re.findall(r"[.?](?:\s|$)", text)) <= 3
        assert text.endswith((".", "{error}"))


# A user who waits at a form has to do something else than one who looks at an entry.
DIFFERENT_AT_A_FORM: Final = {"wrong_meter", "not_ready"}


def test_one_error_has_the_same_words_everywhere() -> None:
    repairs = [issue.get("fix_flow", {}) for issue in STRINGS["issues"].values()]
    for texts_of_errors in (
        *(STRINGS["config"][kind] for kind in ("error", "abort")),
        *(fix_flow.get("abort", {}) for fix_flow in repairs),
    ):
        for key, text in texts_of_errors.items():
            if key in EXCEPTIONS and key not in {*Problem, *DIFFERENT_AT_A_FORM}:
                assert text == EXCEPTIONS[key]
