"""Every word that a user may see."""

from collections.abc import Iterator
import json
from pathlib import Path
import re
from string import Formatter
from typing import Any

from homeassistant.helpers.selector import validate_selector
from homeassistant.util.yaml import load_yaml_dict, parse_yaml
import pytest

import custom_components.klefr as integration
from custom_components.klefr.binary_sensor import BINARY_SENSORS
from custom_components.klefr.button import BUTTONS
from custom_components.klefr.config_flow import KlefrConfigFlow
from custom_components.klefr.entity import ATTR_NOTE, Note
from custom_components.klefr.flow_base import KlefrFlow
from custom_components.klefr.flow_communication import CommunicationSteps
from custom_components.klefr.flow_schemas import (
    GATEWAY,
    OPTIONS,
    SEARCH_ON,
    SERIAL,
    change_form,
    line_settings_form,
    meter_form,
    search_form,
)
from custom_components.klefr.flow_search import SearchSteps
from custom_components.klefr.meter import (
    MODBUS_ADDRESSES,
    PRIMARY_ADDRESSES,
    BaudRate,
    Counter,
    Parity,
    Protocol,
)
from custom_components.klefr.number import NUMBERS
from custom_components.klefr.repairs import WrongMeterFlow
from custom_components.klefr.select import SELECTS
from custom_components.klefr.sensor import SENSORS
from custom_components.klefr.service_values import FIELDS, Action
from custom_components.klefr.wrong_meter import ISSUE_WRONG_METER

FOLDER = Path(integration.__file__).parent
SERVICES: dict[str, Any] = load_yaml_dict(str(FOLDER / "services.yaml"))
STRINGS: dict[str, Any] = json.loads((FOLDER / "translations" / "en.json").read_text())
ICONS: dict[str, Any] = json.loads((FOLDER / "icons.json").read_text())

ENTITIES = {
    "binary_sensor": BINARY_SENSORS,
    "button": BUTTONS,
    "number": NUMBERS,
    "select": SELECTS,
    "sensor": SENSORS,
}


def texts(strings: Any) -> Iterator[str]:
    if isinstance(strings, str):
        yield strings
    else:
        for value in strings.values():
            yield from texts(value)


@pytest.mark.parametrize("platform", ENTITIES)
def test_every_entity_has_a_name_and_nothing_else_has(platform: str) -> None:
    keys = {str(description.key) for description in ENTITIES[platform]}
    assert STRINGS["entity"][platform].keys() == keys
    names = [entity["name"] for entity in STRINGS["entity"][platform].values()]
    assert len(names) == len(set(names))


def test_every_state_has_a_name() -> None:
    for sensor in SENSORS:
        states = STRINGS["entity"]["sensor"][sensor.key].get("state", {})
        assert list(states) == list(sensor.options or ())
    for select in SELECTS:
        states = STRINGS["entity"]["select"][select.key].get("state", {})
        assert list(states) == [option for option in select.values if not is_number(option)]


def is_number(option: str) -> bool:
    """Return whether an option is what a user types and reads, and needs no other name."""
    return re.fullmatch(r"[0-9]+(\.[0-9]+)?", option) is not None


def test_every_note_has_words_where_it_is_shown() -> None:
    notes = {str(sensor.key): sensor.note for sensor in SENSORS}
    notes |= {str(select.key): Note.NOT_REPORTED for select in SELECTS}
    for platform, descriptions in ENTITIES.items():
        for description in descriptions:
            attributes = STRINGS["entity"][platform][description.key].get("state_attributes", {})
            note = notes.get(description.key)
            assert attributes.keys() == ({ATTR_NOTE} if note else set())
            if note:
                assert attributes[ATTR_NOTE].keys() == {"name", "state"}
                assert attributes[ATTR_NOTE]["state"].keys() == {note}


def test_every_issue_has_words() -> None:
    assert STRINGS["issues"].keys() == {ISSUE_WRONG_METER}
    for issue in STRINGS["issues"].values():
        fields = {field for text in texts(issue) for _, field, _, _ in Formatter().parse(text)}
        assert fields - {None} <= {"address", "port", "expected", "found", "error", "meters"}


def test_state_names_are_what_home_assistant_takes_as_keys() -> None:
    for platform in STRINGS["entity"].values():
        for entity in platform.values():
            assert all(re.fullmatch(r"[a-z0-9_-]+", key) for key in entity.get("state", {}))


def test_an_option_is_the_same_without_quotes() -> None:
    for select in SELECTS:
        for option in select.values:
            assert str(parse_yaml(option)) == option


