"""Adding a meter, finding it again, and its options."""

import asyncio
from collections.abc import AsyncIterator
import errno
import json
import os
from pathlib import Path
from string import Formatter
from typing import Any

from homeassistant.config_entries import (
    SOURCE_RECONFIGURE,
    SOURCE_USER,
    ConfigEntry,
    ConfigEntryState,
)
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry
import serialx

import custom_components.klefr as integration
from custom_components.klefr.const import DOMAIN
from custom_components.klefr.wording import port_name
from simulator.line import Line
from simulator.meter import Parity, VirtualMeter
from simulator.modbus import serve

from . import SERIAL_NUMBER, wait

STRINGS: dict[str, Any] = json.loads(
    (Path(integration.__file__).parent / "translations" / "en.json").read_text()
)


def bus_answers(data: dict[str, Any]) -> dict[str, Any]:
    """What a user fills into the first form to get this entry data."""
    return {"port": data["port"], "protocol": data["protocol"]}


def meter_answers(data: dict[str, Any]) -> dict[str, Any]:
    """What a user fills into the second form to get this entry data."""
    return {
        "address": data["address"],
        "line_settings": {"baud_rate": str(data["baud_rate"]), "parity": data["parity"]},
    }


@pytest.fixture(autouse=True)
async def _unload(hass: HomeAssistant) -> AsyncIterator[None]:
    yield
    for entry in hass.config_entries.async_entries(DOMAIN):
        if entry.state.recoverable:
            await hass.config_entries.async_unload(entry.entry_id)


async def start(hass: HomeAssistant) -> str:
    """Begin to add a meter on a serial port."""
    result = await hass.config_entries.flow.async_init(DOMAIN, context={"source": SOURCE_USER})
    assert result["type"] is FlowResultType.MENU
    assert result["menu_options"] == ["serial", "gateway"]
    result = await choose(hass, result, "serial")
    assert result["step_id"] == "serial"
    assert not result["errors"]
    flow_id: str = result["flow_id"]
    return flow_id


async def start_reconfigure(hass: HomeAssistant, entry: ConfigEntry, where: str = "serial") -> Any:
    """Say that the meter is already reached differently."""
    result = await hass.config_entries.flow.async_init(
        DOMAIN, context={"source": SOURCE_RECONFIGURE, "entry_id": entry.entry_id}
    )
    assert result["step_id"] == "reconfigure"
    assert with_words(result)["description_placeholders"] == {"meter": entry.title}
    result = await choose(hass, result, "reach")
    assert result["step_id"] == "reach"
    return await choose(hass, result, f"reach_{where}")


def with_words(result: Any) -> Any:
    """Make sure that a step has all the words that it shows, and knows all that they name."""
    strings = STRINGS["config"]
    texts: list[str] = []
    match result["type"]:
        case FlowResultType.FORM | FlowResultType.MENU:
            step = strings["step"][result["step_id"]]
            texts = [step["title"], step["description"]]
            texts += [strings["error"][error] for error in (result.get("errors") or {}).values()]
            texts += [step["menu_options"][option] for option in result.get("menu_options", ())]
        case FlowResultType.SHOW_PROGRESS:
            texts = [strings["progress"][result["progress_action"]]]
        case FlowResultType.ABORT:
            texts = [strings["abort"][result["reason"]]]
    for text in texts:
        for _, name, _, _ in Formatter().parse(text):
            if name:
                assert result["description_placeholders"][name].strip(" –"), name
    return result


async def choose(hass: HomeAssistant, result: Any, step: str) -> Any:
    """Choose from a menu."""
    assert result["type"] is FlowResultType.MENU
    flows = hass.config_entries.flow
    return with_words(await flows.async_configure(result["flow_id"], {"next_step_id": step}))


async def enter_address(hass: HomeAssistant, result: Any) -> Any:
    """Choose to enter an address rather than to search."""
    search, address = result["menu_options"]
    assert search == "search"
    return await choose(hass, result, address)


def filled_in(schema: Any) -> dict[str, Any]:
    """What a form shows when it opens."""
    return {
        str(key): filled_in(value.schema)
        if key == "line_settings"
        else key.description["suggested_value"]
        for key, value in schema.schema.items()
        if key == "line_settings" or key.description
    }


async def configure(hass: HomeAssistant, flow_id: str, user_input: dict[str, Any]) -> Any:
    result = await hass.config_entries.flow.async_configure(flow_id, user_input)
    await hass.async_block_till_done()
    return with_words(result)


async def choose_bus(hass: HomeAssistant, flow_id: str, data: dict[str, Any]) -> Any:
    """Fill in the form for the bus, and choose to enter an address."""
    result = await configure(hass, flow_id, bus_answers(data))
    if result["type"] is FlowResultType.MENU:
        result = await enter_address(hass, result)
    return result


