"""No wrong energy is let through, and no right one is held for ever."""

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
import json
from random import Random
import struct
from typing import Any

from hypothesis import given, settings, strategies as st
import pytest

from custom_components.klefr.meter.guard import judge, limits_of
from custom_components.klefr.meter.model import CalculationCode, Identity, Model, Quantity
from custom_components.klefr.meter.relations import CODE_WEIGHTS, COUNTER_KEY, GUARDED
from custom_components.klefr.meter.verdict import Decision, Limits, Memory, Moment

from .energies import (
    COUNTER,
    FORWARD,
    OVER_MBUS,
    OVER_MODBUS,
    REVERSE,
    TOTAL,
    CountingMeter,
    Damage,
    Reader,
    Values,
    started,
)

FORWARD_T1 = Quantity.FORWARD_ACTIVE_ENERGY_T1
FORWARD_T2 = Quantity.FORWARD_ACTIVE_ENERGY_T2
FORWARD_L1 = Quantity.FORWARD_ACTIVE_ENERGY_L1
REVERSE_T1 = Quantity.REVERSE_ACTIVE_ENERGY_T1
REVERSE_L3 = Quantity.REVERSE_ACTIVE_ENERGY_L3
TOTAL_T1 = Quantity.TOTAL_ACTIVE_ENERGY_T1
REACTIVE = Quantity.REVERSE_REACTIVE_ENERGY

TOTALS = frozenset(quantity for quantity in OVER_MODBUS if quantity.startswith("total"))


def moved(**by: float) -> Damage:
    """Move values by a difference in kWh, as far as they were read."""
    return lambda values: {
        quantity: round((value or 0) + by[quantity], 2) if quantity in by else value
        for quantity, value in values.items()
    }


def put(other: float | None, *quantities: Quantity) -> Damage:
    """Let values, or all of them, be another."""
    return lambda values: {
        quantity: other if not quantities or quantity in quantities else value
        for quantity, value in values.items()
    }


def swapped(one: Quantity, other: Quantity) -> Damage:
    return lambda values: {**values, one: values[other], other: values[one]}


def halved(values: Values) -> Values:
    return {quantity: round((value or 0) / 2, 2) for quantity, value in values.items()}


def with_words_swapped(values: Values) -> Values:
    """Take the low word of each float for the high one."""
    swapped_values = {}
    for quantity, value in values.items():
        data = struct.pack(">f", value)
        [float32] = struct.unpack(">f", data[2:] + data[:2])
        swapped_values[quantity] = round(float32, 2) if abs(float32) < 1e8 else None
    return swapped_values


def is_true(reader: Reader) -> bool:
    return reader.published == reader.truth


# At once, or not


@pytest.mark.parametrize("code", CalculationCode)
@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("cuts_off", [True, False])
@pytest.mark.parametrize("quantities", [OVER_MODBUS, OVER_MBUS])
def test_a_meter_that_just_counts_is_never_read_again(
    code: CalculationCode, told: bool, cuts_off: bool, quantities: frozenset[Quantity]
) -> None:
    meter = CountingMeter(code=code, cuts_off=cuts_off).has_counted(2)
    if code is CalculationCode.FORWARD_MINUS_REVERSE_NET and not told:
        quantities = OVER_MBUS  # Its phases do not add up.
    reader = started(meter, quantities=quantities, knows_code=told)
    for load in ((0.2, 0.1, 0.4), (30, 55, 41), (0, 0, 0), (-9, 3, 0.5), (-3, -3, -3)):
        reader.load = load
        for tariff in ("_t1", "_t2"):
            meter.tariff = tariff
            for _ in range(12):
                verdict = reader.poll()
                assert verdict.read_again_after is None
                assert set(verdict.decisions.values()) <= {Decision.STEADY, Decision.PLAUSIBLE}
                assert is_true(reader)
    assert not reader.jumps
    assert not reader.memory.suspect_readings


def test_what_is_no_energy_passes() -> None:
    verdict = judge(
        Memory(),
        {Quantity.VOLTAGE_L1: 231.2, Quantity.STATUS_OK: False, Quantity.FREQUENCY: None},
        now=Moment(monotonic=0, wall=0),
        limits=Limits(at_once=60, confirmed=60),
        code=None,
    )
    assert verdict.readings == {
        Quantity.VOLTAGE_L1: 231.2,
        Quantity.STATUS_OK: False,
        Quantity.FREQUENCY: None,
    }
    assert not verdict.decisions
    assert verdict.read_again_after is None


@pytest.mark.parametrize("quantity", [FORWARD, REVERSE, TOTAL, FORWARD_L1, COUNTER, REACTIVE])
@pytest.mark.parametrize("seconds", [1, 10, 600, 86400])
def test_more_than_the_meter_carries_is_held(quantity: Quantity, seconds: float) -> None:
    phases = 1 if quantity == FORWARD_L1 else 3
    most = phases * 60 * (seconds + 2) / 3600 + 0.01
    for by, expected in (
        (most - 0.01, Decision.UNCONFIRMED),  # Nothing but the next answer covers it.
        (most + 0.02, Decision.JUMPED),
        (-0.01, Decision.UNCONFIRMED if quantity == TOTAL else Decision.FALLEN),
        (-most + 0.01, Decision.UNCONFIRMED if quantity == TOTAL else Decision.FALLEN),
        (-most - 0.02, Decision.JUMPED if quantity == TOTAL else Decision.FALLEN),
    ):
        reader = started(quantities=frozenset({quantity}), load=(0, 0, 0))
        reader.wait(seconds)
        before = reader.published
        verdict = reader.answer(moved(**{quantity: by}))
        assert verdict.decisions == {quantity: expected}
        assert verdict.readings == before
        assert verdict.read_again_after == 0
        assert verdict.suspect is (expected is not Decision.UNCONFIRMED)


SURPRISES: list[tuple[str, Damage, dict[Quantity, Decision]]] = [
    ("all zero", put(0.0), {FORWARD: Decision.FALLEN, TOTAL: Decision.JUMPED}),
    ("one zero", put(0.0, FORWARD), {FORWARD: Decision.FALLEN, FORWARD_T1: Decision.STEADY}),
    ("nothing", put(None), {FORWARD: Decision.MISSING, COUNTER: Decision.MISSING}),
    ("one nothing", put(None, REVERSE), {REVERSE: Decision.MISSING, FORWARD: Decision.STEADY}),
    ("huge", put(9e7, REVERSE), {REVERSE: Decision.JUMPED}),
    ("a little less", moved(forward_active_energy=-0.05), {FORWARD: Decision.FALLEN}),
    (
        "a little more",
        moved(forward_active_energy=0.05),
        {
            FORWARD: Decision.INCONSISTENT,
            FORWARD_T1: Decision.INCONSISTENT,
            FORWARD_L1: Decision.INCONSISTENT,
            TOTAL: Decision.INCONSISTENT,
            REVERSE: Decision.STEADY,
            REACTIVE: Decision.STEADY,
        },
    ),
    (
        "a tariff more",
        moved(reverse_active_energy_t1=0.03),
        {REVERSE_T1: Decision.INCONSISTENT, FORWARD: Decision.STEADY},
    ),
    (
        "a whole and a tariff alike",
        moved(reverse_active_energy=0.05, reverse_active_energy_t1=0.05),
        {REVERSE: Decision.INCONSISTENT, REVERSE_L3: Decision.INCONSISTENT},
    ),
    (
        "a whole and a phase alike",
        moved(reverse_active_energy=0.05, reverse_active_energy_l3=0.05),
        # The phases add up to it, but it breaks another relation.
        {REVERSE: Decision.INCONSISTENT, REVERSE_L3: Decision.INCONSISTENT},
    ),
    (
        "the counter alone",
        moved(**{COUNTER: 0.05}),
        {COUNTER: Decision.INCONSISTENT, FORWARD: Decision.STEADY},
    ),
    (
        "one nothing and one a little more",
        lambda values: put(None, REVERSE_T1)(moved(reverse_active_energy=0.2)(values)),
        {REVERSE_T1: Decision.MISSING, REVERSE: Decision.INCONSISTENT},
    ),
    (
        "one much more and one a little more",
        moved(reverse_active_energy_t1=500, reverse_active_energy=0.2),
        {REVERSE_T1: Decision.JUMPED, REVERSE: Decision.INCONSISTENT},
    ),
    ("halved", halved, {FORWARD: Decision.FALLEN, REACTIVE: Decision.FALLEN}),
    ("two swapped", swapped(FORWARD, REVERSE), {TOTAL: Decision.STEADY}),
    ("the words swapped", with_words_swapped, {}),
]


