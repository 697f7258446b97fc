"""A line that clients reach through a pseudo-terminal."""

import asyncio
from collections.abc import Callable
import contextlib
import fcntl
import os
from pathlib import Path
import struct
import termios
import tty

from .line import Face, Line, Receiver, Split
from .meter import BAUD_RATES, Parity

SETTLING_TIME = 0.005
"""Seconds that a client's C library has to set a terminal."""
EXTPROC = 0o200000
"""A terminal's flag, from the kernel's termbits.h: Python has no name for it everywhere."""

SPEEDS: dict[int, int] = {getattr(termios, f"B{rate}"): rate for rate in BAUD_RATES}
"""The baud rate of each number that termios has for it."""


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
        self._receiver: Receiver | None = None
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
        self._receiver = receiver = Receiver(self, lambda data: self._send(receiver, data))
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

    def _send(self, receiver: Receiver, data: bytes) -> None:
        if receiver is not self._receiver:  # unplugged meanwhile
            return
        # A client that does not read loses what no buffer holds.
        with contextlib.suppress(BlockingIOError):
            os.write(self._master, data)
