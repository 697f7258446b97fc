"""A gateway listens on a real TCP port, so here time is real."""

import asyncio
from contextlib import suppress

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.framer import FramerType
import pytest

from simulator.gateway import TcpLine
from simulator.meter import VirtualMeter
from simulator.modbus import serve
from simulator.registers import Registers

from .client import Client, as_float, frame
from .test_line import READ_SERIAL_NUMBER, SERIAL_NUMBER
from .test_modbus import BLOCKS, ILLEGAL_VALUE

pytestmark = [pytest.mark.real_time, pytest.mark.usefixtures("socket_enabled")]


async def test_gateway_comes_back_on_the_same_port(meter: VirtualMeter) -> None:
    async with serve(meter, pacing=False, tcp=("127.0.0.1", 0)) as line:
        host, _, port = line.port.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        await line.unplug()
        with suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        with pytest.raises(OSError, match="Connect call failed"):
            await asyncio.open_connection(host, int(port))
        await line.plug()
        reader, writer = await asyncio.open_connection(host, int(port))
        assert await Client(reader, writer).ask(READ_SERIAL_NUMBER) == SERIAL_NUMBER
        writer.close()


@pytest.mark.parametrize("pacing", [False, True])
async def test_gateway_hangs_up_in_the_middle_of_the_next_answers_only(
    meter: VirtualMeter, pacing: bool
) -> None:
    async with serve(meter, pacing=pacing, tcp=("127.0.0.1", 0)) as line:
        assert isinstance(line, TcpLine)
        line.hang_up_next = 2
        host, _, port = line.port.partition(":")
        answer = frame(1, SERIAL_NUMBER)
        for _ in range(2):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(frame(1, READ_SERIAL_NUMBER))
            part = await reader.read()
            assert part
            assert part != answer
            assert answer.startswith(part)
            writer.close()
        reader, writer = await asyncio.open_connection(host, int(port))
        assert await Client(reader, writer).ask(READ_SERIAL_NUMBER) == SERIAL_NUMBER
        writer.close()


@pytest.mark.parametrize("framing", ["rtu", "socket"])
async def test_gateway_answers(meter: VirtualMeter, framing: str) -> None:
    async with serve(meter, tcp=("127.0.0.1", 0), framing=framing, pacing=False) as line:
        host, _, port = line.port.partition(":")
        client = AsyncModbusTcpClient(
            host,
            port=int(port),
            framer=FramerType.RTU if framing == "rtu" else FramerType.SOCKET,
            timeout=1,
            retries=0,
        )
        await client.connect()
        try:
            for address, count in BLOCKS:
                response = await client.read_holding_registers(address, count=count, device_id=1)
                assert response.registers == Registers(meter).read(address, count)
            await client.write_registers(0x6049, [0, 0], device_id=1)
            assert as_float(Registers(meter).read(0x6049, 2)) == 0
            refused = await client.write_register(0x6048, 3, device_id=1)
            assert refused.exception_code == ILLEGAL_VALUE
            assert len(line.requests) == 5
        finally:
            client.close()


async def test_gateway_says_that_no_meter_answers(meter: VirtualMeter) -> None:
    async with serve(meter, tcp=("127.0.0.1", 0), framing="socket") as line:
        host, _, port = line.port.partition(":")
        client = AsyncModbusTcpClient(host, port=int(port), timeout=1, retries=0)
        await client.connect()
        try:
            response = await client.read_holding_registers(0x4000, count=2, device_id=9)
            assert response.exception_code == 0x0B
        finally:
            client.close()
