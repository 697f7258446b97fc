"""A Modbus bus: the requests that a meter needs, and the frames that carry them."""

from abc import abstractmethod
import asyncio
from collections import defaultdict, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
import re
from statistics import median
import struct
from typing import Final, override

from pymodbus.framer import FramerRTU, FramerSocket
from pymodbus.pdu import DecodePDU, ExceptionResponse, ModbusPDU
from pymodbus.pdu.register_message import (
    ReadHoldingRegistersRequest,
    WriteMultipleRegistersRequest,
    WriteSingleRegisterRequest,
)

from ..bus import ADAPTER_DELAY, LATE, Attempt, Bus, OwnBus
from ..errors import CommunicationError, GarbledAnswerError, LinkError, NoAnswerError, RefusedError
from ..link import Protocol, SerialLink

# What a meter may take to start answering, in seconds. A search is content with what it
# usually takes.
ANSWER_DELAY: Final = 0.3
USUAL_ANSWER_DELAY: Final = 0.1
# What a gateway may take to report that a unit does not answer, in seconds. Until then it does
# not ask the next one.
GATEWAY_DELAY: Final = 3.0

SILENT_CHARACTERS: Final = 3.5

# Of so many answers the usual delay is taken.
DELAYS_KEPT: Final = 9

CHECKSUM_LENGTH: Final = 2
# What the answer to function 16 repeats: unit, function, address and count.
ECHOED_LENGTH: Final = 6
REFUSED: Final = 0x80
REFUSAL_LENGTH: Final = 3
# Modbus TCP: transaction number, protocol number, and the length of what follows.
TRANSACTION_LENGTH: Final = 2
TCP_HEADER: Final = struct.Struct(">HHH")
TCP_LENGTHS: Final = range(REFUSAL_LENGTH, 255)
# What a gateway answers for a unit that does not (Modbus application protocol, section 7).
NO_ANSWER_CODES: Final = frozenset({10, 11})

DECODER: Final = DecodePDU(is_server=False)
RTU: Final = FramerRTU(DECODER)
SOCKET: Final = FramerSocket(DECODER)


class ModbusLine(Bus):
    """Modbus units whose registers can be read and written.

    Requests raise RefusedError for a Modbus exception, and what `Bus` raises.
    """

    def __init__(self, link: SerialLink) -> None:
        """Remember the link; nothing is opened yet."""
        super().__init__(link)
        self._delays: dict[int, deque[float]] = defaultdict(partial(deque, maxlen=DELAYS_KEPT))

    @property
    @override
    def silence(self) -> float:
        return SILENT_CHARACTERS * self.link.character_time

    def delay(self, unit: int) -> float:
        """Return how long a unit usually takes to start an answer, in seconds.

        Silence tells it where the request ends, so that is the least.
        """
        return max(self.silence, median(self._delays[unit] or (0.0,)))

    @abstractmethod
    async def read_registers(
        self, unit: int, address: int, count: int, *, attempts: int | None = None
    ) -> Sequence[int]:
        """Read holding registers, as 16-bit words. `attempts` is how often to ask at most."""

    @abstractmethod
    async def probe(self, unit: int, address: int, count: int, *, attempts: int) -> bool:
        """Ask a unit for registers, to see whether it answers at all."""

    @abstractmethod
    async def write_register(self, unit: int, address: int, word: int) -> None:
        """Write one register with function 6."""

    @abstractmethod
    async def write_registers(self, unit: int, address: int, words: Sequence[int]) -> None:
        """Write registers with function 16."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How the answer to a request starts, and how many bytes it has without its checksum."""

    start: bytes
    length: int

    @property
    def unit(self) -> int:
        """The unit that answers."""
        return self.start[0]

    @property
    def refusal(self) -> bytes:
        """How the answer of a unit that refuses starts."""
        return bytes((self.unit, self.start[1] | REFUSED))

    def fits(self, content: bytes) -> bool:
        """Whether this is the complete answer or refusal."""
        return any(
            content.startswith(start) and len(content) == length
            for start, length in ((self.start, self.length), (self.refusal, REFUSAL_LENGTH))
        )


