"""What to read when, so that a shared bus is never overloaded.

Values move at three paces, so they are not all read equally often. While the bus has room, nearly
all are read with every poll. When it has not, only what moves fastest is.

All meters on a bus have the same timetable. Each has its own place in the interval, so they are
not all read at the same moment.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Final, Self

from .model import Quantity, Setting
from .relations import COUNTER, GUARDED


class Pace(StrEnum):
    """How fast a value moves."""

    LIVE = "live"
    COUNTED = "counted"
    STATE = "state"
    """What a meter reports about itself, and its settings."""
    COUNTERS = "counters"
    """As slow as the state, but checked with energies, so it is read when they are."""


COUNTED: Final = frozenset(
    {
        *(GUARDED - {COUNTER}),
        Quantity.FREQUENCY,
        Quantity.POWER_FACTOR,
        Quantity.POWER_FACTOR_L1,
        Quantity.POWER_FACTOR_L2,
        Quantity.POWER_FACTOR_L3,
    }
)
STATE: Final = frozenset(
    {
        Quantity.ERROR_CODE,
        Quantity.POWER_DOWN_COUNTER,
        Quantity.CURRENT_DIRECTION_L1,
        Quantity.CURRENT_DIRECTION_L2,
        Quantity.CURRENT_DIRECTION_L3,
        Quantity.QUADRANT,
        Quantity.QUADRANT_L1,
        Quantity.QUADRANT_L2,
        Quantity.QUADRANT_L3,
        Quantity.ACCESS_NUMBER,
        Quantity.STATUS_OK,
        Quantity.PROGRAM_OK,
        Quantity.EEPROM_OK,
        Quantity.SUPPLY_L1,
        Quantity.SUPPLY_L2,
        Quantity.SUPPLY_L3,
    }
)

PACES: Final[Mapping[Quantity, Pace]] = {
    **dict.fromkeys(Quantity, Pace.LIVE),
    **dict.fromkeys(COUNTED, Pace.COUNTED),
    **dict.fromkeys(STATE, Pace.STATE),
    COUNTER: Pace.COUNTERS,
}
"""Power, voltage and current are live."""
SETTING_PACES: Final[Mapping[Setting, Pace]] = {
    **dict.fromkeys(Setting, Pace.STATE),
    # It says what is counted.
    Setting.TARIFF: Pace.COUNTERS,
}


@dataclass(frozen=True, kw_only=True)
class Timetable:
    """How often values are read. Live ones are read with every poll."""

    counted: float
    """Seconds after which they are read again at the latest; 0 for every poll."""
    state: float
    """Seconds after which it is read again, and counters too; the interval if that is longer."""
    identified: bool
    """Whether every poll reads the serial number."""


FREE: Final = Timetable(counted=0, state=60, identified=True)
BUSY: Final = Timetable(counted=60, state=300, identified=False)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What one poll reads."""

    paces: frozenset[Pace]
    identified: bool
    """Whether the serial number too."""


EVERYTHING: Final = Task(paces=frozenset(Pace), identified=True)


def task(timetable: Timetable, interval: float, number: int) -> Task:
    """Return what the poll of this number reads, if there is one every `interval` seconds.

    State and counters take turns, so that no poll is much longer than another.
    """
    counted_every, state_every = _every(timetable, interval)
    paces = {Pace.LIVE}
    if number % counted_every == 0:
        paces.add(Pace.COUNTED)
    if number % state_every == 0:
        paces.add(Pace.COUNTERS)
    if number % state_every == counted_every // 2:
        paces.add(Pace.STATE)
    return Task(paces=frozenset(paces), identified=timetable.identified or not paces <= {Pace.LIVE})


def _every(timetable: Timetable, interval: float) -> tuple[int, int]:
    """Return after how many polls counted values and the state are read again."""
    counted = max(1, int(timetable.counted // interval))
    return counted, counted * max(1, int(timetable.state // (counted * interval)))


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What a meter demands of its bus."""

    interval: float
    """Seconds between two polls."""
    seconds: Callable[[Task], float]
    """How long the bus needs for a task."""

    @cached_property
    def free(self) -> float:
        """Which share of its time the bus needs if it is free."""
        return self._share(FREE)

    @cached_property
    def busy(self) -> float:
        """Which share of its time the bus needs if it is busy."""
        return self._share(BUSY)

    def _share(self, timetable: Timetable) -> float:
        _, cycle = _every(timetable, self.interval)
        tasks = Counter(task(timetable, self.interval, number) for number in range(cycle))
        needed = sum(number * self.seconds(each) for each, number in tasks.items())
        return needed / (cycle * self.interval)

    def at(self, interval: float) -> Self:
        """Return what the meter would demand with another interval."""
        return replace(self, interval=interval)


ROOM: Final = 0.5
"""Up to this share, a bus has room. The rest is for changes, for meters that have to be asked
twice, and for other devices."""
MOST: Final = 0.9
"""Above this share, a bus is overloaded."""


class Load:
    """What all meters on a bus demand of it."""

    def __init__(self) -> None:
        self.demands: dict[Hashable, Demand] = {}
        self._places: dict[Hashable, int] = {}

    def join(self, meter: Hashable) -> int:
        """Return the number of a meter's place, which no other meter on the bus has."""
        taken = set(self._places.values())
        place = next(place for place in range(len(taken) + 1) if place not in taken)
        self._places[meter] = place
        return place

    def leave(self, meter: Hashable) -> None:
        """Give up a meter's place, and what it demands."""
        self._places.pop(meter, None)
        self.demands.pop(meter, None)

    @property
    def timetable(self) -> Timetable:
        """What there is room for."""
        return FREE if _sum_free(self.demands) <= ROOM else BUSY

    def share(self, changed: Mapping[Hashable, Demand] | None = None) -> float:
        """Return which share of its time the bus is busy, or would be with other demands."""
        demands = {**self.demands, **(changed or {})}
        free = _sum_free(demands)
        return free if free <= ROOM else sum(demand.busy for demand in demands.values())

    def works(self, meter: Hashable, interval: float) -> bool:
        """Tell whether the bus would have time for an interval of a meter on it."""
        return self.share({meter: self.demands[meter].at(interval)}) <= MOST

    def shortest(self, meters: Iterable[Hashable], intervals: Iterable[int]) -> int | None:
        """Return the first of the intervals that works for these meters, None if none does."""
        demands = {meter: self.demands[meter] for meter in meters}
        return next(
            (
                interval
                for interval in intervals
                if self.share({meter: each.at(interval) for meter, each in demands.items()}) <= MOST
            ),
            None,
        )


def _sum_free(demands: Mapping[Hashable, Demand]) -> float:
    return sum(demand.free for demand in demands.values())


GOLDEN_RATIO: Final = 0.618034


def moment(place: int) -> float:
    """Return where in the interval a place is, 0 to 1. Places are far apart, however many."""
    return place * GOLDEN_RATIO % 1
