"""A meter on a port that Home Assistant holds for another integration."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
import sys
from typing import Any

from homeassistant.components.modbus import async_get_unit
from homeassistant.components.modbus.connection import (
    DATA_MODBUS_CONNECTIONS,
    async_get_connection_info,
)
from homeassistant.config_entries import (
    ConfigEntry,
    ConfigEntryDisabler,
    ConfigEntryState,
    ConfigFlow,
)
from homeassistant.const import EVENT_HOMEASSISTANT_STARTED, STATE_UNAVAILABLE, Platform
from homeassistant.core import CoreState, HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from modbus_connection import ModbusSerialParams, ModbusTcpParams, ModbusTimeoutError, ModbusUnit
import pytest
from pytest_homeassistant_custom_component.common import (
    MockConfigEntry,
    MockModule,
    mock_config_flow,
    mock_integration,
    mock_platform,
)

from custom_components.klefr.const import DOMAIN
from custom_components.klefr.diagnostics import async_get_config_entry_diagnostics
from custom_components.klefr.meter import (
    LinkError,
    ModbusBus,
    ModbusLine,
    NoAnswerError,
    Protocol,
    SerialLink,
    search,
    split_gateway_port,
)
from custom_components.klefr.shared_buses import async_get_bus
from simulator.line import Line
from simulator.meter import Parity, VirtualMeter
from simulator.modbus import Framing, serve

from . import SERIAL_NUMBER, entity_id, state, wait
from .test_communication import change, sent_writes
from .test_config_flow import choose, configure, filled_in, meter_answers, start
from .test_init import garble, mend, refuse, silence, unplug

HEAT_PUMP_UNIT = 2
HEAT_PUMP_NUMBER = [0x2209, 0x1040]

type Hold = Callable[..., ModbusUnit]


@pytest.fixture
async def line(virtual_meter: VirtualMeter, where: dict[str, Any]) -> AsyncIterator[Line]:
    """A line with a meter, and a device of another integration."""
    heat_pump = VirtualMeter(serial_number="22091040", address=HEAT_PUMP_UNIT, clock=lambda: 0.0)
    async with serve(virtual_meter, heat_pump, **where) as line:
        yield line


@pytest.fixture
async def other(hass: HomeAssistant) -> AsyncIterator[MockConfigEntry]:
    """The entry of another integration."""
    entry = MockConfigEntry(domain="heat_pump", title="Heat pump")
    entry.add_to_hass(hass)
    yield entry
    await let_go(hass, entry)


async def let_go(hass: HomeAssistant, other: MockConfigEntry) -> None:
    await other._async_process_on_unload(hass)


@pytest.fixture
def hold(hass: HomeAssistant, other: MockConfigEntry, line: Line) -> Hold:
    """Let the other integration hold the port."""

    def hold(**settings: Any) -> ModbusUnit:
        params = ModbusSerialParams(**{"device": line.port, "parity": "E", **settings})
        return async_get_unit(hass, other, params, HEAT_PUMP_UNIT)

    return hold


@pytest.fixture
async def heat_pump(hold: Hold) -> ModbusUnit:
    """The other integration's device, on an open connection."""
    unit = hold()
    assert await unit.read_holding_registers(0x4000, 2) == HEAT_PUMP_NUMBER
    return unit


async def test_a_meter_is_read_and_set_through_the_open_port(
    hass: HomeAssistant,
    heat_pump: ModbusUnit,
    entry: MockConfigEntry,
    virtual_meter: VirtualMeter,
) -> None:
    assert await hass.config_entries.async_setup(entry.entry_id)
    await hass.async_block_till_done()
    energy = state(hass, Platform.SENSOR, "forward_active_energy")
    assert float(energy or 0) == pytest.approx(virtual_meter.forward_active_energy, abs=0.01)
    # As much as can flow within a second.
    virtual_meter.add_energy(l1=0.02)
    await wait(hass)
    energy = state(hass, Platform.SENSOR, "forward_active_energy")
    assert float(energy or 0) == pytest.approx(virtual_meter.forward_active_energy, abs=0.01)
    await hass.services.async_call(
        "select",
        "select_option",
        {"entity_id": entity_id(hass, Platform.SELECT, "tariff"), "option": "t2"},
        blocking=True,
    )
    assert virtual_meter.tariff == 2
    assert state(hass, Platform.SELECT, "tariff") == "t2"


