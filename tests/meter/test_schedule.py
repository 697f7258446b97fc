"""What is read when."""

import asyncio
from collections.abc import Collection
from itertools import pairwise

from hypothesis import given, strategies as st
import pytest

from custom_components.klefr.meter import (
    GuardedReader,
    Memory,
    ModbusBus,
    ModbusMeter,
    Moment,
    Quantity,
    Setting,
)
from custom_components.klefr.meter.family import QUANTITIES
from custom_components.klefr.meter.modbus.meter import READABLE, SETTINGS
from custom_components.klefr.meter.relations import GUARDED, companions, relations
from custom_components.klefr.meter.schedule import (
    BUSY,
    FREE,
    MOST,
    PACES,
    ROOM,
    Demand,
    Load,
    Pace,
    Task,
    Timetable,
    moment,
    task,
)
from custom_components.klefr.sensor import SENSORS

ALL = READABLE & QUANTITIES[3]
ENABLED = frozenset(
    Quantity(description.key)
    for description in SENSORS
    if description.entity_registry_enabled_default and description.key in ALL
)
STATUS = frozenset(quantity for quantity in Quantity if quantity.endswith(("_ok", "supply_l1")))

intervals = st.integers(5, 3600)
timetables = st.sampled_from([FREE, BUSY])


def tasks(timetable: Timetable, interval: float, polls: int) -> list[Task]:
    return [task(timetable, interval, number) for number in range(polls)]


def longest(interval: float, polls: Collection[Task], pace: Pace) -> float:
    """Return the longest time between two polls that read what has this pace."""
    numbers = [number for number, each in enumerate(polls) if pace in each.paces]
    return max(second - first for first, second in pairwise(numbers)) * interval


def test_every_quantity_has_a_pace() -> None:
    assert PACES.keys() == set(Quantity)
    assert {quantity for quantity, pace in PACES.items() if pace is Pace.LIVE} == {
        quantity
        for quantity in Quantity
        if quantity.startswith(("voltage", "current", "active_power", "reactive_p", "apparent_p"))
        and "direction" not in quantity
    }
    counted = {quantity for quantity, pace in PACES.items() if pace is Pace.COUNTED}
    assert counted == (GUARDED - {Quantity.RESETTABLE_COUNTER}) | {
        quantity for quantity in Quantity if quantity.startswith(("frequency", "power_factor"))
    }


@given(timetables, intervals)
def test_live_values_are_read_with_every_poll(timetable: Timetable, interval: int) -> None:
    assert all(Pace.LIVE in each.paces for each in tasks(timetable, interval, 100))


@given(intervals)
def test_on_a_free_bus_energies_and_the_serial_number_are_read_with_every_poll(
    interval: int,
) -> None:
    assert all(Pace.COUNTED in each.paces and each.identified for each in tasks(FREE, interval, 99))


@given(timetables, intervals)
def test_all_else_is_read_in_time(timetable: Timetable, interval: int) -> None:
    polls = tasks(timetable, interval, 200)
    counted, state = (60, 300) if timetable is BUSY else (interval, 60)
    assert longest(interval, polls, Pace.COUNTED) <= max(counted, interval)
    assert longest(interval, polls, Pace.STATE) <= max(state, interval)
    assert longest(interval, polls, Pace.COUNTERS) <= max(state, interval)


@given(intervals)
def test_on_a_busy_bus_only_live_values_are_read_without_the_serial_number(interval: int) -> None:
    for each in tasks(BUSY, interval, 200):
        assert each.identified is (each.paces != {Pace.LIVE})


@given(timetables, intervals)
def test_counters_are_read_when_the_energies_are_that_they_are_checked_with(
    timetable: Timetable, interval: int
) -> None:
    assert all(
        Pace.COUNTED in each.paces
        for each in tasks(timetable, interval, 200)
        if Pace.COUNTERS in each.paces
    )


def test_on_a_busy_bus_no_poll_reads_the_energies_and_the_state() -> None:
    polls = tasks(BUSY, 10, 60)
    assert not [each for each in polls if {Pace.COUNTED, Pace.STATE} <= each.paces]
    assert sum(Pace.STATE in each.paces for each in polls) == 2
    assert sum(Pace.COUNTERS in each.paces for each in polls) == 2


