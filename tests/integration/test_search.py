"""Finding meters from the user interface, without knowing their addresses."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from homeassistant.config_entries import SOURCE_INTEGRATION_DISCOVERY, ConfigEntryState
from homeassistant.const import STATE_UNAVAILABLE
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
import pytest

from custom_components.klefr.const import DOMAIN
from simulator import mbus, modbus
from simulator.line import Line
from simulator.meter import VirtualMeter

from .test_config_flow import choose, configure, filled_in, start

READ_POWERS = bytes.fromhex("01 03 5002")
"""How a poll of the meter at address 1 begins its second request, which no search sends."""


def modbus_meter(serial_number: str, address: int) -> VirtualMeter:
    return VirtualMeter(serial_number=serial_number, address=address, clock=lambda: 0.0)


def mbus_meter(serial_number: str, address: int = 0) -> VirtualMeter:
    return VirtualMeter(
        model="6933", serial_number=serial_number, address=address, clock=lambda: 0.0
    )


@pytest.fixture
async def modbus_line() -> AsyncIterator[Line]:
    meters = [modbus_meter("22091039", 1), modbus_meter("22091040", 5), modbus_meter("22091041", 9)]
    async with modbus.serve(*meters, virtual="virtual://modbus") as line:
        yield line


@pytest.fixture
async def mbus_line() -> AsyncIterator[Line]:
    meters = [mbus_meter("12092001"), mbus_meter("22092002"), mbus_meter("31092001", 7)]
    async with mbus.serve(*meters, virtual="virtual://mbus") as line:
        yield line


@pytest.fixture(autouse=True)
async def _unload(hass: HomeAssistant, modbus_line: Line, mbus_line: Line) -> AsyncIterator[None]:
    yield
    for entry in hass.config_entries.async_entries(DOMAIN):
        if entry.state.recoverable:
            await hass.config_entries.async_unload(entry.entry_id)


async def begin(hass: HomeAssistant, port: str, protocol: str = "modbus") -> Any:
    """Choose a port and to search there."""
    result = await configure(hass, await start(hass), {"port": port, "protocol": protocol})
    return await choose(hass, result, "search")


async def finish(hass: HomeAssistant, result: Any) -> Any:
    """Wait until a search has ended."""
    while result["type"] is FlowResultType.SHOW_PROGRESS:
        await hass.async_block_till_done(wait_background_tasks=True)
        result = await hass.config_entries.flow.async_configure(result["flow_id"])
    return result


async def search(
    hass: HomeAssistant, port: str, protocol: str = "modbus", **line_settings: Any
) -> Any:
    result = await begin(hass, port, protocol)
    if result["type"] is FlowResultType.FORM:
        result = await hass.config_entries.flow.async_configure(result["flow_id"], line_settings)
    return await finish(hass, result)


def offered(result: Any) -> list[str]:
    assert result["type"] is FlowResultType.FORM
    assert result["step_id"] == "found"
    [selector] = result["data_schema"].schema.values()
    return [option["label"] for option in selector.config["options"]]


def discovered(hass: HomeAssistant) -> dict[str, str]:
    """The flow ids of the meters that wait to be added, by name."""
    return {
        flow["context"]["title_placeholders"]["name"]: flow["flow_id"]
        for flow in hass.config_entries.flow.async_progress()
        if flow["context"]["source"] == SOURCE_INTEGRATION_DISCOVERY
    }


async def test_a_search_says_what_it_tries(hass: HomeAssistant, modbus_line: Line) -> None:
    result = await begin(hass, modbus_line.port)
    assert filled_in(result["data_schema"]) == {"baud_rate": "9600", "parity": "even"}
    result = await hass.config_entries.flow.async_configure(result["flow_id"], {})
    assert result["type"] is FlowResultType.SHOW_PROGRESS
    assert result["progress_action"] == "modbus"
    assert result["description_placeholders"] == {
        "port": modbus_line.port,
        "baud_rate": "9600",
        "parity": "even",
    }
    await finish(hass, result)


async def test_one_meter_is_added_and_the_others_are_discovered(
    hass: HomeAssistant, modbus_line: Line
) -> None:
    result = await search(hass, modbus_line.port)
    assert offered(result) == [
        "KLEFR 6934 22091039 (1, 9600 Bd)",
        "KLEFR 6934 22091040 (5, 9600 Bd)",
        "KLEFR 6934 22091041 (9, 9600 Bd)",
    ]
    result = await configure(hass, result["flow_id"], {"meter": "22091040"})
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert result["data"] == {
        "port": modbus_line.port,
        "protocol": "modbus",
        "address": 5,
        "baud_rate": 9600,
        "parity": "even",
    }
    assert result["result"].state is ConfigEntryState.LOADED
    assert result["result"].unique_id == "22091040"
    assert discovered(hass).keys() == {"KLEFR 6934 22091039", "KLEFR 6934 22091041"}

    flow_id = discovered(hass)["KLEFR 6934 22091041"]
    result = await configure(hass, flow_id, {})
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert result["title"] == "KLEFR 6934 22091041"
    assert result["data"]["address"] == 9
    assert discovered(hass).keys() == {"KLEFR 6934 22091039"}


async def test_m_bus_meters_are_found_however_they_are_addressed(
    hass: HomeAssistant, mbus_line: Line
) -> None:
    result = await search(hass, mbus_line.port, "mbus")
    assert sorted(offered(result)) == [
        "KLEFR 6933/6943 12092001 (12092001, 9600 Bd)",
        "KLEFR 6933/6943 22092002 (22092002, 9600 Bd)",
        "KLEFR 6933/6943 31092001 (7, 9600 Bd)",
    ]
    # That two of them have the primary address 0 does not matter.
    assert result["description_placeholders"]["several"] == "–"
    result = await configure(hass, result["flow_id"], {"meter": "22092002"})
    assert result["data"]["address"] == "22092002"
    assert result["result"].state is ConfigEntryState.LOADED


async def test_what_is_added_already_is_marked(hass: HomeAssistant, modbus_line: Line) -> None:
    result = await search(hass, modbus_line.port)
    await configure(hass, result["flow_id"], {"meter": "22091039"})
    for flow_id in discovered(hass).values():
        hass.config_entries.flow.async_abort(flow_id)
    # The line is in use now, so there is nothing to ask before the search.
    result = await begin(hass, modbus_line.port)
    assert result["type"] is FlowResultType.SHOW_PROGRESS
    result = await finish(hass, result)
    assert len(offered(result)) == 2
    assert result["description_placeholders"]["added"] == "KLEFR 6934 22091039"


async def test_nothing_new_is_said_so(hass: HomeAssistant, modbus_line: Line) -> None:
    result = await search(hass, modbus_line.port)
    await configure(hass, result["flow_id"], {"meter": "22091039"})
    for flow_id in discovered(hass).values():
        await configure(hass, flow_id, {})
    result = await search(hass, modbus_line.port)
    assert result["type"] is FlowResultType.ABORT
    assert result["reason"] == "all_added"
    assert "22091041" in result["description_placeholders"]["added"]


async def test_a_search_does_not_disturb_those_who_are_read(
    hass: HomeAssistant, modbus_line: Line
) -> None:
    result = await search(hass, modbus_line.port)
    await configure(hass, result["flow_id"], {"meter": "22091039"})
    seen: list[str] = []
    hass.bus.async_listen("state_changed", lambda event: seen.append(event.data["new_state"].state))
    modbus_line.requests.clear()
    began = hass.loop.time()
    await finish(hass, await begin(hass, modbus_line.port))
    lasted = hass.loop.time() - began
    assert lasted > 60
    # It is read every 10 seconds. A poll waits for a step of the search, up to three times.
    polls = [request for request in modbus_line.requests if request.startswith(READ_POWERS)]
    assert len(polls) >= lasted // 12
    assert STATE_UNAVAILABLE not in seen


async def test_nobody_found_leads_on(hass: HomeAssistant, modbus_line: Line) -> None:
    modbus_line.silent = True
    result = await search(hass, modbus_line.port)
    assert result["type"] is FlowResultType.MENU
    assert result["step_id"] == "nothing_found"
    modbus_line.silent = False
    result = await choose(hass, result, "search")
    result = await hass.config_entries.flow.async_configure(result["flow_id"], {})
    assert len(offered(await finish(hass, result))) == 3


async def test_meters_at_unknown_line_settings_are_found(hass: HomeAssistant) -> None:
    meter = mbus_meter("22092003")
    async with mbus.serve(meter, virtual="virtual://slow", baud_rate=2400) as line:
        result = await search(hass, line.port, "mbus", baud_rate="4800", all_line_settings=True)
        assert offered(result) == ["KLEFR 6933/6943 22092003 (22092003, 2400 Bd)"]
        result = await configure(hass, result["flow_id"], {"meter": "22092003"})
        assert result["data"]["baud_rate"] == 2400
        assert result["result"].state is ConfigEntryState.LOADED
        await hass.config_entries.async_unload(result["result"].entry_id)


async def test_two_meters_at_one_address_are_explained(hass: HomeAssistant) -> None:
    meters = [modbus_meter("22091039", 1), modbus_meter("22091040", 1), modbus_meter("22091041", 2)]
    async with modbus.serve(*meters, virtual="virtual://twins") as line:
        result = await search(hass, line.port)
        assert offered(result) == ["KLEFR 6934 22091041 (2, 9600 Bd)"]
        assert result["description_placeholders"]["several"] == "1"


@pytest.mark.parametrize("seconds", [0.01, 0.1, 1, 50])
async def test_a_search_can_be_cancelled_at_any_moment(
    hass: HomeAssistant, modbus_line: Line, seconds: float
) -> None:
    result = await begin(hass, modbus_line.port)
    result = await hass.config_entries.flow.async_configure(result["flow_id"], {})
    await asyncio.sleep(seconds)
    hass.config_entries.flow.async_abort(result["flow_id"])
    await asyncio.sleep(0.1)
    # What was on its way has arrived.
    assert modbus_line.requests
    modbus_line.requests.clear()
    await asyncio.sleep(60)
    assert not modbus_line.requests
    # And the port is free again, for another protocol even.
    result = await configure(
        hass, await start(hass), {"port": modbus_line.port, "protocol": "mbus"}
    )
    assert result["type"] is FlowResultType.MENU


async def test_a_port_that_vanishes_in_a_search_is_explained(
    hass: HomeAssistant, modbus_line: Line
) -> None:
    result = await begin(hass, modbus_line.port)
    result = await hass.config_entries.flow.async_configure(result["flow_id"], {})
    await asyncio.sleep(20)
    await modbus_line.unplug()
    result = await finish(hass, result)
    assert result["type"] is FlowResultType.ABORT
    assert result["reason"] in ("link_failed_proxy", "port_not_found_proxy")


async def test_a_discovered_meter_that_is_gone_is_explained(
    hass: HomeAssistant, modbus_line: Line
) -> None:
    result = await search(hass, modbus_line.port)
    await configure(hass, result["flow_id"], {"meter": "22091039"})
    modbus_line.silent = True
    flow_id = discovered(hass)["KLEFR 6934 22091040"]
    result = await configure(hass, flow_id, {})
    assert result["errors"] == {"base": "no_answer_modbus"}
    modbus_line.silent = False
    result = await configure(hass, flow_id, {})
    assert result["type"] is FlowResultType.CREATE_ENTRY


async def test_a_meter_is_discovered_once(hass: HomeAssistant, modbus_line: Line) -> None:
    result = await search(hass, modbus_line.port)
    await configure(hass, result["flow_id"], {"meter": "22091039"})
    assert len(discovered(hass)) == 2
    result = await search(hass, modbus_line.port)
    await configure(hass, result["flow_id"], {"meter": "22091040"})
    assert discovered(hass).keys() == {"KLEFR 6934 22091041"}
    assert len(hass.config_entries.async_entries(DOMAIN)) == 2