async def test_unloading_leaves_the_port_to_the_other_integration(
    hass: HomeAssistant, heat_pump: ModbusUnit, loaded: MockConfigEntry, line: Line
) -> None:
    assert await hass.config_entries.async_unload(loaded.entry_id)
    line.requests.clear()
    await wait(hass)
    assert not line.requests
    assert heat_pump.connected
    assert await heat_pump.read_holding_registers(0x4000, 2) == HEAT_PUMP_NUMBER


async def test_the_meter_keeps_the_port_open_when_the_other_integration_lets_go(
    hass: HomeAssistant, heat_pump: ModbusUnit, loaded: MockConfigEntry, other: MockConfigEntry
) -> None:
    await let_go(hass, other)
    await wait(hass)
    assert state(hass, Platform.SELECT, "tariff") == "t1"
    assert heat_pump.connected
    assert await hass.config_entries.async_unload(loaded.entry_id)
    assert not heat_pump.connected
    assert not hass.data[DATA_MODBUS_CONNECTIONS]


async def test_without_the_other_integration_the_port_is_opened_again(
    hass: HomeAssistant, heat_pump: ModbusUnit, loaded: MockConfigEntry, other: MockConfigEntry
) -> None:
    await let_go(hass, other)
    await hass.config_entries.async_reload(loaded.entry_id)
    assert loaded.state is ConfigEntryState.LOADED
    assert isinstance(loaded.runtime_data.meter._bus, ModbusBus)
    assert not hass.data[DATA_MODBUS_CONNECTIONS]


async def test_an_integration_that_comes_later_does_not_take_the_port_away(
    hass: HomeAssistant, loaded: MockConfigEntry, hold: Hold, line: Line
) -> None:
    with pytest.raises(Exception, match="could not open serial port"):
        await hold().read_holding_registers(0x4000, 2)
    await wait(hass)
    assert state(hass, Platform.SELECT, "tariff") == "t1"
    same = async_get_bus(hass, Protocol.MODBUS, SerialLink(port=line.port))
    assert same is loaded.runtime_data.meter._bus


async def test_line_settings_that_differ_are_an_error_that_names_those_in_force(
    hass: HomeAssistant, hold: Hold, entry: MockConfigEntry
) -> None:
    hold(parity="N", baudrate=4800)
    assert not await hass.config_entries.async_setup(entry.entry_id)
    assert entry.state is ConfigEntryState.SETUP_RETRY
    assert entry.error_reason_translation_key == "line_settings_in_use"
    assert "4800 baud" in str(entry.reason)


@pytest.mark.parametrize("settings", [{"baudrate": 19200}, {"stopbits": 2}, {"framer": "ascii"}])
async def test_a_port_that_no_meter_can_be_on_is_in_use(
    hass: HomeAssistant, hold: Hold, entry: MockConfigEntry, settings: dict[str, Any]
) -> None:
    with suppress(ModbusTimeoutError):
        await hold(parity="N", **settings).read_holding_registers(0x4000, 2)
    assert not await hass.config_entries.async_setup(entry.entry_id)
    assert entry.state is ConfigEntryState.SETUP_RETRY
    assert entry.error_reason_translation_key == "port_in_use"


async def test_m_bus_is_not_spoken_on_a_modbus_port(
    hass: HomeAssistant, heat_pump: ModbusUnit, line: Line
) -> None:
    result = await configure(hass, await start(hass), {"port": line.port, "protocol": "mbus"})
    assert result["errors"] == {"port": "line_settings_in_use"}
    assert result["description_placeholders"]["protocol"] == "Modbus RTU"


