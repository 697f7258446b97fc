"""The line between a client and meters: a pseudo-terminal, or a gateway's TCP port.

Bytes take the time they would take on a real line, in both directions, and answers
can be made to go wrong. It knows no protocol: a face hears frames and answers them.
"""

from abc import ABC, abstractmethod
import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
import contextlib
import fcntl
import logging
import os
from pathlib import Path
from random import Random
import struct
import termios
import tty
from types import TracebackType
from typing import Protocol, Self

from .meter import BAUD_RATES, Parity

_LOGGER = logging.getLogger(__name__)

SILENT_CHARACTERS = 3.5
"""How long silence ends a frame, in characters, as Modbus says."""
SILENT_CHARACTERS_AFTER_GARBAGE = 3
"""The same where frames show their own ends, as EN 13757-2 says: 33 bits."""
SHORTEST_SILENCE = 0.00175
"""Seconds, however fast the line."""
NETWORK_SILENCE = 0.5
"""Seconds that may lie between the packets of one frame."""
COLLISION_SPREAD = 16
"""Within how many bits meters that are asked together begin to talk."""
CHARACTERS_AT_ONCE = 8
"""How many characters are sent between two looks at the clock."""
REQUESTS_KEPT = 10_000

SETTLING_TIME = 0.005
"""Seconds that a client's C library has to set a terminal."""
EXTPROC = 0o200000
"""A terminal's flag, from the kernel's termbits.h: Python has no name for it everywhere."""

SPEEDS: dict[int, int] = {getattr(termios, f"B{rate}"): rate for rate in BAUD_RATES}
"""The baud rate of each number that termios has for it."""

type Send = Callable[[bytes], None]
type Split = Callable[[bytearray], Iterator[bytes]]
"""Takes whole frames off the front of what was received, and leaves all else."""


class Face(Protocol):
    """What listens at the other end of a line."""

    async def hear(self, frame: bytes, line: Line) -> bytes:
        """Act on a frame and return the answer, empty for none."""


