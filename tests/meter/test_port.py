"""Why a port cannot be opened is told apart."""

import asyncio
import errno
import socket
import termios

import pytest
import serialx

from custom_components.klefr.meter import (
    HostNotFoundError,
    HostRefusedError,
    HostSilentError,
    LinkError,
    ModbusTcpBus,
    NotASerialPortError,
    PortInUseError,
    PortNotFoundError,
    PortPermissionError,
    SerialLink,
)
from simulator.meter import VirtualMeter
from simulator.modbus import serve

SERIAL = "/dev/ttyUSB0"
GATEWAY = "socket://gateway:502"
PROXY = "rfc2217://proxy:2217"


async def test_a_gateway_that_is_off_refuses_the_connection(virtual_meter: VirtualMeter) -> None:
    async with serve(virtual_meter, virtual=GATEWAY, framing="socket") as line:
        await line.unplug()
        async with ModbusTcpBus(SerialLink(port=GATEWAY)) as bus:
            with pytest.raises(HostRefusedError):
                await bus.open()


@pytest.mark.parametrize(
    ("port", "raised", "expected"),
    [
        (GATEWAY, socket.gaierror(socket.EAI_NONAME, ""), HostNotFoundError),
        (GATEWAY, UnicodeError("label too long"), HostNotFoundError),
        (GATEWAY, TimeoutError(), HostSilentError),
        (GATEWAY, OSError(errno.EHOSTUNREACH, ""), HostSilentError),
        (GATEWAY, OSError(errno.ENETUNREACH, ""), HostSilentError),
        (GATEWAY, TimeoutError(errno.ETIMEDOUT, ""), HostSilentError),
        (PROXY, TimeoutError(), HostSilentError),
        (PROXY, serialx.SerialException(""), LinkError),
        (SERIAL, TimeoutError(), LinkError),
        (SERIAL, FileNotFoundError(errno.ENOENT, ""), PortNotFoundError),
        (SERIAL, NotADirectoryError(errno.ENOTDIR, ""), PortNotFoundError),
        (SERIAL, IsADirectoryError(errno.EISDIR, ""), NotASerialPortError),
        (SERIAL, OSError(errno.ENOTTY, ""), NotASerialPortError),
        (SERIAL, termios.error(errno.ENOTTY, ""), NotASerialPortError),
        (SERIAL, PermissionError(errno.EACCES, ""), PortPermissionError),
        (SERIAL, OSError(errno.EBUSY, ""), PortInUseError),
        (SERIAL, OSError(errno.EIO, ""), LinkError),
    ],
)
async def test_the_reason_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, port: str, raised: Exception, expected: type[LinkError]
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(serialx, "create_serial_connection", fail)
    async with ModbusTcpBus(SerialLink(port=port)) as bus:
        with pytest.raises(LinkError) as error:
            await bus.open()
    assert type(error.value) is expected


async def test_a_gateway_that_never_accepts_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(serialx, "create_serial_connection", hang)
    async with ModbusTcpBus(SerialLink(port=GATEWAY)) as bus:
        with pytest.raises(HostSilentError):
            await bus.open()
