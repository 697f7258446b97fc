"""A small M-Bus master, sharing no code with the simulator."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import serialx

from .client import open_port, receive_until

WAIT = 5.0
"""Seconds after which a meter is taken to be silent, however busy the machine."""
PAUSE = 0.1
"""Seconds that may lie between the parts of what comes in one go."""

ACKNOWLEDGEMENT = b"\xe5"


def frame(content: str) -> bytes:
    """Return the frame that carries what is given in hexadecimal digits."""
    data = bytes.fromhex(content)
    end = bytes([sum(data) % 256, 0x16])
    if len(data) == 2:
        return b"\x10" + data + end
    return bytes([0x68, len(data), len(data), 0x68]) + data + end


def selection(identification: str, rest: str = "CD25 FF FF") -> str:
    """Return the content of the frame that selects a meter."""
    return "53 FD 52" + bytes.fromhex(identification)[::-1].hex() + rest


def is_frame(data: bytes) -> bool:
    return data == ACKNOWLEDGEMENT or (len(data) > 6 and data == frame(data[4:-2].hex()))


class MBusClient:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def receive(self, wait: float = WAIT) -> bytes:
        """Return the next frame, or what else came."""
        return await receive_until(is_frame, self._reader, wait)

    async def receive_bytes(self, count: int) -> bytes:
        """Return so many bytes, with what came with the last of them, however far apart."""
        return await receive_until(lambda received: len(received) >= count, self._reader, WAIT)

    async def receive_all(self) -> bytes:
        """Return what comes in one go, frame or not."""
        return await receive_until(lambda _: False, self._reader, WAIT, pause=PAUSE)

    async def ask(self, content: str) -> bytes:
        """Return the answer, which is one character or a whole frame."""
        self.send(frame(content))
        answer = await self.receive()
        assert is_frame(answer)
        return answer

    async def meets_silence(self, content: str) -> bool:
        self.send(frame(content))
        return not await self.receive()


@asynccontextmanager
async def connect(port: str, *, baud_rate: int = 9600) -> AsyncIterator[MBusClient]:
    async with open_port(port, baud_rate=baud_rate, parity=serialx.Parity.EVEN) as streams:
        yield MBusClient(*streams)
