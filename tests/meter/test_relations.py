"""What the energies of one reading have to do with one another."""

import re
import struct

import pytest

from custom_components.klefr.meter.model import CalculationCode, Quantity
from custom_components.klefr.meter.relations import (
    GUARDED,
    Relation,
    check,
    companions,
    counter_relation,
    holds,
    relations,
)
from tests.data import manual_rows, real_meter_words

COUNTER = Quantity.RESETTABLE_COUNTER
FORWARD = Quantity.FORWARD_ACTIVE_ENERGY
REVERSE = Quantity.REVERSE_ACTIVE_ENERGY
TOTAL = Quantity.TOTAL_ACTIVE_ENERGY
FORWARD_T1 = Quantity.FORWARD_ACTIVE_ENERGY_T1
FORWARD_T2 = Quantity.FORWARD_ACTIVE_ENERGY_T2
FORWARD_L1 = Quantity.FORWARD_ACTIVE_ENERGY_L1
FORWARD_L2 = Quantity.FORWARD_ACTIVE_ENERGY_L2
FORWARD_L3 = Quantity.FORWARD_ACTIVE_ENERGY_L3


def real_energies() -> dict[Quantity, float]:
    """Read a real meter's registers."""
    words = real_meter_words()
    energies = {}
    for row in manual_rows():
        name = re.sub(r"^([tl]\d) (.*)", r"\2 \1", row["content"].lower()).replace(" ", "_")
        quantity = COUNTER if name == "resettable_day_counter" else name
        if quantity in GUARDED:
            address = int(row["address"], 16)
            data = struct.pack(">2H", words[address], words[address + 1])
            energies[Quantity(quantity)] = round(float(struct.unpack(">f", data)[0]), 2)
    return energies


def test_a_real_meter_keeps_all_relations_and_cuts_its_values_off() -> None:
    energies = real_energies()
    steps = {quantity: round(energy * 100) for quantity, energy in energies.items()}
    findings = check(relations(CalculationCode.FORWARD), steps)
    residuals = {
        finding.relation.key: sum(steps[part] for part in finding.members[1:])
        - steps[finding.relation.whole]
        for finding in findings
    }
    assert energies.keys() == GUARDED
    assert len(findings) == 24
    assert all(finding.holds for finding in findings)
    # Were they rounded, sums of three would be above the whole as often as below.
    assert {key: steps for key, steps in residuals.items() if steps} == {
        "total_active_energy:phases": -2,
        "forward_active_energy:phases": -2,
        "reverse_active_energy:phases": -1,
        "total_reactive_energy:phases": -1,
        "forward_reactive_energy:phases": -1,
        "reverse_reactive_energy:phases": -1,
    }


def test_the_manuals_telegram_keeps_all_relations() -> None:
    energies = {
        "total": (16048.14, 3580.23, 12467.91),
        "forward": (6913.46, 1234.56, 5678.90),
        "reverse": (9134.68, 2345.67, 6789.01),
    }
    steps = {
        Quantity(f"{direction}_active_energy{column}"): round(value * 100)
        for direction, values in energies.items()
        for column, value in zip(("", "_t1", "_t2"), values, strict=True)
    }
    for code in (CalculationCode.FORWARD_PLUS_REVERSE, None):
        findings = check(relations(code), steps)
        assert len(findings) == 6
        assert all(finding.holds for finding in findings)


def test_every_energy_is_in_a_relation() -> None:
    members = {
        member
        for relation in (*relations(None), counter_relation(0))
        for formula in relation.formulas
        for member in (relation.whole, *formula)
    }
    assert members == GUARDED
    assert {str(quantity) for quantity in GUARDED} == {
        quantity for quantity in Quantity if "energy" in quantity or quantity == COUNTER
    }


TOTAL_PHASES = (
    Quantity.TOTAL_ACTIVE_ENERGY_L1,
    Quantity.TOTAL_ACTIVE_ENERGY_L2,
    Quantity.TOTAL_ACTIVE_ENERGY_L3,
)

