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

from ..bus import ADAPTER_DELAY, OVERDUE, OwnBus
from ..errors import CommunicationError, GarbledAnswerError, LinkError, NoAnswerError, RefusedError
from ..link import Protocol, SerialLink
from .line import ModbusLine

# What a meter may take to start answering, in seconds. A search is content with what it
# usually takes.
ANSWER_DELAY: Final = 0.3
USUAL_ANSWER_DELAY: Final = 0.1
# What a gateway may take to say that a unit does not answer, in seconds. Until then it does
# not ask for the next one.
GATEWAY_DELAY: Final = 3.0

SILENT_CHARACTERS: Final = 3.5

# Modbus TCP: bytes of the transaction's number, and of all up to the length of what follows.
TRANSACTION_LENGTH: Final = 2
MBAP_LENGTH: Final = 6
REFUSAL_LENGTH: Final = 5
CHECKSUM_LENGTH: Final = 2
# What a gateway answers for a unit that does not (Modbus application protocol, section 7).
NOBODY_THERE: Final = frozenset({10, 11})

type Call = Callable[[AsyncModbusTcpClient], Awaitable[ModbusPDU]]


class ModbusBus(OwnBus, ModbusLine):
    """The Modbus units on one link."""

    protocol = Protocol.MODBUS
    _framer = FramerType.RTU
    _usual_delay = USUAL_ANSWER_DELAY

    def __init__(self, link: SerialLink) -> None:
        """Remember the link; nothing is opened yet."""
        super().__init__(link)
        self._client: AsyncModbusTcpClient | None = None
        self._heard = asyncio.Event()
        self._awaited: _Answer | None = None
        self._quiet_since = 0.0
        self._overdue: dict[_Answer, float] = {}

    @override
    async def read_registers(self, unit: int, address: int, count: int) -> Sequence[int]:
        answer = await self._request(_read(unit, address, count))
        registers: list[int] = answer.registers
        return registers

    @override
    async def probe(self, unit: int, address: int, count: int, *, attempts: int) -> bool:
        request = _read(unit, address, count)
        try:
            await self._request(request, attempts=attempts, delay=self._usual_delay)
        except NoAnswerError:
            return False
        except GarbledAnswerError, RefusedError:
            pass
        return True

    @override
    async def write_register(self, unit: int, address: int, word: int) -> None:
        await self._request(
            _Request(
                call=lambda client: client.write_register(address, word, device_id=unit),
                length=8,
                answer=_Answer(start=struct.pack(">BBHH", unit, 6, address, word), length=8),
            )
        )

    @override
    async def write_registers(self, unit: int, address: int, words: Sequence[int]) -> None:
        await self._request(
            _Request(
                call=lambda client: client.write_registers(address, list(words), device_id=unit),
                length=9 + 2 * len(words),
                answer=_Answer(start=struct.pack(">BBHH", unit, 16, address, len(words)), length=8),
            )
        )

    async def _request(
        self,
        request: _Request,
        *,
        attempts: int | None = None,
        delay: float = ANSWER_DELAY + ADAPTER_DELAY,
    ) -> Any:
        """Send a request when the line is free and return its answer.

        It is put on the line `attempts` times, or as often as the unit is worth it. `delay` is
        what the meter and the adapters may take to answer, in seconds.
        """
        answer = request.answer
        loop = asyncio.get_running_loop()
        # An answer does not say which registers it holds. One that comes late must not be
        # taken for the answer to another request of its kind, so its time has to run out
        # first; only a repetition of the same request may have it.
        while True:
            await asyncio.sleep(self._overdue.get(answer, 0.0) - loop.time())
            async with self._turn:
                if self._overdue.get(answer, 0.0) <= loop.time():
                    self._overdue.pop(answer, None)
                    pdu = await self._repeat(request, attempts, delay)
                    break
        if isinstance(pdu, ExceptionResponse):
            raise RefusedError(pdu.exception_code)
        return pdu

    async def _repeat(self, request: _Request, attempts: int | None, delay: float) -> ModbusPDU:
        """Put a request on the line until it is answered."""
        with self._patience(request.answer.unit, attempts) as tries:
            for _ in range(tries - 1):
                with suppress(CommunicationError):
                    return await self._exchange(request, delay)
            return await self._exchange(request, delay)

    async def _exchange(self, request: _Request, delay: float) -> ModbusPDU:
        """Put a request on the line once and wait for what comes back."""
        await self._open()
        assert self._client is not None
        answer = request.answer
        loop = asyncio.get_running_loop()
        silence = SILENT_CHARACTERS * self.link.character_time
        await asyncio.sleep(self._quiet_since + silence - loop.time())

        was_overdue = answer in self._overdue
        delay += request.length * self.link.character_time + self.link.latency(answer.length)
        rest = answer.length * self.link.character_time + ADAPTER_DELAY
        self._overdue[answer] = loop.time() + delay + rest + OVERDUE
        self._awaited = answer
        self._heard.clear()
        self.tally["requests"] += 1
        # pymodbus logs an error whenever its own timeout ends, and turns the caller's
        # cancellation into an error; a task of its own keeps both away.
        exchange = asyncio.create_task(_call(request.call, self._client))
        lost = asyncio.create_task(self._lost.wait())
        heard = asyncio.create_task(self._heard.wait())
        try:
            await asyncio.wait(
                {exchange, lost, heard}, timeout=delay, return_when=asyncio.FIRST_COMPLETED
            )
            if self._heard.is_set():
                await asyncio.wait(
                    {exchange, lost}, timeout=rest, return_when=asyncio.FIRST_COMPLETED
                )
        finally:
            self._awaited = None
            self._quiet_since = loop.time()
            lost.cancel()
            heard.cancel()
            answered = exchange.done()
            exchange.cancel()
            await asyncio.wait({exchange})
            error = None if exchange.cancelled() else exchange.exception()
        if answered and error is None:
            if not was_overdue:
                del self._overdue[answer]
            pdu = exchange.result()
            if isinstance(pdu, ExceptionResponse) and pdu.exception_code in NOBODY_THERE:
                self.tally[NoAnswerError.key] += 1
                raise NoAnswerError("The gateway got no answer")
            return pdu
        failure: LinkError | CommunicationError
        if self._lost.is_set() or isinstance(error, ConnectionException):
            failure = LinkError("The link was lost")
        elif answered and not isinstance(error, ModbusException):
            failure = LinkError(f"The link failed: {error}")
        elif self._heard.is_set():
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
            framer=self._framer,
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
        if self._concerns(data):
            self._heard.set()
        return self._find(data, self._awaited) if self._awaited else b""

    def _concerns(self, _data: bytes) -> bool:
        """Tell whether what was heard may be the answer, or what is left of it."""
        return True

    def _find(self, data: bytes, answer: _Answer) -> bytes:
        return answer.find(data)

    def _trace_connect(self, connected: bool) -> None:
        if not connected:
            self._lost.set()