async def submit(hass: HomeAssistant, flow_id: str, data: dict[str, Any]) -> Any:
    """Fill in the forms that are left, and return what follows the last one."""
    [flow] = [f for f in hass.config_entries.flow.async_progress() if f["flow_id"] == flow_id]
    if flow["step_id"] in ("serial", "reach_serial"):
        result = await choose_bus(hass, flow_id, data)
        if result["errors"]:
            return result
    return await configure(hass, flow_id, meter_answers(data))


async def add(hass: HomeAssistant, data: dict[str, Any]) -> Any:
    return await submit(hass, await start(hass), data)


async def test_a_meter_is_added(hass: HomeAssistant, entry_data: dict[str, Any]) -> None:
    result = await add(hass, entry_data)
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert result["title"] == "KLEFR 6934 22091039"
    assert result["data"] == entry_data
    entry = result["result"]
    assert entry.unique_id == SERIAL_NUMBER
    assert entry.state is ConfigEntryState.LOADED


async def test_the_factorys_settings_are_the_defaults(
    hass: HomeAssistant, entry_data: dict[str, Any]
) -> None:
    flow_id = await start(hass)
    result = await configure(hass, flow_id, {"port": entry_data["port"]})
    assert result["menu_options"] == ["search", "modbus"]
    result = await choose(hass, result, "modbus")
    result = await configure(hass, flow_id, {"line_settings": {}})
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert result["data"] == entry_data


async def test_a_transformer_meter_is_named_as_one(
    hass: HomeAssistant, entry_data: dict[str, Any]
) -> None:
    meter = VirtualMeter(serial_number="22091040", model="6944", clock=lambda: 0.0)
    async with serve(meter, virtual="virtual://ct") as line:
        result = await add(hass, {**entry_data, "port": line.port})
        assert result["title"] == "KLEFR 6944 22091040"
        await hass.config_entries.async_unload(result["result"].entry_id)


async def test_a_meter_is_added_once_only(
    hass: HomeAssistant, loaded: MockConfigEntry, entry_data: dict[str, Any]
) -> None:
    result = await add(hass, entry_data)
    assert result["type"] is FlowResultType.ABORT
    assert result["reason"] == "already_configured"
    assert loaded.state is ConfigEntryState.LOADED


async def _missing(line: Line, _meter: VirtualMeter, _patch: pytest.MonkeyPatch) -> None:
    await line.unplug()


