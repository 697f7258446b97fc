"""Open the port of a link."""

import asyncio
from collections.abc import Callable
import errno
import os
import socket
import termios
from typing import Final

import serialx

from .errors import (
    HostNotFoundError,
    HostRefusedError,
    HostSilentError,
    LinkError,
    NotASerialPortError,
    PortInUseError,
    PortNotFoundError,
    PortPermissionError,
)
from .link import Parity, SerialLink

OPEN_TIMEOUT: Final = 10.0
"""Seconds."""

UNREACHABLE: Final = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN})

NO_SERIAL_PORT: Final = frozenset({errno.EISDIR, errno.ENOTTY})

PARITIES: Final = {
    Parity.EVEN: serialx.Parity.EVEN,
    Parity.NONE: serialx.Parity.NONE,
    Parity.ODD: serialx.Parity.ODD,
}


async def open_link(
    link: SerialLink, protocol_factory: Callable[[], asyncio.Protocol]
) -> serialx.BaseSerialTransport:
    """Open a link and connect a protocol to it, as asyncio does.

    Raises LinkError, or the subclass that says why the port cannot be opened.
    """
    parity = PARITIES[link.parity]
    # A pseudo-terminal has no parity: opening it a second time with one is an invalid argument.
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
    except (OSError, serialx.SerialException, termios.error, ValueError) as err:
        raise _failure(link, err) from err
    return transport


def _failure(link: SerialLink, err: Exception) -> LinkError:
    """Return the error that says why a port cannot be opened."""
    match err:
        # What the network cannot look up may already fail to be written as a name.
        case socket.gaierror() | UnicodeError():
            return HostNotFoundError(f"The host of {link.port} is not known")
        case ConnectionRefusedError():
            return HostRefusedError(f"{link.port} refuses the connection")
        case TimeoutError() if link.over_network:
            return HostSilentError(f"{link.port} does not answer")
        case OSError() if err.errno in UNREACHABLE:
            return HostSilentError(f"{link.port} cannot be reached")
        case OSError() | termios.error() if err.args and err.args[0] in NO_SERIAL_PORT:
            return NotASerialPortError(f"{link.port} is not a serial port")
        case FileNotFoundError() | NotADirectoryError():
            return PortNotFoundError(f"{link.port} does not exist")
        case PermissionError():
            return PortPermissionError(f"There is no permission to open {link.port}")
        case OSError() if err.errno == errno.EBUSY:
            return PortInUseError(f"{link.port} is in use")
    return LinkError(f"{link.port} cannot be opened: {err}")