@pytest.mark.parametrize(
    ("what", "damage", "expected"), SURPRISES, ids=[row[0] for row in SURPRISES]
)
def test_a_surprise_is_held_and_read_again_at_once(
    what: str, damage: Damage, expected: dict[Quantity, Decision]
) -> None:
    reader = started(load=(0, 0, 0))
    before = reader.published
    reader.wait(10)
    verdict = reader.answer(damage)
    assert {quantity: verdict.decisions[quantity] for quantity in expected} == expected
    assert verdict.readings == before
    assert verdict.read_again_after == 0
    assert verdict.suspect is (what != "nothing")
    assert reader.memory.suspect_readings == verdict.suspect
    verdict = reader.answer()
    assert set(verdict.decisions.values()) == {Decision.STEADY}
    assert verdict.read_again_after is None


@pytest.mark.parametrize("damage", [row[1] for row in SURPRISES], ids=[row[0] for row in SURPRISES])
@pytest.mark.parametrize("quantities", [OVER_MODBUS, OVER_MBUS])
def test_nothing_wrong_is_published_however_often_it_is_said_and_the_truth_is_back_at_once(
    damage: Damage, quantities: frozenset[Quantity]
) -> None:
    # With code 1 nothing but its tariffs checks reverse energy over M-Bus.
    meter = CountingMeter(code=CalculationCode.FORWARD_PLUS_REVERSE).has_counted(1)
    reader = started(meter, quantities=quantities)
    for answers in range(5):
        before = reader.truth
        for _ in range(answers):
            reader.poll(damage, damage)
            for quantity, true in reader.truth.items():
                least, most = sorted((before[quantity] or 0, true or 0))
                assert least <= (reader.published[quantity] or 0) <= most
        reader.poll()
        assert is_true(reader)
    assert not reader.jumps


def test_what_fell_does_not_hold_what_others_prove() -> None:
    reader = started()
    verdict = reader.poll(put(0.0, FORWARD), put(0.0, FORWARD))
    held = {
        quantity for quantity, value in reader.truth.items() if reader.published[quantity] != value
    }
    assert verdict.decisions[FORWARD] is Decision.FALLEN
    assert verdict.decisions[FORWARD_T1] is Decision.STEADY
    assert held <= {FORWARD, COUNTER}


@pytest.mark.parametrize(("down", "up"), [((-30, -3, 9), (5, 5, 5)), ((5, 5, 5), (-20, -20, 0))])
def test_a_balance_may_fall(down: tuple[float, ...], up: tuple[float, ...]) -> None:
    meter = CountingMeter(code=CalculationCode.FORWARD_MINUS_REVERSE).has_counted(3)
    reader = started(meter)
    for load in (down, up) * 5:
        reader.load = load  # type: ignore[assignment]
        verdict = reader.poll()
        assert is_true(reader)
        assert verdict.read_again_after is None


# A second answer


def test_the_first_reading_ever_takes_two_answers() -> None:
    reader = Reader(meter=CountingMeter().has_counted(1))
    verdict = reader.answer()
    assert set(verdict.decisions.values()) == {Decision.UNCONFIRMED}
    assert set(verdict.readings.values()) == {None}
    assert verdict.read_again_after == 0
    assert not verdict.suspect
    reader.wait(1)
    verdict = reader.answer()
    assert set(verdict.decisions.values()) == {Decision.CONFIRMED}
    assert {q: v for q, v in verdict.readings.items() if q != COUNTER} == {
        q: v for q, v in reader.truth.items() if q != COUNTER
    }
    assert verdict.read_again_after is None
    assert not verdict.jumps


@pytest.mark.parametrize("damage", [row[1] for row in SURPRISES], ids=[row[0] for row in SURPRISES])
def test_a_damaged_first_answer_is_not_confirmed(damage: Damage) -> None:
    for damages in ((damage, None), (None, damage)):
        reader = Reader(meter=CountingMeter().has_counted(1))
        reader.poll(*damages)
        assert all(
            reader.published[quantity] in (None, value) for quantity, value in reader.truth.items()
        )
        for _ in range(2):
            reader.poll()
        assert is_true(reader)


@pytest.mark.parametrize("quantity", [FORWARD, TOTAL, FORWARD_L1])
def test_what_nothing_covers_is_the_earlier_of_two_answers(quantity: Quantity) -> None:
    reader = started(quantities=frozenset({quantity}), load=(9, 9, 9))
    for _ in range(20):
        reader.wait(10)
        first = reader.truth
        verdict = reader.answer()
        assert verdict.decisions[quantity] is Decision.UNCONFIRMED
        reader.wait(0.2)
        # Damage of the later answer does not matter, if it is near enough to agree.
        verdict = reader.answer(moved(**{quantity: 0.02}))
        assert verdict.decisions[quantity] is Decision.CONFIRMED
        assert verdict.readings == first
        assert verdict.read_again_after == 0
        assert not verdict.suspect
        reader.poll()
        reader.poll(after=0)
        assert is_true(reader)


@pytest.mark.parametrize("quantity", [FORWARD, TOTAL])
def test_damage_of_what_nothing_covers_is_not_confirmed(quantity: Quantity) -> None:
    reader = started(quantities=frozenset({quantity}), load=(0, 0, 0))
    for by in (0.02, 0.05, -0.05, 1, 1000):
        reader.poll(moved(**{quantity: by}))
        assert is_true(reader)
        reader.poll(None, moved(**{quantity: by}))
        assert is_true(reader)


@pytest.mark.parametrize("down", [10, 3600, 86400 * 30])
@pytest.mark.parametrize("clock", [0, 3600, -3600])
def test_the_first_reading_after_a_start_takes_two_answers(down: float, clock: float) -> None:
    reader = started()
    reader.restart(down=down, clock=clock)
    verdict = reader.answer()
    assert Decision.UNCONFIRMED in set(verdict.decisions.values())
    assert set(verdict.readings.values()) == {None}
    reader.poll(after=0)
    assert is_true(reader)
    assert not reader.jumps


def test_what_was_stored_is_not_published_before_it_is_confirmed() -> None:
    """More may have been published after it was stored."""
    reader = started()
    reader.restart()
    verdict = reader.poll(put(0.0), put(0.0))
    assert set(verdict.readings.values()) == {None}
    reader.poll(put(None), put(None))
    assert set(reader.published.values()) == {None}


# Surprises that stay


@pytest.mark.parametrize("interval", [5, 10, 27, 60, 600])
def test_a_cleared_meter_is_believed_within_three_minutes(interval: float) -> None:
    reader = started()
    for _ in range(3):
        reader.poll(after=interval)
    before = reader.published
    reader.wait(interval / 2)
    reader.meter.clear()
    reader.wait(interval / 2)
    since = reader.monotonic
    verdict = reader.answer()
    while not reader.jumps:
        assert verdict.readings == before
        assert verdict.suspect
        assert verdict.read_again_after is not None
        reader.wait(max(min(verdict.read_again_after, interval), 0.2))
        verdict = reader.answer()
        assert reader.monotonic - since <= 180
    assert reader.monotonic - since >= 120
    assert reader.answers >= 5
    assert {**verdict.readings, COUNTER: 0} == {**reader.truth, COUNTER: 0}
    jump = next(jump for jump in reader.jumps if jump.quantity == FORWARD)
    assert jump.before == before[FORWARD]
    assert jump.after == verdict.readings[FORWARD]
    # It has counted from zero.
    assert 0 < jump.consumed == jump.after
    assert jump.wall == reader.wall
    assert jump.reason is Decision.PERSISTENT
    reader.poll()
    assert is_true(reader)
    reader.restart()
    reader.poll()
    assert is_true(reader)


@pytest.mark.parametrize("seconds", [1, 10, 35, 60, 110])
@pytest.mark.parametrize("interval", [5, 10, 30])
def test_zeros_after_power_up_never_get_through(seconds: float, interval: float) -> None:
    reader = started()
    for _ in range(5):
        end = reader.monotonic + seconds
        while reader.monotonic + interval < end:
            before = reader.published
            reader.poll(put(0.0), put(0.0), after=interval)
            assert reader.published == before
        reader.poll(after=interval)
        assert is_true(reader)
    assert not reader.jumps


