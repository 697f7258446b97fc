"""The house a meter hangs in: its loads, what it feeds in, and the grid."""

from dataclasses import dataclass
from enum import IntEnum
from math import cos, hypot, pi, sin
from random import Random

NOMINAL_VOLTAGE = 230.0
NOMINAL_FREQUENCY = 50.0

type ByPhase[T] = tuple[T, T, T]
"""One of each for L1, L2 and L3."""


class Quadrant(IntEnum):
    """Where active and reactive power lie."""

    I = 1  # noqa: E741
    II = 2
    III = 3
    IV = 4

    @classmethod
    def of(cls, active_power: float, reactive_power: float) -> Quadrant:
        """Return the quadrant of a power, in any unit."""
        if reactive_power >= 0:
            return cls.I if active_power >= 0 else cls.II
        return cls.IV if active_power >= 0 else cls.III


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One phase at one moment."""

    voltage: float
    """V."""
    active_power: float
    """kW, negative while the phase feeds in."""
    reactive_power: float
    """kvar, negative while the load is capacitive."""

    @property
    def apparent_power(self) -> float:
        """KVA."""
        return hypot(self.active_power, self.reactive_power)

    @property
    def current(self) -> float:
        """A, negative while the phase feeds in."""
        if not self.voltage:
            return 0.0
        current = self.apparent_power * 1000 / self.voltage
        return -current if self.active_power < 0 else current

    @property
    def power_factor(self) -> float:
        """Return the power factor, without a sign, as the meter gives it."""
        return power_factor(self.active_power, self.reactive_power)

    @property
    def quadrant(self) -> Quadrant:
        """Return the quadrant of the phase's power."""
        return Quadrant.of(self.active_power, self.reactive_power)


UNSUPPLIED = Phase(voltage=0.0, active_power=0.0, reactive_power=0.0)


def power_factor(active_power: float, reactive_power: float) -> float:
    """Return the share of apparent power that is active, 0 to 1."""
    apparent_power = hypot(active_power, reactive_power)
    return abs(active_power) / apparent_power if apparent_power else 0.0


@dataclass(frozen=True, kw_only=True)
class Sample:
    """All phases at one moment."""

    phases: ByPhase[Phase]
    frequency: float
    """Hz."""
    solar_power: float = 0.0
    """KW, what the roof makes. The phases have it already."""

    @property
    def active_power(self) -> float:
        """KW, the sum of the phases."""
        return sum(phase.active_power for phase in self.phases)

    @property
    def reactive_power(self) -> float:
        """Kvar, the sum of the phases."""
        return sum(phase.reactive_power for phase in self.phases)

    @property
    def apparent_power(self) -> float:
        """KVA, the sum of the phases, as a real meter adds it up."""
        return sum(phase.apparent_power for phase in self.phases)

    @property
    def power_factor(self) -> float:
        """Return the power factor of the summed active and reactive power."""
        return power_factor(self.active_power, self.reactive_power)

    @property
    def quadrant(self) -> Quadrant:
        """Return the quadrant of the summed power."""
        return Quadrant.of(self.active_power, self.reactive_power)


@dataclass(frozen=True, kw_only=True)
class Appliance:
    """Something that is switched on now and then."""

    power: float
    """kW."""
    tan_phi: float = 0.0
    """kvar per kW."""
    on: float
    """Seconds for which it runs, on average."""
    off: float
    """Seconds for which it rests, on average, at a busy hour."""


@dataclass(frozen=True, kw_only=True)
class Circuit:
    """What hangs on one phase. Powers in kW."""

    base: float
    base_tan_phi: float
    appliances: tuple[Appliance, ...] = ()
    solar_peak: float = 0.0
    generator: float = 0.0


