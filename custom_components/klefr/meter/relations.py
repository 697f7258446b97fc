"""How the energies of one reading depend on each other.

Tariffs and phases add up to the whole, a total is what the calculation code makes of forward
and reverse, and the resettable counter moves with forward energy.

Energies are counted in steps here, whole multiples of what the meter resolves.
"""

from collections.abc import Iterable, Mapping, Set as AbstractSet
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import chain, product
from typing import Final

from .model import LOCKED_CODE, CalculationCode, Quantity

STEP: Final = 0.01
"""In kWh or kvarh."""
ROLLOVER: Final = 10**8
"""Steps after which a counter of eight digits starts again."""
EXACT_FLOATS: Final = 2**17
"""Up to here, in kWh or kvarh, a 32-bit float can hold every step."""

FORWARD: Final = Quantity.FORWARD_ACTIVE_ENERGY
COUNTER: Final = Quantity.RESETTABLE_COUNTER
KINDS: Final = ("active_energy", "reactive_energy")
DIRECTIONS: Final = ("total", "forward", "reverse")
TARIFFS: Final = ("_t1", "_t2")
PHASES: Final = ("_l1", "_l2", "_l3")
COLUMNS: Final = ("", *TARIFFS, *PHASES)


def _energies(
    directions: Iterable[str], kinds: Iterable[str], columns: Iterable[str]
) -> tuple[Quantity, ...]:
    return tuple(
        Quantity(f"{direction}_{kind}{column}")
        for direction, kind, column in product(directions, kinds, columns)
    )


GUARDED: Final = frozenset({COUNTER, *_energies(DIRECTIONS, KINDS, COLUMNS)})
TOTALS: Final = frozenset(_energies(("total",), KINDS, COLUMNS))
"""What may fall."""
CODED: Final = frozenset(_energies(("total",), ("active_energy",), COLUMNS))
"""What the calculation code says what it means."""
PHASE_ENERGIES: Final = frozenset(_energies(DIRECTIONS, KINDS, PHASES))
"""What flows through one phase."""

type Formula = Mapping[Quantity, int]
"""How often each part is in a whole."""

CODE_WEIGHTS: Final[Mapping[CalculationCode, tuple[tuple[int, int], ...]]] = {
    CalculationCode.FORWARD: ((1, 0),),
    # Whether registers carry the minus sign of the display is not known.
    CalculationCode.REVERSE: ((0, 1), (0, -1)),
    CalculationCode.FORWARD_PLUS_REVERSE: ((1, 1),),
    CalculationCode.REVERSE_MINUS_FORWARD: ((-1, 1), (-1, -1)),
    CalculationCode.FORWARD_MINUS_REVERSE: ((1, -1),),
    CalculationCode.FORWARD_MINUS_REVERSE_NET: ((1, -1),),
    CalculationCode.FORWARD_MINUS_REVERSE_NET_PULSES: ((1, -1),),
}
"""How often forward and reverse are in a total."""
ANY_WEIGHTS: Final = tuple(
    dict.fromkeys(weights for choices in CODE_WEIGHTS.values() for weights in choices)
)


def parts_of(total: Quantity) -> tuple[Quantity, ...]:
    """Return the forward and the reverse energy that a total is made of."""
    return tuple(Quantity(total.replace("total", direction)) for direction in DIRECTIONS[1:])


def code_formulas(total: Quantity, code: CalculationCode | None) -> tuple[Formula, ...]:
    """Return what a total may be. Any code may be in force if it is not known."""
    return tuple(
        {part: weight for part, weight in zip(parts_of(total), weights, strict=True) if weight}
        for weights in (CODE_WEIGHTS[code] if code else ANY_WEIGHTS)
    )


@dataclass(frozen=True, kw_only=True)
class Relation:
    """A whole, and the parts that it is the sum of."""

    key: str
    whole: Quantity
    formulas: tuple[Formula, ...]
    """One of them holds."""
    offset: int = 0
    """By how much the sum is above the whole."""
    rounding: int = 0
    """By how many steps more it may be off than its number of parts allows."""
    by_code: bool = False
    """Whether it depends on the calculation code."""
    blames_parts: bool = True
    """Whether a part may be wrong if the whole is not what it should be."""


