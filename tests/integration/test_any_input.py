"""Whatever a browser sends, what is wrong is said in words, and nothing is lost.

What each form makes of its fields alone is in test_forms.py, and test_actions_input.py is about
the actions. Nor does it matter what was stored.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from random import Random
from typing import Any

from homeassistant.config_entries import (
    SOURCE_RECONFIGURE,
    SOURCE_USER,
    ConfigEntryState,
    OptionsFlowManager,
)
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowManager, FlowResultType, UnknownFlow
from homeassistant.exceptions import ConfigEntryError, ConfigEntryNotReady, HomeAssistantError
from homeassistant.helpers.data_entry_flow import FlowManagerIndexView
from homeassistant.helpers.json import json_bytes
from hypothesis import HealthCheck, Phase, given, settings, strategies as st
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry
import voluptuous as vol

from custom_components.klefr.const import DOMAIN
from custom_components.klefr.entry_data import async_make_usable
from simulator import mbus, modbus
from simulator.line import Line
from simulator.mbus import MBusFace
from simulator.meter import VirtualMeter

from . import SERIAL_NUMBER
from .test_communication import through
from .test_config_flow import with_words
from .test_forms import NASTY, STRINGS

PORT = "virtual://meter"
GATEWAY = "socket://gateway:502"

TOO_LONG = ("search_all", "search_on")
"""Searches that take a while, even in virtual time. test_search.py has them."""

# What is right in some field of some form, or nearly so.
RIGHT: Mapping[str, list[Any]] = {
    "port": [PORT, "virtual://nothing", "/dev", "/dev/null", "/dev/ttyUSB9", 502, 503, 502.0],
    "host": ["gateway", "nowhere", "gateway "],
    "protocol": ["modbus", "modbus_tcp", "mbus"],
    "address": [1, 5, 247, 1.0, "1", "5", "0", SERIAL_NUMBER, "FFFFFFFF"],
    "secondary_address": [SERIAL_NUMBER, "30000040"],
    "baud_rate": ["9600", "1200", 9600],
    "parity": ["even", "none", "odd"],
    "all_line_settings": [False],
    "meter": [SERIAL_NUMBER, "search_on"],
    "update_interval": [5, 30.0, 3600, 4, "10"],
}
# What makes a dialog go on.
GOOD: Mapping[str, Any] = {
    "host": "gateway",
    "address": 1,
    "secondary_address": SERIAL_NUMBER,
    "meter": SERIAL_NUMBER,
    "update_interval": 30,
}
anything = st.one_of(
    st.sampled_from(NASTY),
    st.none(),
    st.text(max_size=20),
    st.integers(),
    st.floats(),
    st.lists(st.integers() | st.text(max_size=5), max_size=2),
    st.dictionaries(st.text(max_size=5), st.none() | st.integers(), max_size=2),
)


@dataclass(frozen=True, kw_only=True)
class Move:
    """What is done in one step of a dialog. All moves are there before the dialog begins."""

    good: bool
    """Whether to fill in the form so that the dialog goes on."""
    random: Random
    """Decides where something right is entered, or nearly so, and where anything."""
    anything: Sequence[Any]

    def choice(self, options: Sequence[str]) -> str:
        """Choose from a menu."""
        return self.random.choice(options)

    def entry(self, schema: Any) -> dict[str, Any]:
        """Return something for most fields of a form, and at times for others."""
        random = self.random
        entry: dict[str, Any] = {}
        for key, field in schema.schema.items():
            name = str(key)
            match random.randrange(10):
                case 0:
                    pass
                case 1 | 2:
                    entry[name] = random.choice(self.anything)
                case _ if name == "line_settings":
                    entry[name] = self.entry(field.schema)
                case _:
                    entry[name] = random.choice(RIGHT[name])
        if not random.randrange(10):
            entry[str(random.choice(self.anything))] = random.choice(self.anything)
        return entry


moves = st.lists(
    st.builds(
        Move,
        good=st.booleans(),
        random=st.integers(0, 2**32).map(Random),
        anything=st.lists(anything, min_size=3, max_size=3),
    ),
    min_size=8,
    max_size=8,
)


def good(schema: Any, line: Line, step_id: str) -> dict[str, Any]:
    """Fill in a form so that the dialog goes on."""
    on_mbus = isinstance(line._face, MBusFace)
    entry = {str(key): GOOD[str(key)] for key in schema.schema if str(key) in GOOD}
    if step_id.endswith(("serial", "gateway")):
        entry["protocol"] = "mbus" if on_mbus else "modbus"
    if step_id.endswith("serial"):
        entry["port"] = line.port
    if step_id.startswith("change"):
        entry["address"] = 5
    elif step_id in ("mbus", "reach_mbus"):
        entry["address"] = str(entry["address"])
    return entry


@asynccontextmanager
async def lines(*, on_mbus: bool) -> AsyncIterator[tuple[Line, VirtualMeter]]:
    """A meter on a serial port, and another one behind a gateway."""
    model, serve = ("6933", mbus.serve) if on_mbus else ("6934", modbus.serve)
    meter = VirtualMeter(model=model, serial_number=SERIAL_NUMBER, address=1, clock=lambda: 0.0)
    other = VirtualMeter(model=model, serial_number="22091040", address=1, clock=lambda: 0.0)
    async with serve(meter, virtual=PORT) as line, serve(other, virtual=GATEWAY):
        yield line, meter


def check(flows: FlowManager[Any, Any, Any], result: Any) -> None:
    """Make sure that a browser can show a step, and has the words for it."""
    texts = STRINGS["options" if isinstance(flows, OptionsFlowManager) else "config"]
    match result["type"]:
        case FlowResultType.FORM:
            for key in (result["errors"] or {}).values():
                assert texts["error"][key].format(**result["description_placeholders"])
            shown = FlowManagerIndexView(flows)._prepare_result_json(result)
            assert json_bytes({**shown, "description_placeholders": None})
        case FlowResultType.ABORT:
            assert texts["abort"][result["reason"]].format(**result["description_placeholders"])
    assert json_bytes(result.get("description_placeholders"))
    if texts is STRINGS["config"]:
        with_words(result)


def suggestions(schema: Any) -> dict[str, Any]:
    """Return what the fields of a form show."""
    return {
        str(key): suggestions(field.schema)
        if str(key) == "line_settings"
        else (key.description or {}).get("suggested_value")
        for key, field in schema.schema.items()
    }


def check_nothing_lost(entry: Any, shown: Any) -> None:
    """Make sure that a form that is shown again still has what was entered, if it can be shown."""
    for name, value in shown.items():
        was = entry.get(name) if isinstance(entry, dict) else None
        if isinstance(value, dict):
            check_nothing_lost(was, value)
        elif was in RIGHT[name] and not isinstance(was, bool):
            assert value == was


async def walk(
    hass: HomeAssistant,
    flows: FlowManager[Any, Any, Any],
    result: Any,
    line: Line,
    moves: Sequence[Move],
) -> None:
    """Go through a dialog in any way, for some steps or until it ends."""
    for move in moves:
        if flows is hass.config_entries.flow:
            result = await through(hass, result)
        check(flows, result)
        match result["type"]:
            case FlowResultType.MENU:
                choices = [each for each in result["menu_options"] if each not in TOO_LONG]
                entry = {"next_step_id": move.choice(choices)}
            case FlowResultType.FORM:
                schema = result["data_schema"]
                entry = good(schema, line, result["step_id"]) if move.good else move.entry(schema)
            case _:
                return
        before, result = result, await flows.async_configure(result["flow_id"], entry)
        if result["type"] is FlowResultType.FORM and result["step_id"] == before["step_id"]:
            assert result["errors"]
            check_nothing_lost(entry, suggestions(result["data_schema"]))
    with suppress(UnknownFlow):  # it has ended with the last step
        flows.async_abort(result["flow_id"])


async def clean_up(hass: HomeAssistant) -> None:
    await hass.async_block_till_done()
    for entry in hass.config_entries.async_entries(DOMAIN):
        stored = (entry.data, entry.options)
        assert async_make_usable(hass, entry)
        assert (entry.data, entry.options) == stored
        await hass.config_entries.async_remove(entry.entry_id)
    for flow in hass.config_entries.flow.async_progress():
        hass.config_entries.flow.async_abort(flow["flow_id"])
    await hass.async_block_till_done()


def entry_of(line: Line, meter: VirtualMeter) -> MockConfigEntry:
    return MockConfigEntry(
        domain=DOMAIN,
        unique_id=SERIAL_NUMBER,
        title=f"KLEFR {SERIAL_NUMBER}",
        data={
            "port": line.port,
            "protocol": "mbus" if meter.model.speaks_mbus else "modbus",
            "address": 1,
            "baud_rate": 9600,
            "parity": "even",
        },
    )


@asynccontextmanager
async def known_meter(
    hass: HomeAssistant, line: Line, meter: VirtualMeter
) -> AsyncIterator[MockConfigEntry]:
    entry = entry_of(line, meter)
    entry.add_to_hass(hass)
    assert await hass.config_entries.async_setup(entry.entry_id)
    yield entry
    assert hass.config_entries.async_get_entry(entry.entry_id) is entry


many = settings(
    max_examples=30,
    # To look for a shorter example of a failure would take minutes.
    phases=[Phase.generate],
    # Each example cleans up after itself.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
on_both = pytest.mark.parametrize("on_mbus", [False, True], ids=["modbus", "mbus"])


@on_both
@many
@given(moves=moves)
async def test_adding_a_meter(hass: HomeAssistant, on_mbus: bool, moves: Sequence[Move]) -> None:
    async with lines(on_mbus=on_mbus) as (line, _):
        flows = hass.config_entries.flow
        result = await flows.async_init(DOMAIN, context={"source": SOURCE_USER})
        await walk(hass, flows, result, line, moves)
        await clean_up(hass)


@on_both
@many
@given(moves=moves)
async def test_reconfiguring_a_meter(
    hass: HomeAssistant, on_mbus: bool, moves: Sequence[Move]
) -> None:
    async with lines(on_mbus=on_mbus) as (line, meter):
        async with known_meter(hass, line, meter) as entry:
            flows = hass.config_entries.flow
            result = await flows.async_init(
                DOMAIN, context={"source": SOURCE_RECONFIGURE, "entry_id": entry.entry_id}
            )
            await walk(hass, flows, result, line, moves)
        await clean_up(hass)


@many
@given(moves=moves)
async def test_the_options_of_a_meter(hass: HomeAssistant, moves: Sequence[Move]) -> None:
    async with lines(on_mbus=False) as (line, meter):
        async with known_meter(hass, line, meter) as entry:
            flows = hass.config_entries.options
            await walk(hass, flows, await flows.async_init(entry.entry_id), line, moves)
        await clean_up(hass)


@on_both
@many
@given(
    platform=st.sampled_from(["number", "select", "button"]),
    value=st.sampled_from(["t2", "forward", 5, 31, 4.5, "5"]) | anything,
)
async def test_setting_an_entity(
    hass: HomeAssistant, on_mbus: bool, platform: str, value: Any
) -> None:
    service, field = {
        "number": ("set_value", "value"),
        "select": ("select_option", "option"),
        "button": ("press", "value"),
    }[platform]
    async with lines(on_mbus=on_mbus) as (line, meter):
        async with known_meter(hass, line, meter):
            for entity_id in hass.states.async_entity_ids(platform):
                error: HomeAssistantError | None = None
                try:
                    await hass.services.async_call(
                        platform, service, {"entity_id": entity_id, field: value}, blocking=True
                    )
                except vol.Invalid:
                    # Home Assistant refused it.
                    continue
                except HomeAssistantError as err:
                    error = err
                if error is not None and error.translation_domain == DOMAIN:
                    message = STRINGS["exceptions"][str(error.translation_key)]["message"]
                    assert message.format(**(error.translation_placeholders or {}))
                elif error is not None:
                    assert error.translation_key
        await clean_up(hass)


STORED = ("", ".change", ".energies", ".memory")
stored_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda parts: (
        st.lists(parts, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("accepted", "not_kept", "reset_offset", "checksum", "current", "wanted"),
                    *("address", "baud_rate", "parity", "secondary_address", "cuts", "tariff"),
                    *("firmware_version", "forward_active_energy", "s0_rate", "calculation_code"),
                ]
            ),
            parts,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@on_both
@many
@given(
    stored=st.dictionaries(st.sampled_from(STORED), stored_values),
    damage=st.dictionaries(
        st.sampled_from(["port", "protocol", "address", "baud_rate", "parity"]),
        st.sampled_from([PORT, "modbus", "mbus", 1, 9600, "even"]) | stored_values,
        max_size=2,
    ),
    options=st.dictionaries(st.just("update_interval"), st.integers(-5, 9999) | stored_values),
)
async def test_starting_with_what_was_stored(
    hass: HomeAssistant,
    hass_storage: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    on_mbus: bool,
    stored: dict[str, Any],
    damage: dict[str, Any],
    options: dict[str, Any],
) -> None:
    caplog.clear()
    async with lines(on_mbus=on_mbus) as (line, meter):
        entry = entry_of(line, meter)
        entry.add_to_hass(hass)
        hass.config_entries.async_update_entry(
            entry, data={**entry.data, **damage}, options=options
        )
        for suffix, content in stored.items():
            key = f"{DOMAIN}.{entry.entry_id}{suffix}"
            hass_storage[key] = {"version": 1, "minor_version": 1, "key": key, "data": content}
        await hass.config_entries.async_setup(entry.entry_id)
        await hass.async_block_till_done()
        if entry.state is not ConfigEntryState.LOADED:
            assert entry.state in (ConfigEntryState.SETUP_RETRY, ConfigEntryState.SETUP_ERROR)
            assert str(entry.error_reason_translation_key) in STRINGS["exceptions"]
        # Home Assistant logs the errors that it understands, too.
        raised = [record.exc_info[0] for record in caplog.records if record.exc_info]
        assert set(raised) <= {ConfigEntryError, ConfigEntryNotReady}
        await hass.config_entries.async_remove(entry.entry_id)
