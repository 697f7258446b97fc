"""What is entered in the forms, right or wrong."""

from collections.abc import Mapping
import json
from pathlib import Path
from typing import Any

from homeassistant.config_entries import SOURCE_USER
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.setup import async_setup_component
from hypothesis import given, settings, strategies as st
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry
from pytest_homeassistant_custom_component.typing import ClientSessionGenerator

import custom_components.klefr as integration
from custom_components.klefr.const import DOMAIN
from custom_components.klefr.flow_schemas import (
    CONFIRM,
    GATEWAY,
    OPTIONS,
    SERIAL,
    Form,
    FormError,
    Section,
    change_form,
    entered,
    found_form,
    meter_form,
    search_form,
    to_show_again,
)
from custom_components.klefr.meter import Protocol
from simulator.line import Line

from .test_config_flow import choose, choose_bus, configure, filled_in, start, start_reconfigure

STRINGS = json.loads((Path(integration.__file__).parent / "translations" / "en.json").read_text())

FORMS: Mapping[str, Form] = {
    "serial": SERIAL,
    "gateway": GATEWAY,
    "options": OPTIONS,
    "confirm": CONFIRM,
    "found": found_form({"22091039": "KLEFR 6934 22091039"}, search_on=True),
    **{f"meter {protocol}": meter_form(protocol, "/dev/ttyUSB0") for protocol in Protocol},
    **{f"search {protocol}": search_form(protocol, "/dev/ttyUSB0") for protocol in Protocol},
    **{f"change {protocol}": change_form(protocol, "/dev/ttyUSB0") for protocol in Protocol},
}

NASTY = [
    *("", " ", "\n", "\0", "a b", "a\nb", "a\0b", "\ud800", "١٢٧", "１", "x" * 5000, "9" * 1000),
    *("user@host", "host/path", "http://host", "host:502", "socket://host:502", "0x10", "1e3"),
    *(0, -1, 1.5, 10**1000, float("nan"), float("inf"), True, [], ["a"], {}, {"a": 1}, b"x"),
]
VALUES = st.one_of(
    st.sampled_from(NASTY),
    st.none(),
    st.text(),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.lists(st.text(), max_size=2),
    st.dictionaries(st.text(), st.integers(), max_size=2),
)


def fields_of(form: Form) -> set[str]:
    return {
        name
        for key, field in form.items()
        for name in (key, *(field.fields if isinstance(field, Section) else ()))
    }


@st.composite
def entries(draw: st.DrawFn, form: Form) -> dict[str, Any]:
    """Some of the fields of a form, and others, with anything in them."""
    entry: dict[str, Any] = {}
    for name, field in form.items():
        if isinstance(field, Section) and draw(st.booleans()):
            entry[name] = {each: draw(VALUES) for each in field.fields if draw(st.booleans())}
        elif draw(st.integers(0, 4)):
            entry[name] = draw(VALUES)
    if not draw(st.integers(0, 4)):
        entry |= draw(st.dictionaries(st.text(), VALUES, max_size=1))
    return entry


@pytest.mark.parametrize("name", FORMS)
@settings(deadline=None, max_examples=100, database=None)
@given(data=st.data())
def test_whatever_is_entered_is_read_or_explained(name: str, data: st.DataObject) -> None:
    form = FORMS[name]
    entry = data.draw(entries(form))
    messages = STRINGS["options" if name == "options" else "config"]["error"]
    wrong: FormError | None = None
    try:
        values = entered(form, entry)
    except FormError as err:
        wrong = err
    if wrong is None:
        assert values.keys() <= fields_of(form)
        json.dumps(values)
    else:
        assert wrong.errors
        assert wrong.errors.keys() <= {*form, "base"}
        for key in wrong.errors.values():
            assert messages[key].format(**wrong.placeholders)
        for quote in wrong.placeholders.values():
            assert quote.isprintable()
            assert 0 < len(quote) <= 61
    # What is shown again can be sent to a browser.
    json.dumps(to_show_again(form, entry), allow_nan=False).encode()


