"""Finding meters from the user interface, without knowing their addresses."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from homeassistant.config_entries import (
    SOURCE_INTEGRATION_DISCOVERY,
    ConfigEntryState,
    ConfigFlowContext,
)
from homeassistant.const import STATE_UNAVAILABLE
from homeassistant.core import HomeAssistant, callback
from homeassistant.data_entry_flow import FlowResultType
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.klefr.const import DOMAIN
from custom_components.klefr.wording import port_name
from simulator import mbus, modbus
from simulator.line import Line
from simulator.meter import VirtualMeter

from .test_config_flow import choose, configure, filled_in, start, start_reconfigure, with_words

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


async def proceed(
    hass: HomeAssistant, result: Any, user_input: dict[str, Any] | None = None
) -> Any:
    """Fill in a form, or ask how far a search is, without waiting for it to end."""
    flows = hass.config_entries.flow
    return with_words(await flows.async_configure(result["flow_id"], user_input))


async def finish(hass: HomeAssistant, result: Any) -> Any:
    """Wait until a search has ended."""
    while result["type"] is FlowResultType.SHOW_PROGRESS:
        await hass.async_block_till_done(wait_background_tasks=True)
        result = await proceed(hass, result)
    return result


async def search(
    hass: HomeAssistant, port: str, protocol: str = "modbus", **line_settings: Any
) -> Any:
    result = await begin(hass, port, protocol)
    if result["type"] is FlowResultType.FORM:
        result = await proceed(hass, result, line_settings)
    return await finish(hass, result)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.05)


def offered(result: Any) -> list[str]:
    assert result["type"] is FlowResultType.FORM
    assert result["step_id"] in ("found", "found_known", "found_moved")
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
    result = await proceed(hass, result, {})
    assert result["type"] is FlowResultType.SHOW_PROGRESS
    assert result["progress_action"] == "addresses_modbus"
    assert result["description_placeholders"] == {
        "port": port_name(modbus_line.port),
        "baud_rate": "9600",
        "parity": "Even",
    }
    await finish(hass, result)


async def test_one_meter_is_added_and_the_others_are_discovered(
    hass: HomeAssistant, modbus_line: Line
) -> None:
    result = await search(hass, modbus_line.port)
    assert offered(result) == [
        "KLEFR 6934 22091039 (address 1, 9600 baud)",
        "KLEFR 6934 22091040 (address 5, 9600 baud)",
        "KLEFR 6934 22091041 (address 9, 9600 baud)",
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
        "KLEFR 6933/6943 12092001 (address 12092001, 9600 baud)",
        "KLEFR 6933/6943 22092002 (address 22092002, 9600 baud)",
        "KLEFR 6933/6943 31092001 (address 7, 9600 baud)",
    ]
    # That two of them have the primary address 0 does not matter.
    assert not result["errors"]
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
    assert result["step_id"] == "found_known"
    assert result["description_placeholders"]["known"] == "KLEFR 6934 22091039"


async def test_nothing_new_is_said_so(hass: HomeAssistant, modbus_line: Line) -> None:
    result = await search(hass, modbus_line.port)
    await configure(hass, result["flow_id"], {"meter": "22091039"})
    for flow_id in discovered(hass).values():
        await configure(hass, flow_id, {})
    result = await search(hass, modbus_line.port)
    assert result["type"] is FlowResultType.ABORT
    assert result["reason"] == "all_added"
    assert "22091041" in result["description_placeholders"]["known"]


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
    assert result["step_id"] == "nothing_found_modbus"
    assert result["menu_options"] == ["search_all", "search", "modbus"]
    assert result["description_placeholders"]["baud_rate"] == "9600"
    assert result["description_placeholders"]["parity"] == "Even"
    modbus_line.silent = False
    result = await choose(hass, result, "search")
    result = await proceed(hass, result, {})
    assert len(offered(await finish(hass, result))) == 3


async def test_meters_at_unknown_line_settings_are_found(hass: HomeAssistant) -> None:
    meter = mbus_meter("22092003")
    async with mbus.serve(meter, virtual="virtual://slow", baud_rate=2400) as line:
        result = await search(hass, line.port, "mbus", baud_rate="4800", all_line_settings=True)
        assert offered(result) == [
            "KLEFR 6933/6943 22092003 (address 22092003, 2400 baud)",
            "search_on",
        ]
        result = await configure(hass, result["flow_id"], {"meter": "22092003"})
        assert result["data"]["baud_rate"] == 2400
        assert result["result"].state is ConfigEntryState.LOADED
        await hass.config_entries.async_unload(result["result"].entry_id)


async def test_two_meters_at_one_address_are_explained(hass: HomeAssistant) -> None:
    meters = [modbus_meter("22091039", 1), modbus_meter("22091040", 1), modbus_meter("22091041", 2)]
    async with modbus.serve(*meters, virtual="virtual://twins") as line:
        result = await search(hass, line.port)
        assert offered(result) == ["KLEFR 6934 22091041 (address 2, 9600 baud)"]
        assert result["errors"] == {"base": "several_answer"}
        assert result["description_placeholders"]["several"] == "1"


@pytest.mark.parametrize("seconds", [0.01, 0.1, 1, 50])
async def test_a_search_can_be_cancelled_at_any_moment(
    hass: HomeAssistant, modbus_line: Line, seconds: float
) -> None:
    result = await begin(hass, modbus_line.port)
    result = await proceed(hass, result, {})
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
    modbus_line.silent = True
    result = await begin(hass, modbus_line.port)
    result = await proceed(hass, result, {})
    await asyncio.sleep(20)
    await modbus_line.unplug()
    result = await finish(hass, result)
    assert result["type"] is FlowResultType.ABORT
    assert result["reason"] in ("link_failed_proxy", "port_not_found_proxy")


async def test_what_was_found_is_kept_when_the_port_vanishes(
    hass: HomeAssistant, modbus_line: Line
) -> None:
    result = await begin(hass, modbus_line.port)
    result = await proceed(hass, result, {})
    await until(lambda: len(discovered(hass)) == 2)
    await modbus_line.unplug()
    result = await finish(hass, result)
    # The search can be taken up again where it ended.
    assert offered(result) == [
        "KLEFR 6934 22091039 (address 1, 9600 baud)",
        "KLEFR 6934 22091040 (address 5, 9600 baud)",
        "search_on",
    ]
    assert result["errors"]["base"] in ("link_failed_proxy", "port_not_found_proxy")
    await modbus_line.plug()
    result = await proceed(hass, result, {"meter": "search_on"})
    result = await finish(hass, result)
    assert len(offered(result)) == 3
    assert not result["errors"]
    result = await configure(hass, result["flow_id"], {"meter": "22091040"})
    assert result["type"] is FlowResultType.CREATE_ENTRY


async def test_meters_are_listed_while_the_search_goes_on(
    hass: HomeAssistant, modbus_line: Line
) -> None:
    refreshed: list[str] = []
    hass.bus.async_listen(
        "data_entry_flow_progressed",
        callback(lambda event: refreshed.append(event.data["flow_id"])),
    )
    result = await begin(hass, modbus_line.port)
    result = await proceed(hass, result, {})
    await until(lambda: bool(refreshed))
    refreshed.clear()
    await until(lambda: len(discovered(hass)) == 2)
    # The window is told to ask again until it has, because it may miss that once.
    await until(lambda: refreshed.count(result["flow_id"]) > 2)
    result = await proceed(hass, result)
    shares: list[float] = []
    hass.bus.async_listen(
        "data_entry_flow_progress_update",
        callback(lambda event: shares.append(event.data["progress"])),
    )
    refreshed.clear()
    await until(lambda: len(shares) > 1)
    assert not refreshed
    assert result["type"] is FlowResultType.SHOW_PROGRESS
    assert result["progress_action"] == "addresses_modbus_found"
    assert result["description_placeholders"]["found"] == "KLEFR 6934 22091039, KLEFR 6934 22091040"
    # Closing the window stops the search and loses nothing.
    hass.config_entries.flow.async_abort(result["flow_id"])
    await hass.async_block_till_done(wait_background_tasks=True)
    assert discovered(hass).keys() == {"KLEFR 6934 22091039", "KLEFR 6934 22091040"}
    result = await configure(hass, discovered(hass)["KLEFR 6934 22091040"], {})
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert result["data"]["address"] == 5


async def test_a_discovered_meter_can_be_added_by_its_address(
    hass: HomeAssistant, modbus_line: Line
) -> None:
    result = await search(hass, modbus_line.port)
    hass.config_entries.flow.async_abort(result["flow_id"])
    assert len(discovered(hass)) == 3
    result = await configure(
        hass, await start(hass), {"port": modbus_line.port, "protocol": "modbus"}
    )
    result = await choose(hass, result, "modbus")
    result = await configure(hass, result["flow_id"], {"address": 5, "line_settings": {}})
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert result["title"] == "KLEFR 6934 22091040"
    # What was offered ends with that.
    assert discovered(hass).keys() == {"KLEFR 6934 22091039", "KLEFR 6934 22091041"}


async def test_a_meter_that_is_offered_already_is_not_offered_again(
    hass: HomeAssistant, modbus_line: Line
) -> None:
    data = {
        "meter": "22091040",
        "name": "KLEFR 6934 22091040",
        "port": modbus_line.port,
        "protocol": "modbus",
        "address": 5,
        "baud_rate": 9600,
        "parity": "even",
    }
    context = ConfigFlowContext(source=SOURCE_INTEGRATION_DISCOVERY)
    result: Any = await hass.config_entries.flow.async_init(DOMAIN, context=context, data=data)
    assert result["step_id"] == "confirm"
    assert result["description_placeholders"]["name"] == "KLEFR 6934 22091040"
    again = await hass.config_entries.flow.async_init(DOMAIN, context=context, data=data)
    assert again["type"] is FlowResultType.ABORT
    assert again["reason"] == "already_in_progress"
    assert discovered(hass) == {"KLEFR 6934 22091040": result["flow_id"]}


async def test_a_meter_is_offered_where_it_was_found_last(hass: HomeAssistant) -> None:
    meter = modbus_meter("22091040", 5)
    async with modbus.serve(meter, virtual="virtual://moving") as line:
        await search(hass, line.port)
        before = discovered(hass)
        meter.address = 7
        await search(hass, line.port)
        after = discovered(hass)
        assert before.keys() == after.keys()
        result = await configure(hass, after["KLEFR 6934 22091040"], {})
        assert result["data"]["address"] == 7
        await hass.config_entries.async_unload(result["result"].entry_id)


async def test_another_meter_in_the_place_of_a_discovered_one_is_named(
    hass: HomeAssistant,
) -> None:
    meter = modbus_meter("22091040", 5)
    async with modbus.serve(meter, virtual="virtual://swapped") as line:
        await search(hass, line.port)
        meter.serial_number = "22091077"
        result = await configure(hass, discovered(hass)["KLEFR 6934 22091040"], {})
    assert result["type"] is FlowResultType.ABORT
    assert result["reason"] == "wrong_meter"
    assert result["description_placeholders"] == {
        "meter": "KLEFR 6934 22091040",
        "found": "KLEFR 6934 22091077",
    }
    assert not hass.config_entries.async_entries(DOMAIN)


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


# All line settings


async def test_the_search_over_all_line_settings_ends_with_the_first_that_find_a_meter(
    hass: HomeAssistant,
) -> None:
    meters = [modbus_meter("22091040", 5), modbus_meter("22091041", 11)]
    async with modbus.serve(*meters, virtual="virtual://slow", baud_rate=2400, parity="N") as line:
        result = await begin(hass, line.port)
        result = await proceed(hass, result, {"all_line_settings": True})
        assert result["progress_action"] == "line_settings_modbus"
        await until(lambda: bool(discovered(hass)))
        result = await proceed(hass, result)
        assert result["progress_action"] == "addresses_modbus_found"
        assert result["description_placeholders"]["baud_rate"] == "2400"
        assert result["description_placeholders"]["parity"] == "None"
        result = await finish(hass, result)
        # One meter at a likely address tells the line settings of the other one.
        assert offered(result) == [
            "KLEFR 6934 22091040 (address 5, 2400 baud)",
            "KLEFR 6934 22091041 (address 11, 2400 baud)",
            "search_on",
        ]
        line.requests.clear()
        result = await proceed(hass, result, {"meter": "search_on"})
        assert result["progress_action"] == "line_settings_modbus_found"
        result = await finish(hass, result)
        assert len(offered(result)) == 2
        result = await configure(hass, result["flow_id"], {"meter": "22091041"})
        assert result["data"]["baud_rate"] == 2400
        assert result["data"]["parity"] == "none"
        assert result["result"].state is ConfigEntryState.LOADED
        await hass.config_entries.async_unload(result["result"].entry_id)


async def test_a_meter_at_an_unlikely_address_is_found_in_the_end(hass: HomeAssistant) -> None:
    meter = modbus_meter("22091040", 11)
    async with modbus.serve(meter, virtual="virtual://odd", baud_rate=1200, parity="O") as line:
        result = await search(hass, line.port)
        assert result["step_id"] == "nothing_found_modbus"
        result = await finish(hass, await choose(hass, result, "search_all"))
        assert result["step_id"] == "nothing_found_all_modbus"
        assert result["menu_options"] == ["search_on", "search", "modbus"]
        result = await finish(hass, await choose(hass, result, "search_on"))
        assert offered(result)[0] == "KLEFR 6934 22091040 (address 11, 1200 baud)"
        meter.address = 8
        result = await proceed(hass, result, {"meter": "search_on"})
        await finish(hass, result)


async def test_when_everything_was_tried_nothing_is_left_to_try(hass: HomeAssistant) -> None:
    async with modbus.serve(modbus_meter("22091040", 1), virtual="virtual://silent") as line:
        line.silent = True
        result = await search(hass, line.port, all_line_settings=True)
        assert result["step_id"] == "nothing_found_all_modbus"
        result = await finish(hass, await choose(hass, result, "search_on"))
        assert result["step_id"] == "nothing_found_every_address"
        assert result["menu_options"] == ["search", "modbus"]


async def test_m_bus_meters_are_asked_all_at_once_with_each_baud_rate(
    hass: HomeAssistant, mbus_line: Line
) -> None:
    mbus_line.silent = True
    result = await search(hass, mbus_line.port, "mbus", all_line_settings=True)
    assert result["step_id"] == "nothing_found_all_mbus"
    assert result["menu_options"] == ["search", "mbus"]
    broadcasts = [request for request in mbus_line.requests if request[:3] == b"\x10\x5b\xfe"]
    assert len(broadcasts) == 6


async def test_behind_a_gateway_there_is_one_way_to_search(hass: HomeAssistant) -> None:
    async with modbus.serve(modbus_meter("22091040", 11), virtual="socket://gateway:502") as line:
        line.silent = True
        result: Any = await hass.config_entries.flow.async_init(DOMAIN, context={"source": "user"})
        result = await choose(hass, result, "gateway")
        result = await configure(
            hass, result["flow_id"], {"host": "gateway", "port": 502, "protocol": "modbus"}
        )
        assert result["description_placeholders"] == {"port": "gateway:502"}
        result = await choose(hass, result, "search")
        assert result["progress_action"] == "gateway_modbus"
        result = await finish(hass, result)
        assert result["step_id"] == "nothing_found_gateway"
        assert result["menu_options"] == ["search", "modbus"]
        line.silent = False
        result = await finish(hass, await choose(hass, result, "search"))
        assert offered(result) == ["KLEFR 6934 22091040 (address 11)"]


async def test_only_several_devices_at_one_address_are_explained(hass: HomeAssistant) -> None:
    meters = [modbus_meter("22091039", 3), modbus_meter("22091040", 3)]
    async with modbus.serve(*meters, virtual="virtual://twins") as line:
        result = await search(hass, line.port)
        assert result["step_id"] == "nothing_found_several"
        assert result["description_placeholders"]["several"] == "3"


# Meters that are known


def entry_of(meter: VirtualMeter, port: str, **data: Any) -> MockConfigEntry:
    return MockConfigEntry(
        domain=DOMAIN,
        unique_id=meter.serial_number,
        title=f"KLEFR 6934 {meter.serial_number}",
        data={
            "port": port,
            "protocol": "modbus",
            "address": meter.address,
            "baud_rate": 9600,
            "parity": "even",
            **data,
        },
    )


@pytest.mark.parametrize(
    ("address", "baud_rate", "label"),
    [
        (5, 9600, "KLEFR 6934 22091040 (address 1 → 5, 9600 baud)"),
        (1, 1200, "KLEFR 6934 22091040 (address 1 → 1, 1200 baud)"),
    ],
)
async def test_a_known_meter_that_is_found_elsewhere_can_be_followed(
    hass: HomeAssistant, address: int, baud_rate: int, label: str
) -> None:
    meter = modbus_meter("22091040", 1)
    async with modbus.serve(meter, modbus_meter("22091041", 9), virtual="virtual://lost") as line:
        entry = entry_of(meter, line.port)
        meter.address, meter.baud_rate = address, baud_rate
        entry.add_to_hass(hass)
        await hass.config_entries.async_setup(entry.entry_id)
        assert entry.state is ConfigEntryState.SETUP_RETRY
        result = await search(hass, line.port, baud_rate=str(baud_rate))
        assert result["step_id"] == "found_moved"
        assert offered(result)[0] == label
        assert result["description_placeholders"]["known"] == "KLEFR 6934 22091040"
        result = await configure(hass, result["flow_id"], {"meter": "22091040"})
        assert result["type"] is FlowResultType.ABORT
        assert result["reason"] == "reconfigure_successful"
        assert result["description_placeholders"] == {"meter": entry.title}
        assert entry.data["address"] == address
        assert entry.data["baud_rate"] == baud_rate
        assert entry.state is ConfigEntryState.LOADED
        await hass.config_entries.async_unload(entry.entry_id)


async def test_an_m_bus_meter_that_is_read_by_its_other_address_is_where_it_should_be(
    hass: HomeAssistant,
) -> None:
    meter = mbus_meter("31092001", 7)
    async with mbus.serve(meter, virtual="virtual://known") as line:
        entry = entry_of(meter, line.port, protocol="mbus", address="31092001")
        entry.add_to_hass(hass)
        await hass.config_entries.async_setup(entry.entry_id)
        result = await search(hass, line.port, "mbus")
        assert result["reason"] == "all_added"
        assert result["description_placeholders"] == {"known": "KLEFR 6933/6943 31092001"}
        await hass.config_entries.async_unload(entry.entry_id)


async def begin_reconfigure(hass: HomeAssistant, entry: MockConfigEntry, port: str) -> Any:
    """Choose to search a port for the meter of an entry."""
    result = await start_reconfigure(hass, entry)
    assert result["description_placeholders"] == {"meter": entry.title}
    result = await configure(
        hass, result["flow_id"], {"port": port, "protocol": entry.data["protocol"]}
    )
    assert result["step_id"] == "reach_find"
    assert result["description_placeholders"] == {"meter": entry.title, "port": port_name(port)}
    return await choose(hass, result, "search")


async def test_a_lost_meter_is_searched_and_followed(hass: HomeAssistant) -> None:
    meter, other = modbus_meter("22091040", 1), modbus_meter("22091041", 2)
    async with modbus.serve(meter, other, virtual="virtual://lost") as line:
        entry = entry_of(meter, line.port)
        entry.add_to_hass(hass)
        await hass.config_entries.async_setup(entry.entry_id)
        assert entry.state is ConfigEntryState.LOADED
        for each in (meter, other):
            each.baud_rate = 2400
        meter.address = 5
        result = await begin_reconfigure(hass, entry, line.port)
        assert result["step_id"] == "reach_search_modbus"
        assert result["description_placeholders"]["meter"] == entry.title
        result = await proceed(hass, result, {"all_line_settings": True})
        assert result["progress_action"] == "reach_line_settings_modbus"
        assert result["description_placeholders"]["meter"] == entry.title
        result = await finish(hass, result)
        assert result["step_id"] == "reach_found_modbus"
        assert result["description_placeholders"] == {
            "meter": entry.title,
            "port": port_name(line.port),
            "address": "5",
            "baud_rate": "2400",
            "parity": "Even",
        }
        # It was not necessary to search on.
        assert 11 not in {request[0] for request in line.requests}
        # The other one is not lost either.
        assert discovered(hass).keys() == {"KLEFR 6934 22091041"}
        result = await configure(hass, result["flow_id"], {})
        assert result["reason"] == "reconfigure_successful"
        assert entry.data["address"] == 5
        assert entry.data["baud_rate"] == 2400
        assert entry.state is ConfigEntryState.LOADED
        await hass.config_entries.async_unload(entry.entry_id)


async def test_an_entry_is_set_up_again_when_the_search_for_its_meter_ends(
    hass: HomeAssistant,
) -> None:
    meter = modbus_meter("22091040", 1)
    async with modbus.serve(meter, virtual="virtual://there") as line:
        entry = entry_of(meter, line.port)
        entry.add_to_hass(hass)
        await hass.config_entries.async_setup(entry.entry_id)
        result = await begin_reconfigure(hass, entry, line.port)
        result = await proceed(hass, result, {"baud_rate": "1200"})
        await asyncio.sleep(1)
        assert entry.state is ConfigEntryState.NOT_LOADED
        hass.config_entries.flow.async_abort(result["flow_id"])
        await until(lambda: entry.state is ConfigEntryState.LOADED)

        result = await begin_reconfigure(hass, entry, line.port)
        result = await proceed(hass, result, {"baud_rate": "1200"})
        result = await finish(hass, result)
        assert result["step_id"] == "reach_nothing_found_modbus"
        assert result["menu_options"] == ["search_all", "search", "reach_modbus"]
        assert result["description_placeholders"]["meter"] == entry.title
        await hass.async_block_till_done()
        assert entry.state is ConfigEntryState.LOADED
        assert entry.data["baud_rate"] == 9600
        await hass.config_entries.async_unload(entry.entry_id)


async def test_other_meters_keep_the_line_settings_in_a_search_for_a_lost_one(
    hass: HomeAssistant,
) -> None:
    meter, other = modbus_meter("22091040", 1), modbus_meter("22091041", 2)
    async with modbus.serve(meter, other, virtual="virtual://shared") as line:
        entries = [entry_of(each, line.port) for each in (meter, other)]
        for entry in entries:
            entry.add_to_hass(hass)
        await hass.config_entries.async_setup(entries[0].entry_id)
        await hass.async_block_till_done()
        meter.address = 6
        # There is nothing to ask.
        result = await begin_reconfigure(hass, entries[0], line.port)
        assert result["progress_action"] == "reach_addresses_modbus"
        result = await finish(hass, result)
        assert result["step_id"] == "reach_found_modbus"
        result = await configure(hass, result["flow_id"], {})
        assert entries[0].data["address"] == 6
        assert [entry.state for entry in entries] == [ConfigEntryState.LOADED] * 2
        for entry in entries:
            await hass.config_entries.async_unload(entry.entry_id)
