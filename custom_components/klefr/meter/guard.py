"""Which energy readings are true.

`judge` is a pure function of a reading, of what was accepted before and when, and of what
the meter can carry. It lets a value through, or holds it and keeps the last good one.

What a value needs to be believed:

- At once: it has not fallen, it has not moved by more than can have flowed since it was last
  accepted, and it breaks no relation (relations.py lists them). If it has changed, it also
  needs a relation that holds: where none can be checked, a change looks like damage until a
  second answer confirms it. A total that jumped to what a new calculation code makes of
  forward and reverse is right, and so is a counter that was just reset.
- With a second answer: the first value ever, the first after a start or of a meter that
  replaced another, a change that no relation covers, and what can have flowed only if the
  machine slept or if the meter has transformers that the bus does not report.
- With five answers over two minutes that say the same: everything else, such as a cleared
  meter. A first reading of nothing but zeros needs them too: a meter that starts says the
  same, and the true energies would then count as consumption. A minute of silence, another
  value that is said twice, and a return to what is plausible end the row.

A relation proves something only if all its members are believed. A broken one is blamed on
those of its members that have fallen or jumped. If none has, it is blamed on all of them. A
relation that stays broken is not checked until it has held a hundred times in a row. So a
calculation code with an unknown meaning, or phases that do not add up, hold no value for ever.

Two clocks measure the time since a value was accepted. Within a run that is the monotonic
one: setting the wall clock changes no decision. Over a restart only the wall clock is left.
It may be wrong by an hour, and a second answer must agree.

What the guard cannot know: a wrong value that breaks no relation and is near enough. A
relation holds within the rounding of its values, in which 0.02 kWh of a whole or a tariff
and 0.04 kWh of a phase may hide, or more if all members of a relation are wrong in the same
way. Where no relation covers a value, two answers may be wrong in the same way. And the
guard believes every value that a meter says for two minutes without a contradiction.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Final

from .model import CalculationCode, Identity, Quantity, Readings
from .relations import (
    COUNTER,
    COUNTER_KEY,
    FORWARD,
    GUARDED,
    PHASE_ENERGIES,
    STEP,
    TOTALS,
    Finding,
    Relation,
    check,
    code_formulas,
    counter_relation,
    float_error,
    holds,
    parts_of,
    relations,
)
from .verdict import Accepted, Decision, Doubt, Jump, Limits, Memory, Moment, Verdict

ENOUGH_SECONDS: Final = 120.0
ENOUGH_ANSWERS: Final = 5
"""For how long and how often a meter must say a surprise before it is believed."""
READ_AGAIN_SECONDS: Final = 30.0
"""How often a surprise is read, so that it is believed within three minutes."""
LONGEST_SILENCE: Final = 60.0
"""Seconds after which two answers do not belong together."""
SAMPLING_SECONDS: Final = 2.0
"""Seconds by which a value may be older than the answer that holds it."""
CLOCK_ERROR: Final = 3600.0
"""Seconds by which the wall clock may have been set over a restart."""
MOST_ROUNDING: Final = 4
"""Steps by which a value that holds every relation may be wrong."""
HELD_AGAIN: Final = 100
"""Readings in a row after which a relation that was broken is checked again."""

LARGEST_ENERGY: Final = 1e8
"""KWh or kvarh. The display has eight digits."""
KILOWATTS_PER_AMPERE: Final = 0.6
"""What a phase carries at most: 500 V between phases of a delta network, 20 % overload."""
DIRECT_CURRENT: Final = 100
"""A. What a direct meter is rated for."""
LARGEST_CURRENT: Final = 6000
"""A. What the largest usual transformers carry."""


AT_ONCE: Final = frozenset(
    {
        Decision.STEADY,
        Decision.PLAUSIBLE,
        Decision.CODE_EXPLAINED,
        Decision.RESET_EXPLAINED,
    }
)
POSSIBLE: Final = AT_ONCE | {Decision.UNCONFIRMED}
IMPLAUSIBLE: Final = frozenset({Decision.FALLEN, Decision.JUMPED})
MAY_JUMP: Final = TOTALS | {COUNTER}
"""Totals jump with the calculation code, and the counter is reset, in a meter that is well."""
SUSPECT: Final = IMPLAUSIBLE | {Decision.INCONSISTENT}


def limits_of(identity: Identity) -> Limits:
    """Return what a meter can carry. One that does not report it may have transformers."""
    current = identity.maximum_current or DIRECT_CURRENT
    largest = identity.maximum_current or LARGEST_CURRENT
    return Limits(
        at_once=current * KILOWATTS_PER_AMPERE,
        confirmed=largest * KILOWATTS_PER_AMPERE,
        phases=identity.phases,
    )


def judge(
    memory: Memory,
    readings: Readings,
    *,
    now: Moment,
    limits: Limits,
    code: CalculationCode | None,
    reset: Moment | None = None,
    spread: float = 0.0,
) -> Verdict:
    """Decide which energies of a reading are true.

    `now` is when the answer arrived, `code` the calculation code if it is known, `reset`
    when the resettable counter was last reset over the bus in this run, and `spread` the
    seconds between the first and the last answer that the reading was put together from.

    Readings have to come from different requests: an answer that a gateway sends twice
    confirms nothing.
    """
    values = {
        quantity: float(value)
        if isinstance(value, int | float) and abs(value) < LARGEST_ENERGY
        else None
        for quantity, value in readings.items()
        if quantity in GUARDED
    }
    steps = {quantity: _steps(value) for quantity, value in values.items() if value is not None}
    accepted = dict(memory.accepted)
    just_reset = reset is not None and _is_newer(reset, accepted.get(COUNTER))
    if reset is not None and just_reset:
        accepted[COUNTER] = Accepted(
            value=0.0, wall=reset.wall, monotonic=reset.monotonic, code=code
        )

    alone = {
        quantity: _judge_alone(
            quantity, steps, accepted.get(quantity), memory.doubts.get(quantity), now, limits
        )
        for quantity in values
    }
    slack = _flow(limits.phases * limits.at_once, spread)
    explained = _explain_totals(alone, steps, accepted, code)
    if just_reset:
        explained |= _explain_counter(alone, steps, accepted)
    found = alone | {quantity: explanation.found for quantity, explanation in explained.items()}
    expected = list(relations(code))
    if memory.reset_offset is not None and not just_reset:
        expected.append(counter_relation(memory.reset_offset))
    findings = check(
        expected,
        steps,
        missing={quantity for quantity in accepted if values.get(quantity, 0) is None},
        slack=slack,
    )
    far = {
        quantity
        for quantity, decision in found.items()
        if decision in IMPLAUSIBLE
        and abs(steps[quantity] - _steps(accepted[quantity].value)) > MOST_ROUNDING
    }
    # If another total contradicts the code, a total that is believed may follow the code before.
    proven_code = code if all(item.holds for item in findings if item.relation.by_code) else None
    suspects = {quantity for quantity, decision in found.items() if decision in IMPLAUSIBLE}
    checked = [finding for finding in findings if finding.relation.key not in memory.not_kept]
    covers, broken = _blame(checked, suspects, far, explained.keys())
    torn = not far <= MAY_JUMP
    damaged = bool(broken) or not suspects <= MAY_JUMP
    covered = covers.keys() - _doubtful(checked, far, memory)
    while True:
        outcomes = {
            quantity: _settle(
                quantity,
                value,
                found[quantity],
                last=accepted.get(quantity),
                doubt=memory.doubts.get(quantity),
                covered=quantity in covered,
                broken=frozenset(broken.get(quantity, ())),
                torn=torn,
                damaged=damaged,
                now=now,
                limits=limits,
                code=proven_code,
            )
            for quantity, value in values.items()
        }
        # What is not believed itself covers nothing.
        witnesses = {
            quantity
            for quantity, outcome in outcomes.items()
            if outcome.accepted and outcome.accepted.value == values[quantity]
        }
        still = {
            quantity
            for quantity in covered
            if any(witnesses >= members for members in covers[quantity])
        }
        if still == covered:
            break
        covered = still
    suspect = any(outcome.decision in SUSPECT for outcome in outcomes.values())
    believed = {name: outcome.accepted for name, outcome in outcomes.items() if outcome.accepted}
    return Verdict(
        readings={
            **readings,
            **{
                quantity: _published(outcome, memory.accepted.get(quantity))
                for quantity, outcome in outcomes.items()
            },
        },
        decisions={quantity: outcome.decision for quantity, outcome in outcomes.items()},
        jumps=_jumps(memory, alone, steps, explained, outcomes, now),
        read_again_after=min(
            (
                READ_AGAIN_SECONDS if outcome.doubt.answers > 1 else 0.0
                for outcome in outcomes.values()
                if outcome.doubt and outcome.decision is not Decision.UNKNOWN
            ),
            default=None,
        ),
        suspect=suspect,
        memory=Memory(
            accepted=_with_parts({**memory.accepted, **believed}, believed),
            replaced={
                name: value for name, value in memory.replaced.items() if name not in believed
            },
            reset_offset=_reset_offset(memory, steps, outcomes, just_reset=just_reset),
            not_kept=_not_kept(memory, findings, outcomes),
            doubts={
                quantity: doubt
                for quantity, doubt in {
                    **memory.doubts,
                    **{name: outcome.doubt for name, outcome in outcomes.items()},
                }.items()
                if doubt is not None
            },
            suspect_readings=memory.suspect_readings + suspect,
        ),
    )


@dataclass(frozen=True, kw_only=True)
class _Explanation:
    """Why a value that jumped is right."""

    reason: Decision
    found: Decision
    """How the value is judged then."""
    consumed: int
    """Steps."""


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What became of one value."""

    decision: Decision
    accepted: Accepted | None = None
    doubt: Doubt | None = None
    """What is held from now on."""
    counted: int = 0
    """Steps that were counted while a surprise stayed."""
    broken: frozenset[str] = frozenset()
    """The relations that held in no answer while a surprise stayed."""