@pytest.mark.parametrize("platform", ["button", "number", "select", "sensor"])
def test_what_has_no_device_class_has_an_icon(platform: str) -> None:
    plain = {
        str(description.key)
        for description in ENTITIES[platform]
        if description.device_class is None or description.device_class == "enum"
    }
    assert plain <= ICONS["entity"][platform].keys()
    assert ICONS["entity"][platform].keys() <= {str(d.key) for d in ENTITIES[platform]}


def test_every_action_and_field_is_named_and_explained() -> None:
    assert list(STRINGS["services"]) == list(SERVICES) == list(Action) == list(FIELDS)
    assert ICONS["services"].keys() == set(Action)
    for action, fields in FIELDS.items():
        strings = STRINGS["services"][action]
        assert strings["name"]
        assert strings["description"]
        assert list(strings["fields"]) == list(SERVICES[action]["fields"]) == list(fields)
        for field in strings["fields"].values():
            assert field.keys() == {"name", "description"}
        assert SERVICES[action]["target"] == {"device": {"integration": "klefr"}}


def test_every_field_has_a_selector_that_home_assistant_takes() -> None:
    for service in SERVICES.values():
        for field in service["fields"].values():
            assert validate_selector(field["selector"])


def test_the_irreversible_action_is_listed_last() -> None:
    # Home Assistant sorts actions by key in one place and by name in another.
    names = [STRINGS["services"][action]["name"] for action in Action]
    assert sorted(Action) == list(Action)
    assert sorted(names) == names
    assert "irreversible" in names[-1]


def test_actions_offer_what_the_entities_offer() -> None:
    fields = SERVICES[Action.CHANGE_SETTINGS]["fields"]
    for select in SELECTS:
        selector = fields[select.key]["selector"]["select"]
        options = [
            option for option, value in select.values.items() if value != select.irreversible
        ]
        assert selector["options"] == options
        if not all(map(is_number, options)):
            names = STRINGS["selector"][selector["translation_key"]]["options"]
            states = STRINGS["entity"]["select"][select.key]["state"]
            assert names == {option: states[option] for option in options}
    for number in NUMBERS:
        selector = fields[number.key]["selector"]["number"]
        assert selector["min"] == number.native_min_value
        assert selector["max"] == number.native_max_value
        assert selector["unit_of_measurement"] == number.native_unit_of_measurement
    selector = SERVICES[Action.RESET_COUNTER]["fields"]["counter"]["selector"]["select"]
    assert selector["options"] == list(STRINGS["selector"]["counter"]["options"]) == list(Counter)


def test_wherever_code_10_can_be_locked_it_is_said_to_be_irreversible() -> None:
    strings = STRINGS["services"][Action.SET_CALCULATION_CODE_10]
    places = [
        strings["name"],
        strings["description"],
        *(field["description"] for field in strings["fields"].values()),
        *(text for text in texts(STRINGS) if strings["name"].split(" (")[0] in text),
        *(text for text in texts(STRINGS) if re.search("code 10 is", text, re.IGNORECASE)),
    ]
    for place in places:
        assert "irreversible" in place
    assert len(places) > 6


@pytest.mark.parametrize("prefix", ["", "reach_"])
@pytest.mark.parametrize(("step", "form"), [("serial", SERIAL), ("gateway", GATEWAY)])
def test_every_field_of_a_bus_is_named_and_explained(prefix: str, step: str, form: Any) -> None:
    strings = STRINGS["config"]["step"][prefix + step]
    assert strings["data"].keys() == strings["data_description"].keys() == form.keys()


@pytest.mark.parametrize("prefix", ["", "reach_"])
@pytest.mark.parametrize("protocol", Protocol)
@pytest.mark.parametrize("port", ["/dev/ttyUSB0", "socket://gateway:502"])
def test_every_field_of_a_meter_is_named_and_explained(
    prefix: str, protocol: Protocol, port: str
) -> None:
    step = "mbus" if protocol is Protocol.MBUS else "modbus"
    strings = STRINGS["config"]["step"][prefix + step]
    section = strings["sections"]["line_settings"]
    fields = meter_form(protocol, port).keys() - {"line_settings"}
    assert strings["data"].keys() == strings["data_description"].keys() == fields
    assert section["data"].keys() == section["data_description"].keys()
    assert section["data"].keys() >= line_settings_form(protocol, port).keys()


