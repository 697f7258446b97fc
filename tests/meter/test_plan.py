"""Which registers are read together."""

from hypothesis import given, strategies as st

from custom_components.klefr.meter import Quantity
from custom_components.klefr.meter.modbus.plan import Block, plan
from custom_components.klefr.meter.modbus.registers import REGISTERS

ALL = list(REGISTERS.values())
STARTS = [register.address for register in ALL]


def test_the_whole_map_takes_three_requests() -> None:
    assert plan(ALL, ()) == [
        Block(start=0x4000, stop=0x4020),
        Block(start=0x5000, stop=0x5032),
        Block(start=0x6000, stop=0x604B),
    ]


def test_nothing_before_the_first_or_behind_the_last_value_is_read() -> None:
    wanted = [REGISTERS[Quantity.VOLTAGE_L2], REGISTERS[Quantity.FREQUENCY]]
    assert plan(wanted, ()) == [Block(start=0x5004, stop=0x500A)]


def test_blocks_of_the_map_are_never_read_across() -> None:
    wanted = [REGISTERS[Quantity.SUPPLY_L3], REGISTERS[Quantity.VOLTAGE_L1]]
    assert plan(wanted, ()) == [
        Block(start=0x401E, stop=0x401F),
        Block(start=0x5002, stop=0x5004),
    ]


def test_a_cut_begins_a_new_block() -> None:
    assert plan(ALL, {0x502C}) == [
        Block(start=0x4000, stop=0x4020),
        Block(start=0x5000, stop=0x502C),
        Block(start=0x502C, stop=0x5032),
        Block(start=0x6000, stop=0x604B),
    ]


def test_a_cut_that_no_value_lies_behind_costs_nothing() -> None:
    wanted = [REGISTERS[Quantity.VOLTAGE_L1], REGISTERS[Quantity.FREQUENCY]]
    assert plan(wanted, {0x5002, 0x502C}) == [Block(start=0x5002, stop=0x500A)]


def test_nothing_wanted_is_nothing_read() -> None:
    assert plan([], ()) == []


@given(st.sets(st.sampled_from(ALL)), st.sets(st.sampled_from(STARTS)))
def test_every_value_is_read_whole_and_no_read_reaches_across_a_cut(
    wanted: set[object], cuts: set[int]
) -> None:
    registers = [register for register in ALL if register in wanted]
    blocks = plan(registers, cuts)
    assert not any(block.start < cut < block.stop for block in blocks for cut in cuts)
    for register in registers:
        assert any(
            block.start <= register.address and register.addresses.stop <= block.stop
            for block in blocks
        )


@given(st.sets(st.sampled_from(ALL)), st.sets(st.sampled_from(STARTS)))
def test_no_block_could_have_been_left_out(wanted: set[object], cuts: set[int]) -> None:
    registers = [register for register in ALL if register in wanted]
    pieces = {
        (register.address >> 12, sum(cut <= register.address for cut in cuts))
        for register in registers
    }
    assert len(plan(registers, cuts)) == len(pieces)
