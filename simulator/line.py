"""A half-duplex line between clients and meters, whatever it is made of.

Bytes take the time they would take on a real line, in both directions, and answers
can be made to go wrong. It knows no protocol: a face hears frames and answers them.
"""

from abc import ABC, abstractmethod
import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
import contextlib
import logging
from random import Random
from types import TracebackType
from typing import Protocol, Self

from .meter import Parity
from .waveform import character_bits, characters, low_bits

_LOGGER = logging.getLogger(__name__)

SILENT_CHARACTERS = 3.5
"""How long silence ends a frame, in characters, as Modbus says."""
SILENT_CHARACTERS_AFTER_GARBAGE = 3
"""The same where frames show their own ends, as EN 13757-2 says: 33 bits."""
SHORTEST_SILENCE = 0.00175
"""Seconds, however fast the line."""
COLLISION_SPREAD = 16
"""Within how many bits meters that are asked together begin to talk."""
CHARACTERS_AT_ONCE = 8
"""How many characters are sent between two looks at the clock."""
REQUESTS_KEPT = 10_000

type Send = Callable[[bytes], None]
type Piece = tuple[float, bytes]
"""Seconds of silence, and what follows them."""
type Split = Callable[[bytearray], Iterator[bytes]]
"""Takes whole frames off the front of what was received, and leaves all else."""


class Face(Protocol):
    """What listens at the other end of a line."""

    async def hear(self, frame: bytes, line: Line) -> bytes:
        """Act on a frame and return the answer, empty for none."""


class Receiver:
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
        self.change_answer: Callable[[bytes, bytes], Awaitable[Sequence[Piece]]] | None = None
        """Called with each frame and the answer to it. What it returns arrives instead."""
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
        return character_bits(self.parity) / self.baud_rate

    @property
    def silence(self) -> float:
        """Seconds without a character that end a frame."""
        characters = SILENT_CHARACTERS_AFTER_GARBAGE if self.split else SILENT_CHARACTERS
        return max(SHORTEST_SILENCE, characters * self.character_time)

    def collide(self, answers: Sequence[bytes]) -> bytes:
        """Return what arrives of the answers of meters that talk at once.

        They do not begin at quite the same time, and the line is low while one pulls it low.
        """
        if len(answers) < 2:
            return b"".join(answers)
        low: set[int] = set()
        for answer in answers:
            low |= low_bits(answer, self.parity, start=self._random.randrange(COLLISION_SPREAD))
        return characters(low, self.parity)

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
                    answer = self.noise + self._damaged(answer)
                    pieces: Sequence[Piece] = ((0.0, answer),)
                    if self.change_answer is not None:
                        pieces = await self.change_answer(frame, answer)
                    for silence, piece in pieces:
                        await asyncio.sleep(silence)
                        await self._talk(piece, character_time, send)
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
                part = data[position : position + CHARACTERS_AT_ONCE]
                arrived = start + (position + len(part)) * character_time
                await asyncio.sleep(arrived - loop.time())
                send(part)
        finally:
            self._talking = False
