"""What a Modbus meter needs of its bus, whoever has opened the link."""

from abc import abstractmethod
from collections.abc import Sequence

from ..bus import Bus


class ModbusLine(Bus):
    """Modbus units that can be asked for their registers.

    Requests raise RefusedError for a Modbus exception, and what `Bus` says.
    """

    @abstractmethod
    async def read_registers(self, unit: int, address: int, count: int) -> Sequence[int]:
        """Read holding registers, as 16-bit words."""

    @abstractmethod
    async def probe(self, unit: int, address: int, count: int, *, attempts: int) -> bool:
        """Ask a unit for registers, to see whether anybody answers at all."""

    @abstractmethod
    async def write_register(self, unit: int, address: int, word: int) -> None:
        """Write one register with function 6."""

    @abstractmethod
    async def write_registers(self, unit: int, address: int, words: Sequence[int]) -> None:
        """Write registers with function 16."""
