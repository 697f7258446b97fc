"""A meter that counts, what can happen to its answers, and a reader that asks the guard."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
import math
from random import Random
import struct

from custom_components.klefr.meter.guard import judge
from custom_components.klefr.meter.model import CalculationCode, Quantity
from custom_components.klefr.meter.verdict import Jump, Limits, Memory, Moment, Verdict

type Values = Mapping[Quantity, float | None]
type Damage = Callable[[Values], Values]

DIRECT = Limits(at_once=60, confirmed=60)
COUNTER = Quantity.RESETTABLE_COUNTER
FORWARD = Quantity.FORWARD_ACTIVE_ENERGY
REVERSE = Quantity.REVERSE_ACTIVE_ENERGY
TOTAL = Quantity.TOTAL_ACTIVE_ENERGY

KINDS = ("active", "reactive")
DIRECTIONS = ("forward", "reverse")
TARIFFS = ("_t1", "_t2")
PHASES = ("_l1", "_l2", "_l3")
COLUMNS = ("", *TARIFFS, *PHASES)
ENERGIES = frozenset(
    Quantity(f"{direction}_{kind}_energy{column}")
    for direction, kind, column in product((*DIRECTIONS, "total"), KINDS, COLUMNS)
)
OVER_MODBUS = ENERGIES | {COUNTER}
OVER_MBUS = frozenset(
    quantity for quantity in ENERGIES if "_active" in quantity and not quantity.endswith(PHASES)
)

WEIGHTS = {
    CalculationCode.FORWARD: (1, 0),
    CalculationCode.REVERSE: (0, 1),
    CalculationCode.FORWARD_PLUS_REVERSE: (1, 1),
    CalculationCode.REVERSE_MINUS_FORWARD: (-1, 1),
    CalculationCode.FORWARD_MINUS_REVERSE: (1, -1),
    CalculationCode.FORWARD_MINUS_REVERSE_NET: (1, -1),
    CalculationCode.FORWARD_MINUS_REVERSE_NET_PULSES: (1, -1),
}


def to_float32(value: float) -> float:
    """Send a value over Modbus and round it to what the meter resolves."""
    return round(float(struct.unpack(">f", struct.pack(">f", value))[0]), 2) + 0.0


@dataclass(kw_only=True)
class CountingMeter:
    """Counts finer than it shows: what it shows is cut off or rounded, value by value."""

    code: CalculationCode = CalculationCode.FORWARD
    weights: tuple[int, int] | None = None
    """What total is made of, if the code means something else than is known."""
    cuts_off: bool = True
    tariff: str = "_t1"
    counts: dict[tuple[str, str, str], float] = field(default_factory=dict)
    """By direction, kind and tariff or phase."""
    reset_at: float = 0.0

    def __post_init__(self) -> None:
        for key in product(DIRECTIONS, KINDS, COLUMNS[1:]):
            self.counts.setdefault(key, 0.0)

    def has_counted(self, seed: float, *, most: float = 20000.0) -> CountingMeter:
        """Let it have a past."""
        random = Random(seed)
        for direction, kind in product(DIRECTIONS, KINDS):
            phases = [random.uniform(most / 30, most / 3) for _ in PHASES]
            t1 = random.uniform(0.2, 0.8) * sum(phases)
            shares = (t1, sum(phases) - t1, *phases)
            self.counts |= {
                (direction, kind, column): share
                for column, share in zip(COLUMNS[1:], shares, strict=True)
            }
        self.reset_at = self.count("forward", "active") * random.random()
        return self

    def count(self, direction: str, kind: str, column: str = "") -> float:
        columns = (column,) if column else TARIFFS
        return sum(self.counts[direction, kind, name] for name in columns)

    def flow(self, seconds: float, *kilowatts: float) -> None:
        """Let power flow through the phases, with a third as much reactive power."""
        for kind, share in (("active", 1.0), ("reactive", 1 / 3)):
            energies = [power * share * seconds / 3600 for power in kilowatts]
            net = self.code is CalculationCode.FORWARD_MINUS_REVERSE_NET
            for column, energy in [
                *zip(PHASES, energies, strict=True),
                *((self.tariff, energy) for energy in ([sum(energies)] if net else energies)),
            ]:
                self.counts["forward" if energy > 0 else "reverse", kind, column] += abs(energy)

    def reset(self) -> None:
        self.reset_at = self.count("forward", "active")

    def clear(self) -> None:
        self.counts = dict.fromkeys(self.counts, 0.0)
        self.reset_at = 0.0

    def show(self, energy: float) -> float:
        steps = energy * 100
        # A count that is exact in decimals is not cut off for being a binary float.
        cut = math.trunc(steps + math.copysign(1e-6, steps))
        return to_float32((cut if self.cuts_off else round(steps)) / 100)

    def read(self, quantities: Iterable[Quantity] = OVER_MODBUS) -> dict[Quantity, float | None]:
        of_forward, of_reverse = self.weights or WEIGHTS[self.code]
        exact = {COUNTER: self.count("forward", "active") - self.reset_at}
        for kind, column in product(KINDS, COLUMNS):
            forward, reverse = (self.count(direction, kind, column) for direction in DIRECTIONS)
            exact[Quantity(f"forward_{kind}_energy{column}")] = forward
            exact[Quantity(f"reverse_{kind}_energy{column}")] = reverse
            exact[Quantity(f"total_{kind}_energy{column}")] = (
                of_forward * forward + of_reverse * reverse
            )
        return {quantity: self.show(exact[quantity]) for quantity in quantities}


@dataclass(kw_only=True)
class Reader:
    """Polls a meter as the guard wants it to, and keeps what it published."""

    meter: CountingMeter
    quantities: frozenset[Quantity] = OVER_MODBUS
    limits: Limits = DIRECT
    code: CalculationCode | None = None
    """What it believes the calculation code to be."""
    knows_code: bool = True
    """Whether it reads the code with every answer."""
    reset: Moment | None = None
    load: tuple[float, float, float] = (1.4, 0.3, -2.5)
    """KW in each phase."""
    memory: Memory = field(default_factory=Memory)
    monotonic: float = 1000.0
    wall: float = 1.8e9
    published: dict[Quantity, float | None] = field(default_factory=dict)
    jumps: list[Jump] = field(default_factory=list)
    answers: int = 0

    @property
    def now(self) -> Moment:
        return Moment(monotonic=self.monotonic, wall=self.wall)

    @property
    def truth(self) -> Values:
        return self.meter.read(self.quantities)

    def wait(self, seconds: float) -> None:
        self.monotonic += seconds
        self.wall += seconds
        self.meter.flow(seconds, *self.load)

    def answer(self, damage: Damage | None = None, *, spread: float = 0.0) -> Verdict:
        """Judge one answer."""
        verdict = judge(
            self.memory,
            damage(self.truth) if damage else self.truth,
            now=self.now,
            limits=self.limits,
            code=self.meter.code if self.knows_code else self.code,
            reset=self.reset,
            spread=spread,
        )
        self.answers += 1
        self.memory = verdict.memory
        self.jumps += verdict.jumps
        return verdict

    def poll(self, *damages: Damage | None, after: float = 10.0) -> Verdict:
        """Wait, read, read again at once if the guard wants that, and publish."""
        first, second = (*damages, None, None)[:2]
        self.wait(after)
        verdict = self.answer(first)
        if verdict.read_again_after == 0:
            self.wait(0.2)
            verdict = self.answer(second)
        self.published = {
            quantity: value
            for quantity, value in verdict.readings.items()
            if isinstance(value, float) or value is None
        }
        return verdict

    def restart(self, *, down: float = 60.0, clock: float = 0.0) -> None:
        """Forget what is not stored. The wall clock may be set meanwhile."""
        self.memory = Memory.from_json(self.memory.to_json())
        self.reset = None
        self.published = {}
        self.wait(down)
        self.wall += clock
        self.monotonic = 5.0


def started(meter: CountingMeter | None = None, **settings: object) -> Reader:
    """A reader that has confirmed the first reading."""
    reader = Reader(meter=meter or CountingMeter().has_counted(1), **settings)  # type: ignore[arg-type]
    reader.poll()
    return reader