class RtuParser:
    """Finds the answer to one request on a serial line.

    Such frames do not show where they begin and end, so whatever looks like the beginning of
    the answer is kept until it is complete, and judged by its checksum.
    """

    def __init__(self, answer: Answer) -> None:
        """Look for this answer, or for the refusal."""
        self.missing = 0
        self._length = answer.length + CHECKSUM_LENGTH
        self._start = re.compile(
            b"(?=%b|%b)" % (_beginning(answer.start), _beginning(answer.refusal)), re.DOTALL
        )
        self._begun = bytearray()

    def feed(self, data: bytes) -> Sequence[bytes]:
        """Take what has arrived, and give the answer, without its checksum, once it is complete."""
        self._begun += data
        if self.missing > len(data):
            self.missing -= len(data)
            return ()
        lacking: list[int] = []
        begun = len(self._begun)
        for match in self._start.finditer(self._begun):
            end = match.start() + self._length_at(match.start())
            if end > len(self._begun):
                lacking.append(end - len(self._begun))
                begun = min(begun, match.start())
                continue
            content = bytes(self._begun[match.start() : end - CHECKSUM_LENGTH])
            checksum = int.from_bytes(self._begun[end - CHECKSUM_LENGTH : end])
            if RTU.check_CRC(content, checksum):
                self._begun = self._begun[end:]
                self.missing = 0
                return (content,)
        self.missing = min(lacking, default=0)
        del self._begun[:begun]
        return ()

    def flush(self) -> Sequence[bytes]:
        """Give up what has begun. Every place where the answer may begin has been looked at."""
        self._begun.clear()
        self.missing = 0
        return ()

    def _length_at(self, position: int) -> int:
        function = self._begun[position + 1 : position + 2]
        if function and function[0] & REFUSED:
            return REFUSAL_LENGTH + CHECKSUM_LENGTH
        return self._length


class TcpParser:
    """Finds the answers to one transaction in what a gateway sends over the network."""

    def __init__(self, transaction: int) -> None:
        """Look for the frames of this transaction."""
        self.missing = 0
        self._transaction = transaction
        self._begun = bytearray()

    def feed(self, data: bytes) -> Sequence[bytes]:
        """Take what has arrived, and give the content of the frames that are complete by now."""
        self._begun += data
        found: list[bytes] = []
        self.missing = 0
        while len(self._begun) >= TCP_HEADER.size:
            transaction, protocol, length = TCP_HEADER.unpack_from(self._begun)
            if protocol != 0 or length not in TCP_LENGTHS:
                # Nothing shows where the next frame begins.
                self._begun.clear()
                break
            end = TCP_HEADER.size + length
            if end > len(self._begun):
                self.missing = end - len(self._begun)
                break
            if transaction == self._transaction:
                found.append(bytes(self._begun[TCP_HEADER.size : end]))
            del self._begun[:end]
        return found

    def flush(self) -> Sequence[bytes]:
        """Give up what has begun. All complete frames have been given."""
        self._begun.clear()
        self.missing = 0
        return ()


