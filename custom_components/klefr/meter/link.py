"""Where a bus is, and its line settings."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

GATEWAY_PREFIX: Final = "socket://"
UART_PIECE: Final = 16
"""Characters that a UART collects before it passes them on."""


class BaudRate(IntEnum):
    """Baud rates that a meter can have, in bit/s (manual, section 7.13)."""

    B300 = 300
    B600 = 600
    B1200 = 1200
    B2400 = 2400
    B4800 = 4800
    B9600 = 9600


class Parity(StrEnum):
    """Parities that a meter can have (manual, section 7.14)."""

    EVEN = "even"
    NONE = "none"
    ODD = "odd"


class Protocol(StrEnum):
    """Protocols that are spoken on a bus."""

    MODBUS = "modbus"
    MODBUS_TCP = "modbus_tcp"
    """Modbus as most gateways speak it on the network."""
    MBUS = "mbus"


@dataclass(frozen=True, kw_only=True)
class SerialLink:
    """A port and the line settings of the bus there, always with 8 data bits and 1 stop bit."""

    port: str
    """The path of a device, or any URL that serialx opens."""
    baud_rate: BaudRate = BaudRate.B9600
    parity: Parity = Parity.EVEN

    @property
    def character_time(self) -> float:
        """Seconds that one character takes on the bus."""
        bits = 10 if self.parity is Parity.NONE else 11
        return bits / self.baud_rate

    @property
    def over_network(self) -> bool:
        """Whether the port is a gateway, or is shared by a serial proxy."""
        return "://" in self.port

    def latency(self, characters: int) -> float:
        """Return the seconds by which an answer of so many characters may arrive late.

        A UART passes on what it receives in pieces, and many gateways only pass on a whole answer.
        """
        if self.over_network:
            return 0.3 + characters * self.character_time
        return 0.05 + min(characters, UART_PIECE) * self.character_time


def gateway_port(host: str, tcp_port: int) -> str:
    """Return the port that stands for a gateway."""
    host = host.strip()
    return f"{GATEWAY_PREFIX}{f'[{host}]' if ':' in host else host}:{tcp_port}"


def is_gateway(port: str) -> bool:
    """Return whether a port stands for a gateway."""
    return port.startswith(GATEWAY_PREFIX)


def split_gateway_port(port: str) -> tuple[str, int]:
    """Return the host and the TCP port of a gateway."""
    host, _, tcp_port = port.removeprefix(GATEWAY_PREFIX).rpartition(":")
    return host.strip("[]"), int(tcp_port)
