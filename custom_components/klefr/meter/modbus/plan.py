"""Which registers to read together."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from .registers import Register


@dataclass(frozen=True, kw_only=True)
class Block:
    """Registers that one request reads."""

    start: int
    stop: int
    """The address behind the last register."""

    @property
    def count(self) -> int:
        """How many registers."""
        return self.stop - self.start


def _map_block(address: int) -> int:
    """Return what is the same for all addresses of one block of the map, which has no gaps."""
    return address & 0xF000


def plan(registers: Iterable[Register], cuts: Collection[int]) -> list[Block]:
    """Cover the registers with the fewest blocks, none of which reaches across a cut.

    A cut is an address where the meter needs a new request. A request costs more time and is
    disturbed more often than the words between two values, so those are read along.
    """
    blocks: list[Block] = []
    for register in sorted(registers, key=lambda register: register.address):
        last = blocks[-1] if blocks else None
        if (
            last is None
            or _map_block(last.start) != _map_block(register.address)
            or any(last.start < cut <= register.address for cut in cuts)
        ):
            blocks.append(Block(start=register.address, stop=register.addresses.stop))
        else:
            blocks[-1] = Block(start=last.start, stop=max(last.stop, register.addresses.stop))
    return blocks