class _Receiver:
    """Cuts what one client sends into frames."""

    def __init__(self, line: Line, send: Send) -> None:
        self._line = line
        self._send = send
        self._buffer = bytearray()
        self._loop = asyncio.get_running_loop()
        self._received_until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def feed(self, data: bytes) -> None:
        self._buffer += data
        duration = len(data) * self._line.character_time
        self._received_until = max(self._loop.time(), self._received_until) + duration
        self._wait_until(self._received_until, self._take_frames)

    def _wait_until(self, time: float, then: Callable[[], None]) -> None:
        self.close()
        self._timer = self._loop.call_at(time, then)

    def _take_frames(self) -> None:
        if self._line.split is not None:
            for frame in self._line.split(self._buffer):
                self._line.heard(frame, self._send)
        if self._buffer:
            self._wait_until(self._received_until + self._line.silence, self._end_frame)

    def _end_frame(self) -> None:
        frame = bytes(self._buffer)
        self._buffer.clear()
        if self._line.split is None:
            self._line.heard(frame, self._send)
        else:
            self._line.requests.append(frame)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class Line(ABC):
    """A half-duplex line with meters at its far end.

    Its faults can be switched at any time.
    """

    def __init__(
        self, face: Face, *, parity: Parity, pacing: bool, split: Split | None, seed: int
    ) -> None:
        """Connect a face. A frame ends by silence, or earlier if `split` finds its end."""
        self.silent = False
        """Meters hear, but nobody is heard."""
        self.garble = 0.0
        """The share of answers that arrive damaged, 0 to 1."""
        self.garble_next = 0
        """How many of the next answers arrive damaged, whatever the share."""
        self.noise = b""
        """Sent in front of every answer."""
        self.delay_answer = 0.0
        """Seconds that meters think before they answer."""
        self.before_hearing: Callable[[bytes], None] | None = None
        """Called with each frame before meters hear it."""
        self.before_answering: Callable[[bytes], None] | None = None
        """Called with each frame when meters have done what it says, before they answer."""
        self.requests: deque[bytes] = deque(maxlen=REQUESTS_KEPT)
        """The latest frames that clients sent, as they were."""
        self.parity = parity
        self.split = split
        self._face = face
        self._pacing = pacing
        self._random = Random(seed)  # noqa: S311
        self._frames: asyncio.Queue[tuple[bytes, Send]] = asyncio.Queue()
        self._talking = False
        self._worker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Open the line."""
        await self.plug()
        self._worker = asyncio.create_task(self._answer_frames())
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it and leave nothing behind."""
        await self.unplug()
        if self._worker is not None:
            self._worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._worker

    @property
    @abstractmethod
    def port(self) -> str:
        """Where clients find the line."""

    @property
    @abstractmethod
    def baud_rate(self) -> int | None:
        """The baud rate the client's side runs at; None for one that no meter knows."""

    @abstractmethod
    def reaches(self, baud_rate: int, parity: Parity) -> bool:
        """Whether a meter with these settings hears more than garbage."""

    @abstractmethod
    async def plug(self) -> None:
        """Let the port appear."""

    @abstractmethod
    async def unplug(self) -> None:
        """Let the port vanish, with everything that is on its way."""

    @property
    def character_time(self) -> float:
        """Seconds that a character takes, 0 without pacing."""
        if not self._pacing or self.baud_rate is None:
            return 0.0
        return self._character_bits / self.baud_rate

    @property
    def silence(self) -> float:
        """Seconds without a character that end a frame."""
        characters = SILENT_CHARACTERS_AFTER_GARBAGE if self.split else SILENT_CHARACTERS
        return max(SHORTEST_SILENCE, characters * self.character_time)

    @property
    def _character_bits(self) -> int:
        return 10 if self.parity is Parity.NONE else 11

    def collide(self, answers: Sequence[bytes]) -> bytes:
        """Return what arrives of the answers of meters that talk at once.

        They do not begin at quite the same time, and the line is low while one pulls it low.
        """
        if len(answers) < 2:
            return b"".join(answers)
        low: set[int] = set()
        for answer in answers:
            start = self._random.randrange(COLLISION_SPREAD)
            for character in answer:
                low.add(start)
                low.update(start + 1 + bit for bit in range(8) if not character >> bit & 1)
                start += self._character_bits
        arriving = bytearray()
        listening_from = 0
        for start in sorted(low):
            if start >= listening_from:
                arriving.append(sum((start + 1 + bit not in low) << bit for bit in range(8)))
                listening_from = start + self._character_bits
        return bytes(arriving)

    def heard(self, frame: bytes, send: Send) -> None:
        """Take a frame that a client sent."""
        self.requests.append(frame)
        # On two wires nobody hears while talking.
        if not self._talking:
            self._frames.put_nowait((frame, send))

    def _forget(self) -> None:
        while not self._frames.empty():
            self._frames.get_nowait()

    async def _answer_frames(self) -> None:
        while True:
            frame, send = await self._frames.get()
            # The answer still comes at the baud rate the request came at.
            character_time = self.character_time
            try:
                if self.before_hearing is not None:
                    self.before_hearing(frame)
                answer = await self._face.hear(frame, self)
                if self.before_answering is not None:
                    self.before_answering(frame)
                await asyncio.sleep(self.delay_answer)
                if answer and not self.silent:
                    await self._talk(self.noise + self._damaged(answer), character_time, send)
            except Exception:
                _LOGGER.exception("Could not answer %s", frame.hex(" "))

    def _damaged(self, answer: bytes) -> bytes:
        """Return what arrives of an answer."""
        if self.garble_next > 0:
            self.garble_next -= 1
        elif self._random.random() >= self.garble:
            return answer
        arriving = bytearray(answer)
        position = self._random.randrange(len(answer))
        if self._random.random() < 0.5:
            arriving[position] ^= 1 << self._random.randrange(8)
        else:
            del arriving[position]
        return bytes(arriving)

    async def _talk(self, data: bytes, character_time: float, send: Send) -> None:
        if not character_time:
            send(data)
            return
        loop = asyncio.get_running_loop()
        start = loop.time()
        self._talking = True
        try:
            for position in range(0, len(data), CHARACTERS_AT_ONCE):
                characters = data[position : position + CHARACTERS_AT_ONCE]
                arrived = start + (position + len(characters)) * character_time
                await asyncio.sleep(arrived - loop.time())
                send(characters)
        finally:
            self._talking = False