@pytest.mark.parametrize(
    ("host", "error"),
    [
        ("http://gateway", "host_is_url"),
        ("https://192.168.1.20/setup", "host_is_url"),
        ("socket://gateway:502", "host_is_url"),
        ("gateway:502", "host_has_port"),
        ("192.168.1.20:502", "host_has_port"),
        ("[fe80::1]:502", "host_has_port"),
        ("user@gateway", "invalid_host"),
        ("gateway/path", "invalid_host"),
        ("gate way", "invalid_host"),
        ("gateway\nx", "invalid_host"),
        ("gateway\0", "invalid_host"),
        ("１９２.168.1.20", "invalid_host"),
        ("-gateway", "invalid_host"),
        ("gate..way", "invalid_host"),
        ("fe80::g", "invalid_host"),
        ("[gateway", "invalid_host"),
        ("x" * 1000, "invalid_host"),
        ("", "missing"),
        ("  ", "missing"),
        (None, "missing"),
        (["gateway"], "invalid_host"),
        (502, "invalid_host"),
    ],
)
async def test_what_is_no_host_is_explained(hass: HomeAssistant, host: Any, error: str) -> None:
    result = await hass.config_entries.flow.async_init(DOMAIN, context={"source": SOURCE_USER})
    result = await choose(hass, result, "gateway")
    result = await configure(
        hass, result["flow_id"], {"host": host, "port": 502, "protocol": "modbus"}
    )
    assert result["type"] is FlowResultType.FORM
    assert result["errors"] == {"host": error}
    placeholders = result["description_placeholders"]
    assert all(text.isprintable() and len(text) <= 61 for text in placeholders.values())
    assert filled_in(result["data_schema"])["port"] == 502


@pytest.mark.parametrize(
    "host",
    [
        *("gateway", "Gateway.fritz.box", "zähler.local", "my_gateway", "gateway.", "192.168.1.20"),
        *("fe80::1", "[fe80::1]", " gateway "),
    ],
)
def test_a_host_is_taken(host: str) -> None:
    assert entered(GATEWAY, {"host": host})["host"] == host.strip(" []")


@pytest.mark.parametrize(
    "port", [0, 65536, 1.5, "502", "５０２", "5" * 1000, 10**1000, [502], True]
)
async def test_what_is_no_tcp_port_is_explained(hass: HomeAssistant, port: Any) -> None:
    result = await hass.config_entries.flow.async_init(DOMAIN, context={"source": SOURCE_USER})
    result = await choose(hass, result, "gateway")
    result = await configure(hass, result["flow_id"], {"host": "gateway", "port": port})
    assert result["errors"] == {"port": "invalid_tcp_port"}
    assert filled_in(result["data_schema"])["host"] == "gateway"


@pytest.mark.parametrize(
    ("port", "error"),
    [
        ("/dev/tty\nUSB0", "invalid_port"),
        ("/dev/ttyUSB0\0", "invalid_port"),
        ("\ud800", "invalid_port"),
        ("/dev/" + "x" * 5000, "invalid_port"),
        (["/dev/ttyUSB0"], "invalid_port"),
        (5, "invalid_port"),
        (" ", "missing"),
        ("socket://gateway:502", "port_is_gateway"),
        ("Socket://gateway:502", "port_is_gateway"),
        ("/dev/tty USB0", "port_not_found_adapter"),
        ("/dev/ttyUSB٠", "port_not_found_adapter"),
        ("user@host", "port_not_found_adapter"),
        ("/dev", "not_a_serial_port"),
        ("/dev/null", "not_a_serial_port"),
        ("/dev/null/port", "port_not_found_adapter"),
    ],
)
async def test_what_is_no_serial_port_is_explained(
    hass: HomeAssistant, port: Any, error: str
) -> None:
    result = await configure(hass, await start(hass), {"port": port, "protocol": "modbus"})
    assert result["type"] is FlowResultType.FORM
    assert result["errors"] == {"port": error}
    placeholders = result["description_placeholders"]
    assert all(text.isprintable() and len(text) <= 61 for text in placeholders.values())


