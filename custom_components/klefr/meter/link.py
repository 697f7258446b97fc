"""Where a bus is, and how its line is set."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum


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