@pytest.mark.parametrize("parity", ["E", "N"])
async def test_a_meter_is_added_on_an_open_port(
    hass: HomeAssistant,
    hold: Hold,
    entry_data: dict[str, Any],
    line: Line,
    virtual_meter: VirtualMeter,
    parity: str,
) -> None:
    virtual_meter.parity = Parity(parity)
    hold(parity=parity)
    line_settings = {"baud_rate": "9600", "parity": {"E": "even", "N": "none"}[parity]}
    result = await configure(hass, await start(hass), {"port": line.port, "protocol": "modbus"})
    result = await choose(hass, result, "modbus")
    assert filled_in(result["data_schema"])["line_settings"] == line_settings
    result = await configure(
        hass, result["flow_id"], {"address": 1, "line_settings": line_settings}
    )
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert result["data"] == {**entry_data, "parity": line_settings["parity"]}
    assert result["result"].state is ConfigEntryState.LOADED
    await hass.config_entries.async_unload(result["result"].entry_id)


@pytest.mark.real_time
async def test_another_name_of_the_open_port_will_do(
    hass: HomeAssistant, heat_pump: ModbusUnit, entry_data: dict[str, Any], tmp_path: Path
) -> None:
    alias = tmp_path / "by-id"
    alias.symlink_to(entry_data["port"])
    entry = MockConfigEntry(
        domain=DOMAIN, unique_id=SERIAL_NUMBER, data={**entry_data, "port": str(alias)}
    )
    entry.add_to_hass(hass)
    assert await hass.config_entries.async_setup(entry.entry_id)
    await hass.config_entries.async_unload(entry.entry_id)


async def test_a_silent_meter_is_asked_once_and_is_no_answer(
    hass: HomeAssistant, heat_pump: ModbusUnit, entry_data: dict[str, Any], line: Line
) -> None:
    line.requests.clear()
    flow = await configure(hass, await start(hass), {"port": line.port, "protocol": "modbus"})
    result = await choose(hass, flow, "modbus")
    answers = meter_answers({**entry_data, "address": 9})
    result = await configure(hass, result["flow_id"], answers)
    assert result["errors"] == {"base": "no_answer_modbus"}
    assert len(line.requests) == 1
    result = await configure(hass, result["flow_id"], meter_answers(entry_data))
    assert result["type"] is FlowResultType.CREATE_ENTRY
    await hass.config_entries.async_unload(result["result"].entry_id)


@pytest.mark.parametrize("fail", [silence, garble, refuse, unplug])
async def test_a_lost_meter_comes_back_by_itself(
    hass: HomeAssistant,
    heat_pump: ModbusUnit,
    loaded: MockConfigEntry,
    line: Line,
    virtual_meter: VirtualMeter,
    fail: Callable[[Line, VirtualMeter], Any],
) -> None:
    await fail(line, virtual_meter)
    for _ in range(2):
        await wait(hass)
        assert state(hass, Platform.SELECT, "tariff") == STATE_UNAVAILABLE
    await mend(line, virtual_meter)
    await wait(hass)
    await wait(hass, seconds=0)
    assert state(hass, Platform.SELECT, "tariff") == "t1"


async def test_a_damaged_answer_is_asked_for_again(
    hass: HomeAssistant, heat_pump: ModbusUnit, loaded: MockConfigEntry, line: Line
) -> None:
    line.garble_next = 1
    await wait(hass)
    assert state(hass, Platform.SELECT, "tariff") == "t1"


async def test_health_is_known_without_the_frames(
    hass: HomeAssistant, heat_pump: ModbusUnit, loaded: MockConfigEntry, line: Line
) -> None:
    line.silent = True
    await wait(hass)
    line.silent = False
    await wait(hass)
    diagnostics = await async_get_config_entry_diagnostics(hass, loaded)
    hour = diagnostics["last_hour"]
    assert hour["requests"] > 3
    assert hour["failed"].keys() == {"no_answer"}
    # With what the other users of the connection take.
    assert 0 < hour["response_time_ms"] < 1000
    kept = diagnostics["around_failures"]
    assert "no_answer" in [each["outcome"] for each in kept]
    assert all(each.keys() == {"seconds_ago", "outcome", "response_time_ms"} for each in kept)