async def test_what_is_no_form_at_all_is_explained(hass: HomeAssistant, line: Line) -> None:
    flow_id = await start(hass)
    result = await configure(hass, flow_id, {"port": line.port, "protocol": "profibus"})
    assert result["errors"] == {"protocol": "invalid_choice"}
    result = await configure(hass, flow_id, {"port": line.port, "baud\nrate": 1})
    assert result["errors"] == {"base": "no_such_field"}
    assert result["description_placeholders"]["field"] == r"'baud\nrate'"
    result = await choose_bus(hass, flow_id, {"port": line.port, "protocol": "modbus"})
    for line_settings in (["9600"], "9600", {"baudrate": "9600"}, {"baud_rate": 9600}):
        result = await configure(hass, flow_id, {"address": 1, "line_settings": line_settings})
        assert result["errors"] == {"line_settings": "invalid_choice"}
        assert is_open(result)
    result = await configure(hass, flow_id, {"address": 1, "line_settings": {}})
    assert result["type"] is FlowResultType.CREATE_ENTRY
    await hass.config_entries.async_unload(result["result"].entry_id)


def is_open(result: Any) -> bool:
    """Whether the line settings can be seen."""
    [section] = [v for k, v in result["data_schema"].schema.items() if k == "line_settings"]
    return not section.options["collapsed"]


async def test_the_line_settings_are_open_when_they_may_be_wrong(
    hass: HomeAssistant, line: Line
) -> None:
    flow_id = await start(hass)
    result = await choose_bus(hass, flow_id, {"port": line.port, "protocol": "modbus"})
    assert not is_open(result)
    result = await configure(hass, flow_id, {"address": 0, "line_settings": {}})
    assert not is_open(result)
    result = await configure(hass, flow_id, {"address": 2, "line_settings": {}})
    assert result["errors"] == {"base": "no_answer_modbus"}
    assert is_open(result)
    line.garble = 1.0
    result = await configure(hass, flow_id, {"address": 1, "line_settings": {}})
    assert result["errors"] == {"base": "garbled_answer_modbus"}
    assert is_open(result)


async def test_the_button_says_next_where_a_step_follows(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line
) -> None:
    result = await start_reconfigure(hass, loaded, "gateway")
    assert result["step_id"] == "reach_gateway"
    assert result["last_step"] is False
    result = await start_reconfigure(hass, loaded)
    assert result["step_id"] == "reach_serial"
    assert result["last_step"] is False
    result = await configure(hass, result["flow_id"], {"port": line.port, "protocol": "modbus"})
    found = result
    result = await choose(hass, found, "search")
    assert result["step_id"] == "reach_search_modbus"
    assert result["last_step"] is False
    result = await start_reconfigure(hass, loaded)
    result = await choose_bus(hass, result["flow_id"], {"port": line.port, "protocol": "modbus"})
    assert result["step_id"] == "reach_modbus"
    assert result["last_step"] is None


async def test_a_browser_can_show_what_was_entered(
    hass: HomeAssistant, hass_client: ClientSessionGenerator, loaded: MockConfigEntry
) -> None:
    assert await async_setup_component(hass, "config", {})
    client = await hass_client()
    flows = "/api/config/config_entries/options/flow"
    flow = await (await client.post(flows, json={"handler": loaded.entry_id})).json()
    url = f"{flows}/{flow['flow_id']}"
    answer = await client.post(url, json={"update_interval": "often"})
    assert answer.status == 200
    form = await answer.json()
    assert form["errors"] == {"update_interval": "invalid_interval"}
    [field] = form["data_schema"]
    assert field["selector"]["number"]["min"] == 5
    assert field["selector"]["number"]["unit_of_measurement"] == "s"
    assert field["default"] == 10