@given(intervals, st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_share_is_what_the_polls_take_in_the_long_run(
    interval: int, live: float, rest: float
) -> None:
    def seconds(each: Task) -> float:
        return live + rest * (len(each.paces) - 1)

    demand = Demand(interval=interval, seconds=seconds)
    for timetable, said in ((FREE, demand.free), (BUSY, demand.busy)):
        polls = tasks(timetable, interval, 60 * 60)
        taken = sum(map(seconds, polls)) / (len(polls) * interval)
        assert said == pytest.approx(taken, rel=0.02)


def needs(seconds: float, interval: float = 10) -> Demand:
    """Return a demand for so many seconds each time, a fifth of that for live values alone."""
    return Demand(
        interval=interval,
        seconds=lambda each: seconds / (1 if Pace.COUNTED in each.paces else 5),
    )


def test_a_bus_has_room_up_to_a_share() -> None:
    load = Load()
    load.demands[1] = needs(10 * ROOM / 2)
    assert (load.timetable, load.share()) == (FREE, ROOM / 2)
    load.demands[2] = needs(10 * ROOM / 2)
    assert (load.timetable, load.share()) == (FREE, ROOM)
    load.demands[3] = needs(0.01)
    assert load.timetable is BUSY
    # With one poll of six as long as before.
    assert load.share() == pytest.approx((ROOM + 0.001) * (1 + 5 / 5) / 6)
    load.leave(3)
    assert load.timetable is FREE


def test_the_shortest_interval_that_works_is_known_before() -> None:
    load = Load()
    for meter in range(10):
        load.demands[meter] = needs(5, interval=30)
    assert load.share() == pytest.approx(10 * 5 / 30 * (1 + 1 / 5) / 2)
    shortest = load.shortest(load.demands, range(5, 3601))
    assert shortest is not None
    for interval, works in ((shortest - 1, False), (shortest, True)):
        changed = {meter: demand.at(interval) for meter, demand in load.demands.items()}
        assert (load.share(changed) <= MOST) is works
    # The others leave no room for this one, however seldom it is read.
    assert load.shortest((0,), range(5, 3601)) is None


@pytest.mark.parametrize("meters", [1, 2, 10, 30, 60])
def test_meters_are_spread_over_the_interval(meters: int) -> None:
    load = Load()
    moments = sorted(moment(load.join(meter)) for meter in range(meters))
    gaps = [b - a for a, b in pairwise([*moments, moments[0] + 1])]
    assert min(gaps) > 0.35 / meters
    assert max(gaps) <= 2 / meters


def test_a_place_that_was_left_is_given_to_the_next() -> None:
    load = Load()
    assert [load.join(meter) for meter in "abc"] == [0, 1, 2]
    load.leave("b")
    assert load.join("d") == 1
    assert load.join("e") == 3


async def read(bus: ModbusBus, each: Task, shown: frozenset[Quantity]) -> set[Quantity]:
    """Return what a poll reads of what is guarded."""
    meter = await ModbusMeter.identify(bus, 1)
    wanted = frozenset(quantity for quantity in shown if PACES[quantity] in each.paces)
    reading = await meter.read_along(
        companions(wanted) & meter.quantities, identified=each.identified
    )
    return set(GUARDED & reading.values.keys())


@pytest.mark.parametrize("timetable", [FREE, BUSY])
@pytest.mark.parametrize("shown", [ENABLED | STATUS, ALL])
async def test_no_poll_loses_a_check(
    bus: ModbusBus, timetable: Timetable, shown: frozenset[Quantity]
) -> None:
    """What was read of the energies when all lay between the first and the last was read."""
    for each in dict.fromkeys(tasks(timetable, 10, 30)):
        due = {quantity for quantity in shown & GUARDED if PACES[quantity] in each.paces}
        found = await read(bus, each, shown)
        for relation in relations(None):
            whole = relation.whole
            if whole in due and whole not in relation.formulas[0] and "total" not in whole:
                assert any(formula.keys() <= found for formula in relation.formulas), relation.key
        if Quantity.RESETTABLE_COUNTER in due:
            assert Quantity.FORWARD_ACTIVE_ENERGY in found


async def test_a_total_is_read_with_the_code_that_it_is_checked_with(meter: ModbusMeter) -> None:
    reader = GuardedReader(meter, Memory(), lambda: Moment(monotonic=0.0, wall=0.0))
    await reader.read({Quantity.FORWARD_ACTIVE_ENERGY})
    await reader.read({Quantity.FORWARD_ACTIVE_ENERGY})
    assert not reader.settings
    await reader.read({Quantity.TOTAL_ACTIVE_ENERGY})
    assert reader.settings.keys() == {Setting.CALCULATION_CODE}


async def test_the_bus_needs_as_long_as_is_said_before(meter: ModbusMeter) -> None:
    loop = asyncio.get_running_loop()
    for quantities in ({Quantity.VOLTAGE_L1}, ENABLED, ALL):
        for settings in ((), SETTINGS):
            said = meter.line_time(quantities, settings=settings)
            began = loop.time()
            await meter.read_along(quantities, settings=settings)
            assert loop.time() - began == pytest.approx(said, rel=0.02)
