"""One bus and those who share it, whatever is spoken on it."""

from abc import ABC, abstractmethod
import asyncio
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
import math
from typing import Any, Final, Protocol as Interface, Self, override

import serialx

from .errors import (
    CommunicationError,
    GarbledAnswerError,
    LinkError,
    NeverSilentError,
    NoAnswerError,
    RefusedError,
)
from .health import Exchange, Health, Outcome
from .link import UART_PIECE, Protocol, SerialLink
from .port import open_link
from .schedule import Load

ATTEMPTS: Final = 3

# What adapters and a busy computer may add to a meter's own time, in seconds. A search, with
# hundreds of addresses to try, does without.
ADAPTER_DELAY: Final = 0.25

# How long an answer that was not waited for may still arrive, in seconds.
LATE: Final = 2.0

# How long an answer that was late is still counted as one, in seconds. Slow gateways queue them.
COUNTED_LATE: Final = 10.0

# The longest frame of both protocols, in characters. Nothing that arrives makes an exchange
# wait for more than that.
LONGEST_FRAME: Final = 261

# So many characters without a pause come from no meter. The port is then left alone for a
# while, in seconds, since reading on would keep the computer busy.
MOST_WITHOUT_SILENCE: Final = 4096
REST_AFTER_NOISE: Final = 30.0


# A serial port passes on a few characters at a time, and each time wakes the computer. So while
# a frame arrives, reading waits for its last characters, but not for longer than this, in
# seconds: only reading shows that a link was lost.
LAST_CHARACTERS: Final = 8
LONGEST_PAUSE: Final = 0.25


OUTCOMES: Final = {
    NoAnswerError: Outcome.NO_ANSWER,
    GarbledAnswerError: Outcome.GARBLED,
    RefusedError: Outcome.REFUSED,
}


@dataclass(kw_only=True, slots=True)
class Attempt:
    """A request that is sent once, as far as is known of it."""

    health: Health | None
    """What counts the requests to its address."""
    sent_at: float
    response_time: float | None = None
    sent: bytes | None = None
    received: bytearray | None = None
    exchange: Exchange | None = None
    """What became of it, if it is counted."""