def _steps(value: float) -> int:
    return round(value / STEP)


def _flow(power: float, seconds: float) -> float:
    """Return how many steps a power in kW counts."""
    return power * seconds / 3600 / STEP


def _power_through(quantity: Quantity, power: float, limits: Limits) -> float:
    """Return what an energy can count if each phase carries a power in kW."""
    return power if quantity in PHASE_ENERGIES else power * limits.phases


def _is_near(new: int, old: int, power: float, seconds: float) -> bool:
    """Return whether a power in kW can have made one value of the other."""
    most = _flow(power, seconds + SAMPLING_SECONDS) + 1
    return abs(new - old) <= most + float_error(new) + float_error(old)


def _goes_on(
    quantity: Quantity, new: int, doubt: Doubt, old: int, now: Moment, limits: Limits
) -> bool:
    """Return whether a value goes on with what was said twice, not with the last good one."""
    seconds = now.monotonic - doubt.at.monotonic
    if doubt.value is None or doubt.answers == 1 or seconds > LONGEST_SILENCE:
        return False
    held = _steps(doubt.value)
    if new < held and quantity not in TOTALS:
        return False
    near = _is_near(new, held, _power_through(quantity, limits.confirmed, limits), seconds)
    return near and abs(new - held) < abs(new - old)


