"""A line behind a gateway, which clients reach over a network."""

import asyncio

from .line import Face, Line, Receiver, Split
from .meter import Parity

NETWORK_SILENCE = 0.5
"""Seconds that may lie between the packets of one frame."""


class Gateway(Line):
    """A line that is set as its gateway is, whatever clients ask for."""

    def __init__(
        self,
        face: Face,
        *,
        baud_rate: int,
        parity: Parity,
        pacing: bool = True,
        split: Split | None = None,
        seed: int = 1,
    ) -> None:
        """Connect a face to a line with these settings."""
        super().__init__(face, parity=parity, pacing=pacing, split=split, seed=seed)
        self.hang_up_next = 0
        """In the middle of how many of the next answers the connection ends."""
        self.clients: set[GatewayClient] = set()
        """Those who are connected."""
        self._baud_rate = baud_rate

    @property
    def baud_rate(self) -> int:
        return self._baud_rate

    @property
    def silence(self) -> float:
        return NETWORK_SILENCE if self.split else super().silence

    def reaches(self, baud_rate: int, parity: Parity) -> bool:
        return (baud_rate, parity) == (self._baud_rate, self.parity)

    def _hang_up(self) -> None:
        """End all connections."""
        for client in list(self.clients):
            client.hang_up()
        self._forget()


class GatewayClient(asyncio.Protocol):
    """A gateway's side of one connection."""

    _receiver: Receiver
    _transport: asyncio.WriteTransport

    def __init__(self, gateway: Gateway) -> None:
        """Wait for the connection to be made."""
        self._gateway = gateway

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._receiver = Receiver(self._gateway, self._send)
        self._gateway.clients.add(self)

    def data_received(self, data: bytes) -> None:
        self._receiver.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._receiver.close()
        self._gateway.clients.discard(self)

    def _send(self, data: bytes) -> None:
        if self._gateway.hang_up_next > 0 and not self._transport.is_closing():
            self._gateway.hang_up_next -= 1
            self._transport.write(data[: len(data) // 2])
            self._transport.close()
        else:
            self._transport.write(data)

    def hang_up(self) -> None:
        """End the connection at once."""
        self._transport.abort()


class TcpLine(Gateway):
    """A gateway that listens on a TCP port."""

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
        """Listen on a TCP port, 0 for any."""
        super().__init__(
            face, baud_rate=baud_rate, parity=parity, pacing=pacing, split=split, seed=seed
        )
        self._host = host
        self._tcp_port = tcp_port
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> str:
        return f"{self._host}:{self._tcp_port}"

    async def plug(self) -> None:
        if self._server is None:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: GatewayClient(self), self._host, self._tcp_port
            )
            # The next plug() takes the same port again.
            self._tcp_port = self._server.sockets[0].getsockname()[1]

    async def unplug(self) -> None:
        if self._server is None:
            return
        self._server.close()
        self._hang_up()
        await self._server.wait_closed()
        self._server = None