@cache
def relations(code: CalculationCode | None) -> tuple[Relation, ...]:
    """Return what holds with a calculation code, or with any."""
    sums = [
        Relation(
            key=f"{direction}_{kind}:{name}",
            whole=Quantity(f"{direction}_{kind}"),
            formulas=(dict.fromkeys(_energies((direction,), (kind,), columns), 1),),
        )
        for direction, kind in product(DIRECTIONS, KINDS)
        for name, columns in (("tariffs", TARIFFS), ("phases", PHASES))
        # Forward and reverse are net over the phases then.
        if not (name == "phases" and code is LOCKED_CODE and direction != "total")
    ]
    totals = [
        Relation(
            key=f"{total}:code_{code}",
            whole=total,
            # What a code makes of reactive energy is not known.
            formulas=code_formulas(total, code if total in CODED else None),
            by_code=True,
        )
        for total in _energies(("total",), KINDS, COLUMNS)
    ]
    return (*sums, *totals)


@lru_cache(maxsize=1024)
def companions(wanted: frozenset[Quantity]) -> frozenset[Quantity]:
    """Return these quantities, and what each energy among them can be checked with."""
    found = set(wanted)
    for direction, kind, columns in product(DIRECTIONS, KINDS, (TARIFFS, PHASES)):
        [whole] = _energies((direction,), (kind,), ("",))
        parts = _energies((direction,), (kind,), columns)
        if not wanted.isdisjoint((whole, *parts)):
            found |= {whole, *parts}
    # Totals may fall: what swaps them leaves their sum as it is.
    for total in found & TOTALS:
        found |= {*parts_of(total)}
    if COUNTER in wanted:
        found |= {FORWARD, *_energies(("forward",), ("active_energy",), TARIFFS)}
    return frozenset(found)


COUNTER_KEY: Final = f"{COUNTER}:forward"


def counter_relation(offset: int) -> Relation:
    """Return what holds while the resettable counter is not reset.

    `offset` is forward active energy at the last reset.
    """
    return Relation(
        key=COUNTER_KEY,
        whole=COUNTER,
        formulas=({FORWARD: 1},),
        offset=offset,
        rounding=1,
        blames_parts=False,
    )


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Whether a relation holds in a reading."""

    relation: Relation
    members: tuple[Quantity, ...]
    """The whole first."""
    holds: bool
    exact: bool
    """Whether it would hold if nothing had flowed while the reading was put together."""


def check(
    relations: Iterable[Relation],
    steps: Mapping[Quantity, int],
    *,
    missing: AbstractSet[Quantity] = frozenset(),
    slack: float = 0.0,
) -> list[Finding]:
    """Check the relations whose members were read.

    Those of `missing` were read but are not known, which no relation survives. `slack` is
    what may have flowed while the reading was put together, in steps.
    """
    findings = []
    read = steps.keys() | missing
    for relation in relations:
        readable = [formula for formula in relation.formulas if read >= formula.keys()]
        if relation.whole not in read or not readable:
            continue
        known = [formula for formula in readable if missing.isdisjoint((relation.whole, *formula))]
        exact = next((formula for formula in known if holds(relation, formula, steps)), None)
        held = exact or next(
            (formula for formula in known if holds(relation, formula, steps, slack)), None
        )
        if held is not None:
            members = (relation.whole, *held)
        elif len(readable) == len(relation.formulas):
            members = tuple(dict.fromkeys((relation.whole, *chain.from_iterable(readable))))
        else:
            continue
        findings.append(
            Finding(
                relation=relation,
                members=members,
                holds=held is not None,
                exact=exact is not None,
            )
        )
    return findings


def holds(
    relation: Relation, formula: Formula, steps: Mapping[Quantity, int], slack: float = 0.0
) -> bool:
    """Return whether a sum is the whole within the rounding of each value.

    A meter cuts its values off, or rounds them. So the sum of n values that only count up is
    below the whole by fewer than n steps, or above it by one; the sum of one value is the
    whole. Of balances the sum may be above as far as below.
    """
    residual = -steps[relation.whole] - relation.offset
    for part, weight in formula.items():
        residual += weight * steps[part]
    # Some counters may have rolled over and others not.
    residual = (residual + ROLLOVER // 2) % ROLLOVER - ROLLOVER // 2
    below = len(formula) - 1
    above = below if relation.whole in TOTALS else min(below, 1)
    rest = relation.rounding + slack
    if -below - rest <= residual <= above + rest:
        return True
    rest += float_error(steps[relation.whole]) + sum(float_error(steps[part]) for part in formula)
    return -below - rest <= residual <= above + rest


def float_error(steps: int) -> float:
    """Return by how many steps a 32-bit float, rounded to the nearest step, may be wrong."""
    value = abs(steps) * STEP
    return value * 2**-24 / STEP + 0.5 if value >= EXACT_FLOATS else 0.0
