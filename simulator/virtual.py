"""Lines in memory, which clients open with serialx as any other port.

A serial port is called `virtual://` and any name, a gateway `socket://` and any host and
port. While such a gateway is in force, all of `socket://` is in memory: no other host
answers.
"""

import asyncio
from collections.abc import Callable
import errno
from functools import partial
from types import TracebackType
from typing import Protocol, Self, Unpack, override

import serialx
import serialx.common

from .gateway import Gateway, GatewayClient
from .line import Face, Line, Receiver, Send, Split
from .meter import Parity
from .waveform import characters, low_bits

SERIAL = "virtual://"
NETWORK = "socket://"

IN_FRONT = 2
"""The weight of a handler that serialx prefers to its own."""
UNREAD_KEPT = 4096
"""Bytes that are kept for a client that does not read."""


class _Port(Protocol):
    """What clients find under a name."""

    def connect(self, client: VirtualTransport) -> Send:
        """Let a client in and return where it sends to, or raise OSError."""

    def disconnect(self, client: VirtualTransport) -> None:
        """Let a client go."""


_PLUGGED: dict[str, _Port] = {}
"""The ports that there are, by their names."""


class VirtualLine(Line):
    """A serial port in memory, with the line that its adapter drives.

    The line is set as its client asks for. At other settings than theirs meters hear
    nothing, and a client hears of what was sent at other settings than its own what a
    serial port makes of it, mostly garbage.
    """

    def __init__(
        self,
        face: Face,
        *,
        port: str,
        baud_rate: int,
        parity: Parity,
        pacing: bool = True,
        split: Split | None = None,
        seed: int = 1,
    ) -> None:
        """Take the name of the port, and how it is set until the first client comes."""
        super().__init__(face, parity=parity, pacing=pacing, split=split, seed=seed)
        self._port = port
        self._baud_rate = baud_rate
        self._client: VirtualTransport | None = None
        self._receiver: Receiver | None = None

    @property
    def port(self) -> str:
        return self._port

    @property
    def baud_rate(self) -> int:
        return self._baud_rate

    def reaches(self, baud_rate: int, parity: Parity) -> bool:
        return (baud_rate, parity) == (self._baud_rate, self.parity)

    async def plug(self) -> None:
        if self._receiver is None:
            _add_port(self._port, self)
            self._receiver = receiver = Receiver(self, lambda data: self._send(receiver, data))

    async def unplug(self) -> None:
        if self._receiver is None:
            return
        del _PLUGGED[self._port]
        self._receiver.close()
        self._receiver = None
        self._forget()
        if self._client is not None:
            self._client.lose(OSError(errno.EIO, "device disconnected"))
            self._client = None

    def heard(self, frame: bytes, send: Send) -> None:
        super().heard(frame, partial(self._arrive, send, self._baud_rate, self.parity))

    def _arrive(self, send: Send, baud_rate: int, parity: Parity, data: bytes) -> None:
        """Pass on what was sent at these settings, as it is heard at those of now."""
        if (baud_rate, parity) != (self._baud_rate, self.parity):
            low = low_bits(data, parity)
            data = characters(low, self.parity, bit_time=baud_rate / self._baud_rate)
        send(data)

    def _send(self, receiver: Receiver, data: bytes) -> None:
        if receiver is self._receiver and self._client is not None:  # not unplugged meanwhile
            self._client.deliver(data)

    def connect(self, client: VirtualTransport) -> Send:
        """Let a client in, alone, and set the line as it asks for."""
        assert self._receiver is not None
        if self._client is not None:
            raise OSError(errno.EBUSY, f"{self._port} is in use")
        self._client = client
        self._baud_rate = client.baudrate
        self.parity = Parity(client.parity.value)
        return self._receiver.feed

    def disconnect(self, client: VirtualTransport) -> None:
        """Let a client go."""
        if self._client is client:
            self._client = None


class VirtualGateway(Gateway):
    """A gateway in memory."""

    def __init__(
        self,
        face: Face,
        *,
        port: str,
        baud_rate: int,
        parity: Parity,
        pacing: bool = True,
        split: Split | None = None,
        seed: int = 1,
    ) -> None:
        """Take the name that clients open."""
        super().__init__(
            face, baud_rate=baud_rate, parity=parity, pacing=pacing, split=split, seed=seed
        )
        self._port = port
        self._connections: dict[VirtualTransport, GatewayClient] = {}
        self._leave_network: Callable[[], None] | None = None

    @override
    async def __aenter__(self) -> Self:
        # No client opens this gateway's own scheme, but serialx wants one that is unique.
        self._leave_network = _register(NETWORK, f"{self._port}://", weight=IN_FRONT)
        return await super().__aenter__()

    @override
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await super().__aexit__(exc_type, exc, traceback)
        if self._leave_network is not None:
            self._leave_network()

    @property
    def port(self) -> str:
        return self._port

    async def plug(self) -> None:
        if _PLUGGED.get(self._port) is not self:
            _add_port(self._port, self)

    async def unplug(self) -> None:
        if _PLUGGED.get(self._port) is self:
            del _PLUGGED[self._port]
            self._hang_up()

    def connect(self, client: VirtualTransport) -> Send:
        """Let a client in, beside others."""
        connection = self._connections[client] = GatewayClient(self)
        connection.connection_made(_FarEnd(client))
        return connection.data_received

    def disconnect(self, client: VirtualTransport) -> None:
        """Let a client go."""
        if connection := self._connections.pop(client, None):
            connection.connection_lost(None)