async def test_a_search_finds_out_soon_who_is_there(
    hass: HomeAssistant, other: MockConfigEntry, line: Line
) -> None:
    params = ModbusSerialParams(device=line.port, parity="E")
    async_get_unit(hass, other, params, HEAT_PUMP_UNIT)
    bus = async_get_bus(hass, Protocol.MODBUS, SerialLink(port=line.port))
    assert isinstance(bus, ModbusLine)
    async with bus:
        async with asyncio.timeout(3):
            assert await bus.probe(1, 0x4000, 2, attempts=1)
            assert not await bus.probe(9, 0x4000, 2, attempts=1)
            assert await bus.probe(1, 0x7000, 2, attempts=1)
        await line.unplug()
        with pytest.raises(LinkError):
            await bus.probe(1, 0x4000, 2, attempts=1)
    with pytest.raises(LinkError, match="released"):
        await bus.probe(1, 0x4000, 2, attempts=1)


async def test_meters_are_found_on_an_open_port(
    hass: HomeAssistant, heat_pump: ModbusUnit, line: Line
) -> None:
    began = hass.loop.time()
    bus = async_get_bus(hass, Protocol.MODBUS, SerialLink(port=line.port))
    async with bus:
        found = [step.found.address async for step in search(bus) if step.found]
    assert found == [1, 2]
    # About four minutes, as the README says.
    assert hass.loop.time() - began == pytest.approx(250, abs=10)


async def test_a_gateway_is_shared(
    hass: HomeAssistant,
    other: MockConfigEntry,
    virtual_meter: VirtualMeter,
    entry_data: dict[str, Any],
) -> None:
    port = "socket://gateway:502"
    async with serve(virtual_meter, virtual=port):
        params = ModbusSerialParams(device=port, baudrate=19200)
        await share_gateway(hass, other, params, {**entry_data, "port": port})


@pytest.mark.real_time
async def test_a_modbus_tcp_gateway_is_shared(
    hass: HomeAssistant,
    other: MockConfigEntry,
    virtual_meter: VirtualMeter,
    entry_data: dict[str, Any],
    socket_enabled: None,
) -> None:
    # Home Assistant's client of Modbus TCP opens a socket without serialx.
    where = ("127.0.0.1", 0)
    async with serve(virtual_meter, pacing=False, tcp=where, framing=Framing.SOCKET) as line:
        port = f"socket://{line.port}"
        host, tcp_port = split_gateway_port(port)
        data = {**entry_data, "port": port, "protocol": "modbus_tcp"}
        await share_gateway(hass, other, ModbusTcpParams(host=host, port=tcp_port), data)


async def share_gateway(
    hass: HomeAssistant,
    other: MockConfigEntry,
    params: ModbusSerialParams | ModbusTcpParams,
    data: dict[str, Any],
) -> None:
    unit = async_get_unit(hass, other, params, 1)
    assert await unit.read_holding_registers(0x4000, 2) == [0x2209, 0x1039]
    entry = MockConfigEntry(domain=DOMAIN, unique_id=SERIAL_NUMBER, data=data)
    entry.add_to_hass(hass)
    assert await hass.config_entries.async_setup(entry.entry_id)
    assert not isinstance(entry.runtime_data.meter._bus, ModbusBus)
    await hass.config_entries.async_unload(entry.entry_id)
    bus = async_get_bus(hass, Protocol(data["protocol"]), SerialLink(port=data["port"]))
    assert isinstance(bus, ModbusLine)
    await unit.disconnect()
    async with bus:
        with pytest.raises(NoAnswerError):
            await bus.read_registers(9, 0x4000, 2)
    await let_go(hass, other)


async def test_home_assistant_without_shared_connections_is_not_asked_for_any(
    hass: HomeAssistant, entry: MockConfigEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "homeassistant.components.modbus", None)
    monkeypatch.setitem(sys.modules, "modbus_connection", None)
    monkeypatch.delitem(sys.modules, "custom_components.klefr.shared_modbus", raising=False)
    assert await hass.config_entries.async_setup(entry.entry_id)
    assert isinstance(entry.runtime_data.meter._bus, ModbusBus)
    assert DATA_MODBUS_CONNECTIONS not in hass.data