class PtyLine(Line):
    """A pseudo-terminal.

    The kernel keeps the baud rate that a client sets, so a wrong one leads to silence.
    It does not keep the parity.
    """

    def __init__(
        self,
        face: Face,
        *,
        baud_rate: int,
        parity: Parity,
        link: str | Path | None = None,
        pacing: bool = True,
        split: Split | None = None,
        seed: int = 1,
    ) -> None:
        """Take a link to make to the terminal, whose own name changes."""
        super().__init__(face, parity=parity, pacing=pacing, split=split, seed=seed)
        self._first_baud_rate = baud_rate
        self._link = Path(link) if link else None
        self._name = ""
        self._receiver: _Receiver | None = None
        self._settling: asyncio.TimerHandle | None = None
        self._master = self._slave = -1

    @property
    def port(self) -> str:
        return str(self._link or self._name)

    @property
    def baud_rate(self) -> int | None:
        # A terminal's master side shows what the client set on the other.
        return SPEEDS.get(termios.tcgetattr(self._master)[tty.OSPEED]) if self._plugged else None

    def reaches(self, baud_rate: int, parity: Parity) -> bool:
        return baud_rate == self.baud_rate

    @property
    def _plugged(self) -> bool:
        return self._receiver is not None

    async def plug(self) -> None:
        if self._plugged:
            return
        # Without a client the kernel would report an error on the master side, so the
        # other side is kept open here too.
        self._master, self._slave = os.openpty()
        os.set_blocking(self._master, False)
        tty.setraw(self._slave)
        self._set_baud_rate(self._first_baud_rate)
        fcntl.ioctl(self._master, termios.TIOCPKT, struct.pack("i", 1))
        self._watch_settings()
        self._name = os.ttyname(self._slave)
        try:
            self._make_link()
        except OSError:
            self._close()
            raise
        self._receiver = receiver = _Receiver(self, lambda data: self._send(receiver, data))
        asyncio.get_running_loop().add_reader(self._master, self._read)

    async def unplug(self) -> None:
        if self._receiver is None:
            return
        asyncio.get_running_loop().remove_reader(self._master)
        self._let_settle()
        self._receiver.close()
        self._receiver = None
        self._forget()
        self._remove_link()
        self._close()

    def _set_baud_rate(self, baud_rate: int) -> None:
        attributes = termios.tcgetattr(self._slave)
        attributes[tty.ISPEED] = attributes[tty.OSPEED] = getattr(termios, f"B{baud_rate}")
        termios.tcsetattr(self._slave, termios.TCSANOW, attributes)

    def _let_settle(self, then: Callable[[], None] | None = None) -> None:
        """Wait until a client has set the terminal, or stop waiting for it."""
        if self._settling is not None:
            self._settling.cancel()
        loop = asyncio.get_running_loop()
        self._settling = loop.call_later(SETTLING_TIME, then) if then else None

    def _watch_settings(self) -> None:
        """Have the kernel tell when a client changes the terminal's settings.

        A change is only told while a flag is set that clients clear. Setting it again
        also lets every client change something: the kernel keeps no parity, and the C
        library calls it an error when a client asks for parity and nothing else is new.
        """
        attributes = termios.tcgetattr(self._slave)
        if not attributes[tty.LFLAG] & EXTPROC:
            attributes[tty.LFLAG] |= EXTPROC
            termios.tcsetattr(self._slave, termios.TCSANOW, attributes)

    def _close(self) -> None:
        os.close(self._master)
        os.close(self._slave)
        self._master = self._slave = -1

    def _make_link(self) -> None:
        if self._link is None:
            return
        if self._link.is_symlink():  # left behind by one that was killed
            self._link.unlink()
        self._link.symlink_to(self._name)

    def _remove_link(self) -> None:
        if self._link and self._link.is_symlink() and str(self._link.readlink()) == self._name:
            self._link.unlink()

    def _read(self) -> None:
        try:
            packet = os.read(self._master, 4096)
        except BlockingIOError:
            return
        if packet[0] != termios.TIOCPKT_DATA:
            # The client's C library is still comparing what it set with what there is, and
            # would take a flag that is back already for a change that was not made.
            self._let_settle(self._watch_settings)
        elif self._receiver is not None:
            self._receiver.feed(packet[1:])

    def _send(self, receiver: _Receiver, data: bytes) -> None:
        if receiver is not self._receiver:  # unplugged meanwhile
            return
        # A client that does not read loses what no buffer holds.
        with contextlib.suppress(BlockingIOError):
            os.write(self._master, data)