def test_zeros_on_both_sides_of_a_silence_are_two_surprises() -> None:
    reader = started()
    for _ in range(10):
        for _ in range(6):
            reader.poll(put(0.0), put(0.0))
        reader.wait(70)
    reader.poll()
    assert is_true(reader)
    assert not reader.jumps


def test_a_surprise_that_goes_away_for_once_starts_anew() -> None:
    reader = started()
    for _ in range(10):
        for _ in range(11):
            reader.poll(put(0.0), put(0.0))
        reader.poll()
    assert is_true(reader)
    assert not reader.jumps


def test_another_surprise_starts_anew() -> None:
    reader = started()
    for _ in range(5):
        for damage in (put(0.0), halved):
            for _ in range(8):
                reader.poll(damage, damage)
    assert not reader.jumps


def test_damage_that_is_not_repeated_does_not_start_a_surprise_anew() -> None:
    reader = started()
    reader.poll()
    reader.meter.clear()
    damages = (halved, with_words_swapped, put(None), moved(forward_active_energy=7))
    for number in range(17):
        reader.poll(damages[number % 4], None)
    assert {jump.quantity for jump in reader.jumps} == GUARDED
    reader.poll()
    assert is_true(reader)


def test_damage_is_not_the_beginning_of_a_surprise_that_it_looks_like() -> None:
    reader = started()
    reader.poll()
    reader.poll(put(None, TOTAL_T1), put(0.0, TOTAL_T1), after=1)
    # Then the meter starts, for nearly two minutes.
    for after in (10, 25, 25, 25, 25):
        reader.poll(put(0.0), put(0.0), after=after)
        assert not reader.jumps
    for after in (5, 5):
        reader.poll(put(0.0), put(0.0), after=after)
        assert not reader.jumps
    reader.poll()
    assert is_true(reader)


def test_a_return_to_what_is_plausible_contradicts_a_surprise_even_in_a_damaged_answer() -> None:
    reader = started()
    reader.poll()
    for _ in range(3):
        reader.poll(put(0.0), put(0.0))
    # Reverse energy is what it should be, though nothing shows that.
    damage = put(None, REVERSE_T1, TOTAL_T1)
    assert reader.poll(damage, put(0.0)).suspect
    for _ in range(11):
        reader.poll(put(0.0), put(0.0))
        assert REVERSE not in {jump.quantity for jump in reader.jumps}


@pytest.mark.parametrize(("by", "jumps"), [(0.01, 0), (0.04, 0), (0.05, 1)])
def test_a_value_that_was_wrong_within_the_rounding_does_not_jump_back(
    by: float, jumps: int
) -> None:
    reader = started(quantities=frozenset({FORWARD}), load=(0, 0, 0))
    high = moved(**{FORWARD: by})
    reader.poll(high, high)
    assert not is_true(reader)
    for _ in range(14):
        reader.poll()
    assert is_true(reader)
    assert len(reader.jumps) == jumps


def test_a_meter_that_says_nothing_is_unknown_after_a_while() -> None:
    reader = started()
    before = reader.published
    for _ in range(11):
        reader.poll(put(None), put(None))
        assert reader.published == before
    verdict = reader.poll(put(None), put(None))
    verdict = reader.poll(put(None), put(None))
    assert set(verdict.decisions.values()) == {Decision.UNKNOWN}
    assert set(verdict.readings.values()) == {None}
    assert verdict.read_again_after is None
    assert not reader.memory.suspect_readings
    reader.poll()
    assert is_true(reader)


def test_a_value_that_is_never_given_is_asked_for_no_more() -> None:
    missing = put(None, FORWARD_T2, TOTAL_T1)
    reader = Reader(meter=CountingMeter().has_counted(1))
    for _ in range(20):
        verdict = reader.poll(missing, missing)
    assert verdict.read_again_after is None
    assert reader.published == missing(reader.truth)


@pytest.mark.parametrize("quantities", [OVER_MODBUS, OVER_MBUS])
def test_nothing_but_zeros_is_a_new_meter_if_it_stays(quantities: frozenset[Quantity]) -> None:
    reader = Reader(meter=CountingMeter(), quantities=quantities, load=(0, 0, 0))
    verdict = reader.poll()
    assert set(verdict.decisions.values()) == {Decision.BLANK}
    for _ in range(11):
        reader.poll()
        assert set(reader.published.values()) == {None}
    reader.poll()
    assert is_true(reader)
    assert not reader.jumps
    assert not reader.memory.suspect_readings


def test_a_meter_that_starts_is_no_new_meter() -> None:
    reader = Reader(meter=CountingMeter().has_counted(1))
    for _ in range(6):
        reader.poll(put(0.0), put(0.0))
        assert set(reader.published.values()) == {None}
    reader.poll()
    assert is_true(reader)


def test_a_tariff_that_was_never_used_is_zero() -> None:
    reader = Reader(meter=CountingMeter())
    reader.meter.flow(3600, 5, 5, -5)
    reader.poll()
    assert reader.published[FORWARD_T2] == 0
    assert is_true(reader)


def test_a_counter_of_eight_digits_rolls_over() -> None:
    def eight_digits(values: Values) -> Values:
        return {quantity: round((value or 0) % 1e6, 2) for quantity, value in values.items()}

    meter = CountingMeter().has_counted(1)
    missing = 999999.99 - meter.count("forward", "active")
    meter.counts["forward", "active", "_t1"] += missing
    reader = Reader(meter=meter, quantities=OVER_MBUS, load=(20, 0, 0))
    reader.poll()
    while not reader.jumps:
        reader.poll(eight_digits, eight_digits)
        assert reader.answers < 50
    reader.poll(eight_digits, eight_digits)
    assert reader.published == eight_digits(reader.truth)
    assert {jump.quantity for jump in reader.jumps} == {FORWARD, TOTAL}
    assert 0 < reader.jumps[0].consumed == reader.jumps[0].after
    # Tariffs that have not rolled over go on being checked.
    assert not reader.memory.not_kept
    verdict = reader.answer(
        lambda values: moved(forward_active_energy_t1=0.1)(eight_digits(values))
    )
    assert verdict.decisions[FORWARD_T1] is Decision.INCONSISTENT


def test_what_flowed_while_a_total_was_held_is_known_when_the_code_is() -> None:
    reader = started(knows_code=False, code=CalculationCode.FORWARD, load=(9, 9, -9))
    reader.poll()
    before = reader.published
    reader.meter.code = CalculationCode.FORWARD_PLUS_REVERSE
    for _ in range(8):
        reader.poll()
        assert reader.published[TOTAL] == before[TOTAL]
    reader.code = CalculationCode.FORWARD_PLUS_REVERSE
    reader.poll()
    [jump] = [jump for jump in reader.jumps if jump.quantity is TOTAL]
    assert jump.reason is Decision.CODE_EXPLAINED
    assert jump.consumed == pytest.approx(
        sum((reader.published[part] or 0) - (before[part] or 0) for part in (FORWARD, REVERSE)),
        abs=0.011,
    )


def test_a_new_code_explains_a_small_jump_too() -> None:
    meter = CountingMeter(code=CalculationCode.FORWARD)
    meter.counts["forward", "active", "_t1"] = 3000.0
    meter.counts["reverse", "active", "_t1"] = 2.0
    reader = started(meter, quantities=OVER_MBUS, load=(1, 1, -1))
    before = reader.published
    meter.code = CalculationCode.FORWARD_PLUS_REVERSE
    # So much can have flowed.
    reader.poll(after=600)
    moved = (reader.published[TOTAL] or 0) - (before[TOTAL] or 0)
    assert moved == pytest.approx(2.5, abs=0.02)
    [jump] = [jump for jump in reader.jumps if jump.quantity is TOTAL]
    assert jump.reason is Decision.CODE_EXPLAINED
    assert jump.consumed == pytest.approx(0.5, abs=0.021)
    # Two codes may mean the same.
    meter.code = CalculationCode.FORWARD_MINUS_REVERSE
    reader.poll()
    reader.jumps.clear()
    meter.code = CalculationCode.FORWARD_MINUS_REVERSE_NET_PULSES
    reader.poll()
    assert not reader.jumps