async def test_through_the_open_port_a_meter_gets_another_address_but_no_other_line_settings(
    hass: HomeAssistant,
    heat_pump: ModbusUnit,
    loaded: MockConfigEntry,
    virtual_meter: VirtualMeter,
    line: Line,
) -> None:
    result = await change(hass, loaded, baud_rate="1200")
    assert result["reason"] == "line_settings_in_use"
    assert not sent_writes(line, "modbus")
    assert loaded.state is ConfigEntryState.LOADED
    result = await change(hass, loaded, address=HEAT_PUMP_UNIT)
    assert result["errors"] == {"address": "address_taken"}
    result = await change(hass, loaded, address=7)
    assert result["reason"] == "changed"
    assert loaded.data["address"] == virtual_meter.address == 7
    assert loaded.state is ConfigEntryState.LOADED
    assert await heat_pump.read_holding_registers(0x4000, 2) == HEAT_PUMP_NUMBER


async def test_home_assistant_shows_which_unit_an_entry_holds(
    hass: HomeAssistant, heat_pump: ModbusUnit, other: MockConfigEntry, loaded: MockConfigEntry
) -> None:
    [connection] = async_get_connection_info(hass)
    assert connection.units == {other.entry_id: [HEAT_PUMP_UNIT], loaded.entry_id: [1]}
    await hass.config_entries.async_unload(loaded.entry_id)
    [connection] = async_get_connection_info(hass)
    assert connection.units == {other.entry_id: [HEAT_PUMP_UNIT]}


async def test_a_form_can_ask_a_meter_whose_entry_has_just_been_unloaded(
    hass: HomeAssistant, heat_pump: ModbusUnit, loaded: MockConfigEntry, line: Line
) -> None:
    bus = loaded.runtime_data.meter._bus
    async with bus:
        await hass.config_entries.async_unload(loaded.entry_id)
        assert await bus.read_registers(1, 0x4000, 2) == [0x2209, 0x1039]


# Who comes first


@pytest.fixture
def newcomer(hass: HomeAssistant, line: Line) -> Iterator[Callable[..., MockConfigEntry]]:
    """Let the entry of another integration share the port once it is set up."""

    def newcomer(*, dependencies: list[str] | None = None, **data: Any) -> MockConfigEntry:
        async def set_up(hass: HomeAssistant, entry: ConfigEntry) -> bool:
            params = ModbusSerialParams(device=line.port, parity="E")
            unit = async_get_unit(hass, entry, params, HEAT_PUMP_UNIT)
            assert await unit.read_holding_registers(0x4000, 2) == HEAT_PUMP_NUMBER
            return True

        async def unload(_hass: HomeAssistant, _entry: ConfigEntry) -> bool:
            return True

        dependencies = ["modbus"] if dependencies is None else dependencies
        # The modbus integration itself needs no setting up here.
        hass.config.components.add("modbus")
        mock_integration(
            hass,
            MockModule(
                "solar",
                async_setup_entry=set_up,
                async_unload_entry=unload,
                partial_manifest={"dependencies": dependencies},
            ),
        )
        mock_platform(hass, "solar.config_flow")
        entry = MockConfigEntry(domain="solar", title="Inverter", data=data)
        entry.add_to_hass(hass)
        return entry

    class SolarFlow(ConfigFlow):
        VERSION = 1

    with mock_config_flow("solar", SolarFlow):
        yield newcomer


async def finish_start(hass: HomeAssistant) -> None:
    hass.set_state(CoreState.running)
    hass.bus.async_fire(EVENT_HOMEASSISTANT_STARTED)
    await hass.async_block_till_done(wait_background_tasks=True)