class TcpLine(Line):
    """A gateway: clients come over TCP, meters are on its serial line."""

    def __init__(
        self,
        face: Face,
        *,
        host: str,
        tcp_port: int,
        baud_rate: int,
        parity: Parity,
        pacing: bool = True,
        split: Split | None = None,
        seed: int = 1,
    ) -> None:
        """Listen on a TCP port, 0 for any, with a serial line set as given."""
        super().__init__(face, parity=parity, pacing=pacing, split=split, seed=seed)
        self.hang_up_next = 0
        """In the middle of how many of the next answers the connection ends."""
        self._host = host
        self._tcp_port = tcp_port
        self._baud_rate = baud_rate
        self._server: asyncio.Server | None = None
        self._clients: set[_Client] = set()

    @property
    def port(self) -> str:
        return f"{self._host}:{self._tcp_port}"

    @property
    def baud_rate(self) -> int:
        return self._baud_rate

    @property
    def silence(self) -> float:
        return NETWORK_SILENCE if self.split else super().silence

    def reaches(self, baud_rate: int, parity: Parity) -> bool:
        return (baud_rate, parity) == (self._baud_rate, self.parity)

    async def plug(self) -> None:
        if self._server is None:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: _Client(self, self._clients), self._host, self._tcp_port
            )
            # The next plug() is to find the same port.
            self._tcp_port = self._server.sockets[0].getsockname()[1]

    async def unplug(self) -> None:
        if self._server is None:
            return
        self._server.close()
        for client in list(self._clients):
            client.hang_up()
        await self._server.wait_closed()
        self._server = None
        self._forget()


class _Client(asyncio.Protocol):
    """One connection to a gateway."""

    _receiver: _Receiver
    _transport: asyncio.Transport

    def __init__(self, line: TcpLine, clients: set[_Client]) -> None:
        self._line = line
        self._clients = clients

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._receiver = _Receiver(self._line, self._send)
        self._clients.add(self)

    def data_received(self, data: bytes) -> None:
        self._receiver.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._receiver.close()
        self._clients.discard(self)

    def _send(self, data: bytes) -> None:
        if self._line.hang_up_next > 0 and not self._transport.is_closing():
            self._line.hang_up_next -= 1
            self._transport.write(data[: len(data) // 2])
            self._transport.close()
        else:
            self._transport.write(data)

    def hang_up(self) -> None:
        self._transport.abort()


def open_line(
    face: Face,
    *,
    baud_rate: int,
    parity: Parity,
    pacing: bool,
    link: str | Path | None,
    tcp: tuple[str, int] | None,
    split: Split | None = None,
    seed: int,
) -> Line:
    """Connect a face to a pseudo-terminal, or to a gateway listening on a host and a port."""
    if tcp is None:
        return PtyLine(
            face,
            baud_rate=baud_rate,
            parity=parity,
            link=link,
            pacing=pacing,
            split=split,
            seed=seed,
        )

    host, port = tcp
    return TcpLine(
        face,
        host=host,
        tcp_port=port,
        baud_rate=baud_rate,
        parity=parity,
        pacing=pacing,
        split=split,
        seed=seed,
    )
