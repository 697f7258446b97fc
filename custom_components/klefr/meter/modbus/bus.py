"""One Modbus line: opens it and puts requests on it, one at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
import struct
from typing import Any, Final, cast, override

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ConnectionException, ModbusException
from pymodbus.framer import FramerRTU, FramerType
from pymodbus.pdu import ExceptionResponse, ModbusPDU

from ..bus import ATTEMPTS, OVERDUE, Bus
from ..errors import CommunicationError, GarbledAnswerError, LinkError, NoAnswerError, RefusedError
from ..link import Protocol, SerialLink

# What a meter and the adapters before it may take to start answering, in seconds.
ANSWER_DELAY: Final = 0.5

SILENT_CHARACTERS: Final = 3.5
REFUSAL_LENGTH: Final = 5

type Request = Callable[[AsyncModbusTcpClient], Awaitable[ModbusPDU]]


class ModbusBus(Bus):
    """The Modbus units on one link.

    Requests raise RefusedError for a Modbus exception, and what `Bus` says.
    """

    protocol = Protocol.MODBUS

    def __init__(self, link: SerialLink) -> None:
        """Remember the link; nothing is opened yet."""
        super().__init__(link)
        self._client: AsyncModbusTcpClient | None = None
        self._heard = False
        self._awaited: _Answer | None = None
        self._quiet_since = 0.0
        self._overdue: dict[_Answer, float] = {}

    async def read_registers(self, unit: int, address: int, count: int) -> Sequence[int]:
        """Read holding registers, as 16-bit words."""
        answer = await self._request(
            lambda client: client.read_holding_registers(address, count=count, device_id=unit),
            request_length=8,
            answer_start=bytes((unit, 3, 2 * count)),
            answer_length=5 + 2 * count,
        )
        registers: list[int] = answer.registers
        return registers

    async def write_register(self, unit: int, address: int, word: int) -> None:
        """Write one register with function 6."""
        await self._request(
            lambda client: client.write_register(address, word, device_id=unit),
            request_length=8,
            answer_start=struct.pack(">BBHH", unit, 6, address, word),
            answer_length=8,
        )

    async def write_registers(self, unit: int, address: int, words: Sequence[int]) -> None:
        """Write registers with function 16."""
        await self._request(
            lambda client: client.write_registers(address, list(words), device_id=unit),
            request_length=9 + 2 * len(words),
            answer_start=struct.pack(">BBHH", unit, 16, address, len(words)),
            answer_length=8,
        )

    async def _request(
        self,
        request: Request,
        *,
        request_length: int,
        answer_start: bytes,
        answer_length: int,
    ) -> Any:
        """Send a request when the line is free and return its answer.

        The answer is known by how it starts and by its length in bytes.
        """
        answer = _Answer(start=answer_start, length=answer_length)
        patience = (request_length + answer_length) * self.link.character_time + ANSWER_DELAY
        loop = asyncio.get_running_loop()
        # An answer does not say which registers it holds. One that comes late must not be
        # taken for the answer to another request of its kind, so its time has to run out
        # first; only a repetition of the same request may have it.
        while True:
            await asyncio.sleep(self._overdue.get(answer, 0.0) - loop.time())
            async with self._turn:
                if self._overdue.get(answer, 0.0) <= loop.time():
                    self._overdue.pop(answer, None)
                    pdu = await self._repeat(request, answer, patience)
                    break
        if isinstance(pdu, ExceptionResponse):
            raise RefusedError(pdu.exception_code)
        return pdu

    async def _repeat(self, request: Request, answer: _Answer, patience: float) -> ModbusPDU:
        """Put a request on the line until it is answered, at most `ATTEMPTS` times."""
        for _ in range(ATTEMPTS - 1):
            with suppress(CommunicationError):
                return await self._exchange(request, answer, patience)
        return await self._exchange(request, answer, patience)

    async def _exchange(self, request: Request, answer: _Answer, patience: float) -> ModbusPDU:
        """Put a request on the line once and wait for what comes back."""
        await self._open()
        assert self._client is not None
        loop = asyncio.get_running_loop()
        silence = SILENT_CHARACTERS * self.link.character_time
        await asyncio.sleep(self._quiet_since + silence - loop.time())

        was_overdue = answer in self._overdue
        self._overdue[answer] = loop.time() + patience + OVERDUE
        self._awaited = answer
        self._heard = False
        self.tally["requests"] += 1
        # pymodbus logs an error whenever its own timeout ends, and turns the caller's
        # cancellation into an error; a task of its own keeps both away.
        exchange = asyncio.create_task(_call(request, self._client))
        lost = asyncio.create_task(self._lost.wait())
        try:
            await asyncio.wait(
                {exchange, lost}, timeout=patience, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            self._awaited = None
            self._quiet_since = loop.time()
            lost.cancel()
            answered = exchange.done()
            exchange.cancel()
            await asyncio.wait({exchange})
            error = None if exchange.cancelled() else exchange.exception()
        if answered and error is None:
            if not was_overdue:
                del self._overdue[answer]
            return exchange.result()
        failure: LinkError | CommunicationError
        if self._lost.is_set() or isinstance(error, ConnectionException):
            failure = LinkError("The link was lost")
        elif answered and not isinstance(error, ModbusException):
            failure = LinkError(f"The link failed: {error}")
        elif self._heard:
            failure = GarbledAnswerError("What arrived is no answer")
        else:
            failure = NoAnswerError("Nobody answered")
        self.tally[failure.key] += 1
        raise failure from error

    @override
    def _connect(self) -> asyncio.Protocol:
        # The TCP client, because the serial one insists on pyserial; which transport it
        # speaks through is decided by whoever opens the link.
        self._client = AsyncModbusTcpClient(
            self.link.port,
            framer=FramerType.RTU,
            timeout=3600,
            retries=0,
            reconnect_delay=0,
            trace_packet=self._trace_packet,
            trace_connect=self._trace_connect,
        )
        return cast("asyncio.Protocol", self._client.ctx.handle_new_connection())

    @override
    async def _close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        await super()._close()

    def _trace_packet(self, sending: bool, data: bytes) -> bytes:
        """Let pymodbus see the answer only.

        What else is on the line (noise, an echo of the request, an answer to something
        else) would keep it waiting for the rest of a frame that it isn't.
        """
        if sending:
            return data
        self._heard = True
        return self._awaited.find(data) if self._awaited else b""

    def _trace_connect(self, connected: bool) -> None:
        if not connected:
            self._lost.set()


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """How the answer to a request starts, and how many bytes it has."""

    start: bytes
    length: int

    @property
    def unit(self) -> int:
        """Who is to answer."""
        return self.start[0]

    def find(self, data: bytes) -> bytes:
        """Pick the whole and undamaged answer, or refusal, out of what was heard."""
        refusal = bytes((self.unit, self.start[1] | 0x80))
        for start, length in ((self.start, self.length), (refusal, REFUSAL_LENGTH)):
            position = data.find(start)
            while position >= 0:
                frame = data[position : position + length]
                if len(frame) == length and _checksum_fits(frame):
                    return frame
                position = data.find(start, position + 1)
        return b""


async def _call(request: Request, client: AsyncModbusTcpClient) -> ModbusPDU:
    return await request(client)


def _checksum_fits(frame: bytes) -> bool:
    return FramerRTU.compute_CRC(frame[:-2]) == int.from_bytes(frame[-2:])