class ModbusTcpBus(ModbusBus):
    """The Modbus units behind a gateway that speaks Modbus TCP."""

    protocol = Protocol.MODBUS_TCP
    _framer = FramerType.SOCKET
    _usual_delay = GATEWAY_DELAY
    _transaction = b""

    @override
    def _trace_packet(self, sending: bool, data: bytes) -> bytes:
        if sending:
            self._transaction = data[:TRANSACTION_LENGTH]
        return super()._trace_packet(sending, data)

    @override
    def _concerns(self, data: bytes) -> bool:
        # A gateway may still be answering for a unit that was given up.
        return self._transaction in data

    @override
    def _find(self, data: bytes, answer: _Answer) -> bytes:
        while len(data) >= MBAP_LENGTH:
            end = MBAP_LENGTH + int.from_bytes(data[MBAP_LENGTH - 2 : MBAP_LENGTH])
            frame, data = data[:end], data[end:]
            if frame.startswith(self._transaction) and answer.fits(frame[MBAP_LENGTH:]):
                return frame
        return b""


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """How the answer to a request starts, and how many bytes it has."""

    start: bytes
    length: int

    @property
    def unit(self) -> int:
        """Who is to answer."""
        return self.start[0]

    def fits(self, content: bytes) -> bool:
        """Tell whether this is the whole answer, or refusal, but for the checksum."""
        refusal = bytes((self.unit, self.start[1] | 0x80))
        return any(
            content.startswith(start) and len(content) == length - CHECKSUM_LENGTH
            for start, length in ((self.start, self.length), (refusal, REFUSAL_LENGTH))
        )

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


@dataclass(frozen=True, kw_only=True)
class _Request:
    """What is put on the line, how many bytes that is, and what is to come back."""

    call: Call
    length: int
    answer: _Answer


def _read(unit: int, address: int, count: int) -> _Request:
    return _Request(
        call=lambda client: client.read_holding_registers(address, count=count, device_id=unit),
        length=8,
        answer=_Answer(start=bytes((unit, 3, 2 * count)), length=5 + 2 * count),
    )


async def _call(call: Call, client: AsyncModbusTcpClient) -> ModbusPDU:
    return await call(client)


def _checksum_fits(frame: bytes) -> bool:
    return FramerRTU.compute_CRC(frame[:-2]) == int.from_bytes(frame[-2:])