async def test_after_a_restart_the_other_integration_comes_first(
    hass: HomeAssistant,
    newcomer: Callable[..., MockConfigEntry],
    entry: MockConfigEntry,
    line: Line,
) -> None:
    solar = newcomer(connection={"device": line.port})
    hass.set_state(CoreState.starting)
    await hass.config_entries.async_setup(entry.entry_id)
    assert entry.state is ConfigEntryState.SETUP_RETRY
    assert entry.error_reason_translation_key == "not_yet"
    assert "Inverter (solar)" in str(entry.reason)
    assert not line.requests
    assert await hass.config_entries.async_setup(solar.entry_id)
    await finish_start(hass)
    assert entry.state is ConfigEntryState.LOADED
    [connection] = async_get_connection_info(hass)
    assert connection.units == {solar.entry_id: [HEAT_PUMP_UNIT], entry.entry_id: [1]}
    await hass.config_entries.async_unload(entry.entry_id)
    await hass.config_entries.async_unload(solar.entry_id)


async def test_another_integration_that_fails_at_start_is_tried_again_first(
    hass: HomeAssistant,
    newcomer: Callable[..., MockConfigEntry],
    entry: MockConfigEntry,
    line: Line,
) -> None:
    solar = newcomer(device=line.port)
    solar.mock_state(hass, ConfigEntryState.SETUP_RETRY)
    hass.set_state(CoreState.starting)
    await hass.config_entries.async_setup(entry.entry_id)
    assert entry.error_reason_translation_key == "not_yet"
    # It fails again.
    await finish_start(hass)
    assert entry.state is ConfigEntryState.LOADED
    assert isinstance(entry.runtime_data.meter._bus, ModbusBus)


async def test_another_integration_that_is_being_set_up_comes_first_at_any_time(
    hass: HomeAssistant,
    newcomer: Callable[..., MockConfigEntry],
    entry: MockConfigEntry,
    line: Line,
) -> None:
    solar = newcomer(device=line.port)
    solar.mock_state(hass, ConfigEntryState.SETUP_IN_PROGRESS)
    await hass.config_entries.async_setup(entry.entry_id)
    assert entry.error_reason_translation_key == "not_yet"
    solar.mock_state(hass, ConfigEntryState.SETUP_ERROR)
    await wait(hass, seconds=60)
    assert entry.state is ConfigEntryState.LOADED


@pytest.mark.parametrize(
    "case", ["another port", "not shared", "disabled", "not started", "failed", "text"]
)
async def test_nothing_else_is_waited_for(
    hass: HomeAssistant,
    newcomer: Callable[..., MockConfigEntry],
    entry: MockConfigEntry,
    line: Line,
    case: str,
) -> None:
    port = {"another port": "/dev/ttyUSB7", "text": "a/b\0"}.get(case, line.port)
    solar = newcomer(dependencies=[] if case == "not shared" else ["modbus"], device=port)
    if case == "disabled":
        await hass.config_entries.async_set_disabled_by(solar.entry_id, ConfigEntryDisabler.USER)
    if case == "failed":
        solar.mock_state(hass, ConfigEntryState.SETUP_ERROR)
    if case != "not started":
        hass.set_state(CoreState.starting)
    assert await hass.config_entries.async_setup(entry.entry_id)
    hass.set_state(CoreState.running)


@pytest.mark.parametrize("host", ["gateway", "GATEWAY", "socket://gateway:502"])
async def test_an_integration_on_the_same_gateway_comes_first(
    hass: HomeAssistant,
    newcomer: Callable[..., MockConfigEntry],
    entry_data: dict[str, Any],
    host: str,
) -> None:
    newcomer(host=host, port=502)
    data = {**entry_data, "port": "socket://Gateway:502", "protocol": "modbus_tcp"}
    entry = MockConfigEntry(domain=DOMAIN, unique_id=SERIAL_NUMBER, data=data)
    entry.add_to_hass(hass)
    hass.set_state(CoreState.starting)
    await hass.config_entries.async_setup(entry.entry_id)
    assert entry.error_reason_translation_key == "not_yet"
    hass.set_state(CoreState.running)
    await hass.config_entries.async_unload(entry.entry_id)