def _is_newer(moment: Moment, accepted: Accepted | None) -> bool:
    # What was accepted at the same moment was read before: an answer takes time.
    return accepted is None or accepted.monotonic is None or accepted.monotonic <= moment.monotonic


def _judge_alone(
    quantity: Quantity,
    steps: Mapping[Quantity, int],
    last: Accepted | None,
    doubt: Doubt | None,
    now: Moment,
    limits: Limits,
) -> Decision:
    """Judge a value by the last good one, and by whether it has just been a jump."""
    if quantity not in steps:
        return Decision.MISSING
    if last is None:
        return Decision.UNCONFIRMED if any(steps.values()) else Decision.BLANK
    new, old = steps[quantity], _steps(last.value)
    if new < old and quantity not in TOTALS:
        return Decision.FALLEN
    if (
        doubt
        and doubt.found is Decision.JUMPED
        and _goes_on(quantity, new, doubt, old, now, limits)
    ):
        # It does not become possible by waiting.
        return Decision.JUMPED
    longest = now.wall - last.wall
    if last.monotonic is None:
        longest = max(longest, 0) + CLOCK_ERROR
    else:
        measured = now.monotonic - last.monotonic
        longest = max(longest, measured)
        power = _power_through(quantity, limits.at_once, limits)
        if _is_near(new, old, power, measured):
            return Decision.STEADY if new == old else Decision.PLAUSIBLE
    near = _is_near(new, old, _power_through(quantity, limits.confirmed, limits), longest)
    return Decision.UNCONFIRMED if near else Decision.JUMPED


