"""One line and those who share it, whatever is spoken on it."""

from abc import ABC, abstractmethod
import asyncio
from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Final, Self, override

import serialx

from .errors import CommunicationError, LinkError, NoAnswerError
from .link import Protocol, SerialLink
from .port import open_link

ATTEMPTS: Final = 3

# What is granted to adapters and to a busy computer on top of what is usual, in seconds.
# Searching, with hundreds of addresses to go, does without.
ADAPTER_DELAY: Final = 0.25

# How long answers that were given up, or asked for again, may still arrive, in seconds.
OVERDUE: Final = 2.0


class Bus(ABC):
    """What hangs on one link.

    Whoever wants something on the line holds the bus meanwhile, with `async with` or with
    `hold` and `release`. The link is opened by the first request, again by the next one
    when it broke, and closed behind the last holder. All requests raise LinkError where it
    cannot be, and CommunicationError when repeating the request did not help.
    """

    protocol: Protocol

    def __init__(self, link: SerialLink) -> None:
        """Remember the link; nothing is opened yet.

        `tally` counts the requests, and what went wrong with them by the key of the error.
        """
        self.link = link
        self.tally: Counter[str] = Counter()
        self._holders = 0
        self._turn = asyncio.Lock()
        self._silent: set[Hashable] = set()

    @property
    def held(self) -> bool:
        """Whether anybody wants something on the line."""
        return self._holders > 0

    def hold(self) -> None:
        """Let the link be opened."""
        self._holders += 1

    async def release(self) -> None:
        """Give up a hold; behind the last one the link is closed."""
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
        """Open the link now, to see whether it can be."""
        async with self._turn:
            await self._open()

    @contextmanager
    def _patience(self, address: Hashable, attempts: int | None) -> Iterator[int]:
        """Say how often to put a request to an address on the line, if that is left open.

        Where nobody answered the last time it is once only, so that a meter that is switched
        off does not hold up the others.
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

    @abstractmethod
    async def _open(self) -> None:
        """Open the link if it is not. Raises LinkError, for one if nobody holds the bus."""

    @abstractmethod
    async def _close(self) -> None:
        """Close the link if it is open."""


class OwnBus(Bus):
    """A bus whose link is opened here."""

    def __init__(self, link: SerialLink) -> None:
        """Remember the link; nothing is opened yet."""
        super().__init__(link)
        self._transport: serialx.BaseSerialTransport | None = None
        self._lost = asyncio.Event()

    @abstractmethod
    def _connect(self) -> asyncio.Protocol:
        """Make what listens to the link. It sets `_lost` when the link breaks."""

    @override
    async def _open(self) -> None:
        if not self.held:
            # A poll that outlives its entry must not take the port again.
            raise LinkError("The bus has been released")
        if self._transport is not None and not self._lost.is_set():
            return
        await self._close()
        self._lost.clear()
        self._transport = await open_link(self.link, self._connect)

    @override
    async def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()
            # Whoever opens the port next finds it locked until this is over.
            await self._transport.wait_closed()
            self._transport = None