CIRCUITS: ByPhase[Circuit] = (
    Circuit(  # kitchen and living room
        base=0.32,
        base_tan_phi=-0.45,
        appliances=(
            Appliance(power=0.11, tan_phi=0.6, on=900, off=1800),  # fridge
            Appliance(power=2.0, on=150, off=5400),  # kettle
            Appliance(power=2.4, on=1500, off=21600),  # oven
        ),
    ),
    Circuit(  # office and roof
        base=0.16,
        base_tan_phi=-0.3,
        appliances=(
            Appliance(power=0.22, tan_phi=-0.4, on=7200, off=5400),  # desk
            Appliance(power=1.9, tan_phi=0.2, on=1800, off=28800),  # washing machine
        ),
        solar_peak=1.8,
    ),
    # A small generator runs day and night, so that reverse energy grows at any hour.
    Circuit(  # cellar
        base=0.12,
        base_tan_phi=-0.2,
        appliances=(
            Appliance(power=0.75, tan_phi=0.7, on=900, off=2700),  # heat pump
            Appliance(power=2.2, on=1200, off=36000),  # boiler
        ),
        generator=0.35,
    ),
)

SECONDS_PER_DAY = 86400
SUNRISE, SUNSET = 6.0, 20.0  # o'clock


def _activity(hour: float) -> float:
    """How busy the house is: 1 on average, most at seven in the evening."""
    return 1 + 0.6 * cos(2 * pi * (hour - 19) / 24)


def _sun(hour: float) -> float:
    """How high the sun stands, 0 to 1."""
    if not SUNRISE < hour < SUNSET:
        return 0.0
    return sin(pi * (hour - SUNRISE) / (SUNSET - SUNRISE))


class _Drift:
    """A value that wanders around zero and is pulled back to it."""

    def __init__(self, random: Random, *, deviation: float, pull: float) -> None:
        self._random = random
        self._pull = pull
        self._kick = deviation * (2 * pull) ** 0.5
        self.value = 0.0

    def step(self) -> float:
        self.value += self._random.gauss(0, self._kick) - self._pull * self.value
        return self.value


class Household:
    """A house on three phases that lives second by second.

    The same seed, start and number of seconds give the same life.
    """

    def __init__(self, *, seed: int, scale: float = 1.0) -> None:
        """Make every power `scale` times as large as in a small house."""
        self._random = Random(seed)  # noqa: S311
        self._scale = scale
        self._voltages = [self._drift(deviation=1.5, pull=0.01) for _ in CIRCUITS]
        self._loads = [self._drift(deviation=0.04, pull=0.1) for _ in CIRCUITS]
        self._frequency = self._drift(deviation=0.015, pull=0.02)
        self._clouds = self._drift(deviation=0.25, pull=0.002)
        self._running: set[tuple[int, int]] = set()

    def _drift(self, *, deviation: float, pull: float) -> _Drift:
        return _Drift(self._random, deviation=deviation, pull=pull)

    def step(self, time: float) -> Sample:
        """Live one second and return how it is at `time`, in seconds since a midnight."""
        hour = time % SECONDS_PER_DAY / 3600
        sunshine = _sun(hour) * min(1.0, max(0.15, 0.8 + self._clouds.step()))
        first, second, third = (
            self._phase(index, circuit, _activity(hour), sunshine)
            for index, circuit in enumerate(CIRCUITS)
        )
        return Sample(
            phases=(first, second, third),
            frequency=NOMINAL_FREQUENCY + self._frequency.step(),
            solar_power=sum(circuit.solar_peak for circuit in CIRCUITS) * sunshine * self._scale,
        )

    def _phase(self, index: int, circuit: Circuit, activity: float, sunshine: float) -> Phase:
        base = circuit.base * (0.5 + 0.5 * activity) * (1 + self._loads[index].step())
        active_power = base - circuit.generator - circuit.solar_peak * sunshine
        reactive_power = base * circuit.base_tan_phi + 0.05 * circuit.generator
        for number, appliance in enumerate(circuit.appliances):
            if self._runs(index, number, appliance, activity):
                active_power += appliance.power
                reactive_power += appliance.power * appliance.tan_phi
        return Phase(
            # Loads pull a phase's voltage down, feeding in lifts it.
            voltage=NOMINAL_VOLTAGE + self._voltages[index].step() - 0.6 * active_power,
            active_power=active_power * self._scale,
            reactive_power=reactive_power * self._scale,
        )

    def _runs(self, index: int, number: int, appliance: Appliance, activity: float) -> bool:
        key = (index, number)
        if key in self._running:
            if self._random.random() < 1 / appliance.on:
                self._running.discard(key)
        elif self._random.random() < activity / appliance.off:
            self._running.add(key)
        return key in self._running
