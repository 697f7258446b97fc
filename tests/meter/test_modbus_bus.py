"""Requests on a line that is not always kind."""

import asyncio
from pathlib import Path

import pytest

from custom_components.klefr.meter import (
    BaudRate,
    GarbledAnswerError,
    LinkError,
    ModbusBus,
    NoAnswerError,
    PortInUseError,
    PortNotFoundError,
    RefusedError,
    SerialLink,
)
from simulator.line import Line
from simulator.meter import VirtualMeter
from simulator.modbus import serve
from simulator.registers import Registers
from tests.simulator.client import frame

from .conftest import PORT, answer_late

SERIAL_NUMBER = [0x2209, 0x1039]


async def test_registers_are_read(bus: ModbusBus) -> None:
    assert list(await bus.read_registers(1, 0x4000, 2)) == SERIAL_NUMBER


async def test_registers_are_written(bus: ModbusBus, virtual_meter: VirtualMeter) -> None:
    await bus.write_register(1, 0x6048, 2)
    await bus.write_registers(1, 0x400D, (0x4120, 0x0000))
    assert virtual_meter.tariff == 2
    assert virtual_meter.s0_rate == 10


async def test_the_wire_carries_the_manuals_commands(bus: ModbusBus, line: Line) -> None:
    await bus.write_register(1, 0x4010, 0x25)
    await bus.write_registers(1, 0x6049, (0, 0))
    assert [request[:-2].hex() for request in line.requests] == [
        "010640100025",
        "01106049000204" + "00000000",
    ]


async def test_nobody_answers_at_another_address(bus: ModbusBus, line: Line) -> None:
    with pytest.raises(NoAnswerError):
        await bus.read_registers(2, 0x4000, 2)
    assert len(line.requests) == 3


async def test_a_refusal_is_not_repeated(bus: ModbusBus, line: Line) -> None:
    with pytest.raises(RefusedError) as refusal:
        await bus.read_registers(1, 0x7000, 2)
    assert refusal.value.code == 2
    assert len(line.requests) == 1


async def test_a_damaged_answer_is_asked_for_again(bus: ModbusBus, line: Line) -> None:
    line.garble_next = 2
    assert list(await bus.read_registers(1, 0x4000, 2)) == SERIAL_NUMBER
    assert len(line.requests) == 3


async def test_nothing_but_damaged_answers_is_an_error(bus: ModbusBus, line: Line) -> None:
    line.garble = 1.0
    with pytest.raises(GarbledAnswerError):
        await bus.read_registers(1, 0x4000, 2)


@pytest.mark.parametrize(
    "noise",
    [
        b"\x00",
        b"\xff\xff\xff",
        b"\x01\x03",
        b"\x01\x03\x04\xaa",
        b"\x01\x83\x02",
        bytes.fromhex("010340000002d1cb"),
        bytes(range(200)),
    ],
    ids=lambda noise: noise.hex()[:16],
)
async def test_noise_before_an_answer_does_not_matter(
    bus: ModbusBus, line: Line, noise: bytes
) -> None:
    line.noise = noise
    assert list(await bus.read_registers(1, 0x4000, 2)) == SERIAL_NUMBER
    assert len(line.requests) == 1


async def test_another_units_answer_is_not_taken(bus: ModbusBus, line: Line) -> None:
    # A whole and undamaged answer of the same length, but from unit 2.
    line.noise = frame(2, bytes.fromhex("0304deadbeef"))
    assert list(await bus.read_registers(1, 0x4000, 2)) == SERIAL_NUMBER


async def test_a_late_answer_is_never_taken_for_another_registers_value(
    bus: ModbusBus, line: Line, virtual_meter: VirtualMeter
) -> None:
    answer_late(line, 3, 0.1, 0.1)
    with pytest.raises(NoAnswerError):
        await bus.read_registers(1, 0x4000, 2)
    # The answers to three repetitions are on their way, and each would fit.
    assert list(await bus.read_registers(1, 0x5002, 2)) == Registers(virtual_meter).read(0x5002, 2)


async def test_an_answer_to_a_repetition_is_not_taken_for_the_next_request(
    bus: ModbusBus, line: Line, virtual_meter: VirtualMeter
) -> None:
    answer_late(line, 1.5, 0.5)
    assert list(await bus.read_registers(1, 0x4000, 2)) == SERIAL_NUMBER
    assert len(line.requests) == 2
    for address in (0x5002, 0x5004, 0x5006):
        assert list(await bus.read_registers(1, address, 2)) == Registers(virtual_meter).read(
            address, 2
        )


async def test_an_answer_to_a_cancelled_request_is_not_taken_for_the_next_ones(
    bus: ModbusBus, line: Line, virtual_meter: VirtualMeter
) -> None:
    answer_late(line, 0.3)
    request = asyncio.create_task(bus.read_registers(1, 0x4000, 2))
    await asyncio.sleep(0.1)
    request.cancel()
    assert list(await bus.read_registers(1, 0x5002, 2)) == Registers(virtual_meter).read(0x5002, 2)