def test_a_jump_does_not_become_possible_by_waiting() -> None:
    # With transformers of which the bus does not tell, this much can flow in a minute.
    limits = Limits(at_once=60, confirmed=3600)
    reader = started(quantities=frozenset({TOTAL}), limits=limits)
    jump = moved(**{TOTAL: 180.0})
    before = reader.published[TOTAL]
    for _ in range(12):
        verdict = reader.poll(jump, jump)
        assert verdict.decisions[TOTAL] is Decision.JUMPED
        assert reader.published[TOTAL] == before
    reader.poll(jump, jump)
    assert [jump.reason for jump in reader.jumps] == [Decision.PERSISTENT]


def test_what_was_damaged_to_a_jump_is_believed_when_it_is_right_again() -> None:
    """By then it is nearer to the damaged value than to the last good one."""
    reader = started(load=(20, 20, 20))
    reader.poll(moved(**{FORWARD: 0.60}), moved(**{FORWARD: 0.50}), after=3)
    reader.poll(after=30)
    assert is_true(reader)


@pytest.mark.parametrize("left", [2000, 0.9, 0.55])
def test_a_counter_that_fell_to_something_else_has_counted_only_since(left: float) -> None:
    meter = CountingMeter()
    meter.counts["forward", "active", "_t1"] = 1.0 if left < 1 else 3000.0
    reader = started(meter, quantities=frozenset({FORWARD}), load=(1, 0, 0))
    meter.counts["forward", "active", "_t1"] = left
    while not reader.jumps:
        reader.poll()
        assert reader.answers < 50
    [jump] = reader.jumps
    # What flowed until the first look at it is not known.
    assert left <= round(jump.after - jump.consumed, 2) <= left + 0.02


# The calculation code


@pytest.mark.parametrize(("old", "new"), permutations(CalculationCode, 2))
@pytest.mark.parametrize("quantities", [OVER_MODBUS, OVER_MBUS])
def test_a_total_that_the_new_code_explains_is_believed_at_once(
    old: CalculationCode, new: CalculationCode, quantities: frozenset[Quantity]
) -> None:
    if old is CalculationCode.FORWARD_MINUS_REVERSE_NET:
        return  # A meter never leaves it.
    reader = started(CountingMeter(code=old).has_counted(4), quantities=quantities)
    before = reader.truth
    reader.meter.code = new
    reader.wait(10)
    verdict = reader.answer()
    assert verdict.readings == reader.truth
    assert not verdict.suspect
    if CODE_WEIGHTS[old] == CODE_WEIGHTS[new]:
        assert not verdict.jumps
        return
    assert verdict.decisions[TOTAL] is Decision.CODE_EXPLAINED
    assert {jump.quantity for jump in verdict.jumps} == TOTALS & quantities
    after = reader.truth
    forward, reverse = (
        (after[quantity] or 0) - (before[quantity] or 0) for quantity in (FORWARD, REVERSE)
    )
    of_forward, of_reverse = CODE_WEIGHTS[new][0]
    [jump] = [jump for jump in verdict.jumps if jump.quantity == TOTAL]
    assert (jump.before, jump.after) == (before[TOTAL], after[TOTAL])
    assert jump.consumed == pytest.approx(of_forward * forward + of_reverse * reverse)
    assert jump.reason is Decision.CODE_EXPLAINED


def test_a_code_that_was_changed_while_nothing_ran_is_explained_by_two_answers() -> None:
    reader = started()
    before = reader.truth
    reader.restart()
    reader.meter.code = CalculationCode.FORWARD_MINUS_REVERSE
    reader.poll()
    assert is_true(reader)
    [jump] = [jump for jump in reader.jumps if jump.quantity == TOTAL]
    assert jump.before == before[TOTAL]
    assert jump.reason is Decision.CODE_EXPLAINED


def test_a_code_read_late_explains_the_second_answer() -> None:
    reader = started(knows_code=False, code=CalculationCode.FORWARD)
    reader.meter.code = CalculationCode.FORWARD_PLUS_REVERSE
    reader.wait(10)
    verdict = reader.answer()
    assert verdict.decisions[TOTAL] is Decision.JUMPED
    assert verdict.decisions[FORWARD] is Decision.STEADY
    assert verdict.read_again_after == 0
    reader.code = reader.meter.code
    assert reader.answer().decisions[TOTAL] is Decision.CODE_EXPLAINED


def test_a_code_read_too_early_holds_nothing_for_long() -> None:
    reader = started(knows_code=False, code=CalculationCode.FORWARD)
    reader.code = CalculationCode.FORWARD_PLUS_REVERSE
    reader.wait(10)
    assert reader.answer().decisions[TOTAL] is Decision.INCONSISTENT
    reader.meter.code = reader.code
    assert reader.answer().decisions[TOTAL] is Decision.CODE_EXPLAINED
    assert reader.answer().readings == reader.truth


@pytest.mark.parametrize("code", [CalculationCode.REVERSE, CalculationCode.REVERSE_MINUS_FORWARD])
def test_a_sign_that_may_be_either_does_not_change(code: CalculationCode) -> None:
    """Whether registers carry the display's minus sign with these codes is not known."""
    for sign in (1, -1):
        weights = {
            CalculationCode.REVERSE: (0, sign),
            CalculationCode.REVERSE_MINUS_FORWARD: (-1, sign),
        }
        meter = CountingMeter(code=code, weights=weights[code]).has_counted(7)
        reader = started(meter)
        assert is_true(reader)
        meter.weights = (weights[code][0], -sign)
        flipped = meter.read()
        meter.weights = weights[code]
        verdict = reader.poll(*[lambda values, flipped=flipped: flipped] * 2)
        assert verdict.decisions[TOTAL] is Decision.JUMPED
        assert not verdict.jumps


@pytest.mark.parametrize("zeros", [put(0.0), put(0.0, *TOTALS)])
def test_zeros_are_not_what_a_code_makes_of_energies(zeros: Damage) -> None:
    reader = started()
    for code in CalculationCode:
        reader.meter.code = code
        reader.poll()
        verdict = reader.answer(zeros)
        assert Decision.CODE_EXPLAINED not in verdict.decisions.values()


@pytest.mark.parametrize("quantities", [OVER_MODBUS, OVER_MBUS])
@pytest.mark.parametrize("code", [None, CalculationCode.FORWARD])
def test_a_code_that_was_changed_unheard_of_is_believed_once_it_stays(
    quantities: frozenset[Quantity], code: CalculationCode | None
) -> None:
    """M-Bus does not tell the code: what was written last is all that is known."""
    reader = started(quantities=quantities, knows_code=False, code=code)
    reader.meter.code = CalculationCode.FORWARD_MINUS_REVERSE
    energies = quantities - TOTALS
    for _ in range(12):
        reader.poll()
        assert {q: reader.published[q] for q in energies} == {q: reader.truth[q] for q in energies}
        assert not reader.jumps
    reader.poll()
    for _ in range(100):
        reader.poll()
        assert is_true(reader)
    assert {jump.quantity for jump in reader.jumps} == TOTALS & quantities


@pytest.mark.parametrize("weights", [(0, -1), (-1, -1), (2, 0), (1, 0)])
@pytest.mark.parametrize("code", [CalculationCode.REVERSE, CalculationCode.REVERSE_MINUS_FORWARD])
@pytest.mark.parametrize("quantities", [OVER_MODBUS, OVER_MBUS])
def test_a_code_that_means_something_else_holds_nothing_for_ever(
    code: CalculationCode, weights: tuple[int, int], quantities: frozenset[Quantity]
) -> None:
    meter = CountingMeter(code=code, weights=weights).has_counted(5)
    reader = Reader(meter=meter, quantities=quantities)
    for _ in range(14):
        reader.poll()
    for load in ((5, 5, 5), (0, 0, 0), (-5, -5, 1), (20, 20, 20)):
        reader.load = load
        for _ in range(20):
            reader.poll()
            assert is_true(reader)
    reader.restart()
    reader.poll()
    assert is_true(reader)
    # What is left still finds damage.
    assert reader.answer(moved(forward_active_energy=0.05)).suspect


def test_phases_that_do_not_add_up_hold_nothing_for_ever() -> None:
    """Code 10 makes forward and reverse net over the phases, and the code is not known."""
    meter = CountingMeter(code=CalculationCode.FORWARD).has_counted(6)
    reader = started(meter, knows_code=False, code=CalculationCode.FORWARD, load=(5, 5, -12))
    reader.poll()
    meter.code = CalculationCode.FORWARD_MINUS_REVERSE_NET
    for _ in range(30):
        reader.poll()
    for _ in range(200):
        verdict = reader.poll()
        assert not verdict.suspect
        # Where nothing covers a phase any more, the last but one answer may be the newest.
        for quantity, value in reader.truth.items():
            assert 0 <= abs((value or 0) - (reader.published[quantity] or 0)) < 0.011
    reader.code = meter.code
    reader.poll()
    assert is_true(reader)