def _explain_totals(
    alone: Mapping[Quantity, Decision],
    steps: Mapping[Quantity, int],
    accepted: Mapping[Quantity, Accepted],
    code: CalculationCode | None,
) -> dict[Quantity, _Explanation]:
    """Find the totals that jumped to what a new code makes of a plausible forward and reverse."""
    explained: dict[Quantity, _Explanation] = {}
    for total in TOTALS if code else ():
        last = accepted.get(total)
        found = alone.get(total, Decision.MISSING)
        if last is None or last.code is code:
            continue
        # A small move shows nothing unless another code is known to have been in force.
        if found is not Decision.JUMPED and (last.code is None or found not in POSSIBLE):
            continue
        for formula in code_formulas(total, code):
            relation = Relation(key="", whole=total, formulas=(formula,))
            if (
                not accepted.keys() >= formula.keys()
                or not all(alone.get(part) in POSSIBLE for part in formula)
                or not holds(relation, formula, steps)
            ):
                continue
            # While the total was held, its parts went on.
            consumed = sum(
                weight * (steps[part] - _steps(last.parts.get(part, accepted[part].value)))
                for part, weight in formula.items()
            )
            moved = steps[total] - _steps(last.value)
            if found is Decision.JUMPED or abs(moved - consumed) > MOST_ROUNDING:
                at_once = all(alone[part] in AT_ONCE for part in formula)
                explained[total] = _Explanation(
                    reason=Decision.CODE_EXPLAINED,
                    found=Decision.CODE_EXPLAINED if at_once else Decision.UNCONFIRMED,
                    consumed=consumed,
                )
    return explained


def _explain_counter(
    alone: Mapping[Quantity, Decision],
    steps: Mapping[Quantity, int],
    accepted: Mapping[Quantity, Accepted],
) -> dict[Quantity, _Explanation]:
    """Find out whether the resettable counter was reset, being plausible since zero."""
    if alone.get(COUNTER) not in POSSIBLE:
        return {}
    counted = consumed = steps[COUNTER]
    at_once = alone[COUNTER] in AT_ONCE
    if FORWARD in steps and FORWARD in accepted:
        # It has counted what forward energy has, or less.
        consumed = steps[FORWARD] - _steps(accepted[FORWARD].value)
        at_once &= counted <= consumed + 1
    return {
        COUNTER: _Explanation(
            reason=Decision.RESET_EXPLAINED,
            found=Decision.RESET_EXPLAINED if at_once else Decision.UNCONFIRMED,
            consumed=consumed,
        )
    }


type _Covers = Mapping[Quantity, Collection[AbstractSet[Quantity]]]
"""The members of each relation that covers a quantity."""


def _concerned(finding: Finding) -> AbstractSet[Quantity]:
    """Return the members of a relation that it says something about."""
    return {*(finding.members if finding.relation.blames_parts else finding.members[:1])}


def _blame(
    checked: Collection[Finding],
    suspects: AbstractSet[Quantity],
    far: AbstractSet[Quantity],
    explained: AbstractSet[Quantity],
) -> tuple[_Covers, Mapping[Quantity, AbstractSet[str]]]:
    """Return what covers each quantity, and the relations that speak against it.

    A broken relation is blamed on what has moved `far`, and on what jumped for a reason that
    this relation does not know; if nothing has moved far, on all its members. What has moved
    far, or is blamed, is no witness: a quantity that has no other witness is blamed too. So is
    one that fits to a part that has moved far, or to a whole that no code explains, even if it
    has another witness: both may be of another meter.
    """
    against: dict[Quantity, set[str]] = defaultdict(set)
    for finding in checked:
        if not finding.holds:
            moved = far & {*finding.members}
            concerned = _concerned(finding)
            for member in concerned & (moved | explained) if moved else concerned:
                against[member].add(finding.relation.key)
    while True:
        blamed = {*against}
        covers = _covers(checked, blamed, suspects, far)
        for finding in checked:
            if not (blamed | far).isdisjoint(finding.members):
                strange = far - (MAY_JUMP & {finding.relation.whole})
                fits = finding.holds and not strange.isdisjoint(finding.members)
                for member in _concerned(finding) - far - (set() if fits else covers.keys()):
                    against[member].add(finding.relation.key)
        if blamed == against.keys():
            return covers, against