class _FarEnd(asyncio.WriteTransport):
    """What a gateway sends through to one client."""

    def __init__(self, client: VirtualTransport) -> None:
        super().__init__()
        self._client = client
        self._closing = False

    def is_closing(self) -> bool:
        return self._closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._closing:
            self._client.deliver(bytes(data))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._client.lose(None)

    def abort(self) -> None:
        self.close()


class VirtualTransport(serialx.BaseSerialTransport):
    """A client's end of a line in memory, for asyncio.

    It relies on nothing that its base does not show, because that differs from version to
    version.
    """

    transport_name = "virtual"

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol) -> None:
        """Connect a protocol to nothing yet."""
        super().__init__(loop, protocol)
        self._scheduler = loop
        self._listener = protocol
        self._port: _Port | None = None
        self._send: Send | None = None
        self._settings: serialx.ConnectKwargs = {}
        self._paused = False
        self._unread = bytearray()
        self._leaving = False
        self._broken: Exception | None = None
        self._gone: asyncio.Future[None] = loop.create_future()

    @override
    async def _connect(self, *, path: str | None, **kwargs: Unpack[serialx.ConnectKwargs]) -> None:
        self._settings = kwargs
        port = _find_port(path)
        self._send = port.connect(self)
        self._port = port
        self._listener.connection_made(self)

    @property
    @override
    def baudrate(self) -> int:
        return self._settings["baudrate"]

    @property
    @override
    def parity(self) -> serialx.Parity:
        return serialx.Parity(self._settings["parity"])

    @override
    def get_protocol(self) -> asyncio.Protocol:
        return self._listener

    @override
    def set_protocol(self, protocol: asyncio.Protocol) -> None:  # type: ignore[override]
        self._listener = protocol

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._broken is not None:
            raise OSError(*self._broken.args)
        if not self._leaving:
            assert self._send is not None
            self._send(bytes(data))

    def deliver(self, data: bytes) -> None:
        """Let characters arrive."""
        self._scheduler.call_soon(self._receive, data)

    def lose(self, error: OSError | None) -> None:
        """End the connection from the other side, behind what has been delivered."""
        self._broken = error or OSError(errno.EIO, "connection closed by the other side")
        self._scheduler.call_soon(self._leave, error)

    def _receive(self, data: bytes) -> None:
        if self._leaving:
            return
        if self._paused:
            # A client that does not read loses what no buffer holds.
            self._unread += data[: UNREAD_KEPT - len(self._unread)]
        else:
            self._listener.data_received(data)

    def _leave(self, error: Exception | None) -> None:
        self._leaving = True
        if self._gone.done():
            return
        self._gone.set_result(None)
        if self._port is not None:
            self._port.disconnect(self)
            self._listener.connection_lost(error)

    @override
    def is_reading(self) -> bool:
        return not self._paused and not self._leaving

    @override
    def pause_reading(self) -> None:
        self._paused = True

    @override
    def resume_reading(self) -> None:
        self._paused = False
        if self._unread:
            self.deliver(bytes(self._unread))
            self._unread.clear()

    @override
    def close(self) -> None:
        if not self._leaving:
            self._leaving = True
            self._scheduler.call_soon(self._leave, None)

    @override
    def abort(self) -> None:
        # Nothing is kept back that could be dropped.
        self.close()

    @override
    def is_closing(self) -> bool:
        return self._leaving

    @override
    async def wait_closed(self) -> None:
        await asyncio.shield(self._gone)

    @override
    def get_write_buffer_size(self) -> int:
        return 0

    @override
    def can_write_eof(self) -> bool:
        return False

    @override
    async def _flush(self) -> None:
        pass

    @override
    async def _get_modem_pins(self) -> serialx.ModemPins:
        return serialx.ModemPins()

    @override
    async def _set_modem_pins(self, modem_pins: serialx.ModemPins) -> None:
        pass

    @override
    async def reconfigure_port(self, **settings: object) -> None:
        raise serialx.UnsupportedSetting("a line in memory is set when it is opened")

    @override
    async def _reconfigure_port(self, update: serialx.common.PortSettingsUpdate) -> None:
        await self.reconfigure_port()


class VirtualSerial(serialx.BaseSerial):
    """What serialx is told to open without asyncio, which cannot be."""

    def __new__(cls, *_args: object, **_settings: object) -> Self:
        """Refuse to be made."""
        raise serialx.SerialException("a line in memory can only be opened with asyncio")


def _add_port(name: str, port: _Port) -> None:
    if name in _PLUGGED:
        raise ValueError(f"there is already a port called {name}")
    _PLUGGED[name] = port


def _find_port(name: str | None) -> _Port:
    name = name or ""
    # The name of a host means the same in capital letters.
    if port := _PLUGGED.get(name.lower() if name.startswith(NETWORK) else name):
        return port
    if name.startswith(NETWORK):
        raise ConnectionRefusedError(errno.ECONNREFUSED, f"no gateway is at {name}")
    raise FileNotFoundError(errno.ENOENT, "no such port", name)


def _register(scheme: str, unique_scheme: str, *, weight: int = 1) -> Callable[[], None]:
    return serialx.register_uri_handler(
        scheme=scheme,
        unique_scheme=unique_scheme,
        sync_cls=VirtualSerial,  # type: ignore[type-abstract]  # it cannot be made
        async_transport_cls=VirtualTransport,
        weight=weight,
    )


_register(SERIAL, SERIAL)