def test_a_relation_that_holds_again_is_checked_again() -> None:
    reader = started()
    sticky = moved(reverse_active_energy=0.1)
    for _ in range(14):
        reader.poll(sticky, sticky)
    assert reader.memory.not_kept
    for _ in range(250):
        reader.poll()
    assert is_true(reader)
    assert not reader.memory.not_kept
    assert reader.answer(sticky).suspect


# The resettable counter


def test_a_reset_is_believed_at_once() -> None:
    reader = started()
    reader.poll()
    before = reader.truth
    reader.wait(5)
    reader.meter.reset()
    reader.reset = reader.now
    reader.wait(5)
    verdict = reader.answer()
    assert verdict.decisions[COUNTER] is Decision.RESET_EXPLAINED
    assert verdict.readings == reader.truth
    assert not verdict.suspect
    [jump] = verdict.jumps
    assert (jump.before, jump.after) == (before[COUNTER], reader.truth[COUNTER])
    assert jump.consumed == pytest.approx((reader.truth[FORWARD] or 0) - (before[FORWARD] or 0))
    for _ in range(20):
        assert reader.poll().read_again_after is None
        assert is_true(reader)
    assert len(reader.jumps) == 1


def test_a_reset_at_the_moment_of_the_last_reading_is_believed_at_once() -> None:
    reader = started()
    reader.poll()
    reader.meter.reset()
    reader.reset = reader.now
    reader.wait(5)
    assert reader.answer().decisions[COUNTER] is Decision.RESET_EXPLAINED
    assert [jump.quantity for jump in reader.jumps] == [COUNTER]


def test_a_reading_from_before_the_reset_is_held() -> None:
    reader = started()
    before = reader.truth
    reader.meter.reset()
    reader.reset = reader.now
    verdict = reader.answer(lambda _: before)
    assert verdict.decisions[COUNTER] is Decision.JUMPED
    assert verdict.decisions[FORWARD] is Decision.STEADY
    reader.poll(after=1)
    assert is_true(reader)


def test_damage_right_after_a_reset_is_held() -> None:
    reader = started()
    reader.poll()
    reader.wait(1)
    reader.meter.reset()
    reader.reset = reader.now
    reader.poll(moved(**{COUNTER: 0.05}))
    assert reader.published[COUNTER] == reader.truth[COUNTER]


@pytest.mark.parametrize("counted", [50, 0.3])
@pytest.mark.parametrize("restarts", [True, False])
def test_forward_energy_says_what_a_reset_at_the_meter_took(counted: float, restarts: bool) -> None:
    # The second one has passed its old value before it is believed.
    meter = CountingMeter().has_counted(1)
    meter.reset_at = meter.count("forward", "active") - counted
    reader = started(meter, load=(9, 9, 9))
    reader.poll()
    before = reader.published
    reader.wait(3)
    meter.reset()
    reader.wait(3)
    if restarts:
        reader.restart()
    while not reader.jumps:
        reader.poll()
        assert reader.answers < 50
    [jump] = reader.jumps
    assert jump.quantity is COUNTER
    forward = (reader.published[FORWARD] or 0) - (before[FORWARD] or 0)
    # What it shows now may be newer than what was believed.
    newer = (reader.published[COUNTER] or 0) - jump.after
    assert jump.consumed + newer == pytest.approx(forward, abs=0.021)


def test_a_reset_at_the_meter_holds_nothing_but_the_counter() -> None:
    reader = started()
    for _ in range(3):
        reader.meter.reset()
        for _ in range(12):
            verdict = reader.poll()
            assert verdict.decisions[COUNTER] is Decision.FALLEN
            assert {**reader.published, COUNTER: None} == {**reader.truth, COUNTER: None}
        reader.poll()
        for _ in range(10):
            verdict = reader.poll()
            assert is_true(reader)
        assert verdict.read_again_after is None
    assert [jump.quantity for jump in reader.jumps] == [COUNTER] * 3
    assert COUNTER_KEY not in reader.memory.not_kept


# Clocks


@pytest.mark.parametrize("jump", [3600, -3600, 86400 * 365, -86400 * 365])
def test_a_clock_that_is_set_lets_nothing_in_and_holds_nothing(jump: float) -> None:
    reader = started()
    reader.poll()
    reader.wall += jump
    # As much as may flow in an hour, and it fits together.
    damage = moved(
        **{name: 50.0 for name in OVER_MODBUS if name.startswith(("forward", "total"))},
    )
    held = reader.published
    verdict = reader.answer(put(50000.0, FORWARD))
    assert verdict.readings[FORWARD] == held[FORWARD]
    verdict = reader.answer(damage)
    assert verdict.readings[FORWARD] == held[FORWARD]
    for _ in range(10):
        verdict = reader.poll()
        assert verdict.read_again_after is None
        assert is_true(reader)
    assert not reader.jumps


def test_what_flowed_while_the_machine_slept_is_consumption() -> None:
    reader = started(load=(1, 1, 1))
    reader.poll()
    # The monotonic clock stands still meanwhile.
    reader.meter.flow(8 * 3600, *reader.load)
    reader.wall += 8 * 3600
    verdict = reader.poll()
    assert verdict.decisions[FORWARD] is Decision.CONFIRMED
    assert is_true(reader)
    assert not reader.jumps


@pytest.mark.parametrize("clock", [-30 * 86400, -7200, 0])
def test_what_flowed_while_nothing_ran_is_consumption_whatever_the_clock_says(clock: float) -> None:
    reader = started(load=(1, 1, 1))
    reader.restart(down=20 * 3600, clock=clock)
    reader.poll()
    assert is_true(reader)
    assert not reader.jumps


# What a meter can carry

WITHOUT_PHASES = OVER_MODBUS - {
    name for name in OVER_MODBUS if name.endswith(("_l1", "_l2", "_l3"))
}

IDENTITIES: list[tuple[dict[str, Any], Limits]] = [
    ({"rated_current": 100}, Limits(at_once=60, confirmed=60)),
    ({"rated_current": 6}, Limits(at_once=3.6, confirmed=3.6)),
    (
        {
            "rated_current": 6,
            "transformer_primary_current": 250,
            "transformer_secondary_current": 5,
        },
        Limits(at_once=180, confirmed=180),
    ),
    (
        {
            "rated_current": 6,
            "transformer_primary_current": 100,
            "transformer_secondary_current": 1,
        },
        Limits(at_once=360, confirmed=360),
    ),
    ({"transformer_primary_current": 100}, Limits(at_once=360, confirmed=360)),
    ({"rated_current": 0}, Limits(at_once=60, confirmed=3600)),
    ({}, Limits(at_once=60, confirmed=3600)),
]


@pytest.mark.parametrize(("currents", "limits"), IDENTITIES)
def test_what_a_meter_can_carry(currents: dict[str, Any], limits: Limits) -> None:
    identity = Identity(
        serial_number="22091039",
        model=Model.KLEFR_6934,
        firmware_version="2.18",
        **currents,
    )
    found = limits_of(identity)
    assert found.at_once == pytest.approx(limits.at_once)
    assert found.confirmed == pytest.approx(limits.confirmed)


@pytest.mark.parametrize("phases", [1, 3])
def test_a_meter_carries_as_much_as_its_phases_do(phases: int) -> None:
    identity = Identity(
        serial_number="22091039",
        model=Model.PRO2,
        firmware_version="2.18",
        rated_current=100,
        phases=phases,
    )
    reader = started(quantities=WITHOUT_PHASES, limits=limits_of(identity), load=(0, 0, 0))
    reader.poll()
    # In 12 s two phases carry 0.4 kWh, and one carries 0.2 kWh.
    reader.meter.flow(10, 60, 60, 0)
    verdict = reader.poll()
    assert verdict.suspect is (phases == 1)
    assert is_true(reader) is (phases == 3)


def test_a_meter_without_phases_is_believed() -> None:
    reader = started(quantities=WITHOUT_PHASES, load=(1.4, 0, 0))
    for _ in range(10):
        verdict = reader.poll()
        assert verdict.decisions[FORWARD] in (Decision.PLAUSIBLE, Decision.STEADY)
        assert is_true(reader)
    assert not reader.memory.not_kept


