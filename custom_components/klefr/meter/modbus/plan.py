"""Which registers to read together, so that the bus is busy for the shortest time."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from .registers import Register

MOST_REGISTERS: Final = 125
"""What one request may ask for."""

# In characters.
REGISTER: Final = 2
REQUEST_FRAME: Final = 8
ANSWER_FRAME: Final = 5
"""Without the registers."""


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

    @property
    def characters(self) -> int:
        """How many characters the request and its answer have."""
        return REQUEST_FRAME + ANSWER_FRAME + REGISTER * self.count


def plan(registers: Iterable[Register], cuts: Collection[int], *, pause: float) -> list[Block]:
    """Cover the registers with the blocks that the bus needs the shortest time for.

    No block reaches across a cut, which is an address where the meter needs a new request, or
    beyond one block of the map. `pause` is what a request costs beside its frames, in
    characters: the silence before it, and the time that the meter takes to answer.

    Where two plans cost the same, the one with fewer requests is less often disturbed.
    """
    wanted = sorted(registers, key=lambda register: register.address)
    one_request = REQUEST_FRAME + ANSWER_FRAME + pause
    # The best plan for the registers before each place: its cost, the number of its requests,
    # and where its last block begins.
    best: list[tuple[float, int, int]] = [(0.0, 0, 0)]
    for stop in range(1, len(wanted) + 1):
        choices: list[tuple[float, int, int]] = []
        end = 0
        for start in range(stop - 1, -1, -1):
            end = max(end, wanted[start].addresses.stop)
            block = Block(start=wanted[start].address, stop=end)
            if not _is_possible(block, wanted[stop - 1].address, cuts):
                break
            cost, requests, _ = best[start]
            choices.append((cost + one_request + REGISTER * block.count, requests + 1, start))
        best.append(min(choices))
    blocks: list[Block] = []
    stop = len(wanted)
    while stop:
        start = best[stop][2]
        end = max(register.addresses.stop for register in wanted[start:stop])
        blocks.insert(0, Block(start=wanted[start].address, stop=end))
        stop = start
    return blocks


def _is_possible(block: Block, last: int, cuts: Collection[int]) -> bool:
    """Tell whether one request may read a block whose last value begins at an address."""
    return (
        block.count <= MOST_REGISTERS
        and _map_block(block.start) == _map_block(last)
        and not any(block.start < cut <= last for cut in cuts)
    )


def _map_block(address: int) -> int:
    """Return what is the same for all addresses of one block of the map, which has no gaps."""
    return address & 0xF000