ROUNDING: list[tuple[str, Quantity, tuple[Quantity, ...], tuple[int, ...], range]] = [
    ("one value", TOTAL, (FORWARD,), (1,), range(1)),
    ("tariffs", FORWARD, (FORWARD_T1, FORWARD_T2), (1, 1), range(-1, 2)),
    ("a difference", TOTAL, (FORWARD, REVERSE), (1, -1), range(-1, 2)),
    ("phases", FORWARD, (FORWARD_L1, FORWARD_L2, FORWARD_L3), (1, 1, 1), range(-2, 2)),
    ("balances", TOTAL, TOTAL_PHASES, (1, 1, 1), range(-2, 3)),
]


@pytest.mark.parametrize(
    ("what", "whole", "parts", "weights", "allowed"), ROUNDING, ids=[row[0] for row in ROUNDING]
)
def test_a_sum_may_miss_the_whole_by_its_rounding_only(
    what: str,
    whole: Quantity,
    parts: tuple[Quantity, ...],
    weights: tuple[int, ...],
    allowed: range,
) -> None:
    formula = dict(zip(parts, weights, strict=True))
    relation = Relation(key=what, whole=whole, formulas=(formula,))
    steps = dict.fromkeys(parts, 4711)
    true = sum(4711 * weight for weight in weights)
    held = {by for by in range(-9, 10) if holds(relation, formula, {**steps, whole: true - by})}
    assert held == set(allowed)
    # One of them has rolled over.
    assert holds(relation, formula, {**steps, whole: true - 10**8})
    assert holds(relation, formula, {**steps, whole: true - 9}, slack=9)
    # Here a 32-bit float has steps of 0.016 kWh.
    large = dict.fromkeys(parts, 14_000_000)
    true = sum(14_000_000 * weight for weight in weights)
    assert holds(relation, formula, {**large, whole: true - max(allowed) - 1})
    assert not holds(relation, formula, {**large, whole: true - 19})


def test_the_resettable_counter_differs_from_forward_energy_by_what_that_was() -> None:
    relation = counter_relation(1000)
    held = {
        by
        for by in range(-9, 10)
        if check([relation], {FORWARD: 5000, COUNTER: 4000 + by})[0].holds
    }
    assert held == {-1, 0, 1}


@pytest.mark.parametrize("code", [*CalculationCode, None])
def test_phases_need_not_add_up_with_code_10(code: CalculationCode | None) -> None:
    keys = {relation.key for relation in relations(code)}
    assert ("forward_active_energy:phases" in keys) is (code != 10)
    assert "total_active_energy:phases" in keys
    assert "forward_active_energy:tariffs" in keys


def test_a_total_is_read_with_what_the_code_makes_it_of() -> None:
    """Two parts of a total that swap bytes still add up, and neither need have fallen."""
    of_total = companions(frozenset({TOTAL}))
    assert of_total == {
        Quantity(f"{direction}_active_energy{column}")
        for direction in ("total", "forward", "reverse")
        for column in ("", "_t1", "_t2", "_l1", "_l2", "_l3")
    }
    assert companions(frozenset({Quantity.TOTAL_ACTIVE_ENERGY_T2})) == {
        Quantity(f"{direction}_active_energy{tariff}")
        for direction in ("total", "forward", "reverse")
        for tariff in ("", "_t1", "_t2")
    }
    # Counters must not fall.
    assert companions(frozenset({FORWARD_L1})) == {FORWARD, FORWARD_L1, FORWARD_L2, FORWARD_L3}


def test_what_was_not_read_is_not_checked() -> None:
    steps = {FORWARD: 10, FORWARD_T1: 10}
    assert check(relations(None), steps) == []
    assert check(relations(CalculationCode.FORWARD), {FORWARD: 10, TOTAL: 11})[0].holds is False
    # It may be reverse energy, or contain it.
    assert check(relations(None), {FORWARD: 10, TOTAL: 11}) == []
    [finding] = check(relations(None), {FORWARD: 10, TOTAL: 10})
    assert finding.members == (TOTAL, FORWARD)


def test_what_is_missing_breaks_its_relations() -> None:
    [finding] = check(relations(None), {FORWARD: 10, FORWARD_T1: 10}, missing={FORWARD_T2})
    assert not finding.holds
    assert set(finding.members) == {FORWARD, FORWARD_T1, FORWARD_T2}