def test_transformers_that_the_bus_does_not_tell_of_hold_nothing() -> None:
    limits = Limits(at_once=60, confirmed=3600)
    reader = started(quantities=OVER_MBUS, limits=limits, load=(400, 400, 400))
    for _ in range(10):
        verdict = reader.poll()
        assert verdict.decisions[FORWARD] is Decision.CONFIRMED
        assert is_true(reader)


def test_a_reading_of_several_requests_may_differ_by_what_flowed_between_them() -> None:
    reader = started(load=(20, 20, 20))
    early = reader.truth
    reader.wait(2)

    def torn(values: Values) -> Values:
        return {q: early[q] if q in (FORWARD_T1, TOTAL_T1) else v for q, v in values.items()}

    memory = reader.memory
    assert reader.answer(torn).suspect
    reader.memory = memory
    assert not reader.answer(torn, spread=2).suspect


# Another meter in its place


@pytest.mark.parametrize("quantities", [OVER_MODBUS, OVER_MBUS])
@pytest.mark.parametrize("most", [50.0, 90000.0])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_new_meter_is_believed_after_a_second_answer(
    quantities: frozenset[Quantity], most: float, restarted: bool
) -> None:
    reader = started(quantities=quantities)
    before = reader.published
    reader.memory = reader.memory.with_another_meter()
    reader.meter = CountingMeter().has_counted(2, most=most)
    if restarted:
        reader.restart()
    first = reader.answer()
    # Not a value of the old meter either.
    assert set(first.readings.values()) == {None}
    assert not first.suspect
    reader.wait(0.2)
    verdict = reader.answer()
    reader.published = dict(verdict.readings)  # type: ignore[arg-type]
    assert is_true(reader)
    assert {jump.quantity for jump in reader.jumps} == quantities
    for jump in reader.jumps:
        assert jump.reason is Decision.REPLACED
        assert (jump.before, jump.after) == (before[jump.quantity], verdict.readings[jump.quantity])
        assert jump.consumed == 0
        assert jump.wall == reader.wall
    jumps = list(reader.jumps)
    reader.poll()
    reader.restart()
    reader.poll()
    assert is_true(reader)
    # Once is enough.
    assert reader.jumps == jumps


def test_a_new_meter_of_nothing_but_zeros_may_be_one_that_starts() -> None:
    reader = started()
    before = reader.published[FORWARD]
    reader.memory = reader.memory.with_another_meter()
    reader.meter = CountingMeter().has_counted(1)
    for _ in range(6):
        reader.poll(put(0.0), put(0.0))
        assert set(reader.published.values()) == {None}
    reader.poll()
    assert is_true(reader)
    assert {jump.before for jump in reader.jumps if jump.quantity is FORWARD} == {before}

    reader.memory = reader.memory.with_another_meter()
    reader.meter, reader.load = CountingMeter(), (0, 0, 0)
    reader.jumps.clear()
    for _ in range(12):
        reader.poll()
        assert set(reader.published.values()) == {None}
    reader.poll()
    assert is_true(reader)
    assert {jump.reason for jump in reader.jumps} == {Decision.REPLACED}
    assert {jump.after for jump in reader.jumps} == {0}


def test_what_a_new_meter_does_not_give_stays_as_the_old_meter_left_it() -> None:
    reader = started()
    oldest = reader.published
    for seed in (2, 3):
        reader.memory = reader.memory.with_another_meter()
        reader.meter, reader.quantities = CountingMeter().has_counted(seed), OVER_MBUS
        reader.poll()
    assert is_true(reader)
    reader.memory = reader.memory.with_another_meter()
    reader.meter, reader.quantities = CountingMeter().has_counted(4), OVER_MODBUS
    before = reader.published
    reader.jumps.clear()
    reader.poll()
    assert {jump.quantity: jump.before for jump in reader.jumps} == {**oldest, **before}


@given(st.data())
@settings(max_examples=50)
def test_a_new_meter_is_not_judged_by_the_old_one(data: st.DataObject) -> None:
    reader = started()
    reader.memory = reader.memory.with_another_meter()
    reader.meter = CountingMeter().has_counted(data.draw(st.integers(2, 1000)))
    quantity = data.draw(st.sampled_from(sorted(OVER_MODBUS - {COUNTER})))
    damage = moved(**{quantity: data.draw(st.sampled_from([0.2, 1, 1000]))})
    reader.poll(damage)
    assert all(is_near(value, reader.truth[name]) for name, value in reader.published.items())
    reader.poll()
    assert is_true(reader)


# Memory