def _covers(
    checked: Iterable[Finding],
    blamed: AbstractSet[Quantity],
    suspects: AbstractSet[Quantity],
    far: AbstractSet[Quantity],
) -> _Covers:
    """Return what covers each quantity.

    A relation covers nothing if one of its members is a suspect: two values that swap their
    last digits have the same sum. A relation that holds only because energy may have flowed
    while the reading was put together takes the cover of other relations away from its members:
    two damaged values may fit to each other.
    """
    covers: dict[Quantity, list[AbstractSet[Quantity]]] = defaultdict(list)
    torn: set[Quantity] = set()
    for finding in checked:
        if finding.holds and not finding.exact:
            torn |= _concerned(finding)
        elif finding.exact and blamed.isdisjoint(finding.members):
            sound = suspects.isdisjoint(finding.members)
            for member in _concerned(finding) if sound else _concerned(finding) & far:
                covers[member].append({*finding.members})
    return {member: covers[member] for member in covers.keys() - torn}


def _doubtful(
    checked: Iterable[Finding], far: AbstractSet[Quantity], memory: Memory
) -> AbstractSet[Quantity]:
    """Return what no relation covers because another one is broken.

    A whole that fits to its phases alone may be wrong by three steps. The jumps that meters have
    break relations too, and so does what two answers have said already: these are no damage.
    """
    known = {key for doubt in memory.doubts.values() if doubt.answers > 1 for key in doubt.broken}
    doubtful: set[Quantity] = set()
    for finding in checked:
        if finding.holds or finding.relation.key in known:
            continue
        moved = far & {*finding.members}
        if not moved:
            doubtful |= {*finding.members}
        elif not moved <= MAY_JUMP:
            doubtful.add(finding.relation.whole)
    return doubtful


def _follows(doubt: Doubt, quantity: Quantity, said: Doubt, limits: Limits) -> bool:
    """Return whether an answer says the same as the one before."""
    seconds = said.at.monotonic - doubt.at.monotonic
    if seconds > LONGEST_SILENCE:
        return False
    if said.value is None or doubt.value is None:
        return said.value is doubt.value
    if Decision.BLANK in (said.found, doubt.found) and said.found is not doubt.found:
        # Only one of the two was of a meter that starts.
        return False
    if said.broken - doubt.broken or (doubt.answers == 1 and doubt.broken - said.broken):
        # One of the two breaks what held in the other: it is damaged.
        return False
    new, old = _steps(said.value), _steps(doubt.value)
    fallen = new < old and quantity not in TOTALS
    # A meter that starts says zero, which must not pass for what a large load makes of a total.
    power = limits.confirmed if new and old else limits.at_once
    return not fallen and _is_near(new, old, _power_through(quantity, power, limits), seconds)


def _is_between(quantity: Quantity, middle: float, last: Accepted | None, new: float) -> bool:
    """Return whether the meter passed a value on its way from the last good one to the new one."""
    if last is None:
        return True
    least, most = sorted((_steps(last.value), _steps(new)))
    margin = 1 if quantity in TOTALS else 0
    return least - margin <= _steps(middle) <= most + margin