async def test_an_answer_that_a_gateway_brings_twice_is_taken_once(
    bus: ModbusBus, line: Line
) -> None:
    """It asked the meter twice. The answer to the next request is as long."""
    frequency = await bus.read_registers(1, 0x5008, 2)

    async def twice(_frame: bytes, answer: bytes) -> list[tuple[float, bytes]]:
        line.change_answer = None
        return [(0.0, answer), (0.02, answer)]

    line.change_answer = twice
    assert list(await bus.read_registers(1, 0x4000, 2)) == [0x2209, 0x1039]
    assert await bus.read_registers(1, 0x5008, 2) == frequency


async def test_requests_take_turns(bus: ModbusBus, virtual_meter: VirtualMeter) -> None:
    addresses = range(0x5000, 0x5032, 2)
    answers = await asyncio.gather(*(bus.read_registers(1, address, 2) for address in addresses))
    assert [list(answer) for answer in answers] == [
        Registers(virtual_meter).read(address, 2) for address in addresses
    ]


async def test_a_cancelled_request_leaves_the_line_usable(bus: ModbusBus, line: Line) -> None:
    line.silent = True
    request = asyncio.create_task(bus.read_registers(1, 0x4000, 2))
    await asyncio.sleep(0.1)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    line.silent = False
    assert list(await bus.read_registers(1, 0x4000, 2)) == SERIAL_NUMBER


async def test_a_paced_line_is_waited_for(virtual_meter: VirtualMeter) -> None:
    async with (
        serve(virtual_meter, baud_rate=1200, virtual=PORT) as line,
        ModbusBus(SerialLink(port=line.port, baud_rate=BaudRate.B1200)) as bus,
    ):
        assert list(await bus.read_registers(1, 0x6000, 75)) == Registers(virtual_meter).read(
            0x6000, 75
        )
        assert len(line.requests) == 1


async def test_a_port_that_is_not_there() -> None:
    async with ModbusBus(SerialLink(port="virtual://nowhere")) as bus:
        with pytest.raises(PortNotFoundError):
            await bus.read_registers(1, 0x4000, 2)


@pytest.mark.parametrize("port", ["file.txt", ".", "", "gopher://meter", "socket://", "rfc2217://"])
async def test_what_is_no_port_is_a_link_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").write_text("not a port")
    async with ModbusBus(SerialLink(port=port)) as bus:
        with pytest.raises(LinkError):
            await bus.read_registers(1, 0x4000, 2)


async def test_a_port_is_free_again_when_the_bus_is_released(line: Line) -> None:
    for _ in range(2):
        async with ModbusBus(SerialLink(port=line.port)) as bus:
            assert list(await bus.read_registers(1, 0x4000, 2)) == SERIAL_NUMBER


async def test_the_last_holder_closes_the_port(bus: ModbusBus, line: Line) -> None:
    async with bus:
        await bus.read_registers(1, 0x4000, 2)
    await bus.read_registers(1, 0x4000, 2)
    with pytest.raises(PortInUseError):
        async with ModbusBus(SerialLink(port=line.port)) as other:
            await other.read_registers(1, 0x4000, 2)


async def test_a_request_that_outlives_the_last_holder_leaves_the_port_alone(line: Line) -> None:
    async with ModbusBus(SerialLink(port=line.port)) as bus:
        requests = [asyncio.create_task(bus.read_registers(1, 0x4000, 2)) for _ in range(3)]
        await asyncio.sleep(0)
    answers = await asyncio.gather(*requests, return_exceptions=True)
    assert isinstance(answers[-1], LinkError) or answers[-1] == SERIAL_NUMBER
    with pytest.raises(LinkError):
        await bus.read_registers(1, 0x4000, 2)
    async with ModbusBus(SerialLink(port=line.port)) as other:
        assert list(await other.read_registers(1, 0x4000, 2)) == SERIAL_NUMBER


async def test_a_port_that_vanished_is_opened_again_when_it_is_back(
    virtual_meter: VirtualMeter,
) -> None:
    async with (
        serve(virtual_meter, virtual=PORT) as line,
        ModbusBus(SerialLink(port=line.port)) as bus,
    ):
        await bus.read_registers(1, 0x4000, 2)
        await line.unplug()
        with pytest.raises(LinkError):
            await bus.read_registers(1, 0x4000, 2)
        await line.plug()
        assert list(await bus.read_registers(1, 0x4000, 2)) == SERIAL_NUMBER


async def test_a_port_that_vanishes_during_a_request_ends_it_at_once(
    bus: ModbusBus, line: Line
) -> None:
    line.silent = True
    request = asyncio.create_task(bus.read_registers(1, 0x4000, 2))
    await asyncio.sleep(0.1)
    await line.unplug()
    with pytest.raises(LinkError):
        await request
    assert len(line.requests) == 1
