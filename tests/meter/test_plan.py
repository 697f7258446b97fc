"""Which registers are read together."""

from hypothesis import given, strategies as st

from custom_components.klefr.meter import Quantity
from custom_components.klefr.meter.modbus.plan import Block, plan
from custom_components.klefr.meter.modbus.registers import REGISTERS

ALL = list(REGISTERS.values())


def test_the_whole_map_takes_three_requests() -> None:
    assert plan(ALL, 125) == [
        Block(address=0x4000, count=32),
        Block(address=0x5000, count=50),
        Block(address=0x6000, count=75),
    ]


def test_nothing_before_the_first_or_behind_the_last_value_is_read() -> None:
    wanted = [REGISTERS[Quantity.VOLTAGE_L2], REGISTERS[Quantity.FREQUENCY]]
    assert plan(wanted, 125) == [Block(address=0x5004, count=6)]


def test_blocks_of_the_map_are_never_read_across() -> None:
    wanted = [REGISTERS[Quantity.SUPPLY_L3], REGISTERS[Quantity.VOLTAGE_L1]]
    assert plan(wanted, 125) == [
        Block(address=0x401E, count=1),
        Block(address=0x5002, count=2),
    ]


def test_nothing_wanted_is_nothing_read() -> None:
    assert plan([], 125) == []


@given(st.sets(st.sampled_from(ALL)), st.integers(2, 125))
def test_every_value_is_read_whole_and_no_block_is_too_long(
    wanted: set[object], longest: int
) -> None:
    registers = [register for register in ALL if register in wanted]
    blocks = plan(registers, longest)
    assert all(block.count <= longest for block in blocks)
    for register in registers:
        assert any(
            block.address <= register.address
            and register.addresses.stop <= block.address + block.count
            for block in blocks
        )


@given(st.sets(st.sampled_from(ALL)))
def test_no_block_could_have_been_left_out(wanted: set[object]) -> None:
    registers = [register for register in ALL if register in wanted]
    assert len(plan(registers, 125)) == len({register.address >> 12 for register in registers})