def _settle(
    quantity: Quantity,
    value: float | None,
    found: Decision,
    *,
    last: Accepted | None,
    doubt: Doubt | None,
    covered: bool,
    broken: frozenset[str],
    torn: bool,
    damaged: bool,
    now: Moment,
    limits: Limits,
    code: CalculationCode | None,
) -> _Outcome:
    """Decide on a value by all that was found out about it and by what was said before."""
    checked = covered or found is not Decision.PLAUSIBLE
    if value is not None and found in AT_ONCE and checked and not broken:
        return _Outcome(decision=found, accepted=_accept(value, now, code))

    said = Doubt(
        value=value,
        at=now,
        first=value,
        since=now.monotonic,
        broken=broken,
        damaged=damaged,
        found=found,
    )
    # A value that no second answer repeats is damage and contradicts nothing. A return to what
    # the meter can have counted does.
    rows = [row for row in (doubt and doubt.interrupted, doubt) if row]
    row = next((row for row in rows if _follows(row, quantity, said, limits)), None)
    if row is None:
        returned = last is not None and found in POSSIBLE
        longer = next((row for row in reversed(rows) if row.answers > 1), None)
        interrupted = None if returned else longer
        said = replace(said, interrupted=interrupted)
        return _Outcome(decision=_reason_to_hold(found, broken), doubt=said)

    held = replace(
        said,
        first=row.first,
        since=row.since,
        answers=row.answers + 1,
        broken=row.broken & broken,
    )
    stayed = held.answers >= ENOUGH_ANSWERS and now.monotonic - held.since >= ENOUGH_SECONDS
    if value is None or row.value is None or row.first is None:
        decision = Decision.UNKNOWN if stayed else Decision.MISSING
        return _Outcome(decision=decision, doubt=held)
    # Where nothing covers the value, it confirms the one before and waits to be confirmed.
    accepted = _accept(value, now, code) if covered else _accept(row.value, row.at, code)
    waiting = said if _steps(value) != _steps(accepted.value) else None
    # A counter that cannot be true makes its whole answer doubtful: it may be of another meter.
    # What no relation covers may be damaged if anything in its answer is.
    sound = not damaged and not row.damaged and _is_between(quantity, row.value, last, value)
    if found in POSSIBLE and not broken and not torn and (covered or sound):
        return _Outcome(decision=Decision.CONFIRMED, accepted=accepted, doubt=waiting)
    if stayed:
        return _Outcome(
            decision=Decision.PERSISTENT,
            accepted=accepted,
            # It is believed now, so it is no damage any more, and what it broke is not checked.
            doubt=waiting
            and replace(waiting, damaged=False, found=Decision.UNCONFIRMED, broken=frozenset()),
            counted=_steps(accepted.value) - _start(quantity, row, last, limits),
            broken=held.broken,
        )
    return _Outcome(decision=_reason_to_hold(found, broken), doubt=held)


def _start(quantity: Quantity, row: Doubt, last: Accepted | None, limits: Limits) -> int:
    """Return the steps that a surprise which stays counts from.

    A counter that has fallen to what can have flowed since the last good value counts from zero.
    """
    first = _steps(row.first or 0)
    if last is None or abs(first) > abs(first - _steps(last.value)):
        return first
    ago = row.at.monotonic - row.since
    seconds = (
        row.at.wall - ago - last.wall if last.monotonic is None else row.since - last.monotonic
    )
    power = _power_through(quantity, limits.at_once, limits)
    return 0 if _is_near(first, 0, power, max(seconds, 0)) else first


def _accept(value: float, at: Moment, code: CalculationCode | None) -> Accepted:
    return Accepted(value=value, wall=at.wall, monotonic=at.monotonic, code=code)


def _with_parts(
    accepted: Mapping[Quantity, Accepted], believed: Mapping[Quantity, Accepted]
) -> Mapping[Quantity, Accepted]:
    """Return what is accepted, with what the totals among it that are new are made of."""
    totals = {
        total: replace(
            believed[total],
            parts={part: accepted[part].value for part in parts_of(total) if part in accepted},
        )
        for total in TOTALS & believed.keys()
    }
    return {**accepted, **totals}


def _reason_to_hold(found: Decision, broken: AbstractSet[str]) -> Decision:
    if found not in POSSIBLE:
        return found
    return Decision.INCONSISTENT if broken else Decision.UNCONFIRMED


def _published(outcome: _Outcome, last: Accepted | None) -> float | None:
    """Return the value if it is believed, else the last good one.

    One that was stored does not count: more may have been published after it was.
    """
    if outcome.accepted:
        return outcome.accepted.value
    if outcome.decision is Decision.UNKNOWN or last is None or last.monotonic is None:
        return None
    return last.value