class ModbusBus(OwnBus, ModbusLine):
    """The Modbus units on one serial line, also one at the other end of a gateway."""

    protocol = Protocol.MODBUS
    _usual_delay = USUAL_ANSWER_DELAY

    def __init__(self, link: SerialLink) -> None:
        """Remember the link; nothing is opened yet."""
        super().__init__(link)
        self._late: dict[Answer, float] = {}
        self._last_request = self._last_content = b""

    @override
    async def read_registers(
        self, unit: int, address: int, count: int, *, attempts: int | None = None
    ) -> Sequence[int]:
        pdu = await self._request(*_read(unit, address, count), attempts=attempts)
        return pdu.registers

    @override
    async def probe(self, unit: int, address: int, count: int, *, attempts: int) -> bool:
        request, answer = _read(unit, address, count)
        try:
            await self._request(
                request, answer, attempts=attempts, delay=self._usual_delay, slack=0.0
            )
        except NoAnswerError:
            return False
        except GarbledAnswerError, RefusedError:
            pass
        return True

    @override
    async def write_register(self, unit: int, address: int, word: int) -> None:
        request = WriteSingleRegisterRequest(address=address, registers=[word])
        # The answer repeats the request.
        echo = bytes((unit,)) + _payload(request)
        await self._request(request, Answer(start=echo, length=len(echo)))

    @override
    async def write_registers(self, unit: int, address: int, words: Sequence[int]) -> None:
        request = WriteMultipleRegistersRequest(address=address, registers=list(words))
        # The answer repeats the request as far as the count.
        echo = (bytes((unit,)) + _payload(request))[:ECHOED_LENGTH]
        await self._request(request, Answer(start=echo, length=len(echo)))

    async def _request(
        self,
        request: ModbusPDU,
        answer: Answer,
        *,
        attempts: int | None = None,
        delay: float = ANSWER_DELAY,
        slack: float = ADAPTER_DELAY,
    ) -> ModbusPDU:
        """Send a request when the bus is free and return its answer.

        `delay` is what the meter may take to answer, `slack` what adapters may take, in seconds.
        """
        loop = asyncio.get_running_loop()
        # An answer does not say which registers it holds. One that comes late must not be taken
        # for the answer to another request of its kind, so wait until it cannot come any more.
        # Only a repetition of the same request may have it.
        while True:
            await asyncio.sleep(self._late.get(answer, 0.0) - loop.time())
            async with self._turn:
                if self._late.get(answer, 0.0) > loop.time():
                    continue
                self._late.pop(answer, None)
                with self._patience(answer.unit, attempts) as tries:
                    for _ in range(tries - 1):
                        with suppress(CommunicationError):
                            return await self._ask(request, answer, delay, slack)
                    return await self._ask(request, answer, delay, slack)

    async def _ask(
        self, request: ModbusPDU, answer: Answer, delay: float, slack: float
    ) -> ModbusPDU:
        """Send a request once."""
        await self._open()
        asked = bytes((answer.unit,)) + _payload(request)
        with self._observed(answer.unit) as attempt:
            content = await self._transfer(request, answer, attempt, delay, slack)
            if content == self._last_content and asked != self._last_request:
                # Some gateways repeat a request, and pass on both answers.
                content = await self._transfer(request, answer, attempt, delay, slack)
            self._last_request, self._last_content = asked, content
            assert attempt.response_time is not None
            self._delays[answer.unit].append(attempt.response_time)
            pdu = DECODER.decode(content[1:])
            assert pdu is not None
            if isinstance(pdu, ExceptionResponse):
                if pdu.exception_code in NO_ANSWER_CODES:
                    raise NoAnswerError("The gateway got no answer")
                raise RefusedError(pdu.exception_code)
            return pdu

    async def _transfer(
        self, request: ModbusPDU, answer: Answer, attempt: Attempt, delay: float, slack: float
    ) -> bytes:
        """Send a request in the frame of this kind of bus, and return what the answer's holds."""
        try:
            return await self._exchange(
                RTU.encode(_payload(request), answer.unit, 0),
                RtuParser(answer),
                answer.fits,
                attempt,
                delay=delay,
                slack=slack,
                length=answer.length + CHECKSUM_LENGTH,
            )
        except LinkError:
            raise
        except BaseException:
            self._late[answer] = asyncio.get_running_loop().time() + LATE
            raise


class ModbusTcpBus(ModbusBus):
    """The Modbus units behind a gateway that speaks Modbus TCP.

    An answer has the number of its request, so no late one can be mistaken for another.
    """

    protocol = Protocol.MODBUS_TCP
    _usual_delay = GATEWAY_DELAY
    _transaction = 0

    @override
    async def _transfer(
        self, request: ModbusPDU, answer: Answer, attempt: Attempt, delay: float, slack: float
    ) -> bytes:
        self._transaction = self._transaction % 0xFFFF + 1
        return await self._exchange(
            SOCKET.encode(_payload(request), answer.unit, self._transaction),
            TcpParser(self._transaction),
            answer.fits,
            attempt,
            delay=delay,
            slack=slack,
            length=TCP_HEADER.size + answer.length,
        )

    @override
    def _is_garbage(self, heard: bytes, request: bytes) -> bool:
        # A gateway may still be answering for a unit that was given up.
        return request[:TRANSACTION_LENGTH] in heard


def _read(unit: int, address: int, count: int) -> tuple[ModbusPDU, Answer]:
    request = ReadHoldingRegistersRequest(address=address, count=count)
    start = bytes((unit, request.function_code, 2 * count))
    return request, Answer(start=start, length=len(start) + 2 * count)


def _payload(request: ModbusPDU) -> bytes:
    return bytes((request.function_code,)) + request.encode()


def _beginning(start: bytes) -> bytes:
    """Give the pattern of a start, or of its first bytes where no more has arrived."""
    pattern = b""
    for byte in reversed(start):
        rest = b"(?:\\Z|%b)" % pattern if pattern else b""
        pattern = re.escape(bytes((byte,))) + rest
    return pattern
