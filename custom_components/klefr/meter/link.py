"""Where a bus is, how its line is set, and how it is opened."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
import errno
import os
import termios
from typing import Final

import serialx

from .errors import LinkError, PortInUseError, PortNotFoundError, PortPermissionError

OPEN_TIMEOUT: Final = 10.0
UART_PIECE: Final = 16  # characters


class BaudRate(IntEnum):
    """Line speeds a meter can be set to, in bit/s (manual, section 7.13)."""

    B300 = 300
    B600 = 600
    B1200 = 1200
    B2400 = 2400
    B4800 = 4800
    B9600 = 9600


class Parity(StrEnum):
    """Parity of a line (manual, section 7.14)."""

    EVEN = "even"
    NONE = "none"
    ODD = "odd"


class Protocol(StrEnum):
    """What is spoken on a bus."""

    MODBUS = "modbus"
    MODBUS_TCP = "modbus_tcp"
    """Modbus in the frames of a network, as most gateways speak it."""
    MBUS = "mbus"


@dataclass(frozen=True, kw_only=True)
class SerialLink:
    """A serial port: a local device, or any address that serialx opens.

    Always 8 data bits and 1 stop bit.
    """

    port: str
    baud_rate: BaudRate = BaudRate.B9600
    parity: Parity = Parity.EVEN

    @property
    def character_time(self) -> float:
        """Seconds that one character occupies the line."""
        bits = 10 if self.parity is Parity.NONE else 11
        return bits / self.baud_rate

    def latency(self, characters: int) -> float:
        """Give the seconds by which an answer of so many characters may arrive late.

        An UART passes on what it receives in pieces, and many a gateway only the whole.
        """
        if "://" in self.port:
            return 0.3 + characters * self.character_time
        return 0.05 + min(characters, UART_PIECE) * self.character_time


PARITIES: Final = {
    Parity.EVEN: serialx.Parity.EVEN,
    Parity.NONE: serialx.Parity.NONE,
    Parity.ODD: serialx.Parity.ODD,
}


async def open_link(
    link: SerialLink, protocol_factory: Callable[[], asyncio.Protocol]
) -> serialx.BaseSerialTransport:
    """Open a link and connect a protocol to it, as asyncio does.

    Raises LinkError, or the one of its kinds that says why it cannot be opened.
    """
    parity = PARITIES[link.parity]
    # A pseudo-terminal has none, and opening it again with one is an invalid argument.
    if (await asyncio.to_thread(os.path.realpath, link.port)).startswith("/dev/pts/"):
        parity = serialx.Parity.NONE
    try:
        async with asyncio.timeout(OPEN_TIMEOUT):
            transport, _ = await serialx.create_serial_connection(
                asyncio.get_running_loop(),
                protocol_factory,
                link.port,
                baudrate=link.baud_rate,
                parity=parity,
            )
    except FileNotFoundError as err:
        raise PortNotFoundError(f"{link.port} does not exist") from err
    except PermissionError as err:
        raise PortPermissionError(f"{link.port} may not be opened") from err
    except OSError as err:
        if err.errno == errno.EBUSY:
            raise PortInUseError(f"{link.port} is in use") from err
        raise LinkError(f"{link.port} cannot be opened: {err}") from err
    except (serialx.SerialException, termios.error, ValueError) as err:
        raise LinkError(f"{link.port} cannot be opened: {err}") from err
    return transport
