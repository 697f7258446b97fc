"""Several meters on one line, and networks in between."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from homeassistant.config_entries import SOURCE_USER, ConfigEntryState
from homeassistant.const import STATE_UNAVAILABLE, Platform
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.helpers import entity_registry as er
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry
import serialx

from custom_components.klefr import port_users
from custom_components.klefr.const import DOMAIN
from custom_components.klefr.shared_buses import DATA_BUSES
from simulator import mbus, modbus
from simulator.line import Line
from simulator.meter import VirtualMeter

from . import SERIAL_NUMBER, entity_id, state, wait
from .test_config_flow import (
    choose,
    choose_bus,
    configure,
    enter_address,
    filled_in,
    start,
    start_reconfigure,
)

OTHER = "22091040"
GATEWAY = "socket://gateway:502"


def entry_for(meter: VirtualMeter, port: str, **data: Any) -> MockConfigEntry:
    return MockConfigEntry(
        domain=DOMAIN,
        unique_id=meter.serial_number,
        title=meter.serial_number,
        data={
            "port": port,
            "protocol": "modbus",
            "address": meter.address,
            "baud_rate": 9600,
            "parity": "even",
            **data,
        },
    )


@pytest.fixture
def other_meter() -> VirtualMeter:
    return VirtualMeter(serial_number=OTHER, address=2, clock=lambda: 0.0)


@pytest.fixture
async def line(
    virtual_meter: VirtualMeter, other_meter: VirtualMeter, where: dict[str, Any]
) -> AsyncIterator[Line]:
    async with modbus.serve(virtual_meter, other_meter, **where) as line:
        yield line


@pytest.fixture
async def entries(
    hass: HomeAssistant, virtual_meter: VirtualMeter, other_meter: VirtualMeter, line: Line
) -> AsyncIterator[list[MockConfigEntry]]:
    """Two meters on one line, both loaded."""
    entries = [entry_for(meter, line.port) for meter in (virtual_meter, other_meter)]
    for entry in entries:
        entry.add_to_hass(hass)
    await hass.config_entries.async_setup(entries[0].entry_id)
    await hass.async_block_till_done()
    assert [entry.state for entry in entries] == [ConfigEntryState.LOADED] * 2
    yield entries
    for entry in hass.config_entries.async_entries(DOMAIN):
        if entry.state.recoverable:
            await hass.config_entries.async_unload(entry.entry_id)


def states_of(hass: HomeAssistant, entry: MockConfigEntry) -> set[str]:
    found = er.async_entries_for_config_entry(er.async_get(hass), entry.entry_id)
    return {shown.state for each in found if (shown := hass.states.get(each.entity_id)) is not None}


async def test_a_reload_does_not_disturb_the_others(
    hass: HomeAssistant, entries: list[MockConfigEntry], line: Line
) -> None:
    first, second = entries
    transport = second.runtime_data.meter._bus._transport
    await hass.config_entries.async_reload(first.entry_id)
    await hass.async_block_till_done()
    assert first.state is ConfigEntryState.LOADED
    await wait(hass)
    assert STATE_UNAVAILABLE not in states_of(hass, second)
    assert not transport.is_closing()
    await hass.config_entries.async_unload(first.entry_id)
    assert not transport.is_closing()
    await hass.config_entries.async_unload(second.entry_id)
    assert transport.is_closing()


async def test_a_dead_meter_is_asked_once_per_poll_and_leaves_the_others_alone(
    hass: HomeAssistant,
    entries: list[MockConfigEntry],
    virtual_meter: VirtualMeter,
    line: Line,
) -> None:
    first, second = entries
    virtual_meter.address = 99  # as good as switched off
    await wait(hass)
    assert states_of(hass, first) == {STATE_UNAVAILABLE}
    line.requests.clear()
    for polls in (1, 2, 3):
        await wait(hass, seconds=10)
        assert [request[0] for request in line.requests].count(1) == polls
        assert STATE_UNAVAILABLE not in states_of(hass, second)
    virtual_meter.address = 1
    await wait(hass)
    assert STATE_UNAVAILABLE not in states_of(hass, first)


async def test_all_meters_come_back_with_the_converter(
    hass: HomeAssistant, entries: list[MockConfigEntry], line: Line
) -> None:
    await line.unplug()
    await wait(hass)
    for entry in entries:
        assert states_of(hass, entry) == {STATE_UNAVAILABLE}
    await line.plug()
    await wait(hass)
    for entry in entries:
        assert STATE_UNAVAILABLE not in states_of(hass, entry)


@pytest.mark.real_time
async def test_another_name_of_the_same_port_shares_it(
    hass: HomeAssistant, line: Line, tmp_path: Path
) -> None:
    alias = tmp_path / "by-id"
    alias.symlink_to(line.port)
    for port, address in ((line.port, 1), (str(alias), 2)):
        result = await configure(hass, await start(hass), {"port": port, "protocol": "modbus"})
        result = await choose(hass, result, "modbus")
        result = await configure(hass, result["flow_id"], {"address": address, "line_settings": {}})
        assert result["type"] is FlowResultType.CREATE_ENTRY
        # The name that was chosen is kept: the other one may be another port's after a restart.
        assert result["data"]["port"] == port
    for entry in hass.config_entries.async_entries(DOMAIN):
        assert entry.state is ConfigEntryState.LOADED
        await hass.config_entries.async_unload(entry.entry_id)


@pytest.mark.real_time
async def test_an_entry_makes_way_under_another_name_of_its_port(
    hass: HomeAssistant, virtual_meter: VirtualMeter, line: Line, tmp_path: Path
) -> None:
    entry = entry_for(virtual_meter, line.port)
    entry.add_to_hass(hass)
    assert await hass.config_entries.async_setup(entry.entry_id)
    virtual_meter.baud_rate = 1200
    alias = tmp_path / "by-id"
    alias.symlink_to(line.port)
    result = await start_reconfigure(hass, entry)
    result = await choose_bus(hass, result["flow_id"], {"port": str(alias), "protocol": "modbus"})
    result = await configure(
        hass, result["flow_id"], {"address": 1, "line_settings": {"baud_rate": "1200"}}
    )
    assert result["reason"] == "reconfigure_successful"
    assert entry.data["port"] == str(alias)
    assert entry.data["baud_rate"] == 1200
    assert entry.state is ConfigEntryState.LOADED
    await hass.config_entries.async_unload(entry.entry_id)


async def test_a_gateway_is_one_however_its_name_is_written(
    hass: HomeAssistant, virtual_meter: VirtualMeter, other_meter: VirtualMeter
) -> None:
    entries = [
        entry_for(virtual_meter, "socket://gateway:502"),
        entry_for(other_meter, "socket://Gateway:502"),
    ]
    async with modbus.serve(virtual_meter, other_meter, virtual="socket://gateway:502"):
        for entry in entries:
            entry.add_to_hass(hass)
        await hass.config_entries.async_setup(entries[0].entry_id)
        await hass.async_block_till_done()
        assert [entry.state for entry in entries] == [ConfigEntryState.LOADED] * 2
        assert len(hass.data[DATA_BUSES]) == 1
        assert entries[1].data["port"] == "socket://Gateway:502"
        for entry in entries:
            await hass.config_entries.async_unload(entry.entry_id)


async def test_the_known_port_is_suggested(
    hass: HomeAssistant, entries: list[MockConfigEntry], line: Line
) -> None:
    result = await hass.config_entries.flow.async_init(DOMAIN, context={"source": SOURCE_USER})
    result = await choose(hass, result, "serial")
    assert filled_in(result["data_schema"]) == {"port": line.port, "protocol": "modbus"}


async def test_who_has_the_port_is_named(hass: HomeAssistant, line: Line) -> None:
    holder = MockConfigEntry(
        domain="zha", title="Zigbee stick", data={"device": {"path": line.port, "baudrate": 115200}}
    )
    holder.add_to_hass(hass)
    other, _ = await serialx.create_serial_connection(
        hass.loop, asyncio.Protocol, line.port, baudrate=115200
    )
    result = await configure(hass, await start(hass), {"port": line.port, "protocol": "modbus"})
    assert result["errors"] == {"port": "port_in_use_by"}
    assert result["description_placeholders"]["users"] == "Zigbee stick (zha)"
    other.close()


async def test_who_has_the_port_is_named_whatever_name_it_has_there(
    hass: HomeAssistant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port_users, "DEVICES", f"{tmp_path}/")
    adapter = tmp_path / "ttyUSB0"
    adapter.touch()
    by_id = tmp_path / "usb-FTDI-if00"
    by_id.symlink_to(adapter)
    unplugged = tmp_path / "usb-gone-if00"
    unplugged.symlink_to(tmp_path / "ttyUSB1")
    for title, path in (
        *(("Zigbee", by_id), ("Other", unplugged), ("Odd", f"{tmp_path}/tty\0USB0")),
        *(("Long", f"{tmp_path}/{'x' * 10_000}"), ("Text", "ttyUSB0")),
    ):
        MockConfigEntry(domain="zha", title=title, data={"path": str(path)}).add_to_hass(hass)
    for port in (adapter, by_id):
        assert port_users.async_port_users(hass, str(port)) == ["Zigbee (zha)"]
    assert port_users.async_port_users(hass, str(unplugged)) == ["Other (zha)"]
    assert port_users.async_port_users(hass, "virtual://meter") == []


@pytest.fixture
async def gateway(
    request: pytest.FixtureRequest, virtual_meter: VirtualMeter
) -> AsyncIterator[tuple[str, Line]]:
    """A gateway, and what it speaks."""
    if request.param == "mbus":
        meter = VirtualMeter(model="6933", serial_number=SERIAL_NUMBER, clock=lambda: 0.0)
        served = mbus.serve(meter, virtual=GATEWAY)
    else:
        framing = modbus.Framing.SOCKET if request.param == "modbus_tcp" else modbus.Framing.RTU
        served = modbus.serve(virtual_meter, virtual=GATEWAY, framing=framing)
    async with served as line:
        yield request.param, line


async def begin_gateway(hass: HomeAssistant, protocol: str) -> Any:
    result = await hass.config_entries.flow.async_init(DOMAIN, context={"source": SOURCE_USER})
    result = await choose(hass, result, "gateway")
    return await configure(
        hass, result["flow_id"], {"host": "gateway", "port": 502, "protocol": protocol}
    )


@pytest.mark.parametrize("gateway", ["modbus_tcp", "modbus", "mbus"], indirect=True)
async def test_a_meter_behind_a_gateway_is_added_and_set(
    hass: HomeAssistant, gateway: tuple[str, Line]
) -> None:
    protocol, line = gateway
    step = "mbus" if protocol == "mbus" else "modbus"
    result = await choose(hass, await begin_gateway(hass, protocol), step)
    fields = {str(key) for key in result["data_schema"].schema}
    assert fields == {"address"} | (set() if protocol == "modbus_tcp" else {"line_settings"})
    user_input: dict[str, Any] = {} if protocol == "modbus_tcp" else {"line_settings": {}}
    result = await configure(hass, result["flow_id"], user_input)
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert result["data"]["port"] == GATEWAY
    assert result["data"]["protocol"] == protocol
    entry = result["result"]
    assert entry.state is ConfigEntryState.LOADED
    await hass.services.async_call(
        "select",
        "select_option",
        {"entity_id": entity_id(hass, Platform.SELECT, "tariff"), "option": "t2"},
        blocking=True,
    )
    assert state(hass, Platform.SELECT, "tariff") == "t2"

    # The gateway restarts.
    await line.unplug()
    await wait(hass)
    assert state(hass, Platform.SELECT, "tariff") == STATE_UNAVAILABLE
    await line.plug()
    await wait(hass)
    await wait(hass, seconds=0)
    assert state(hass, Platform.SELECT, "tariff") == "t2"
    await hass.config_entries.async_unload(entry.entry_id)


async def test_a_gateway_that_is_not_there_is_explained(
    hass: HomeAssistant, virtual_meter: VirtualMeter
) -> None:
    async with modbus.serve(virtual_meter, virtual=GATEWAY) as line:
        await line.unplug()
        result = await begin_gateway(hass, "modbus_tcp")
    assert result["errors"] == {"host": "host_refused_gateway"}
    assert filled_in(result["data_schema"]) == {
        "host": "gateway",
        "port": 502,
        "protocol": "modbus_tcp",
    }


@pytest.mark.parametrize("gateway", ["modbus_tcp", "modbus"], indirect=True)
async def test_a_meter_moves_behind_a_gateway_and_back(
    hass: HomeAssistant, loaded: MockConfigEntry, gateway: tuple[str, Line], entry_data: Any
) -> None:
    protocol, _ = gateway
    entities = set(hass.states.async_entity_ids())
    result = await start_reconfigure(hass, loaded, "gateway")
    result = await configure(
        hass, result["flow_id"], {"host": "gateway", "port": 502, "protocol": protocol}
    )
    result = await enter_address(hass, result)
    user_input: dict[str, Any] = {} if protocol == "modbus_tcp" else {"line_settings": {}}
    result = await configure(hass, result["flow_id"], {"address": 1, **user_input})
    assert result["reason"] == "reconfigure_successful"
    assert loaded.data["port"] == GATEWAY
    assert loaded.state is ConfigEntryState.LOADED
    assert set(hass.states.async_entity_ids()) == entities

    result = await start_reconfigure(hass, loaded, "gateway")
    assert filled_in(result["data_schema"]) == {
        "host": "gateway",
        "port": 502,
        "protocol": protocol,
    }
    hass.config_entries.flow.async_abort(result["flow_id"])
    result = await start_reconfigure(hass, loaded)
    result = await choose_bus(
        hass, result["flow_id"], {"port": entry_data["port"], "protocol": "modbus"}
    )
    result = await configure(hass, result["flow_id"], {"address": 1, "line_settings": {}})
    assert result["reason"] == "reconfigure_successful"
    assert loaded.data == entry_data
    assert loaded.state is ConfigEntryState.LOADED
    assert set(hass.states.async_entity_ids()) == entities
    await hass.config_entries.async_unload(loaded.entry_id)


async def test_a_gateway_is_set_to_another_protocol(
    hass: HomeAssistant, virtual_meter: VirtualMeter
) -> None:
    async with modbus.serve(virtual_meter, virtual=GATEWAY):
        result = await choose(hass, await begin_gateway(hass, "modbus"), "modbus")
        result = await configure(hass, result["flow_id"], {"line_settings": {}})
        entry = result["result"]
    async with modbus.serve(virtual_meter, virtual=GATEWAY, framing=modbus.Framing.SOCKET):
        result = await start_reconfigure(hass, entry, "gateway")
        result = await configure(
            hass, result["flow_id"], {"host": "gateway", "port": 502, "protocol": "modbus_tcp"}
        )
        result = await enter_address(hass, result)
        result = await configure(hass, result["flow_id"], {"address": 1})
        assert result["reason"] == "reconfigure_successful"
        assert entry.data["protocol"] == "modbus_tcp"
        assert entry.state is ConfigEntryState.LOADED
        await hass.config_entries.async_unload(entry.entry_id)
