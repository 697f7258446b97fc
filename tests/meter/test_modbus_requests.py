"""Every request that is sent over Modbus, byte by byte."""

from collections.abc import Awaitable, Callable

import pytest

from custom_components.klefr.meter import ModbusBus, ModbusTcpBus, SerialLink
from simulator.line import Line
from simulator.meter import VirtualMeter
from simulator.modbus import serve
from tests.simulator.client import frame

type Request = Callable[[ModbusBus], Awaitable[object]]

# The commands of the manual (appendix 3.2), and the reads that chargers are known to send.
REQUESTS: dict[str, tuple[Request, str]] = {
    "Modbus ID": (lambda bus: bus.write_register(1, 0x4003, 10), "01 06 4003 000A"),
    "Baud rate": (lambda bus: bus.write_register(1, 0x4004, 9600), "01 06 4004 25 80"),
    "S0 output rate": (
        lambda bus: bus.write_registers(1, 0x400D, (0x4120, 0)),
        "01 10 400D 0002 04 41 20 00 00",
    ),
    "Calculation code": (lambda bus: bus.write_register(1, 0x400F, 10), "01 06 400F 000A"),
    "LCD cycle time": (lambda bus: bus.write_register(1, 0x4010, 0x25), "01 06 4010 0025"),
    "Parity": (lambda bus: bus.write_register(1, 0x4011, 2), "01 06 4011 0002"),
    "Power-down counter": (lambda bus: bus.write_register(1, 0x4016, 0), "01 06 4016 0000"),
    "Tariff": (lambda bus: bus.write_register(1, 0x6048, 2), "01 06 6048 0002"),
    "Resettable counter": (
        lambda bus: bus.write_registers(1, 0x6049, (0, 0)),
        "01 10 6049 0002 04 0000 0000",
    ),
    "Currents": (lambda bus: bus.read_registers(1, 0x500C, 6), "01 03 500C 0006"),
    "Powers": (lambda bus: bus.read_registers(1, 0x5012, 8), "01 03 5012 0008"),
    "Forward energy": (lambda bus: bus.read_registers(1, 0x600C, 2), "01 03 600C 0002"),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_request_on_a_serial_line(bus: ModbusBus, line: Line, name: str) -> None:
    send, expected = REQUESTS[name]
    await send(bus)
    content = bytes.fromhex(expected)
    assert list(line.requests) == [frame(content[0], content[1:])]


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_request_through_a_gateway(virtual_meter: VirtualMeter, name: str) -> None:
    send, expected = REQUESTS[name]
    async with (
        serve(virtual_meter, virtual="socket://gateway:502", framing="socket") as line,
        ModbusTcpBus(SerialLink(port=line.port)) as bus,
    ):
        await bus.read_registers(1, 0x4000, 2)
        await send(bus)
    content = bytes.fromhex(expected)
    first, second = line.requests
    assert first == bytes.fromhex("0001 0000 0006 01 03 4000 0002")
    assert second == bytes.fromhex("0002 0000") + len(content).to_bytes(2) + content
