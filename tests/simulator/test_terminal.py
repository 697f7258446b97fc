"""A pseudo-terminal is a line that other programs can open, so here time is real."""

import asyncio
from collections.abc import AsyncIterator
import os
from pathlib import Path
import termios

import pytest
import serialx

from simulator.line import Line
from simulator.meter import VirtualMeter
from simulator.modbus import serve

from .client import connect, frame
from .test_line import READ_SERIAL_NUMBER, SERIAL_NUMBER

pytestmark = pytest.mark.real_time


@pytest.fixture
async def line(meter: VirtualMeter) -> AsyncIterator[Line]:
    async with serve(meter, pacing=False) as line:
        yield line


async def test_bytes_come_no_faster_than_the_line(meter: VirtualMeter) -> None:
    async with serve(meter, baud_rate=4800) as line, connect(line.port, baud_rate=4800) as client:
        loop = asyncio.get_running_loop()
        start = loop.time()
        await client.ask(READ_SERIAL_NUMBER)
        assert loop.time() - start >= (8 + 3.5 + 9) * 11 / 4800


async def test_wrong_baud_rate_meets_silence(line: Line) -> None:
    async with connect(line.port, baud_rate=4800) as client:
        assert await client.ask(READ_SERIAL_NUMBER, wait=0.5) == b""
    async with connect(line.port, baud_rate=9600) as client:
        assert await client.ask(READ_SERIAL_NUMBER) == SERIAL_NUMBER


@pytest.mark.parametrize("parity", serialx.Parity)
async def test_clients_come_and_go_whatever_their_parity(
    line: Line, parity: serialx.Parity
) -> None:
    for _ in range(3):
        async with connect(line.port, parity=parity):
            pass
        async with connect(line.port, parity=parity) as client:
            assert await client.ask(READ_SERIAL_NUMBER) == SERIAL_NUMBER


async def test_terminal_neither_echoes_nor_translates(line: Line) -> None:
    terminal = os.open(line.port, os.O_RDWR | os.O_NOCTTY)
    try:
        iflag, oflag, _, lflag, *_ = termios.tcgetattr(terminal)
    finally:
        os.close(terminal)
    assert not lflag & (termios.ECHO | termios.ICANON | termios.ISIG)
    assert not iflag & (termios.ICRNL | termios.IXON)
    assert not oflag & termios.OPOST


async def test_no_client_needs_to_listen(line: Line) -> None:
    answered = asyncio.Queue[bytes]()
    line.before_answering = answered.put_nowait
    async with connect(line.port) as client:
        for _ in range(40):
            client.send(frame(1, bytes.fromhex("03 6000 004B")))
            await answered.get()


async def test_link_leads_to_the_terminal_while_it_is_plugged_in(
    tmp_path: Path, meter: VirtualMeter
) -> None:
    link = tmp_path / "meter"
    async with serve(meter, pacing=False, link=link) as line:
        assert line.port == str(link)
        async with connect(line.port) as client:
            assert await client.ask(READ_SERIAL_NUMBER) == SERIAL_NUMBER
            await line.unplug()
            assert not link.is_symlink()
            with pytest.raises(OSError, match="disconnected"):
                await client.receive()
        await line.plug()
        async with connect(line.port) as client:
            assert await client.ask(READ_SERIAL_NUMBER) == SERIAL_NUMBER
    assert not link.is_symlink()


async def test_file_in_the_way_of_the_link_is_kept(tmp_path: Path, meter: VirtualMeter) -> None:
    link = tmp_path / "meter"
    link.write_text("mine")
    with pytest.raises(FileExistsError):
        async with serve(meter, link=link):
            pass
    assert link.read_text() == "mine"