class Bus(ABC):
    """The meters on one link.

    Hold the bus while you use it, with `async with` or with `hold` and `release`. The first
    request opens the link, the next one opens it again if it broke, and the last holder closes
    it. All requests raise LinkError if the link cannot be opened, and CommunicationError if
    repeating the request did not help.
    """

    protocol: Protocol

    def __init__(self, link: SerialLink) -> None:
        """Remember the link; nothing is opened yet.

        `tally` counts the requests, and their failures by the key of the error. `load` is what
        those who read meters regularly need of the bus.
        """
        self.link = link
        self.load = Load()
        self.tally: Counter[str] = Counter()
        self._holders = 0
        self._turn = asyncio.Lock()
        self._silent: set[Hashable] = set()
        self._watched: dict[int | str, Health] = {}

    def watch(self, address: int | str, health: Health) -> Callable[[], None]:
        """Count what becomes of all requests to an address. Returns what ends this."""
        self._watched[address] = health

        def end() -> None:
            if self._watched.get(address) is health:
                del self._watched[address]

        return end

    @property
    @abstractmethod
    def silence(self) -> float:
        """How long the bus has to be silent before a request, in seconds."""

    @property
    def held(self) -> bool:
        """Whether anything uses the bus."""
        return self._holders > 0

    def hold(self) -> None:
        """Let the link be opened."""
        self._holders += 1

    async def release(self) -> None:
        """Give up a hold. The last one closes the link."""
        self._holders -= 1
        async with self._turn:
            if not self.held:
                await self._close()

    async def __aenter__(self) -> Self:
        """Hold the bus."""
        self.hold()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Release the bus."""
        await self.release()

    async def open(self) -> None:
        """Open the link now, to see whether it can be opened."""
        async with self._turn:
            await self._open()

    @contextmanager
    def _patience(self, address: Hashable, attempts: int | None) -> Iterator[int]:
        """Say how often to send a request to an address, unless `attempts` says so.

        An address that was silent the last time is asked once only, so that a meter that is
        switched off does not hold up the others.
        """
        try:
            yield attempts or (1 if address in self._silent else ATTEMPTS)
        except NoAnswerError:
            self._silent.add(address)
            raise
        except CommunicationError:
            self._silent.discard(address)
            raise
        else:
            self._silent.discard(address)

    @contextmanager
    def _observed(self, address: int | str | None) -> Iterator[Attempt]:
        """Count a request that is sent once to an address, and what becomes of it."""
        self.tally["requests"] += 1
        health = None if address is None else self._watched.get(address)
        attempt = Attempt(health=health, sent_at=asyncio.get_running_loop().time())
        try:
            yield attempt
        except (LinkError, CommunicationError, RefusedError) as err:
            self.tally[err.key] += 1
            self._count(attempt, OUTCOMES.get(type(err), Outcome.LINK_FAILED))
            raise
        else:
            self._count(attempt, Outcome.ANSWERED)

    def _count(self, attempt: Attempt, outcome: Outcome) -> None:
        if attempt.health is not None:
            received = attempt.received
            attempt.exchange = Exchange(
                sent_at=attempt.sent_at,
                outcome=outcome,
                response_time=attempt.response_time,
                sent=attempt.sent,
                received=None if received is None else bytes(received),
            )
            attempt.health.add(attempt.exchange)

    @abstractmethod
    async def _open(self) -> None:
        """Open the link if it is not open. Raises LinkError, also if the bus is not held."""

    @abstractmethod
    async def _close(self) -> None:
        """Close the link if it is open."""


class Parser[FrameT](Interface):
    """Finds frames in what arrives, whatever surrounds them and however it is cut up."""

    @property
    def missing(self) -> int:
        """How many characters a frame that has begun still lacks; 0 if none has begun."""

    def feed(self, data: bytes) -> Sequence[FrameT]:
        """Take what has arrived, and give the frames that are complete by now."""

    def flush(self) -> Sequence[FrameT]:
        """Give up the frame that has begun, and give the frames behind its start."""


class OwnBus(Bus):
    """A bus whose link is opened here."""

    def __init__(self, link: SerialLink) -> None:
        """Remember the link; nothing is opened yet."""
        super().__init__(link)
        self._transport: serialx.BaseSerialTransport | None = None
        self._listener = _Listener(link, self.silence, self._overhear)
        self._overdue: deque[_Overdue] = deque(maxlen=ATTEMPTS)

    async def _exchange[FrameT](
        self,
        request: bytes,
        parser: Parser[FrameT],
        accept: Callable[[FrameT], bool],
        attempt: Attempt,
        *,
        delay: float,
        slack: float,
        length: int,
    ) -> FrameT:
        """Send a request once over the open link and return the frame that is accepted.

        A meter may take `delay` seconds to start an answer of `length` characters, adapters
        `slack` seconds on top. Raises NoAnswerError, GarbledAnswerError and LinkError.
        """
        listener = self._listener
        await self._wait_for_silence(listener)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[FrameT] = loop.create_future()
        heard = bytearray()

        def receive(data: bytes) -> None:
            heard.extend(data[: LONGEST_FRAME - len(heard)])
            waiting = not answer.done()
            take(parser.feed(data))
            self._overhear(data, surplus=not (waiting and answer.done()))
            listener.pause(parser.missing)

        def take(frames: Sequence[FrameT]) -> None:
            frame = next(filter(accept, frames), None)
            if frame is not None and not answer.done():
                answer.set_result(frame)
                # Noise that answers get through does not stand in the way.
                listener.without_silence = 0

        attempt.sent, attempt.received = request, heard
        attempt.sent_at = loop.time()
        deadline = attempt.sent_at + len(request) * self.link.character_time + delay + slack
        deadline += self.link.latency(length)
        try:
            listener.listen(receive, answer)
            assert self._transport is not None
            self._transport.write(request)
            await self._wait_for(answer, parser, deadline, slack)
            take(parser.flush())
            if answer.done():
                frame = await answer
                on_wire = (len(request) + len(heard)) * self.link.character_time
                attempt.response_time = max(0.0, listener.heard_at - attempt.sent_at - on_wire)
                return frame
        except OSError as err:
            answer.cancel()
            listener.fail(LinkError(f"The link failed: {err}"))
            raise LinkError(f"The link failed: {err}") from err
        finally:
            listener.ignore()
        if attempt.health is not None:
            self._overdue.append(
                _Overdue(
                    attempt=attempt,
                    health=attempt.health,
                    accepts=lambda data: any(map(accept, parser.feed(data))),
                    until=loop.time() + COUNTED_LATE,
                )
            )
        if self._is_garbage(bytes(heard), request):
            raise GarbledAnswerError("What arrived is no answer")
        raise NoAnswerError("No meter answered")

    def _overhear(self, data: bytes, *, surplus: bool = True) -> None:
        """Count an answer that is late.

        It is one only if it is surplus: the answer to a repetition looks the same.
        """
        if not self._overdue:
            return
        now = asyncio.get_running_loop().time()
        while self._overdue and self._overdue[0].until < now:
            self._overdue.popleft()
        late = [overdue for overdue in self._overdue if overdue.hear(data)]
        if late and surplus:
            self._overdue.remove(late[0])
            exchange = late[0].attempt.exchange
            assert exchange is not None
            late[0].health.answered_late(exchange, bytes(late[0].received))

    async def _wait_for[FrameT](
        self, answer: asyncio.Future[FrameT], parser: Parser[FrameT], deadline: float, slack: float
    ) -> None:
        """Wait for an answer until the deadline, or longer while a frame arrives."""
        loop = asyncio.get_running_loop()
        last_deadline = deadline + self._time_for(LONGEST_FRAME, slack)
        try:
            while not answer.done() and (rest := deadline - loop.time()) > 0:
                await asyncio.wait((answer,), timeout=rest)
                if parser.missing:
                    needed = self._listener.heard_at + self._time_for(parser.missing, slack)
                    deadline = max(deadline, min(needed, last_deadline))
        except asyncio.CancelledError:
            # The meter still answers, and nothing else may be sent meanwhile.
            self._listener.busy_until = deadline
            raise

    def _time_for(self, characters: int, slack: float) -> float:
        return characters * self.link.character_time + self.link.latency(characters) + slack

    def _is_garbage(self, heard: bytes, request: bytes) -> bool:
        """Whether what was heard may be a damaged answer. Some adapters echo the request."""
        return heard not in (b"", request)

    async def _wait_for_silence(self, listener: _Listener) -> None:
        """Wait until a frame that may be under way has ended.

        Where noise never ends, the request has to be sent into it.
        """
        loop = asyncio.get_running_loop()
        await asyncio.sleep(listener.busy_until - loop.time())
        longest_wait = loop.time() + LONGEST_FRAME * self.link.character_time
        while (silent_at := listener.silent_at) > (now := loop.time()):
            if now >= longest_wait:
                return
            await asyncio.sleep(min(silent_at, longest_wait) - now)

    @override
    async def _open(self) -> None:
        if not self.held:
            # A poll that outlives its entry must not take the port again.
            raise LinkError("The bus has been released")
        failure = self._listener.failure
        if self._transport is not None and failure is None:
            return
        await self._close()
        rested_at = self._listener.heard_at + REST_AFTER_NOISE
        if isinstance(failure, NeverSilentError) and asyncio.get_running_loop().time() < rested_at:
            raise NeverSilentError("The port did not fall silent a moment ago")
        self._listener = _Listener(self.link, self.silence, self._overhear)
        self._overdue.clear()
        self._transport = await open_link(self.link, lambda: self._listener)

    @override
    async def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()
            # The port stays locked until this is over.
            await self._transport.wait_closed()
            self._transport = None


@dataclass(frozen=True, kw_only=True)
class _Overdue:
    """A request that was not answered in time."""

    attempt: Attempt
    health: Health
    accepts: Callable[[bytes], bool]
    until: float
    received: bytearray = field(default_factory=bytearray)

    def hear(self, data: bytes) -> bool:
        """Take what arrives, and say whether the answer is in it."""
        self.received.extend(data)
        del self.received[:-LONGEST_FRAME]
        return self.accepts(data)


class _Listener(asyncio.Protocol):
    """Hands what arrives to the exchange under way. Without one, it is only overheard."""

    def __init__(self, link: SerialLink, silence: float, overhear: Callable[[bytes], None]) -> None:
        """Expect pauses of `silence` seconds between frames."""
        self.failure: LinkError | None = None
        """Why the link cannot be used any more."""
        self.heard_at = -math.inf
        """When something arrived last, in the time of the event loop."""
        self.silent_at = -math.inf
        """When what arrived last has ended, unless more of it arrives."""
        self.busy_until = -math.inf
        """When the answer to a request that was cancelled has ended."""
        self.without_silence = 0
        """How many characters have arrived without a pause."""
        self._character_time = link.character_time
        self._silence = silence
        self._overhear = overhear
        self._over_network = link.over_network
        self._paused: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._receive: Callable[[bytes], None] | None = None
        self._answer: asyncio.Future[Any] | None = None

    def listen(self, receive: Callable[[bytes], None], answer: asyncio.Future[Any]) -> None:
        """Hand over what arrives. The answer fails with the link.

        Raises LinkError if that has failed already.
        """
        if self.failure is not None:
            raise self.failure
        self._receive, self._answer = receive, answer

    def ignore(self) -> None:
        """Only overhear what arrives."""
        self._receive = self._answer = None
        self._resume()

    def pause(self, characters: int) -> None:
        """Read nothing until the last of so many characters arrive."""
        waiting = (characters - LAST_CHARACTERS) * self._character_time
        if waiting > 0 and self._paused is None and not self._over_network:
            assert self._transport is not None
            self._transport.pause_reading()
            seconds = min(waiting, LONGEST_PAUSE)
            self._paused = asyncio.get_running_loop().call_later(seconds, self._resume)

    def _resume(self) -> None:
        if self._paused is not None:
            assert self._transport is not None
            self._paused.cancel()
            self._paused = None
            self._transport.resume_reading()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        now = asyncio.get_running_loop().time()
        # What arrives at once has been under way for as long as it takes on the wire.
        if now - len(data) * self._character_time - self.heard_at >= self._silence:
            self.without_silence = 0
        self.heard_at = now
        self.silent_at = now + self._silence
        self.without_silence += len(data)
        if self.without_silence > MOST_WITHOUT_SILENCE:
            self.fail(NeverSilentError("The port never falls silent"))
            assert self._transport is not None
            self._transport.close()
        elif self._receive is not None:
            self._receive(data)
        else:
            # It may be longer, and an UART passes on what it receives in pieces.
            self.silent_at += UART_PIECE * self._character_time
            self._overhear(data)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(LinkError("The link was lost"))

    def fail(self, failure: LinkError) -> None:
        """Let the link be used no more."""
        self.failure = self.failure or failure
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(self.failure)
