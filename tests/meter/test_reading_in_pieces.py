"""Meters that cannot give a block of their map in one piece."""

import asyncio
import json
from typing import Any

import pytest

from custom_components.klefr.meter import (
    GarbledAnswerError,
    ModbusBus,
    ModbusMeter,
    NoAnswerError,
    Quantity,
    RefusedError,
)
from simulator.line import Line
from simulator.meter import LongRead, VirtualMeter

# Across this one a PRO380 sold under another brand falls silent, whatever the length.
CUT = 0x502C


def reads(line: Line) -> list[tuple[int, int]]:
    """The first register and the number of registers of each read since the last look."""
    found = [
        (int.from_bytes(request[2:4]), int.from_bytes(request[4:6])) for request in line.requests
    ]
    line.requests.clear()
    return found


@pytest.mark.parametrize("long_read", LongRead)
async def test_a_read_that_is_too_long_is_cut_and_the_cuts_remembered(
    bus: ModbusBus, virtual_meter: VirtualMeter, line: Line, long_read: LongRead
) -> None:
    meter = await ModbusMeter.identify(bus, 1)
    expected = await meter.read(meter.quantities)
    virtual_meter.max_read_count = 20
    virtual_meter.long_read = long_read
    strict = await ModbusMeter.identify(bus, 1)
    assert await strict.read(strict.quantities) == expected
    reads(line)
    assert await strict.read(strict.quantities) == expected
    again = reads(line)
    assert max(count for _, count in again) <= 20
    # 2, 13, 48 and 75 registers, and no value is torn. Who it is was read in two pieces, and a
    # cut between them is kept.
    assert len(again) == 1 + 2 + 3 + 4


async def test_an_address_that_no_read_may_reach_across_is_found(
    bus: ModbusBus, virtual_meter: VirtualMeter, line: Line
) -> None:
    meter = await ModbusMeter.identify(bus, 1)
    expected = await meter.read(meter.quantities)
    virtual_meter.silent_across = {CUT}
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await meter.read(meter.quantities) == expected
    assert loop.time() - began < 15
    assert meter.memory["cuts"] == [CUT]
    reads(line)
    assert await meter.read(meter.quantities) == expected
    assert reads(line) == [
        (0x4000, 2),
        (0x4012, 13),
        (0x5002, 0x2A),
        (CUT, 6),
        (0x6000, 75),
    ]


@pytest.mark.parametrize("cuts", [{0x5002}, {0x5030}, {0x4002, 0x401F}, {0x5004, 0x6002, 0x6049}])
async def test_cuts_are_found_wherever_they_are(
    bus: ModbusBus, virtual_meter: VirtualMeter, line: Line, cuts: set[int]
) -> None:
    virtual_meter.silent_across = cuts
    meter = await ModbusMeter.identify(bus, 1)
    await meter.dump()
    assert meter.memory["cuts"] == sorted(cuts)
    reads(line)
    await meter.dump()
    # The serial number, and the map.
    assert len(reads(line)) == 1 + 3 + len(cuts)


async def test_what_was_learned_is_used_the_next_time(
    bus: ModbusBus, virtual_meter: VirtualMeter, line: Line
) -> None:
    virtual_meter.silent_across = {0x4005, CUT}
    meter = await ModbusMeter.identify(bus, 1)
    await meter.read(meter.quantities)
    # As a file keeps it.
    memory = json.loads(json.dumps(meter.memory))
    reads(line)
    meter = await ModbusMeter.identify(bus, 1, memory=memory)
    await meter.read(meter.quantities)
    # The serial number, the rest of who it is, its currents once more, and the map.
    assert len(reads(line)) == 1 + 2 + 3 + 5


async def test_other_firmware_is_read_in_one_piece_again(
    bus: ModbusBus, virtual_meter: VirtualMeter, line: Line
) -> None:
    virtual_meter.silent_across = {0x4005, CUT}
    meter = await ModbusMeter.identify(bus, 1)
    await meter.read(meter.quantities)
    virtual_meter.silent_across = set()
    virtual_meter.overrides[0x4007] = 2.19
    meter = await ModbusMeter.identify(bus, 1, memory=meter.memory)
    reads(line)
    await meter.read(meter.quantities)
    assert len(reads(line)) == 4
    assert meter.memory == {"firmware_version": "2.19", "cuts": []}


@pytest.mark.parametrize(
    "memory",
    [{"cuts": 5}, {"cuts": [[1]]}, {"cuts": ["20524", None, 0x502D]}, {"firmware_version": 2.18}],
)
async def test_a_memory_that_makes_no_sense_is_none(
    bus: ModbusBus, line: Line, memory: dict[str, Any]
) -> None:
    meter = await ModbusMeter.identify(bus, 1, memory={"firmware_version": "2.18", **memory})
    reads(line)
    await meter.read(meter.quantities)
    assert len(reads(line)) == 4


async def test_the_silence_of_a_whole_meter_teaches_nothing(
    meter: ModbusMeter, virtual_meter: VirtualMeter, line: Line
) -> None:
    virtual_meter.powered = False
    with pytest.raises(NoAnswerError):
        await meter.read(meter.quantities)
    virtual_meter.powered = True
    reads(line)
    await meter.read(meter.quantities)
    # The serial number first, to see whether it is back. It is wanted anyway.
    assert len(reads(line)) == 4
    await meter.read(meter.quantities)
    assert len(reads(line)) == 4
    assert meter.memory["cuts"] == []


async def test_a_meter_that_falls_silent_while_it_is_tried_teaches_nothing(
    meter: ModbusMeter, virtual_meter: VirtualMeter, line: Line
) -> None:
    virtual_meter.silent_across = {CUT}

    def lose_power(_frame: bytes) -> None:
        if len(line.requests) == 8:
            virtual_meter.powered = False

    reads(line)
    line.before_hearing = lose_power
    with pytest.raises(NoAnswerError):
        await meter.read(meter.quantities)
    line.before_hearing = None
    virtual_meter.powered = True
    assert meter.memory["cuts"] == []


async def test_noise_teaches_nothing(meter: ModbusMeter, line: Line) -> None:
    line.garble = 1.0
    with pytest.raises(GarbledAnswerError):
        await meter.read(meter.quantities)
    line.garble = 0.0
    reads(line)
    await meter.read(meter.quantities)
    assert len(reads(line)) == 4
    assert meter.memory["cuts"] == []


async def test_a_value_that_is_refused_by_itself_is_an_error(
    meter: ModbusMeter, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.max_read_count = 0
    with pytest.raises(RefusedError):
        await meter.read({Quantity.VOLTAGE_L1})
