"""What only a real pseudo-terminal or TCP port shows, and that a line in memory is like them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
import os
from pathlib import Path
from typing import Any

import pytest
import serialx

from custom_components.klefr.meter import (
    BUSES,
    BaudRate,
    Bus,
    LinkError,
    MBusBus,
    Meter,
    ModbusBus,
    NoAnswerError,
    Parity,
    PortInUseError,
    PortNotFoundError,
    PortPermissionError,
    Protocol,
    SerialLink,
    identify,
)
from simulator import mbus, modbus
from simulator.gateway import Gateway
from simulator.line import Line
from simulator.meter import VirtualMeter

from .conftest import PORT

pytestmark = pytest.mark.real_time

SERIAL_NUMBER = [0x2209, 0x1039]
ANY_PORT = ("127.0.0.1", 0)


@pytest.fixture
async def line(virtual_meter: VirtualMeter) -> AsyncIterator[Line]:
    async with modbus.serve(virtual_meter) as line:
        yield line


# A pseudo-terminal


async def test_a_port_is_opened_read_and_free_again(line: Line) -> None:
    for _ in range(2):
        async with ModbusBus(SerialLink(port=line.port)) as bus:
            assert list(await bus.read_registers(1, 0x4000, 2)) == SERIAL_NUMBER


async def test_a_port_that_is_not_there() -> None:
    async with ModbusBus(SerialLink(port="/dev/klefr-nowhere")) as bus:
        with pytest.raises(PortNotFoundError):
            await bus.read_registers(1, 0x4000, 2)


async def test_a_port_that_may_not_be_opened(
    bus: ModbusBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> int:
        raise PermissionError

    # The user who runs the tests may be allowed to open everything.
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(PortPermissionError):
            await bus.read_registers(1, 0x4000, 2)


async def test_a_port_that_another_program_holds(bus: ModbusBus, line: Line) -> None:
    other = serialx.serial_for_url(line.port, baudrate=9600, exclusive=True)
    await asyncio.to_thread(other.open)
    try:
        with pytest.raises(PortInUseError):
            await bus.read_registers(1, 0x4000, 2)
    finally:
        await asyncio.to_thread(other.close)


async def test_any_pseudo_terminal_can_be_opened_again_whatever_the_parity() -> None:
    master, slave = os.openpty()
    # One without parity, as socat makes them, is not what a meter's line settings ask for.
    for parity in Parity:
        async with ModbusBus(SerialLink(port=os.ttyname(slave), parity=parity)) as bus:
            await bus.open()
    os.close(master)
    os.close(slave)


async def test_another_baud_rate_is_silence(line: Line) -> None:
    async with ModbusBus(SerialLink(port=line.port, baud_rate=BaudRate.B4800)) as bus:
        assert not await bus.probe(1, 0x4000, 2, attempts=1)


@pytest.mark.parametrize("bus_type", [ModbusBus, MBusBus])
async def test_a_port_that_vanishes_in_the_middle_of_a_frame_is_opened_when_it_is_back(
    bus_type: type[ModbusBus | MBusBus], tmp_path: Path
) -> None:
    speaks_mbus = bus_type is MBusBus
    meter = VirtualMeter(model="6933" if speaks_mbus else "6934", address=1, clock=lambda: 0.0)
    serve = mbus.serve if speaks_mbus else modbus.serve
    async with (
        serve(meter, baud_rate=1200, link=tmp_path / "meter") as line,
        bus_type(SerialLink(port=line.port, baud_rate=BaudRate.B1200)) as bus,
    ):
        known = await identify(bus, 1)
        answering = asyncio.Event()
        line.before_answering = lambda _frame: answering.set()
        read = asyncio.create_task(known.read(known.quantities))
        await answering.wait()
        # The line lives in the same loop, so its first characters are always sent by now,
        # and never all of them, which takes half a second.
        await asyncio.sleep(0.1)
        await line.unplug()
        with pytest.raises(LinkError):
            await read
        with pytest.raises(PortNotFoundError):
            await known.read(known.quantities)
        await line.plug()
        line.before_answering = None
        assert None not in (await known.read(known.quantities)).values()


# A TCP port


@pytest.mark.usefixtures("socket_enabled")
@pytest.mark.parametrize("protocol", [Protocol.MODBUS_TCP, Protocol.MBUS])
async def test_a_gateway_that_hangs_up_and_one_that_is_gone(protocol: Protocol) -> None:
    async with AsyncExitStack() as stack:
        line, bus = await served(stack, protocol, [new_meter(protocol, 1)], tcp=ANY_PORT)
        assert isinstance(line, Gateway)
        meter = await identify(bus, 1)
        line.hang_up_next = 1
        with pytest.raises(LinkError):
            await meter.read(meter.quantities)
        assert None not in (await meter.read(meter.quantities)).values()
        await line.unplug()
        with pytest.raises(LinkError):
            await meter.read(meter.quantities)
        await line.plug()
        assert None not in (await meter.read(meter.quantities)).values()


# All lines


def new_meter(protocol: Protocol, address: int) -> VirtualMeter:
    return VirtualMeter(
        model="6933" if protocol is Protocol.MBUS else "6934",
        serial_number=f"2209103{address}",
        address=address,
        seed=address,
        clock=lambda: 0.0,
    )


async def served(
    stack: AsyncExitStack, protocol: Protocol, meters: list[VirtualMeter], **where: Any
) -> tuple[Line, Bus]:
    if protocol is Protocol.MBUS:
        serving = mbus.serve(*meters, **where)
    else:
        framing = "socket" if protocol is Protocol.MODBUS_TCP else "rtu"
        serving = modbus.serve(*meters, framing=framing, **where)
    line = await stack.enter_async_context(serving)
    port = f"socket://{line.port}" if "tcp" in where else line.port
    bus = await stack.enter_async_context(BUSES[protocol](SerialLink(port=port)))
    return line, bus


@pytest.mark.usefixtures("socket_enabled")
@pytest.mark.parametrize("protocol", Protocol)
async def test_the_same_meters_are_the_same_over_all_lines(protocol: Protocol) -> None:
    """Two meters, and an address without one."""

    async def seen(**where: Any) -> tuple[list[Any], dict[str, int], list[bytes]]:
        values: list[Any] = []
        async with AsyncExitStack() as stack:
            meters = [new_meter(protocol, address) for address in (1, 2)]
            line, bus = await served(stack, protocol, meters, **where)
            for address in (1, 2, 3):
                try:
                    meter: Meter = await identify(bus, address)
                except NoAnswerError:
                    values.append(None)
                else:
                    values.append((meter.identity, await meter.read(meter.quantities)))
            if protocol is not Protocol.MBUS:
                # How much is read at a time depends on how long the answers take.
                bus.tally["requests"] -= len(line.requests)
                line.requests.clear()
            return values, dict(bus.tally), list(line.requests)

    lines = await asyncio.gather(seen(), seen(tcp=ANY_PORT), seen(virtual=PORT))
    values, tally, requests = lines[0]
    assert [each is None for each in values] == [False, False, True]
    assert None not in {**values[0][1], **values[1][1]}.values()
    assert tally["requests"] == len(requests)
    assert lines == [lines[0]] * 3
