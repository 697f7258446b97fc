"""Which registers are read together."""

from collections.abc import Sequence

from hypothesis import given, settings, strategies as st

from custom_components.klefr.meter import Quantity
from custom_components.klefr.meter.modbus.plan import Block, plan
from custom_components.klefr.meter.modbus.registers import COUNT, REGISTERS, Register

ALL = list(REGISTERS.values())
STARTS = [register.address for register in ALL]
VOLTAGES = [REGISTERS[Quantity.VOLTAGE_L1], REGISTERS[Quantity.VOLTAGE_L3]]
SIXTEEN_APART = [REGISTERS[Quantity.ACTIVE_POWER_L3], REGISTERS[Quantity.POWER_FACTOR]]
"""There are 16 registers, 32 characters, between them."""

# What a request may cost beside its frames, in characters: two silences at least.
pauses = st.integers(7, 120)


def cost(blocks: Sequence[Block], pause: float) -> float:
    """Return what the blocks cost on the bus, in characters."""
    return sum(8 + 5 + 2 * block.count + pause for block in blocks)


def cheapest(registers: Sequence[Register], cuts: set[int], pause: float) -> float:
    """Try to begin a new request before each register, or not to."""
    costs = []
    for choices in range(2 ** (len(registers) - 1)):
        pieces = [[registers[0]]]
        for place, register in enumerate(registers[1:]):
            if choices >> place & 1:
                pieces.append([register])
            else:
                pieces[-1].append(register)
        blocks = [
            Block(start=piece[0].address, stop=max(register.addresses.stop for register in piece))
            for piece in pieces
        ]
        possible = all(
            piece[0].address >> 12 == piece[-1].address >> 12
            and not any(piece[0].address < cut <= piece[-1].address for cut in cuts)
            for piece in pieces
        )
        if possible and all(block.count <= 125 for block in blocks):
            costs.append(cost(blocks, pause))
    return min(costs)


def test_the_whole_map_takes_three_requests() -> None:
    assert plan(ALL, (), pause=7) == [
        Block(start=0x4000, stop=0x4020),
        Block(start=0x5000, stop=0x5032),
        Block(start=0x6000, stop=0x604B),
    ]


def test_nothing_before_the_first_or_behind_the_last_value_is_read() -> None:
    wanted = [REGISTERS[Quantity.VOLTAGE_L2], REGISTERS[Quantity.FREQUENCY]]
    assert plan(wanted, (), pause=7) == [Block(start=0x5004, stop=0x500A)]


def test_a_gap_is_read_across_where_a_request_costs_as_much() -> None:
    one = [Block(start=0x5018, stop=0x502C)]
    two = [Block(start=0x5018, stop=0x501A), Block(start=0x502A, stop=0x502C)]
    assert plan(SIXTEEN_APART, (), pause=32 - 13 - 1) == two
    assert plan(SIXTEEN_APART, (), pause=32 - 13) == one


def test_blocks_of_the_map_are_never_read_across() -> None:
    wanted = [REGISTERS[Quantity.SUPPLY_L3], REGISTERS[Quantity.VOLTAGE_L1]]
    assert plan(wanted, (), pause=1e6) == [
        Block(start=0x401E, stop=0x401F),
        Block(start=0x5002, stop=0x5004),
    ]


def test_a_cut_begins_a_new_block() -> None:
    assert plan(ALL, {0x502C}, pause=7) == [
        Block(start=0x4000, stop=0x4020),
        Block(start=0x5000, stop=0x502C),
        Block(start=0x502C, stop=0x5032),
        Block(start=0x6000, stop=0x604B),
    ]


def test_a_cut_that_no_value_lies_behind_costs_nothing() -> None:
    assert plan(VOLTAGES, {0x5002, 0x502C}, pause=7) == [Block(start=0x5002, stop=0x5008)]


def test_no_request_asks_for_more_than_the_protocol_allows() -> None:
    registers = [
        Register(address=address, key=Quantity.VOLTAGE_L1, form=COUNT)
        for address in range(0x7000, 0x7000 + 200)
    ]
    blocks = plan(registers, (), pause=7)
    assert sorted(block.count for block in blocks) == [75, 125]


def test_nothing_wanted_is_nothing_read() -> None:
    assert plan([], (), pause=7) == []


@given(st.sets(st.sampled_from(ALL)), st.sets(st.sampled_from(STARTS)), pauses)
def test_every_value_is_read_whole_and_no_read_reaches_across_a_cut(
    wanted: set[Register], cuts: set[int], pause: int
) -> None:
    blocks = plan(wanted, cuts, pause=pause)
    assert not any(block.start < cut < block.stop for block in blocks for cut in cuts)
    assert blocks == sorted(blocks, key=lambda block: block.start)
    for register in wanted:
        assert any(
            block.start <= register.address and register.addresses.stop <= block.stop
            for block in blocks
        )


@settings(deadline=None)
@given(
    st.sets(st.sampled_from(ALL), min_size=1, max_size=10),
    st.sets(st.sampled_from(STARTS), max_size=5),
    pauses,
)
def test_no_other_plan_costs_less(wanted: set[Register], cuts: set[int], pause: int) -> None:
    registers = sorted(wanted, key=lambda register: register.address)
    assert cost(plan(registers, cuts, pause=pause), pause) == cheapest(registers, cuts, pause)