def _jumps(
    memory: Memory,
    alone: Mapping[Quantity, Decision],
    steps: Mapping[Quantity, int],
    explained: Mapping[Quantity, _Explanation],
    outcomes: Mapping[Quantity, _Outcome],
    now: Moment,
) -> tuple[Jump, ...]:
    """Return what was believed although it is not what flowed."""
    jumps = []
    for quantity, outcome in outcomes.items():
        last = memory.accepted.get(quantity)
        explanation = explained.get(quantity)
        if outcome.accepted and (replaced := memory.replaced.get(quantity)) is not None:
            jumps.append(
                Jump(
                    quantity=quantity,
                    before=replaced,
                    after=outcome.accepted.value,
                    consumed=round(outcome.counted * STEP, 2),
                    wall=now.wall,
                    reason=Decision.REPLACED,
                )
            )
            continue
        if not last or not outcome.accepted:
            continue
        moved = _steps(outcome.accepted.value) - _steps(last.value)
        lost = _lost(quantity, memory, steps, outcomes)
        # What is believed may be older than what was read.
        fallen = moved < 0 and quantity not in TOTALS
        if explanation or lost is not None or fallen or alone[quantity] in IMPLAUSIBLE:
            consumed = explanation.consumed if explanation else outcome.counted
            if lost is not None:
                consumed = moved + lost
            # The value before was wrong by no more than rounding hides: what is counted from one
            # value to the next is right again with this one.
            if not explanation and abs(moved - consumed) <= MOST_ROUNDING:
                continue
            jumps.append(
                Jump(
                    quantity=quantity,
                    before=last.value,
                    after=outcome.accepted.value,
                    consumed=round(consumed * STEP, 2),
                    wall=now.wall,
                    reason=explanation.reason if explanation else outcome.decision,
                )
            )
    return tuple(jumps)


def _lost(
    quantity: Quantity,
    memory: Memory,
    steps: Mapping[Quantity, int],
    outcomes: Mapping[Quantity, _Outcome],
) -> int | None:
    """Return the steps that a reset at the meter has taken from the resettable counter.

    Forward energy shows it, which went on. None if that is not known, or if there was no reset.
    """
    forward = outcomes.get(FORWARD)
    if quantity is not COUNTER or outcomes[COUNTER].decision is not Decision.PERSISTENT:
        return None
    if memory.reset_offset is None or not (forward and forward.accepted):
        return None
    if forward.decision is Decision.PERSISTENT or _steps(forward.accepted.value) != steps[FORWARD]:
        return None
    return steps[FORWARD] - steps[COUNTER] - memory.reset_offset


def _reset_offset(
    memory: Memory,
    steps: Mapping[Quantity, int],
    outcomes: Mapping[Quantity, _Outcome],
    *,
    just_reset: bool,
) -> int | None:
    """Return how far forward energy is above the resettable counter from now on.

    None if that is not known for sure.
    """
    counter, forward = outcomes.get(COUNTER), outcomes.get(FORWARD)
    jumped = any(
        outcome is not None and outcome.decision is Decision.PERSISTENT
        for outcome in (counter, forward)
    )
    if not (counter and counter.accepted and forward and forward.accepted):
        return None if jumped else memory.reset_offset
    if not just_reset and not jumped and memory.reset_offset is not None:
        return memory.reset_offset
    if (_steps(counter.accepted.value), _steps(forward.accepted.value)) != (
        steps[COUNTER],
        steps[FORWARD],
    ):
        return None
    return steps[FORWARD] - steps[COUNTER]


def _not_kept(
    memory: Memory, findings: Collection[Finding], outcomes: Mapping[Quantity, _Outcome]
) -> Mapping[str, int]:
    """Return the relations that are not checked from now on."""
    not_kept = dict(memory.not_kept)
    for finding in findings:
        believed = all(outcomes[member].accepted for member in finding.members)
        if finding.relation.key in not_kept and believed:
            not_kept[finding.relation.key] = (
                not_kept[finding.relation.key] + 1 if finding.holds else 0
            )
    broken = {finding.relation.key for finding in findings if not finding.holds} - {COUNTER_KEY}
    for outcome in outcomes.values():
        not_kept |= dict.fromkeys(outcome.broken & broken, 0)
    return {key: held for key, held in not_kept.items() if held < HELD_AGAIN}