async def _forbidden(_line: Line, _meter: VirtualMeter, patch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> int:
        raise PermissionError

    patch.setattr(os, "open", refuse)


async def _broken(_line: Line, _meter: VirtualMeter, patch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    patch.setattr(os, "open", fail)


async def _no_port(line: Line, _meter: VirtualMeter, patch: pytest.MonkeyPatch) -> None:
    link = Path(line.port)
    await line.unplug()
    link.write_text("not a port")  # noqa: ASYNC240
    patch.setattr(line, "plug", lambda: _plug_for(line, link))


async def _plug_for(line: Line, link: Path) -> None:
    link.unlink()  # noqa: ASYNC240
    await type(line).plug(line)


async def _silent(line: Line, _meter: VirtualMeter, _patch: pytest.MonkeyPatch) -> None:
    line.silent = True


async def _garbled(line: Line, _meter: VirtualMeter, _patch: pytest.MonkeyPatch) -> None:
    line.garble = 1.0


async def _stranger(_line: Line, meter: VirtualMeter, _patch: pytest.MonkeyPatch) -> None:
    meter.overrides[0x4000] = 0xABCDEF


async def _busy(_line: Line, meter: VirtualMeter, _patch: pytest.MonkeyPatch) -> None:
    # The simulator reports a failure of its own for a value it cannot encode.
    meter.overrides[0x4002] = 1e400


@pytest.mark.parametrize(
    ("fail", "field", "error"),
    [
        (_missing, "port", "port_not_found_proxy"),
        pytest.param(_forbidden, "port", "port_permission", marks=pytest.mark.real_time),
        pytest.param(_no_port, "port", "not_a_serial_port", marks=pytest.mark.real_time),
        pytest.param(_broken, "port", "link_failed_adapter", marks=pytest.mark.real_time),
        (_silent, "base", "no_answer_modbus"),
        (_garbled, "base", "garbled_answer_modbus"),
        (_stranger, "base", "not_a_klefr_meter"),
        (_busy, "base", "refused"),
    ],
)
async def test_each_failure_has_its_message_and_can_be_mended(
    hass: HomeAssistant,
    entry_data: dict[str, Any],
    line: Line,
    virtual_meter: VirtualMeter,
    fail: Any,
    field: str,
    error: str,
) -> None:
    flow_id = await start(hass)
    with pytest.MonkeyPatch.context() as patch:
        await fail(line, virtual_meter, patch)
        result = await submit(hass, flow_id, entry_data)
        assert result["type"] is FlowResultType.FORM
        assert result["errors"] == {field: error}
        assert result["description_placeholders"]["port"] == port_name(entry_data["port"])
        if field == "base":
            assert result["description_placeholders"]["address"] == "1"
        # Nothing that was filled in is lost.
        answers = bus_answers if result["step_id"] == "serial" else meter_answers
        assert filled_in(result["data_schema"]) == answers(entry_data)
        line.silent = False
        line.garble = 0.0
        virtual_meter.overrides.clear()
        await line.plug()
    result = await submit(hass, flow_id, entry_data)
    assert result["type"] is FlowResultType.CREATE_ENTRY


@pytest.mark.real_time
async def test_a_port_in_use_is_said_to_be(hass: HomeAssistant, entry_data: dict[str, Any]) -> None:
    other = serialx.serial_for_url(entry_data["port"], baudrate=9600, exclusive=True)
    await asyncio.to_thread(other.open)
    flow_id = await start(hass)
    result = await submit(hass, flow_id, entry_data)
    assert result["errors"] == {"port": "port_in_use"}
    await asyncio.to_thread(other.close)
    result = await submit(hass, flow_id, entry_data)
    assert result["type"] is FlowResultType.CREATE_ENTRY


async def test_other_line_settings_on_a_port_in_use_are_refused(
    hass: HomeAssistant, loaded: MockConfigEntry, entry_data: dict[str, Any]
) -> None:
    flow_id = await start(hass)
    result = await submit(hass, flow_id, {**entry_data, "address": 2, "baud_rate": 1200})
    assert result["errors"] == {"base": "line_settings_in_use"}
    assert loaded.state is ConfigEntryState.LOADED


@pytest.mark.parametrize(
    ("key", "value", "field", "error"),
    [
        ("address", 0, "address", "invalid_modbus_address"),
        ("address", 248, "address", "invalid_modbus_address"),
        ("address", 1.5, "address", "invalid_modbus_address"),
        ("address", "1", "address", "invalid_modbus_address"),
        ("address", True, "address", "invalid_modbus_address"),
        ("baud_rate", 115200, "line_settings", "invalid_choice"),
        ("parity", "mark", "line_settings", "invalid_choice"),
    ],
)
async def test_what_no_meter_can_have_is_not_taken(
    hass: HomeAssistant, entry_data: dict[str, Any], key: str, value: Any, field: str, error: str
) -> None:
    result = await add(hass, {**entry_data, key: value})
    assert result["errors"] == {field: error}
    # What is right is kept.
    result = await configure(hass, result["flow_id"], meter_answers(entry_data))
    assert result["type"] is FlowResultType.CREATE_ENTRY


async def test_a_meter_moves_to_another_port(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    virtual_meter: VirtualMeter,
    entry_data: dict[str, Any],
) -> None:
    entities = set(hass.states.async_entity_ids())
    async with serve(virtual_meter, virtual="virtual://elsewhere") as elsewhere:
        result = await start_reconfigure(hass, loaded)
        result = await submit(hass, result["flow_id"], {**entry_data, "port": elsewhere.port})
        assert result["type"] is FlowResultType.ABORT
        assert result["reason"] == "reconfigure_successful"
        assert loaded.data == {**entry_data, "port": elsewhere.port}
        assert loaded.state is ConfigEntryState.LOADED
        assert set(hass.states.async_entity_ids()) == entities
        await hass.config_entries.async_unload(loaded.entry_id)


async def test_a_meter_moves_to_another_address_and_baud_rate(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    virtual_meter: VirtualMeter,
    entry_data: dict[str, Any],
) -> None:
    virtual_meter.address = 7
    virtual_meter.baud_rate = 1200
    result = await start_reconfigure(hass, loaded)
    data = {**entry_data, "address": 7, "baud_rate": 1200}
    result = await submit(hass, result["flow_id"], data)
    assert result["reason"] == "reconfigure_successful"
    assert loaded.data == data
    assert loaded.state is ConfigEntryState.LOADED


async def test_what_is_not_changed_is_filled_in(
    hass: HomeAssistant,
    entry: MockConfigEntry,
    virtual_meter: VirtualMeter,
    entry_data: dict[str, Any],
) -> None:
    virtual_meter.baud_rate = 1200
    virtual_meter.parity = Parity.NONE
    hass.config_entries.async_update_entry(
        entry, data={**entry_data, "baud_rate": 1200, "parity": "none"}
    )
    assert await hass.config_entries.async_setup(entry.entry_id)
    result = await start_reconfigure(hass, entry)
    shown = filled_in(result["data_schema"])
    assert shown == bus_answers(dict(entry.data))
    result = await enter_address(hass, await configure(hass, result["flow_id"], shown))
    shown = filled_in(result["data_schema"])
    assert shown == meter_answers(dict(entry.data))
    result = await configure(hass, result["flow_id"], shown)
    assert result["reason"] == "reconfigure_successful"
    assert entry.data == {**entry_data, "baud_rate": 1200, "parity": "none"}


async def test_a_failed_reconfiguration_leaves_the_entry_running(
    hass: HomeAssistant, loaded: MockConfigEntry, entry_data: dict[str, Any], line: Line
) -> None:
    result = await start_reconfigure(hass, loaded)
    for data, error in (
        ({**entry_data, "address": 9}, {"base": "no_answer_modbus"}),
        ({**entry_data, "baud_rate": 1200}, {"base": "no_answer_modbus"}),
    ):
        result = await submit(hass, result["flow_id"], data)
        assert result["errors"] == error
        assert loaded.state is ConfigEntryState.LOADED
        assert loaded.data == entry_data
    other = await start_reconfigure(hass, loaded)
    other = await submit(hass, other["flow_id"], {**entry_data, "port": "/dev/klefr-nowhere"})
    assert other["errors"] == {"port": "port_not_found_adapter"}
    line.requests.clear()
    await wait(hass)
    assert line.requests
    result = await submit(hass, result["flow_id"], entry_data)
    assert result["reason"] == "reconfigure_successful"


@pytest.mark.parametrize("baud_rate", [9600, 1200])
async def test_a_different_meter_is_refused(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    entry_data: dict[str, Any],
    virtual_meter: VirtualMeter,
    baud_rate: int,
) -> None:
    other = VirtualMeter(serial_number="22091040", address=2, clock=lambda: 0.0)
    async with serve(other, virtual="virtual://elsewhere", baud_rate=baud_rate) as elsewhere:
        result = await start_reconfigure(hass, loaded)
        data = {
            **entry_data,
            "port": elsewhere.port,
            "address": 2,
            "baud_rate": baud_rate,
        }
        result = await submit(hass, result["flow_id"], data)
    assert result["type"] is FlowResultType.MENU
    assert result["step_id"] == "reach_other"
    assert result["description_placeholders"] == {
        "meter": loaded.title,
        "found": "KLEFR 6934 22091040",
        "port": "elsewhere",
    }
    assert result["menu_options"] == ["reach_replaced", "reach_modbus"]
    assert loaded.data == entry_data
    assert loaded.state is ConfigEntryState.LOADED


async def test_a_different_meter_on_the_same_port_is_refused_and_the_entry_put_back(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    entry_data: dict[str, Any],
    virtual_meter: VirtualMeter,
    line: Line,
) -> None:
    virtual_meter.baud_rate = 1200
    virtual_meter.serial_number = "22091040"
    result = await start_reconfigure(hass, loaded)
    result = await submit(hass, result["flow_id"], {**entry_data, "baud_rate": 1200})
    assert result["step_id"] == "reach_other"
    assert loaded.data == entry_data
    assert loaded.state is ConfigEntryState.SETUP_RETRY


@pytest.mark.parametrize("seconds", [5, 3600])
async def test_the_update_interval_is_an_option(
    hass: HomeAssistant, loaded: MockConfigEntry, seconds: int, line: Line
) -> None:
    result = await hass.config_entries.options.async_init(loaded.entry_id)
    assert result["type"] is FlowResultType.FORM
    assert result["step_id"] == "init"
    assert result["description_placeholders"] == {
        "meter": loaded.title,
        "load": "The bus is busy for 2 % of the time. The shortest interval that works for this"
        " meter is 5 s.",
    }
    result = await hass.config_entries.options.async_configure(
        result["flow_id"], {"update_interval": seconds}
    )
    await hass.async_block_till_done()
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert loaded.options == {"update_interval": seconds}
    line.requests.clear()
    await wait(hass, seconds=6)
    assert bool(line.requests) is (seconds == 5)


@pytest.mark.parametrize("seconds", [0, 1, 4, 3601, -10, 5.5, "10", [10], 10**1000, float("nan")])
async def test_an_update_interval_out_of_range_is_not_taken(
    hass: HomeAssistant, loaded: MockConfigEntry, seconds: Any
) -> None:
    result = await hass.config_entries.options.async_init(loaded.entry_id)
    result = await hass.config_entries.options.async_configure(
        result["flow_id"], {"update_interval": seconds}
    )
    assert result["errors"] == {"update_interval": "invalid_interval"}
    assert not loaded.options
    result = await hass.config_entries.options.async_configure(
        result["flow_id"], {"update_interval": 30}
    )
    assert loaded.options == {"update_interval": 30}
