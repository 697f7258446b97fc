"""Meters behind a gateway, in each way of speaking through one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
import struct

import pytest

from custom_components.klefr.meter import (
    BUSES,
    Bus,
    CommunicationError,
    Counter,
    GarbledAnswerError,
    LinkError,
    Meter,
    ModbusBus,
    ModbusTcpBus,
    NoAnswerError,
    NotAcceptedError,
    NotAcknowledgedError,
    Protocol,
    Quantity,
    RefusedError,
    SerialLink,
    Setting,
    Tariff,
    identify,
)
from simulator import mbus, modbus
from simulator.gateway import Gateway
from simulator.line import Line
from simulator.meter import VirtualMeter
from simulator.registers import Registers
from tests.simulator.client import frame

from .conftest import GATEWAY, answer_late

ADDRESS = 7
SERIAL_NUMBER = "22091039"
SERIAL_NUMBER_REGISTERS = [0x2209, 0x1039]
FREE_ADDRESS = 9


@pytest.fixture(params=Protocol)
def protocol(request: pytest.FixtureRequest) -> Protocol:
    """Everything that gateways speak."""
    protocol: Protocol = request.param
    return protocol


@pytest.fixture
def virtual_meter(protocol: Protocol) -> VirtualMeter:
    return VirtualMeter(
        model="6933" if protocol is Protocol.MBUS else "6934",
        serial_number=SERIAL_NUMBER,
        address=ADDRESS,
        clock=lambda: 0.0,
    )


def serve(
    protocol: Protocol, meter: VirtualMeter, *, pacing: bool = True
) -> AbstractAsyncContextManager[Line]:
    if protocol is Protocol.MBUS:
        return mbus.serve(meter, virtual=GATEWAY, pacing=pacing)
    framing = "socket" if protocol is Protocol.MODBUS_TCP else "rtu"
    return modbus.serve(meter, virtual=GATEWAY, pacing=pacing, framing=framing)


def bus_to(protocol: Protocol, line: Line) -> Bus:
    return BUSES[protocol](SerialLink(port=line.port))


@pytest.fixture
async def line(protocol: Protocol, virtual_meter: VirtualMeter) -> AsyncIterator[Gateway]:
    async with serve(protocol, virtual_meter) as line:
        assert isinstance(line, Gateway)
        yield line


@pytest.fixture
async def bus(protocol: Protocol, line: Line) -> AsyncIterator[Bus]:
    async with bus_to(protocol, line) as bus:
        yield bus


@pytest.fixture
async def meter(bus: Bus) -> Meter:
    return await identify(bus, ADDRESS)


@pytest.fixture
def modbus_tcp_bus(bus: Bus) -> ModbusTcpBus:
    assert isinstance(bus, ModbusTcpBus)
    return bus


only_modbus_tcp = pytest.mark.parametrize("protocol", [Protocol.MODBUS_TCP], indirect=True)


async def test_a_meter_is_identified(meter: Meter) -> None:
    assert meter.identity.serial_number == SERIAL_NUMBER


async def test_a_meter_is_read(meter: Meter, virtual_meter: VirtualMeter) -> None:
    energies = {
        Quantity.FORWARD_ACTIVE_ENERGY: virtual_meter.forward_active_energy,
        Quantity.REVERSE_ACTIVE_ENERGY: virtual_meter.reverse_active_energy,
    }
    readings = await meter.read(energies)
    assert readings == {
        quantity: pytest.approx(energy, abs=0.01) for quantity, energy in energies.items()
    }


async def test_a_meter_is_written_to(meter: Meter, virtual_meter: VirtualMeter) -> None:
    await meter.write(Setting.TARIFF, Tariff.T2)
    assert virtual_meter.tariff == 2
    await meter.write(Setting.S0_RATE, 10.0)
    assert virtual_meter.s0_rate == 10


async def test_a_meter_that_does_not_obey_is_said_so(
    meter: Meter, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.refuse_writes = True
    with pytest.raises((RefusedError, NotAcceptedError, NotAcknowledgedError)):
        await meter.write(Setting.TARIFF, Tariff.T2)
    assert virtual_meter.tariff == 1


async def test_a_counter_is_reset(meter: Meter, virtual_meter: VirtualMeter) -> None:
    assert virtual_meter.day_counter > 0
    await meter.reset(Counter.RESETTABLE)
    assert virtual_meter.day_counter == 0


async def test_nobody_at_an_address_is_said_so(bus: Bus, line: Line) -> None:
    with pytest.raises(NoAnswerError):
        await identify(bus, FREE_ADDRESS)
    assert len(line.requests) == 3
    # From now on a look is enough.
    with pytest.raises(NoAnswerError):
        await identify(bus, FREE_ADDRESS)
    assert len(line.requests) == 4


async def test_answers_that_come_in_pieces_are_put_together(
    protocol: Protocol, virtual_meter: VirtualMeter
) -> None:
    # A paced gateway passes on a few characters at a time.
    async with serve(protocol, virtual_meter, pacing=True) as line, bus_to(protocol, line) as bus:
        meter = await identify(bus, ADDRESS)
        await test_a_meter_is_read(meter, virtual_meter)
        await meter.write(Setting.TARIFF, Tariff.T2)
        assert virtual_meter.tariff == 2
        assert bus.tally.keys() == {"requests"}


async def test_a_connection_that_ends_in_an_answer_is_an_error_and_is_made_again(
    meter: Meter, line: Gateway, virtual_meter: VirtualMeter
) -> None:
    line.hang_up_next = 1
    line.requests.clear()
    with pytest.raises(LinkError):
        await meter.read([Quantity.FORWARD_ACTIVE_ENERGY])
    assert len(line.requests) == 1
    await test_a_meter_is_read(meter, virtual_meter)


async def test_a_connection_that_ends_between_two_answers_is_made_again(
    meter: Meter, line: Gateway, virtual_meter: VirtualMeter
) -> None:
    await line.unplug()
    await line.plug()
    # The gateway's farewell has to arrive.
    await asyncio.sleep(0)
    await test_a_meter_is_read(meter, virtual_meter)


async def test_a_gateway_that_is_gone_is_an_error_until_it_is_back(
    meter: Meter, line: Gateway, virtual_meter: VirtualMeter
) -> None:
    await line.unplug()
    for _ in range(2):
        with pytest.raises(LinkError):
            await meter.read([Quantity.FORWARD_ACTIVE_ENERGY])
    await line.plug()
    await test_a_meter_is_read(meter, virtual_meter)


# In Modbus TCP frames have no checksum: the gateway has seen to it.
@pytest.mark.parametrize("protocol", [Protocol.MODBUS, Protocol.MBUS], indirect=True)
async def test_damaged_answers_are_asked_for_again(
    meter: Meter, line: Gateway, virtual_meter: VirtualMeter
) -> None:
    line.garble_next = 2
    await test_a_meter_is_read(meter, virtual_meter)


def socket_frame(transaction: int, pdu: str, *, unit: int = ADDRESS) -> bytes:
    data = bytes.fromhex(pdu)
    return struct.pack(">HHHB", transaction, 0, len(data) + 1, unit) + data


@only_modbus_tcp
@pytest.mark.parametrize(
    "stray",
    [
        socket_frame(0xFEDC, "03 04 DEADBEEF"),
        socket_frame(0xFEDC, "03 04 DEADBEEF") * 3,
        socket_frame(0xFEDC, "83 0B"),
        socket_frame(0xFEDC, "03 02 DEAD"),
        socket_frame(0xFEDC, "03 04 DEADBEEF", unit=FREE_ADDRESS),
    ],
    ids=lambda stray: stray.hex()[:28],
)
async def test_an_answer_to_an_earlier_transaction_is_not_taken(
    modbus_tcp_bus: ModbusTcpBus, line: Gateway, stray: bytes
) -> None:
    line.noise = stray
    registers = await modbus_tcp_bus.read_registers(ADDRESS, 0x4000, 2)
    assert list(registers) == SERIAL_NUMBER_REGISTERS
    assert len(line.requests) == 1


@only_modbus_tcp
async def test_a_late_answer_is_not_taken_for_another_registers_value(
    modbus_tcp_bus: ModbusTcpBus, line: Gateway, virtual_meter: VirtualMeter
) -> None:
    answer_late(line, 0.3)
    late = asyncio.create_task(modbus_tcp_bus.read_registers(ADDRESS, 0x4000, 2))
    await asyncio.sleep(0.1)
    late.cancel()
    registers = await modbus_tcp_bus.read_registers(ADDRESS, 0x5002, 2)
    assert list(registers) == Registers(virtual_meter).read(0x5002, 2)


@only_modbus_tcp
async def test_requests_of_several_meters_are_told_apart(protocol: Protocol) -> None:
    meters = [
        VirtualMeter(serial_number=f"{22091000 + address}", address=address, clock=lambda: 0.0)
        for address in range(1, 6)
    ]
    async with (
        modbus.serve(*meters, virtual=GATEWAY, framing="socket") as line,
        bus_to(protocol, line) as bus,
    ):
        found = await asyncio.gather(*(identify(bus, meter.address) for meter in meters))
    assert [meter.identity.serial_number for meter in found] == [
        meter.serial_number for meter in meters
    ]


@only_modbus_tcp
async def test_rtu_frames_are_no_answer_in_modbus_tcp(
    modbus_tcp_bus: ModbusTcpBus, line: Gateway
) -> None:
    line.noise = frame(ADDRESS, bytes.fromhex("03 04 DEADBEEF"))
    with pytest.raises(GarbledAnswerError):
        await modbus_tcp_bus.read_registers(ADDRESS, 0x4000, 2)
    line.noise = b""
    registers = await modbus_tcp_bus.read_registers(ADDRESS, 0x4000, 2)
    assert list(registers) == SERIAL_NUMBER_REGISTERS


@only_modbus_tcp
async def test_the_wrong_kind_of_modbus_is_no_wrong_value(line: Gateway) -> None:
    async with ModbusBus(SerialLink(port=line.port)) as bus:
        with pytest.raises(CommunicationError):
            await bus.read_registers(ADDRESS, 0x4000, 2)