def test_memory_survives_json() -> None:
    reader = started()
    sticky = moved(reverse_active_energy=0.1)
    for _ in range(14):
        reader.poll(sticky, sticky)
    stored = reader.memory.to_json()
    memory = Memory.from_json(json.loads(json.dumps(stored)))
    assert memory.to_json() == stored
    assert memory.not_kept == reader.memory.not_kept
    assert memory.reset_offset == reader.memory.reset_offset
    assert not memory.doubts
    for quantity, accepted in memory.accepted.items():
        assert accepted.value == reader.memory.accepted[quantity].value
        assert accepted.wall == reader.memory.accepted[quantity].wall
        assert accepted.monotonic is None
        assert accepted.code is CalculationCode.FORWARD


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["accepted", "reset_offset", "not_kept", "replaced", "checksum", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_nonsense_is_no_memory(stored: Any) -> None:
    assert Memory.from_json(stored) == Memory()


@given(st.data())
@settings(max_examples=100)
def test_damaged_memory_is_no_memory(data: st.DataObject) -> None:
    text = json.dumps(started(quantities=OVER_MBUS).memory.to_json())
    place = data.draw(st.integers(0, len(text) - 1))
    damaged = text[:place] + data.draw(st.sampled_from('0123456789,.{}[]"e- ')) + text[place + 1 :]
    try:
        stored = json.loads(damaged)
    except ValueError:
        return
    memory = Memory.from_json(stored)
    assert memory == Memory() or stored == json.loads(text)


@pytest.mark.parametrize(
    "change",
    [
        {"accepted": {"voltage_l1": [1.0, 1.0, 1]}},
        {"accepted": {"nothing": [1.0, 1.0, 1]}},
        {"accepted": {FORWARD: [float("nan"), 1.0, None]}},
        {"accepted": {FORWARD: [1.0, float("inf"), None]}},
        {"accepted": {FORWARD: [1.0]}},
        {"accepted": {FORWARD: [1.0, 1.0, 3]}},
        {"accepted": {FORWARD: ["a", 1.0, 1]}},
        {"reset_offset": "1"},
        {"not_kept": {"x": "y"}},
        {"not_kept": []},
        {"replaced": {"voltage_l1": 1.0}},
        {"replaced": {FORWARD: float("nan")}},
        {"replaced": {FORWARD: None}},
        {"replaced": []},
    ],
)
def test_memory_of_what_cannot_be_is_no_memory(change: dict[str, Any]) -> None:
    from custom_components.klefr.meter.verdict import _checksum

    stored = {"accepted": {}, "reset_offset": None, "not_kept": {}, "replaced": {}} | change
    assert Memory.from_json({**stored, "checksum": _checksum(stored)}) == Memory()


def test_without_memory_the_energies_are_confirmed_anew() -> None:
    reader = started()
    reader.memory = Memory.from_json({"accepted": "damaged"})
    reader.poll()
    assert is_true(reader)


# Several things at once


OF_LARGE_TRANSFORMERS = Limits(at_once=60, confirmed=3600)


def test_damage_within_what_may_have_flowed_between_requests_is_not_believed() -> None:
    reader = started()
    reader.wait(10)
    before = reader.memory.accepted[FORWARD_T1].value
    verdict = reader.answer(moved(**{FORWARD_T1: 0.05}), spread=2.0)
    assert verdict.readings[FORWARD_T1] == before


@pytest.mark.parametrize(
    "damage",
    [
        moved(**{REVERSE_T1: 0.05, TOTAL_T1: -0.05}),
        moved(**{FORWARD: 0.03, TOTAL: 0.03}),
        moved(**{FORWARD: 0.05, FORWARD_T1: 0.05}),
    ],
)
def test_two_wrong_values_that_fit_together_need_a_second_answer(
    damage: Damage,
) -> None:
    """Their own relation holds, and the others hold if energy flowed between the requests."""
    meter = CountingMeter(code=CalculationCode.FORWARD_MINUS_REVERSE).has_counted(1)
    reader = started(meter, load=(0, 0, 0))
    reader.wait(10)
    before = reader.truth
    assert reader.answer(damage, spread=2.0).readings == before
    reader.wait(0.2)
    assert reader.answer(spread=2.0).readings == before
    assert not reader.memory.suspect_readings


def test_a_total_of_zero_fits_to_nothing_but_zeros() -> None:
    """Over M-Bus it may be anything after a start, but it is the sum of what cannot be zero."""
    reader = started(
        CountingMeter().has_counted(1, most=3000),
        quantities=OVER_MBUS,
        limits=OF_LARGE_TRANSFORMERS,
        knows_code=False,
    )
    reader.restart()
    reader.poll(put(0.0), put(0.0))
    assert set(reader.published.values()) == {None}
    reader.poll()
    assert is_true(reader)


def test_an_answer_with_damage_confirms_nothing_that_no_relation_covers() -> None:
    reader = started(quantities=frozenset({FORWARD, REACTIVE}))
    reader.restart()
    reader.wait(3600)
    reader.poll(moved(**{FORWARD: -0.05, REACTIVE: -100}), moved(**{REACTIVE: -100}))
    assert reader.published[FORWARD] is None
    reader.poll()
    assert is_true(reader)


def test_another_meter_confirms_nothing_that_is_not_remembered() -> None:
    reader = started()
    remembered = {q: a for q, a in reader.memory.accepted.items() if "_reactive" not in q}
    reader.memory = replace(reader.memory, accepted=remembered)
    reader.restart()
    other = CountingMeter().has_counted(2).read
    reader.poll(lambda _: other(), lambda _: other())
    assert set(reader.published.values()) == {None}
    reader.poll()
    assert is_true(reader)


def test_surprises_that_began_one_after_the_other_are_each_believed_in_time() -> None:
    reader = started()
    reader.meter.clear()
    reader.poll(after=1)
    reader.poll(after=30)
    damage = moved(**{FORWARD: 50, FORWARD_T1: 50, COUNTER: 50})
    reader.poll(damage, damage, after=30)
    since = reader.monotonic
    while not is_true(reader):
        reader.poll(after=30)
        assert reader.monotonic - since <= 180


def test_zeros_do_not_end_a_surprise_of_a_total() -> None:
    reader = started(
        CountingMeter(code=CalculationCode.FORWARD_MINUS_REVERSE).has_counted(1),
        quantities=OVER_MBUS,
        limits=OF_LARGE_TRANSFORMERS,
        knows_code=False,
    )
    reader.meter.has_counted(2, most=100)
    reader.restart()
    for _ in range(5):
        reader.poll(after=25)
    for _ in range(2):
        reader.poll(put(0.0), put(0.0), after=25)
    assert 0.0 not in [accepted.value for accepted in reader.memory.accepted.values()]


def test_digits_that_are_swapped_between_tariffs_are_not_believed() -> None:
    """Their sum is right, and one of them is what it may be."""
    meter = CountingMeter(code=CalculationCode.REVERSE).has_counted(1)
    reader = started(meter, quantities=OVER_MBUS, knows_code=False)
    before = reader.published
    reader.poll(*[moved(**{FORWARD_T1: 0.04, FORWARD_T2: -0.04})] * 2, after=2)
    assert reader.published[FORWARD_T1] == before[FORWARD_T1]
    reader.poll()
    assert is_true(reader)


def test_a_new_code_does_not_explain_a_total_whose_tariffs_do_not_add_up() -> None:
    """Whether reverse energy has a sign in a total is not known."""
    reader = started()
    before = reader.published[TOTAL_T1]
    reader.meter.code = CalculationCode.REVERSE

    def damage(values: Values) -> Values:
        return {**values, TOTAL_T1: -(values[TOTAL_T1] or 0), TOTAL: 50_000.0}

    reader.poll(damage, damage)
    assert reader.published[TOTAL_T1] == before


def test_what_does_not_repeat_itself_proves_nothing() -> None:
    """After a start over M-Bus, one energy of another meter may be near enough."""
    reader = started(quantities=OVER_MBUS, limits=OF_LARGE_TRANSFORMERS, knows_code=False)
    reader.restart()
    reader.wait(10)
    reader.answer()
    before = reader.truth
    reader.wait(30)
    tariff_2 = Quantity.REVERSE_ACTIVE_ENERGY_T2
    others = moved(**{REVERSE: 1000.0, REVERSE_T1: 968.0, tariff_2: 32.0})
    assert reader.answer(others).readings[tariff_2] == before[tariff_2]
    reader.poll()
    assert is_true(reader)


def test_what_is_blamed_proves_nothing() -> None:
    """Another meter's total may be what its forward energy is, and near enough."""
    reader = started()
    phase = Quantity.FORWARD_REACTIVE_ENERGY_L1
    total = Quantity.TOTAL_REACTIVE_ENERGY_L1
    other = CountingMeter().has_counted(2)
    near = (reader.published[phase] or 0) + 0.1
    other.counts["forward", "reactive", "_t1"] += near - other.counts["forward", "reactive", "_l1"]
    other.counts["forward", "reactive", "_l1"] = near
    reader.wait(10)
    verdict = reader.answer(lambda _: put(1.0, Quantity.TOTAL_REACTIVE_ENERGY)(other.read()))
    assert verdict.decisions[phase] is Decision.INCONSISTENT
    assert verdict.decisions[total] is Decision.INCONSISTENT


@pytest.mark.parametrize("also", [COUNTER, FORWARD_T2])
def test_a_whole_that_fits_to_its_phases_alone_needs_a_second_answer(also: Quantity) -> None:
    """The rounding of three phases hides three steps."""
    meter = CountingMeter()
    meter.counts |= {("forward", "active", f"_l{phase}"): 30.0 for phase in (1, 2, 3)}
    meter.counts |= {("forward", "active", f"_t{tariff}"): 45.0 for tariff in (1, 2)}
    reader = started(meter, load=(0, 0, 0))
    reader.wait(10)
    damage = moved(**{FORWARD: 0.02, FORWARD_T1: 0.02, TOTAL: 0.02, TOTAL_T1: 0.02, also: -5.0})
    if also is COUNTER:
        damage = moved(**{FORWARD: 0.02, FORWARD_T1: 0.02, TOTAL: 0.02, TOTAL_T1: 0.02})
    assert reader.answer(damage).readings[FORWARD] == 90.0


def test_what_fits_to_a_whole_that_jumped_is_of_another_meter_too() -> None:
    """Tariffs of both meters may be near each other, and totals prove them."""
    reader = started()
    before = reader.published
    reader.wait(200)
    other = CountingMeter().has_counted(1)
    # Each tariff alone may have counted this, but not both.
    near = 0.7 * reader.limits.at_once * reader.limits.phases * 200 / 3600
    for tariff in ("_t1", "_t2"):
        key = ("forward", "reactive", tariff)
        other.counts[key] = reader.meter.counts[key] + near
    verdict = reader.answer(lambda _: other.read())
    assert verdict.decisions[Quantity.FORWARD_REACTIVE_ENERGY] is Decision.JUMPED
    for number in (1, 2):
        for direction in ("forward", "total"):
            name = Quantity(f"{direction}_reactive_energy_t{number}")
            assert verdict.decisions[name] is Decision.INCONSISTENT
            assert verdict.readings[name] == before[name]


def test_half_the_zeros_of_a_meter_that_starts_are_no_second_answer() -> None:
    reader = Reader(meter=CountingMeter().has_counted(1))
    reader.poll(put(0.0), put(0.0, *(reader.quantities - {REACTIVE})))
    assert 0.0 not in reader.published.values()
    reader.poll()
    assert is_true(reader)


def test_a_damaged_forward_energy_does_not_say_when_the_counter_was_reset() -> None:
    few = frozenset({FORWARD, COUNTER})
    reader = Reader(meter=CountingMeter().has_counted(1), quantities=few, load=(0, 0, 0))
    reader.poll(None, moved(**{FORWARD: 0.1}))
    for _ in range(3):
        verdict = reader.poll()
    assert is_true(reader)
    assert not verdict.suspect


def test_a_counter_that_is_believed_below_its_old_value_jumps() -> None:
    """It has passed its old value in the very answer that makes it believed."""
    few = frozenset({FORWARD, COUNTER})
    meter = CountingMeter().has_counted(1)
    meter.reset_at = meter.count("forward", "active") - 0.5
    reader = started(meter, quantities=few, load=(0, 0, 0))
    reader.meter.reset()
    for _ in range(12):
        reader.poll()
    reader.wait(10)
    reader.meter.flow(1, 1800, 0, 0)
    verdict = reader.answer()
    assert verdict.decisions[COUNTER] is Decision.PERSISTENT
    assert verdict.readings[COUNTER] == 0.0
    assert [jump.quantity for jump in verdict.jumps] == [COUNTER]


# Whatever happens


def flipped_bits(values: Values, random: Random) -> Values:
    """Flip a bit in the floats of one to three values."""
    damaged = dict(values)
    for quantity in random.sample(sorted(values), random.choice((1, 1, 1, 2, 3))):
        bits = int.from_bytes(struct.pack(">f", values[quantity])) ^ 1 << random.randrange(32)
        [value] = struct.unpack(">f", bits.to_bytes(4))
        possible = abs(value) < 99_999_999 and (value >= 0 or quantity in TOTALS)
        damaged[quantity] = round(value, 2) + 0.0 if possible else None
    return damaged


def flipped_digits(values: Values, random: Random) -> Values:
    """Flip a bit in the decimal digits of one or two values."""
    damaged = dict(values)
    for quantity in random.sample(sorted(values), random.choice((1, 1, 2))):
        digits = int(f"{round(abs(values[quantity] or 0) * 100):08d}", 16)
        text = f"{digits ^ 1 << random.randrange(32):08x}"
        damaged[quantity] = int(text) / 100 if text.isdecimal() else None
    return damaged


def some(damage: Callable[[tuple[Quantity, ...]], Damage]) -> Callable[[Values, Random], Values]:
    def damage_some(values: Values, random: Random) -> Values:
        quantities = tuple(random.sample(sorted(values), random.randint(1, 4)))
        return damage(quantities)(values)

    return damage_some


FAULTS: list[Callable[[Values, Random], Values]] = [
    flipped_bits,
    flipped_digits,
    some(lambda quantities: swapped(quantities[0], quantities[-1])),
    some(lambda quantities: put(0.0, *quantities)),
    some(lambda quantities: put(None, *quantities)),
    some(lambda quantities: put(77777777.77, *quantities)),
    some(lambda quantities: moved(**{quantities[0]: -0.03})),
    some(lambda quantities: moved(**{quantities[0]: 0.06})),
    some(lambda quantities: moved(**{quantities[0]: -1})),
    lambda values, random: put(0.0)(values),
    lambda values, random: put(None)(values),
    lambda values, random: halved(values),
    lambda values, random: with_words_swapped(values),
]


def always(fault: Callable[[Values, Random], Values], *, seed: int) -> Damage:
    """Do the same damage to every answer."""
    return lambda values: fault(values, Random(seed))


MOST_WRONG = 0.04
"""What hides in the rounding of the values that it is checked by, in kWh."""


def is_near(published: float | None, true: float | None) -> bool:
    """Tell whether a value is true, or held because what was published before hid there."""
    return published is None or abs(published - (true or 0)) <= MOST_WRONG


def was_true(value: float | None, past: list[float], quantity: Quantity) -> bool:
    """Tell whether the meter had a value, or one that hides in the rounding."""
    return value is None or min(past) - MOST_WRONG < value < max(past) + MOST_WRONG


@settings(max_examples=25, derandomize=True, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from(CalculationCode),
    st.booleans(),
    st.booleans(),
    st.sampled_from([OVER_MODBUS, OVER_MBUS]),
)
def test_no_value_is_published_that_the_meter_never_had(
    seed: int,
    code: CalculationCode,
    cuts_off: bool,
    told: bool,
    quantities: frozenset[Quantity],
) -> None:
    random = Random(seed)
    told |= code is CalculationCode.FORWARD_MINUS_REVERSE_NET
    meter = CountingMeter(code=code, cuts_off=cuts_off).has_counted(random.randrange(99))
    reader = Reader(meter=meter, quantities=quantities, knows_code=told)
    # The first answers may be older by what flows between them.
    past = {q: [(value or 0.0) - 0.2, value or 0.0] for q, value in reader.truth.items()}

    def poll(*damages: Damage | None) -> None:
        # No fault lasts for two minutes.
        intervals = (5, 10, 20) if damages else (5, 10, 20, 60, 600)
        reader.poll(*damages, after=random.choice(intervals))
        for quantity, value in reader.truth.items():
            low, high = past[quantity]
            past[quantity] = [min(low, value or 0), max(high, value or 0)]
            assert was_true(reader.published[quantity], past[quantity], quantity)

    # The first reading ever rests on nothing but two answers.
    poll(lambda values: random.choice(FAULTS)(values, random))
    poll()
    poll()
    for _ in range(25):
        reader.load = random.choice(((0, 0, 0), (1, -0.5, 0.2), (50, 30, -10), (-5, -5, -5)))
        meter.tariff = random.choice(("_t1", "_t2"))
        fault = random.choice(FAULTS)
        damage = always(fault, seed=random.randrange(2**32))
        for _ in range(random.choice((1, 1, 2, 4))):
            poll(*random.choice(((damage,), (damage, damage), (None, damage))))
        if random.random() < 0.1:
            reader.restart(down=random.uniform(1, 7200), clock=random.choice((0, 0, 3600, -3600)))
        poll()
        poll()
        for quantity, value in reader.truth.items():
            assert is_near(reader.published[quantity], value)
    for _ in range(18):
        reader.poll()
    assert is_true(reader)
    assert all(abs(jump.after - jump.before) <= MOST_WRONG for jump in reader.jumps)


near = st.integers(99_990, 100_030).map(lambda steps: steps / 100)
anything = (
    near
    | st.sampled_from([0.0, 1e8, -1e8, 1e300, 2**1023 * 1.5])
    | st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats()
)
some_energies = st.sampled_from([FORWARD, FORWARD_T1, FORWARD_T2, REVERSE, TOTAL, COUNTER])
readings_of_few = st.dictionaries(some_energies, near | anything, max_size=6)
readings_of_any = st.dictionaries(st.sampled_from(Quantity), anything, max_size=6)
codes = st.none() | st.sampled_from(CalculationCode)


@st.composite
def damaged(draw: st.DrawFn, memory: Memory) -> Memory:
    """Draw what may be read from a disk on which a memory was stored."""
    text = json.dumps(memory.to_json())
    if draw(st.booleans()):
        place = draw(st.integers(0, len(text) - 1))
        text = text[:place] + draw(st.sampled_from('0123456789,.{}[]"e- ')) + text[place + 1 :]
    try:
        stored = json.loads(text)
    except ValueError:
        stored = draw(JSON)
    return Memory.from_json(stored)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.data())