@pytest.mark.parametrize("prefix", ["", "reach_"])
@pytest.mark.parametrize("protocol", [Protocol.MODBUS, Protocol.MBUS])
def test_every_field_of_a_search_is_named_and_explained(prefix: str, protocol: Protocol) -> None:
    strings = STRINGS["config"]["step"][f"{prefix}search_{protocol}"]
    form = search_form(protocol, "/dev/ttyUSB0")
    assert strings["data"].keys() == strings["data_description"].keys() == form.keys()


@pytest.mark.parametrize("port", ["/dev/ttyUSB0", "socket://gateway:502"])
@pytest.mark.parametrize("protocol", Protocol)
def test_every_field_of_a_change_is_named_and_explained(protocol: Protocol, port: str) -> None:
    mbus = protocol is Protocol.MBUS
    strings = STRINGS["config"]["step"]["change_mbus" if mbus else "change_modbus"]
    form = change_form(protocol, port)
    assert strings["data"].keys() == strings["data_description"].keys()
    assert form.keys() <= strings["data"].keys()
    if port.startswith("/") and protocol is not Protocol.MODBUS_TCP:
        assert strings["data"].keys() == form.keys()
    # What the other protocol allows is not mentioned.
    addresses = PRIMARY_ADDRESSES if mbus else MODBUS_ADDRESSES
    assert f"{addresses[0]} to {addresses[-1]}" in strings["data_description"]["address"]
    assert "bus:" not in json.dumps(strings["data_description"])


def test_the_options_are_named_and_explained() -> None:
    strings = STRINGS["options"]["step"]["init"]
    assert strings["data"].keys() == strings["data_description"].keys() == OPTIONS.keys()


def test_every_step_of_the_flow_has_its_words() -> None:
    steps = {
        name.removeprefix("async_step_")
        for name in vars(KlefrConfigFlow).keys()
        | vars(SearchSteps).keys()
        | vars(CommunicationSteps).keys()
        | vars(KlefrFlow).keys()
        if name.startswith("async_step_")
    }
    # These show the words of other steps, progress or how the flow ended.
    unnamed = {
        *("integration_discovery", "communication", "changing", "changed", "not_changed"),
        *("searching", "reach_searching", "search_failed", "reach_found", "nothing_found"),
        "reach_replaced",
        *("search", "search_all", "search_on", "change", "meter_deleted"),
    }
    assert STRINGS["config"]["step"].keys() == steps - unnamed
    for name, step in STRINGS["config"]["step"].items():
        for option in step.get("menu_options", ()):
            assert option in steps, name
        assert (
            step.get("menu_options", {}).keys() >= step.get("menu_option_descriptions", {}).keys()
        )


def test_every_dialog_about_a_known_meter_names_it() -> None:
    config = STRINGS["config"]
    dialogs = [
        *(
            step["description"]
            for name, step in config["step"].items()
            if name.startswith("reach")
            or name in ("reconfigure", "change_modbus", "change_mbus", "shared_bus")
        ),
        *(text for name, text in config["progress"].items() if name.startswith("reach_")),
        *(config["progress"][name] for name in ("communication", "changing")),
        *(
            config["abort"][name]
            for name in (
                *("already_configured", "wrong_meter", "reconfigure_successful", "replaced"),
                *("changed", "nothing_to_change"),
            )
        ),
        STRINGS["options"]["step"]["init"]["description"],
    ]
    assert len(dialogs) > 30
    for text in dialogs:
        assert "{meter}" in text


def test_every_choice_is_named() -> None:
    selector = STRINGS["selector"]
    assert selector["protocol"]["options"].keys() == set(Protocol) - {Protocol.MODBUS_TCP}
    assert selector["gateway_protocol"]["options"].keys() == set(Protocol)
    assert list(selector["baud_rate"]["options"]) == [str(rate) for rate in reversed(BaudRate)]
    assert list(selector["parity"]["options"]) == list(Parity)
    assert list(selector["found"]["options"]) == [SEARCH_ON]


def test_every_repair_has_its_words() -> None:
    assert STRINGS["issues"].keys() == {ISSUE_WRONG_METER}
    for issue in STRINGS["issues"].values():
        assert issue.keys() in ({"title", "description"}, {"title", "fix_flow"})
    fix_flow = STRINGS["issues"][ISSUE_WRONG_METER]["fix_flow"]
    steps = {
        name.removeprefix("async_step_")
        for name in vars(WrongMeterFlow)
        if name.startswith("async_step_")
    }
    # The others show no form.
    assert fix_flow["step"].keys() == {"init"}
    menu = fix_flow["step"]["init"]
    assert menu["menu_options"].keys() == menu["menu_option_descriptions"].keys()
    assert menu["menu_options"].keys() == steps - {"init"}
