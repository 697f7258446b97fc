"""Open the port of a link."""

import asyncio
from collections.abc import Callable
import errno
import os
import termios
from typing import Final

import serialx

from .errors import LinkError, PortInUseError, PortNotFoundError, PortPermissionError
from .link import Parity, SerialLink

OPEN_TIMEOUT: Final = 10.0
"""Seconds."""

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
