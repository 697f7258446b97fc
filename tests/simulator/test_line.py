"""The line takes its time, and goes wrong when told to."""

import asyncio
from contextlib import suppress
import os
from pathlib import Path
import termios

import pytest
import serialx

from simulator.gateway import TcpLine
from simulator.line import Line
from simulator.meter import VirtualMeter
from simulator.modbus import serve

from .client import Client, connect, frame

READ_SERIAL_NUMBER = bytes.fromhex("03 4000 0002")
SERIAL_NUMBER = bytes.fromhex("03 04 2209 1039")


@pytest.mark.parametrize("parity", ["E", "N"])
async def test_bytes_come_no_faster_than_the_line(meter: VirtualMeter, parity: str) -> None:
    bits = 10 if parity == "N" else 11
    async with (
        serve(meter, baud_rate=9600, parity=parity) as line,
        connect(line.port) as client,
    ):
        loop = asyncio.get_running_loop()
        start = loop.time()
        await client.read(0x6000, 75)
        assert loop.time() - start >= (8 + 3.5 + 155) * bits / 9600


async def test_slower_line_takes_longer(meter: VirtualMeter) -> None:
    async with serve(meter, baud_rate=1200) as line, connect(line.port, baud_rate=1200) as client:
        loop = asyncio.get_running_loop()
        start = loop.time()
        await client.ask(READ_SERIAL_NUMBER)
        assert loop.time() - start >= (8 + 3.5 + 9) * 11 / 1200


async def test_wrong_baud_rate_meets_silence(line: Line) -> None:
    async with connect(line.port, baud_rate=4800) as client:
        assert await client.ask(READ_SERIAL_NUMBER) == b""
    async with connect(line.port, baud_rate=9600) as client:
        assert await client.ask(READ_SERIAL_NUMBER) == SERIAL_NUMBER


async def test_clients_come_and_go(line: Line) -> None:
    for _ in range(3):
        async with connect(line.port, parity=serialx.Parity.EVEN) as client:
            assert await client.ask(READ_SERIAL_NUMBER) == SERIAL_NUMBER


async def test_clients_that_say_nothing_come_and_go(line: Line) -> None:
    for _ in range(3):
        async with connect(line.port, parity=serialx.Parity.EVEN):
            pass


async def test_terminal_neither_echoes_nor_translates(line: Line) -> None:
    terminal = os.open(line.port, os.O_RDWR | os.O_NOCTTY)
    try:
        iflag, oflag, _, lflag, *_ = termios.tcgetattr(terminal)
    finally:
        os.close(terminal)
    assert not lflag & (termios.ECHO | termios.ICANON | termios.ISIG)
    assert not iflag & (termios.ICRNL | termios.IXON)
    assert not oflag & termios.OPOST


async def test_silent_line_is_heard_but_says_nothing(
    line: Line, client: Client, meter: VirtualMeter
) -> None:
    line.silent = True
    assert await client.ask("06 6048 0002") == b""
    assert meter.tariff == 2
    line.silent = False
    assert await client.ask(READ_SERIAL_NUMBER) == SERIAL_NUMBER


async def test_garbled_answers_fail_their_check(line: Line, client: Client) -> None:
    line.garble = 1.0
    for _ in range(5):
        client.send(frame(1, READ_SERIAL_NUMBER))
        answer = await client.receive()
        assert answer
        assert answer != frame(1, SERIAL_NUMBER)
    line.garble = 0.0
    assert await client.ask(READ_SERIAL_NUMBER) == SERIAL_NUMBER


async def test_only_the_next_answers_are_garbled(line: Line, client: Client) -> None:
    line.garble_next = 1
    client.send(frame(1, READ_SERIAL_NUMBER))
    assert await client.receive() != frame(1, SERIAL_NUMBER)
    assert await client.ask(READ_SERIAL_NUMBER) == SERIAL_NUMBER


async def test_noise_comes_first(line: Line, client: Client) -> None:
    line.noise = b"\xff\x00"
    client.send(frame(1, READ_SERIAL_NUMBER))
    assert await client.receive() == b"\xff\x00" + frame(1, SERIAL_NUMBER)


async def test_late_answers_still_come_in_order(line: Line, client: Client) -> None:
    line.delay_answer = 0.6
    client.send(frame(1, READ_SERIAL_NUMBER))
    assert await client.receive() == b""
    client.send(frame(1, bytes.fromhex("03 4003 0001")))
    assert await client.receive(2) == frame(1, SERIAL_NUMBER)
    assert await client.receive(2) == frame(1, bytes.fromhex("03 02 0001"))


async def test_requests_are_kept_as_they_came(line: Line, client: Client) -> None:
    await client.ask(READ_SERIAL_NUMBER)
    client.send(b"nonsense")
    await client.receive()
    assert list(line.requests) == [frame(1, READ_SERIAL_NUMBER), b"nonsense"]


async def test_nobody_needs_to_listen(line: Line, client: Client) -> None:
    for _ in range(40):
        client.send(frame(1, bytes.fromhex("03 6000 004B")))
        await asyncio.sleep(0.004)
    assert len(line.requests) > 1


async def test_link_leads_to_the_terminal_while_it_is_open(
    tmp_path: Path, meter: VirtualMeter
) -> None:
    link = tmp_path / "meter"
    async with serve(meter, pacing=False, link=link) as line:
        assert line.port == str(link)
        async with connect(line.port) as client:
            assert await client.ask(READ_SERIAL_NUMBER) == SERIAL_NUMBER
    assert not link.is_symlink()


async def test_unplugged_port_vanishes_and_comes_back(tmp_path: Path, meter: VirtualMeter) -> None:
    link = tmp_path / "meter"
    async with serve(meter, pacing=False, link=link) as line:
        async with connect(line.port) as client:
            assert await client.ask(READ_SERIAL_NUMBER) == SERIAL_NUMBER
            await line.unplug()
            assert not link.is_symlink()
            with pytest.raises(OSError, match="disconnected"):
                await client.receive()
        await line.plug()
        async with connect(line.port) as client:
            assert await client.ask(READ_SERIAL_NUMBER) == SERIAL_NUMBER


async def test_gateway_comes_back_on_the_same_port(
    socket_enabled: None, meter: VirtualMeter
) -> None:
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
    socket_enabled: None, meter: VirtualMeter, pacing: bool
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


async def test_file_in_the_way_of_the_link_is_kept(tmp_path: Path, meter: VirtualMeter) -> None:
    link = tmp_path / "meter"
    link.write_text("mine")
    with pytest.raises(FileExistsError):
        async with serve(meter, link=link):
            pass
    assert link.read_text() == "mine"


async def test_a_meter_without_power_neither_answers_nor_obeys(
    line: Line, meter: VirtualMeter
) -> None:
    async with connect(line.port) as client:
        meter.power_down()
        assert await client.ask(bytes.fromhex("06 6048 0002")) == b""
        meter.power_up()
        assert meter.tariff == 1
        assert await client.ask(READ_SERIAL_NUMBER) == SERIAL_NUMBER


async def test_something_can_happen_before_a_frame_is_heard_or_answered(
    line: Line, meter: VirtualMeter
) -> None:
    write = bytes.fromhex("06 6048 0002")
    seen = []
    line.before_hearing = lambda frame: seen.append((frame[1:-2], int(meter.tariff)))
    line.before_answering = line.before_hearing
    async with connect(line.port) as client:
        await client.ask(write)
    assert seen == [(write, 1), (write, 2)]
