"""What the guard decides, and what it remembers for the next decision."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
import json
import math
from typing import Any, Self
from zlib import crc32

from .model import CalculationCode, Quantity, Readings
from .relations import GUARDED


class Decision(StrEnum):
    """What became of a value, and why."""

    STEADY = "steady"
    """Believed: the last good value once more."""
    PLAUSIBLE = "plausible"
    """Believed: it can have flowed, and everything fits together."""
    CODE_EXPLAINED = "code_explained"
    """Believed: the total jumped to what the calculation code makes of forward and reverse."""
    RESET_EXPLAINED = "reset_explained"
    """Believed: the counter was just reset."""
    CONFIRMED = "confirmed"
    """Believed: two answers agree."""
    PERSISTENT = "persistent"
    """Believed: a surprise that stayed."""
    REPLACED = "replaced"
    """Why a value jumped: it is the first of a meter that replaced another."""

    UNCONFIRMED = "unconfirmed"
    """Held until a second answer agrees."""
    BLANK = "blank"
    """Held: all energies are zero, as in a new meter or one that starts."""
    FALLEN = "fallen"
    """Held, suspect: it is less than it was."""
    JUMPED = "jumped"
    """Held, suspect: more than can have flowed."""
    INCONSISTENT = "inconsistent"
    """Held, suspect: it does not fit together with other values."""
    MISSING = "missing"
    """Held: the meter does not say it."""
    UNKNOWN = "unknown"
    """The meter has not said it for so long that the last good value is too old."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A point in time on two clocks, in seconds."""

    monotonic: float
    wall: float
    """Since 1970, UTC."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one phase can carry, in kW or kvar."""

    at_once: float
    confirmed: float
    """If two answers agree."""
    phases: int = 3
    """How many phases the meter is for."""


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A value that was believed, and when the meter said it."""

    value: float
    wall: float
    monotonic: float | None
    """None if that was before the last start."""
    code: CalculationCode | None
    """The calculation code that was known then, if no total contradicted it."""
    parts: Mapping[Quantity, float] = field(default_factory=dict)
    """The forward and reverse energy that were believed along with a total. Not stored."""


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """What the meter says instead of what is believed."""

    value: float | None
    at: Moment
    """When it said so last."""
    first: float | None
    since: float
    """Monotonic."""
    answers: int = 1
    """How many there were that did not contradict one another."""
    broken: frozenset[str] = frozenset()
    """The relations that held in none of them."""
    damaged: bool = False
    """Whether something in the last of them cannot be true."""
    found: Decision = Decision.UNCONFIRMED
    """What the last of them alone shows."""
    interrupted: Doubt | None = None
    """What it said before, if this may be damage."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What `judge` knows from earlier readings of the same meter."""

    accepted: Mapping[Quantity, Accepted] = field(default_factory=dict)
    reset_offset: int | None = None
    """Forward active energy less the resettable counter, in steps."""
    not_kept: Mapping[str, int] = field(default_factory=dict)
    """The relations that do not hold in this meter, and how often they did lately."""
    doubts: Mapping[Quantity, Doubt] = field(default_factory=dict)
    """Not stored: after a start every surprise is a new one."""
    suspect_readings: int = 0
    """Since the start."""
    replaced: Mapping[Quantity, float] = field(default_factory=dict)
    """What was believed last of the meter that was replaced, until its successor is believed."""

    def with_another_meter(self) -> Self:
        """Return what to go on with when another meter takes the place of this one.

        Nothing of the new meter is judged by the old one. Its first values are jumps that no flow
        of energy explains.
        """
        last = {quantity: accepted.value for quantity, accepted in self.accepted.items()}
        return type(self)(replaced={**self.replaced, **last})

    def to_json(self) -> dict[str, Any]:
        """Return what to store, in values that JSON has."""
        stored = {
            "accepted": {
                str(quantity): [accepted.value, accepted.wall, accepted.code]
                for quantity, accepted in self.accepted.items()
            },
            "reset_offset": self.reset_offset,
            "not_kept": dict(self.not_kept),
            "replaced": {str(quantity): value for quantity, value in self.replaced.items()},
        }
        return {**stored, "checksum": _checksum(stored)}

    @classmethod
    def from_json(cls, stored: Any) -> Self:
        """Return what was stored. If it is damaged in any way, that is nothing."""
        try:
            names = ("accepted", "reset_offset", "not_kept", "replaced")
            content = {name: stored[name] for name in names}
            if stored["checksum"] != _checksum(content):
                return cls()
            accepted = {
                Quantity(name): Accepted(
                    value=float(value),
                    wall=float(wall),
                    monotonic=None,
                    code=None if code is None else CalculationCode(code),
                )
                for name, (value, wall, code) in content["accepted"].items()
            }
            offset = content["reset_offset"]
            not_kept = {str(key): int(held) for key, held in content["not_kept"].items()}
            replaced = {Quantity(name): float(value) for name, value in content["replaced"].items()}
        except AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError:
            return cls()
        numbers = [number for entry in accepted.values() for number in (entry.value, entry.wall)]
        numbers += replaced.values()
        known = GUARDED.issuperset((*accepted, *replaced)) and all(map(math.isfinite, numbers))
        if not known or not (offset is None or type(offset) is int):
            return cls()
        return cls(accepted=accepted, reset_offset=offset, not_kept=not_kept, replaced=replaced)


def _checksum(content: Mapping[str, Any]) -> int:
    return crc32(json.dumps(content, sort_keys=True).encode())


@dataclass(frozen=True, kw_only=True)
class Jump:
    """A believed value that no flow of energy explains. In kWh or kvarh."""

    quantity: Quantity
    before: float
    after: float
    consumed: float
    """What flowed meanwhile, as far as is known. The rest of the difference did not."""
    wall: float
    """When it was believed."""
    reason: Decision


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What `judge` makes of a reading."""

    readings: Readings
    """The reading as it may be published. None where no good value is known in this run."""
    decisions: Mapping[Quantity, Decision]
    """For every guarded quantity that was read."""
    jumps: tuple[Jump, ...]
    """Only what statistics have to be corrected for, not what differs by the rounding of the
    value before."""
    read_again_after: float | None
    """Seconds within which to read the same again, together with the calculation code; 0 for
    at once, which is enough once per poll. None if the usual interval will do."""
    suspect: bool
    """Whether a value is held that cannot be true."""
    memory: Memory
    """What to judge the next reading by. Store it at once if there are jumps: they
    would be believed a second time after a restart."""
