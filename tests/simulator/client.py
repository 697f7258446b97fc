"""A small Modbus RTU client, sharing no code with the simulator."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
import struct

import serialx

WAIT = 5.0
"""Seconds after which a meter is taken to be silent, however busy the machine."""


def crc(data: bytes) -> bytes:
    register = 0xFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0xA001 if register & 1 else 0)
    return register.to_bytes(2, "little")


def frame(unit: int, pdu: bytes) -> bytes:
    data = bytes([unit]) + pdu
    return data + crc(data)


def is_frame(data: bytes) -> bool:
    return len(data) >= 4 and crc(data[:-2]) == data[-2:]


async def receive_until(
    is_whole: Callable[[bytes], bool],
    reader: asyncio.StreamReader,
    wait: float,
    pause: float | None = None,
) -> bytes:
    """Return what came until it was whole, or until nothing more came.

    Waits for the first of it, and then for as long as a `pause` may be.
    """
    received = b""
    while not is_whole(received):
        try:
            async with asyncio.timeout(pause if pause and received else wait):
                more = await reader.read(256)
        except TimeoutError:
            break
        if not more:  # hung up
            break
        received += more
    return received


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def receive(self, wait: float = WAIT) -> bytes:
        """Return the next frame, or what came until nothing more did."""
        return await receive_until(is_frame, self._reader, wait)

    async def ask(self, pdu: bytes | str, *, unit: int = 1, wait: float = WAIT) -> bytes:
        """Return the answer's PDU, empty for silence."""
        self.send(frame(unit, bytes.fromhex(pdu) if isinstance(pdu, str) else pdu))
        answer = await self.receive(wait)
        if not answer:
            return b""
        assert answer[0] == unit
        assert answer == frame(unit, answer[1:-2])
        return answer[1:-2]

    async def read(self, address: int, count: int, *, unit: int = 1) -> list[int]:
        answer = await self.ask(struct.pack(">BHH", 3, address, count), unit=unit)
        assert answer[:2] == bytes([3, 2 * count])
        return list(struct.unpack(f">{count}H", answer[2:]))

    async def read_float(self, address: int) -> float:
        words = await self.read(address, 2)
        return as_float(words)


def as_float(words: Sequence[int]) -> float:
    return float(struct.unpack(">f", struct.pack(">HH", *words))[0])


@asynccontextmanager
async def open_port(
    port: str, *, baud_rate: int, parity: serialx.Parity
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await serialx.open_serial_connection(port, baudrate=baud_rate, parity=parity)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):  # unplugged
            await writer.wait_closed()


@asynccontextmanager
async def connect(
    port: str, *, baud_rate: int = 9600, parity: serialx.Parity = serialx.Parity.EVEN
) -> AsyncIterator[Client]:
    async with open_port(port, baud_rate=baud_rate, parity=parity) as streams:
        yield Client(*streams)
