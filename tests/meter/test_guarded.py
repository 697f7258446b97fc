"""A meter that is read over the line, and what of its energies would be published."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from custom_components.klefr.meter import (
    CalculationCode,
    MBusBus,
    Meter,
    ModbusBus,
    Quantity,
    SerialLink,
    WrongMeterError,
    identify,
)
from custom_components.klefr.meter.guarded import GuardedReader
from custom_components.klefr.meter.verdict import Decision, Memory, Moment, Verdict
from simulator import mbus, modbus
from simulator.line import Line
from simulator.meter import VirtualMeter

PORT = "virtual://meter"
FORWARD = Quantity.FORWARD_ACTIVE_ENERGY
REVERSE = Quantity.REVERSE_ACTIVE_ENERGY
TOTAL = Quantity.TOTAL_ACTIVE_ENERGY
INTERVAL = 10  # seconds


def now() -> Moment:
    loop_time = asyncio.get_running_loop().time()
    return Moment(monotonic=loop_time, wall=1_800_000_000 + loop_time)


@pytest.fixture(params=["6934", "6933", "pro1", "pro1-mbus"])
async def virtual_meter(request: pytest.FixtureRequest) -> VirtualMeter:
    """One that counts as its line's time passes."""
    return VirtualMeter(
        model=request.param,
        serial_number="22091039",
        address=1,
        clock=lambda: asyncio.get_running_loop().time(),
    )


@pytest.fixture
async def line(virtual_meter: VirtualMeter) -> AsyncIterator[Line]:
    face = mbus if virtual_meter.model.speaks_mbus else modbus
    async with face.serve(virtual_meter, virtual=PORT) as line:
        yield line


@pytest.fixture
async def meter(line: Line, virtual_meter: VirtualMeter) -> AsyncIterator[Meter]:
    kind = MBusBus if virtual_meter.model.speaks_mbus else ModbusBus
    async with kind(SerialLink(port=PORT)) as bus:
        yield await identify(bus, 1)


@pytest.fixture
def reader(meter: Meter) -> GuardedReader:
    return GuardedReader(meter, Memory(), now)


async def polls(reader: GuardedReader, number: int) -> list[Verdict]:
    """Read the three energies at the usual interval."""
    verdicts = []
    for _ in range(number):
        verdicts.append(await reader.read((FORWARD, REVERSE, TOTAL)))
        await asyncio.sleep(INTERVAL)
    return verdicts


async def test_the_first_reading_is_read_twice_and_then_each_once(
    reader: GuardedReader, line: Line
) -> None:
    line.requests.clear()
    [first] = await polls(reader, 1)
    assert first.decisions[FORWARD] is Decision.CONFIRMED
    asked = len(line.requests)
    line.requests.clear()
    for verdict in await polls(reader, 5):
        assert verdict.decisions[FORWARD] in (Decision.STEADY, Decision.PLAUSIBLE)
    assert len(line.requests) < 5 * asked


async def test_a_second_reading_that_fails_takes_nothing_back(
    reader: GuardedReader, line: Line, virtual_meter: VirtualMeter
) -> None:
    """What was believed in the first one must be heard of, even if another meter answers now."""
    await polls(reader, 2)
    line.requests.clear()
    await polls(reader, 1)
    rest = len(line.requests)

    def be_another(_frame: bytes) -> None:
        nonlocal rest
        rest -= 1
        if rest == 0:
            virtual_meter.serial_number = "22091040"

    virtual_meter.add_energy(l1=1000)
    line.before_answering = be_another
    [verdict] = await polls(reader, 1)
    assert verdict.suspect
    with pytest.raises(WrongMeterError):
        await polls(reader, 1)


@pytest.mark.parametrize("virtual_meter", ["6934"], indirect=True)
async def test_a_code_that_is_misread_once_is_not_believed_later(
    meter: Meter, reader: GuardedReader, virtual_meter: VirtualMeter
) -> None:
    reader.assume_code(CalculationCode.FORWARD)
    await reader.read(meter.quantities)
    virtual_meter.overrides[0x400F] = CalculationCode.REVERSE
    assert (await reader.read(meter.quantities)).suspect
    virtual_meter.overrides.clear()
    # These are read without the code.
    [verdict] = await polls(reader, 1)
    assert not verdict.suspect
    assert verdict.decisions[TOTAL] in (Decision.STEADY, Decision.PLAUSIBLE)


@pytest.mark.parametrize("virtual_meter", ["6934"], indirect=True)
async def test_a_code_that_was_misread_with_the_settings_holds_nothing_for_long(
    reader: GuardedReader, virtual_meter: VirtualMeter
) -> None:
    """With calculation code 10 the phases do not add up, which is looked up if they do not."""
    virtual_meter.calculation_code = CalculationCode.FORWARD_MINUS_REVERSE_NET
    reader.assume_code(CalculationCode.FORWARD)
    for _ in range(4):
        await asyncio.sleep(INTERVAL)
        verdict = await reader.read({FORWARD, REVERSE})
    assert set(verdict.decisions.values()) <= {Decision.STEADY, Decision.PLAUSIBLE}
    assert not verdict.suspect


async def test_a_surprise_is_not_left_alone_for_longer_than_answers_belong_together(
    reader: GuardedReader, line: Line, virtual_meter: VirtualMeter
) -> None:
    [first, second] = await polls(reader, 2)
    assert first.read_again_after is second.read_again_after is None
    # No two answers agree.
    line.before_hearing = lambda _: virtual_meter.add_energy(l1=1000)
    [surprised] = await polls(reader, 1)
    assert surprised.read_again_after == 30


@pytest.mark.parametrize("virtual_meter", ["pro1"], indirect=True)
async def test_a_meter_without_phases_is_checked_by_its_tariffs(
    reader: GuardedReader, virtual_meter: VirtualMeter
) -> None:
    """Its registers of phases hold zeros, which do not add up to anything."""
    [first, *_] = await polls(reader, 3)
    read = {quantity for quantity in first.readings if "_energy" in quantity}
    assert read == {quantity for quantity in read if not quantity.endswith(("_l1", "_l2", "_l3"))}
    before = first.readings[FORWARD]
    # What three phases could have counted meanwhile.
    virtual_meter.overrides[0x600C] = virtual_meter.forward_active_energy + 0.15
    [broken] = await polls(reader, 1)
    assert broken.suspect
    assert broken.readings[FORWARD] == pytest.approx(before, abs=0.05)
    virtual_meter.overrides.clear()
    await polls(reader, 2)
    assert not (await polls(reader, 1))[0].suspect
    assert not reader.memory.not_kept