def test_only_what_was_read_or_accepted_is_published_whatever_is_read(data: st.DataObject) -> None:
    memory = Memory()
    known: dict[Quantity, set[float]] = {}
    limits = Limits(at_once=60, confirmed=data.draw(st.sampled_from([60, 3600])))
    monotonic = 1000.0
    reset = None
    for _ in range(data.draw(st.integers(1, 20))):
        monotonic += data.draw(st.sampled_from([0.0, 0.1, 10.0, 30.0, 61.0, 1e6]))
        now = Moment(monotonic=monotonic, wall=data.draw(st.floats(-1e9, 1e10)))
        if data.draw(st.integers(0, 9)) == 0:
            reset = now
        reading = data.draw(readings_of_few | readings_of_any)
        for quantity, value in reading.items():
            if isinstance(value, int | float):
                known.setdefault(quantity, set()).add(float(value))
        verdict = judge(
            memory,
            reading,
            now=now,
            limits=limits,
            code=data.draw(codes),
            reset=reset,
            spread=data.draw(st.sampled_from([0.0, 0.0, 2.0, 1000.0])),
        )
        assert verdict.readings.keys() == reading.keys()
        assert verdict.decisions.keys() == reading.keys() & GUARDED
        for quantity in verdict.decisions:
            published = verdict.readings[quantity]
            assert published is None or published in known[quantity]
        for quantity, accepted in verdict.memory.accepted.items():
            assert accepted.value in known[quantity]
            assert abs(accepted.value) < 1e8
        memory = verdict.memory
        stored = memory.to_json()
        assert Memory.from_json(json.loads(json.dumps(stored))).to_json() == stored
        if data.draw(st.integers(0, 9)) == 0:
            memory = data.draw(damaged(memory))
            monotonic = 5.0
            reset = None
