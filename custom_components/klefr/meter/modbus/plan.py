"""Which registers to read together."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from .registers import Register


@dataclass(frozen=True, kw_only=True)
class Block:
    """Registers that one request reads."""

    address: int
    count: int


def _map_block(register: Register) -> int:
    """Tell the blocks of the map apart; within one there is a register at every address."""
    return register.address & 0xF000


def plan(registers: Iterable[Register], longest: int) -> list[Block]:
    """Cover the registers with the fewest blocks of at most `longest` words.

    A request costs more time and is more often disturbed than the words between two
    values that are wanted, so those are read along. No value is torn apart.
    """
    blocks: list[Block] = []
    ordered = sorted(registers, key=lambda register: register.address)
    for _, neighbours in groupby(ordered, key=_map_block):
        start: int | None = None
        end = 0
        for register in neighbours:
            if start is not None and register.addresses.stop - start > longest:
                blocks.append(Block(address=start, count=end - start))
                start = None
            if start is None:
                start = register.address
            end = register.addresses.stop
        if start is not None:
            blocks.append(Block(address=start, count=end - start))
    return blocks
