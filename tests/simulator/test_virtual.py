"""A line in memory is to its clients what a real one is."""

import asyncio
from collections.abc import AsyncIterator
from typing import override

import pytest
import serialx

from simulator.gateway import Gateway
from simulator.line import Line
from simulator.meter import Parity, VirtualMeter
from simulator.modbus import serve

from .client import connect, frame
from .conftest import GATEWAY, PORT
from .test_line import READ_SERIAL_NUMBER, SERIAL_NUMBER


class Listener(asyncio.Protocol):
    """Keeps all that happens to a connection."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.lost: list[Exception | None] = []

    @override
    def data_received(self, data: bytes) -> None:
        self.received += data

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


async def listen(
    port: str, baud_rate: int = 9600, parity: str = "E"
) -> tuple[serialx.BaseSerialTransport, Listener]:
    listener = Listener()
    transport, _ = await serialx.create_serial_connection(
        asyncio.get_running_loop(), lambda: listener, port, baud_rate, serialx.Parity(parity)
    )
    return transport, listener


# A serial port


async def test_a_port_has_one_client_at_a_time(line: Line) -> None:
    async with connect(line.port) as client:
        with pytest.raises(OSError, match="in use"):
            await listen(line.port)
        assert await client.ask(READ_SERIAL_NUMBER) == SERIAL_NUMBER
    async with connect(line.port) as client:
        assert await client.ask(READ_SERIAL_NUMBER) == SERIAL_NUMBER


async def test_a_port_is_in_use_until_its_client_has_gone(line: Line) -> None:
    transport, listener = await listen(line.port)
    transport.close()
    assert transport.is_closing()
    assert not listener.lost
    await transport.wait_closed()
    assert listener.lost == [None]
    transport, _ = await listen(line.port)
    transport.abort()
    await transport.wait_closed()


async def test_a_line_is_set_as_its_client_asks_for(line: Line) -> None:
    transport, _ = await listen(line.port, 2400, "N")
    assert (transport.baudrate, transport.parity) == (2400, serialx.Parity.NONE)
    assert (line.baud_rate, line.parity) == (2400, "N")
    with pytest.raises(serialx.UnsupportedSetting):
        await transport.reconfigure_port(baudrate=9600)
    transport.close()
    await transport.wait_closed()


async def test_a_port_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        await listen("virtual://nowhere")


async def test_an_unplugged_port_takes_its_client_along(line: Line, meter: VirtualMeter) -> None:
    transport, listener = await listen(line.port)
    transport.write(frame(1, bytes.fromhex("03 6000 004B")))
    await asyncio.sleep(0.1)
    assert 0 < len(listener.received) < 155
    await line.unplug()
    with pytest.raises(OSError, match="disconnected"):
        transport.write(frame(1, READ_SERIAL_NUMBER))
    await transport.wait_closed()
    assert [type(error) for error in listener.lost] == [OSError]
    with pytest.raises(FileNotFoundError):
        await listen(line.port)

    await line.plug()
    transport, listener = await listen(line.port)
    await asyncio.sleep(1)
    assert not listener.received
    transport.close()
    await transport.wait_closed()
    async with connect(line.port) as client:
        assert await client.ask(READ_SERIAL_NUMBER) == SERIAL_NUMBER


async def test_a_line_may_be_plugged_in_and_unplugged_twice(line: Line) -> None:
    await line.plug()
    await line.unplug()
    await line.unplug()


@pytest.mark.parametrize("port", [PORT, GATEWAY])
async def test_a_name_belongs_to_one_line(meter: VirtualMeter, port: str) -> None:
    async with serve(meter, virtual=port) as line:
        with pytest.raises(ValueError, match=port):
            async with serve(meter, virtual=port):
                pass
        async with connect(line.port) as client:
            assert await client.ask(READ_SERIAL_NUMBER) == SERIAL_NUMBER


@pytest.mark.parametrize(
    ("sent_at", "heard_at", "is_heard"),
    [
        ((9600, "E"), (9600, "E"), True),
        ((9600, "E"), (4800, "E"), False),
        ((4800, "E"), (9600, "E"), False),
        ((9600, "E"), (300, "E"), False),
        # A serial port passes on what fails the parity. It only loses its step where a
        # character is shorter than it expects.
        ((9600, "E"), (9600, "O"), True),
        ((9600, "E"), (9600, "N"), True),
        ((9600, "N"), (9600, "E"), False),
    ],
)
async def test_what_is_heard_of_an_answer_to_other_settings(
    meter: VirtualMeter, sent_at: tuple[int, str], heard_at: tuple[int, str], is_heard: bool
) -> None:
    meter.baud_rate, meter.parity = sent_at[0], Parity(sent_at[1])
    async with serve(meter, virtual=PORT) as line:
        line.delay_answer = 0.5
        transport, _ = await listen(line.port, *sent_at)
        transport.write(frame(1, READ_SERIAL_NUMBER))
        await asyncio.sleep(0.1)
        transport.close()
        await transport.wait_closed()
        transport, listener = await listen(line.port, *heard_at)
        await asyncio.sleep(1)
        assert listener.received
        assert (listener.received == frame(1, SERIAL_NUMBER)) is is_heard
        transport.close()
        await transport.wait_closed()


async def test_an_answer_to_a_client_that_has_gone_reaches_the_next(line: Line) -> None:
    line.delay_answer = 0.5
    async with connect(line.port) as client:
        client.send(frame(1, READ_SERIAL_NUMBER))
    async with connect(line.port) as client:
        assert await client.receive() == frame(1, SERIAL_NUMBER)


async def test_no_client_needs_to_listen(line: Line) -> None:
    transport, listener = await listen(line.port)
    transport.pause_reading()
    assert not transport.is_reading()
    for _ in range(40):
        transport.write(frame(1, bytes.fromhex("03 6000 004B")))
        await asyncio.sleep(0.3)
    assert not listener.received
    transport.resume_reading()
    await asyncio.sleep(0)
    assert len(listener.received) == 4096
    transport.close()
    await transport.wait_closed()


async def test_only_asyncio_can_open_it(line: Line) -> None:
    with pytest.raises(serialx.SerialException, match="asyncio"):
        serialx.serial_for_url(line.port, baudrate=9600)


# A gateway


@pytest.fixture
async def gateway(meter: VirtualMeter) -> AsyncIterator[Gateway]:
    async with serve(meter, baud_rate=4800, virtual=GATEWAY) as line:
        assert isinstance(line, Gateway)
        yield line


async def test_a_gateway_is_set_as_its_meters_are(gateway: Gateway) -> None:
    loop = asyncio.get_running_loop()
    async with connect(gateway.port, baud_rate=300) as client:
        start = loop.time()
        assert await client.ask(READ_SERIAL_NUMBER) == SERIAL_NUMBER
        assert loop.time() - start == pytest.approx((8 + 3.5 + 9) * 11 / 4800)


async def test_a_gateway_has_several_clients(gateway: Gateway) -> None:
    async with connect(gateway.port) as one, connect(gateway.port) as other:
        one.send(frame(1, READ_SERIAL_NUMBER))
        assert await other.ask("03 4003 0001") == bytes.fromhex("03 02 0001")
        assert await one.receive() == frame(1, SERIAL_NUMBER)
    assert not gateway.clients


async def test_a_gateway_hangs_up_in_the_middle_of_an_answer(gateway: Gateway) -> None:
    gateway.hang_up_next = 1
    async with connect(gateway.port) as client:
        client.send(frame(1, READ_SERIAL_NUMBER))
        part = await client.receive()
        assert 0 < len(part) < 9
        assert frame(1, SERIAL_NUMBER).startswith(part)
    async with connect(gateway.port) as client:
        assert await client.ask(READ_SERIAL_NUMBER) == SERIAL_NUMBER


async def test_a_gateway_that_is_gone_lets_no_client_in(gateway: Gateway) -> None:
    transport, listener = await listen(gateway.port)
    await gateway.unplug()
    await transport.wait_closed()
    assert listener.lost == [None]
    with pytest.raises(OSError, match="closed"):
        transport.write(b"0")
    with pytest.raises(ConnectionRefusedError):
        await listen(gateway.port)
    await gateway.plug()
    async with connect(gateway.port) as client:
        assert await client.ask(READ_SERIAL_NUMBER) == SERIAL_NUMBER


async def test_modbus_tcp(meter: VirtualMeter) -> None:
    async with serve(meter, virtual=GATEWAY, framing="socket") as line:
        transport, listener = await listen(line.port)
        transport.write(bytes.fromhex("0007 0000 0006 01") + READ_SERIAL_NUMBER)
        await asyncio.sleep(1)
        assert listener.received == bytes.fromhex("0007 0000 0007 01") + SERIAL_NUMBER
        transport.close()
        await transport.wait_closed()


async def test_the_network_is_the_real_one_again(meter: VirtualMeter) -> None:
    real, _ = serialx.get_serial_classes(GATEWAY)
    async with serve(meter, virtual=GATEWAY), serve(meter, virtual="socket://other:4001"):
        assert serialx.get_serial_classes(GATEWAY)[0] is not real
    assert serialx.get_serial_classes(GATEWAY)[0] is real
