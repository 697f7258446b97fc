"""A meter's memory and physics, the same behind every face.

Energies are counted second by second:

- A phase's energy is counted forward or reverse by the sign of its power, both as
  counts that only go up. The totals are the sums of the phases, and the tariff in
  force gets what the totals get, so that T1 and T2 always add up to the totals.
- With calculation code 10 totals and tariffs count the sum of the three phases
  instead: forward while it is positive, reverse while it is negative. The phases go
  on counting by themselves and then no longer add up to the totals. What was counted
  before the code was set stays.
- Total energies are combined from the counts when they are read, by the calculation
  code. Reactive energy is treated as active energy is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum, StrEnum, auto
from math import isclose
from random import Random
import re
import time

from .household import UNSUPPLIED, ByPhase, Household, Phase, Sample

STEP = 1.0
"""Seconds for which a power is held before the next is measured."""

BAUD_RATES = (300, 600, 1200, 2400, 4800, 9600)
S0_RATES = (10000.0, 2000.0, 1000.0, 100.0, 10.0, 1.0, 0.1, 0.01)
"""imp/kWh."""
LCD_CYCLE_TIMES = range(1, 31)
"""Seconds."""


class Model(StrEnum):
    """The models that can be played, by KLEFR's number or Inepro's name."""

    DIRECT_MBUS = "6933"
    DIRECT_MODBUS = "6934"
    CT_MBUS = "6943"
    CT_MODBUS = "6944"
    PRO380 = "pro380"
    PRO380_CT = "pro380-ct"
    PRO1 = "pro1"
    PRO2 = "pro2"
    PRO380_SOLAR = "pro380-solar"
    PRO380_CT_SOLAR = "pro380-ct-solar"
    PRO1_SOLAR = "pro1-solar"
    PRO2_SOLAR = "pro2-solar"
    PRO1_MBUS = "pro1-mbus"

    @property
    def printed(self) -> str:
        """Maker and model, as they are printed on the meter."""
        return f"KLEFR {self}" if self.isdecimal() else f"Inepro {self.upper()}"

    @property
    def kind(self) -> Kind:
        """What sets it apart."""
        return KINDS[self]

    @property
    def has_current_transformers(self) -> bool:
        """Whether currents reach the meter through transformers."""
        return self.kind.rated_current == CT_RATED_CURRENT

    @property
    def speaks_mbus(self) -> bool:
        """Whether its bus is M-Bus, not Modbus."""
        return self.kind.mbus_version is not None


CT_RATED_CURRENT = 6
"""A."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What sets a model apart."""

    meter_code: int
    """What the map's register holds."""
    rated_current: int
    """A."""
    phases: int = 3
    mbus_version: int | None = None
    """The version in M-Bus telegrams, or None for a meter that speaks Modbus."""
    tariffs_over_mbus: bool = True
    """Whether its telegrams also hold the energies of each tariff."""


KINDS: Mapping[Model, Kind] = {
    Model.DIRECT_MBUS: Kind(meter_code=0x0102, rated_current=100, mbus_version=1),
    Model.DIRECT_MODBUS: Kind(meter_code=0x0102, rated_current=100),
    Model.CT_MBUS: Kind(meter_code=0x0103, rated_current=CT_RATED_CURRENT, mbus_version=1),
    Model.CT_MODBUS: Kind(meter_code=0x0103, rated_current=CT_RATED_CURRENT),
    Model.PRO380: Kind(meter_code=0x0102, rated_current=100),
    Model.PRO380_CT: Kind(meter_code=0x0103, rated_current=CT_RATED_CURRENT),
    Model.PRO1: Kind(meter_code=0x0101, rated_current=45, phases=1),
    Model.PRO2: Kind(meter_code=0x0101, rated_current=100, phases=1),
    Model.PRO380_SOLAR: Kind(meter_code=0x2007, rated_current=100),
    Model.PRO380_CT_SOLAR: Kind(meter_code=0x2008, rated_current=CT_RATED_CURRENT),
    Model.PRO1_SOLAR: Kind(meter_code=0x2009, rated_current=45, phases=1),
    Model.PRO2_SOLAR: Kind(meter_code=0x2010, rated_current=100, phases=1),
    Model.PRO1_MBUS: Kind(
        meter_code=0x0101, rated_current=45, phases=1, mbus_version=9, tariffs_over_mbus=False
    ),
}


class Parity(StrEnum):
    """The parity bit of a character on the line."""

    EVEN = "E"
    NONE = "N"
    ODD = "O"


class Tariff(IntEnum):
    """The tariff that energy is counted in."""

    T1 = 1
    T2 = 2
    T1_UNTIL_RESTART = 11
    T2_UNTIL_RESTART = 12

    @property
    def counted(self) -> Tariff:
        """The tariff whose counts go up: T1 or T2."""
        return Tariff(self % 10)


class CalculationCode(IntEnum):
    """What total energy means."""

    FORWARD = 1
    REVERSE = 4
    FORWARD_PLUS_REVERSE = 5
    REVERSE_MINUS_FORWARD = 6
    FORWARD_MINUS_REVERSE = 9
    FORWARD_MINUS_REVERSE_NET = 10
    FORWARD_MINUS_REVERSE_NET_PULSES = 11


TOTAL_WEIGHTS: Mapping[CalculationCode, tuple[int, int]] = {
    CalculationCode.FORWARD: (1, 0),
    CalculationCode.REVERSE: (0, 1),
    CalculationCode.FORWARD_PLUS_REVERSE: (1, 1),
    CalculationCode.REVERSE_MINUS_FORWARD: (-1, 1),
    CalculationCode.FORWARD_MINUS_REVERSE: (1, -1),
    CalculationCode.FORWARD_MINUS_REVERSE_NET: (1, -1),
    CalculationCode.FORWARD_MINUS_REVERSE_NET_PULSES: (1, -1),
}
"""How often the forward and the reverse count are in the total, in the registers."""

DISPLAY_WEIGHTS: Mapping[CalculationCode, tuple[int, int]] = {
    **TOTAL_WEIGHTS,
    CalculationCode.REVERSE: (0, -1),
    CalculationCode.REVERSE_MINUS_FORWARD: (-1, -1),
}
"""The same for the display, which shows reverse energy with a minus sign."""


class LongRead(Enum):
    """What a meter does when asked for more registers than it gives at once."""

    ILLEGAL_ADDRESS = auto()
    ILLEGAL_VALUE = auto()
    SILENCE = auto()


@dataclass(kw_only=True)
class Count:
    """One direction's energy, in kWh or kvarh."""

    tariffs: dict[Tariff, float] = field(
        default_factory=lambda: dict.fromkeys((Tariff.T1, Tariff.T2), 0.0)
    )
    phases: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])

    @property
    def total(self) -> float:
        """The energy of both tariffs."""
        return sum(self.tariffs.values())


@dataclass(kw_only=True)
class Energy:
    """Active energy in kWh, or reactive energy in kvarh."""

    forward: Count = field(default_factory=Count)
    reverse: Count = field(default_factory=Count)

    def add(self, phases: Sequence[float], tariff: Tariff, *, net: bool) -> None:
        """Count what flowed through each phase, reverse energy being negative."""
        for index, energy in enumerate(phases):
            self.forward.phases[index] += max(energy, 0)
            self.reverse.phases[index] += max(-energy, 0)
        flows = [sum(phases)] if net else phases
        self.forward.tariffs[tariff.counted] += sum(max(flow, 0) for flow in flows)
        self.reverse.tariffs[tariff.counted] += sum(max(-flow, 0) for flow in flows)


@dataclass(frozen=True, kw_only=True)
class Display:
    """Active energies as the display shows them, with its signs, in kWh."""

    total: float
    forward: float
    reverse: float


def _earlier_count(random: Random, *, most: float) -> Count:
    """Return what a meter may have counted before it came here."""
    phases = [round(random.uniform(0.2, 0.33) * most, 2) for _ in range(3)]
    total = round(sum(phases), 2)
    t1 = round(random.uniform(0.6, 0.8) * total, 2)
    return Count(tariffs={Tariff.T1: t1, Tariff.T2: round(total - t1, 2)}, phases=phases)


class VirtualMeter:
    """A KLEFR meter in a small house.

    Its time is that of `clock`, which returns seconds since a midnight, running `speed`
    times as fast. Whenever something is read or set, the meter first lives up to now.
    """

    def __init__(
        self,
        *,
        serial_number: str = "22091039",
        address: int | None = None,
        secondary_address: str | None = None,
        model: Model | str = Model.DIRECT_MODBUS,
        baud_rate: int = 9600,
        parity: Parity | str = Parity.EVEN,
        calculation_code: CalculationCode | int = CalculationCode.FORWARD,
        ct_primary: int = 250,
        ct_secondary: int = 5,
        speed: float = 1.0,
        clock: Callable[[], float] = time.time,
        seed: int = 1,
        roof_of: int | None = None,
        factory_new: bool = False,
    ) -> None:
        """Put a meter into a house.

        Without an `address` it has the factory's, 0 on M-Bus and 1 on Modbus.
        `ct_primary` and `ct_secondary` are the currents of a CT meter's transformers
        in A; a primary current of 0 is a ratio that was never set. With `roof_of` a
        single-phase meter counts forward what the roof makes of the house with that seed.
        A `factory_new` meter has counted nothing yet.
        """
        self.model = Model(model)
        self.serial_number = serial_number
        self.address = (0 if self.model.speaks_mbus else 1) if address is None else address
        self._secondary_address: str | None = None
        if secondary_address is not None:
            self.secondary_address = secondary_address
        self.baud_rate = baud_rate
        self.parity = parity
        self.ct_primary = ct_primary if self.model.has_current_transformers else 0
        self.ct_secondary = ct_secondary

        self.powered = True
        """Without power it neither hears nor counts."""
        self.program_ok = True
        self.eeprom_ok = True
        self.power_down_counter = 0
        self.restarts = 0
        """How often it was switched on again. Nothing resets this."""
        self.access_number = 0
        """How many telegrams it has sent over M-Bus, modulo 256."""

        self.image: Mapping[int, int] | None = None
        """Registers that it shows instead of what it measures. Then it counts nothing."""
        self.overrides: dict[int, float] = {}
        """Values that registers give instead of their own, by the address of the value."""
        self.max_read_count: int | None = None
        """Registers that may be read at once."""
        self.long_read = LongRead.ILLEGAL_ADDRESS
        """What happens when more are read at once."""
        self.silent_across: set[int] = set()
        """Addresses in front of which a read must end: one that reaches across gets no answer."""
        self.manufacturer_swapped = False
        """Send the manufacturer over M-Bus with its bytes swapped."""
        self.records_per_telegram: int | None = None
        """Records after which an M-Bus telegram ends and another one follows."""
        self.record_overrides: dict[int, bytes] = {}
        """Records that an M-Bus readout has instead of its own, by their place in it."""
        self.extra_records = b""
        """What follows the records of an M-Bus readout."""
        self.ignore_writes = False
        """Acknowledge writes but keep the old values."""
        self.refuse_writes = False
        """Refuse writes as illegal values."""

        random = Random(seed)  # noqa: S311
        self._active = Energy()
        self._reactive = Energy()
        if not factory_new:
            self._active.forward = _earlier_count(random, most=12000)
            self._active.reverse = _earlier_count(random, most=5000)
            self._reactive.forward = _earlier_count(random, most=900)
            self._reactive.reverse = _earlier_count(random, most=4000)
            self.power_down_counter = random.randint(1, 20)
        self._forward_at_day_reset = self._active.forward.total * 0.999
        self._calculation_code = CalculationCode(calculation_code)
        self._tariff = self._saved_tariff = Tariff.T1
        self._s0_rate = 1000.0
        self._lcd_cycle_time = 10
        self._supplied: ByPhase[bool] = (True, *(self.model.kind.phases == 3,) * 2)

        self._clock = clock
        self._speed = speed
        self._start = clock()
        self._steps = 0
        self._on_roof = roof_of is not None
        self._household = Household(
            seed=seed if roof_of is None else roof_of, scale=max(1.0, self.ct_primary / 25)
        )
        self._sample = self._household.step(self._start)

    # Time

    def _live(self) -> None:
        """Live up to now, in whole steps."""
        if self.image is not None:
            return
        # The small addition keeps a clock's rounding from costing a step.
        due = int((self._clock() - self._start) * self._speed / STEP + 1e-6)
        while self._steps < due:
            if self.powered:
                self._count(STEP / 3600)
            self._steps += 1
            self._sample = self._household.step(self._start + self._steps * STEP)

    def _count(self, hours: float) -> None:
        phases = self._seen_sample().phases
        net = self._calculation_code is CalculationCode.FORWARD_MINUS_REVERSE_NET
        for energy, powers in (
            (self._active, [phase.active_power for phase in phases]),
            (self._reactive, [phase.reactive_power for phase in phases]),
        ):
            energy.add([power * hours for power in powers], self._tariff, net=net)

    def _seen_sample(self) -> Sample:
        """Return what reaches the meter: on a single-phase one the whole house is on L1."""
        if self.model.kind.phases == 1:
            whole = Phase(
                voltage=self._sample.phases[0].voltage,
                active_power=self._sample.active_power,
                reactive_power=self._sample.reactive_power,
            )
            if self._on_roof:
                power = self._sample.solar_power
                whole = replace(whole, active_power=power, reactive_power=0.0)
            return Sample(phases=(whole, UNSUPPLIED, UNSUPPLIED), frequency=self._sample.frequency)
        if all(self._supplied):
            return self._sample
        first, second, third = (
            phase if supplied else UNSUPPLIED
            for phase, supplied in zip(self._sample.phases, self._supplied, strict=True)
        )
        return Sample(phases=(first, second, third), frequency=self._sample.frequency)

    def add_energy(self, *, l1: float = 0, l2: float = 0, l3: float = 0) -> None:
        """Let active energy flow through the phases at this moment, in kWh.

        Reverse energy is negative.
        """
        self._live()
        net = self._calculation_code is CalculationCode.FORWARD_MINUS_REVERSE_NET
        self._active.add((l1, l2, l3), self._tariff, net=net)

    def power_down(self) -> None:
        """Switch the meter off."""
        self._live()
        self.powered = False
        self.power_down_counter += 1

    def power_up(self) -> None:
        """Switch it on again."""
        self._live()
        self.powered = True
        self.restarts += 1
        self._tariff = self._saved_tariff

    def power_cycle(self) -> None:
        """Switch it off and on again."""
        self.power_down()
        self.power_up()

    # What is measured

    @property
    def sample(self) -> Sample:
        """What the meter measures now."""
        self._live()
        return self._seen_sample()

    @property
    def power(self) -> float:
        """Total active power in kW, negative while the house feeds in."""
        return self.sample.active_power

    @property
    def active_energy(self) -> Energy:
        """The counts of active energy."""
        self._live()
        return self._active

    @property
    def reactive_energy(self) -> Energy:
        """The counts of reactive energy."""
        self._live()
        return self._reactive

    @property
    def forward_active_energy(self) -> float:
        """KWh."""
        return self.active_energy.forward.total

    @property
    def reverse_active_energy(self) -> float:
        """KWh, as a positive count."""
        return self.active_energy.reverse.total

    @property
    def total_active_energy(self) -> float:
        """KWh, as the calculation code combines it."""
        return self.combine(self.forward_active_energy, self.reverse_active_energy)

    @property
    def day_counter(self) -> float:
        """Forward active energy since the last reset, in kWh."""
        return self.forward_active_energy - self._forward_at_day_reset

    @day_counter.setter
    def day_counter(self, energy: float) -> None:
        self._forward_at_day_reset = self.forward_active_energy - energy

    @property
    def display(self) -> Display:
        """Active energies as the display shows them."""
        forward, reverse = self.forward_active_energy, self.reverse_active_energy
        of_forward, of_reverse = DISPLAY_WEIGHTS[self._calculation_code]
        both = self._calculation_code is CalculationCode.FORWARD_PLUS_REVERSE
        return Display(
            total=of_forward * forward + of_reverse * reverse,
            forward=forward,
            reverse=reverse if both else -reverse,
        )

    def combine(self, forward: float, reverse: float) -> float:
        """Return the total of two counts by the calculation code."""
        of_forward, of_reverse = TOTAL_WEIGHTS[self._calculation_code]
        return of_forward * forward + of_reverse * reverse

    # What is set. Setters raise ValueError for what a meter refuses.

    @property
    def serial_number(self) -> str:
        """The eight digits on the meter's side."""
        return self._serial_number

    @serial_number.setter
    def serial_number(self, serial_number: str) -> None:
        if not re.fullmatch("[0-9]{8}", serial_number):
            raise ValueError(f"a serial number has 8 digits, not {serial_number!r}")
        self._serial_number = serial_number

    @property
    def secondary_address(self) -> str:
        """The eight digits that M-Bus selects the meter by: the serial number until set."""
        return self._secondary_address or self.serial_number

    @secondary_address.setter
    def secondary_address(self, secondary_address: str) -> None:
        if not re.fullmatch("[0-9]{8}", secondary_address):
            raise ValueError(f"a secondary address has 8 digits, not {secondary_address!r}")
        self._secondary_address = secondary_address

    @property
    def baud_rate(self) -> int:
        """Bits per second."""
        return self._baud_rate

    @baud_rate.setter
    def baud_rate(self, baud_rate: int) -> None:
        if baud_rate not in BAUD_RATES:
            raise ValueError(f"the meter knows no baud rate {baud_rate}")
        self._baud_rate = baud_rate

    @property
    def parity(self) -> Parity:
        """The parity bit of a character."""
        return self._parity

    @parity.setter
    def parity(self, parity: Parity | str) -> None:
        self._parity = Parity(parity)

    @property
    def calculation_code(self) -> CalculationCode:
        """What total energy means."""
        return self._calculation_code

    @calculation_code.setter
    def calculation_code(self, code: CalculationCode | int) -> None:
        self._live()
        locked = CalculationCode.FORWARD_MINUS_REVERSE_NET
        if self._calculation_code is locked and code != locked:
            raise ValueError(f"calculation code {locked} is for ever")
        self._calculation_code = CalculationCode(code)

    @property
    def tariff(self) -> Tariff:
        """The tariff in force."""
        return self._tariff

    @tariff.setter
    def tariff(self, tariff: Tariff | int) -> None:
        self._live()
        self._tariff = Tariff(tariff)
        if self._tariff is self._tariff.counted:
            self._saved_tariff = self._tariff

    @property
    def s0_rate(self) -> float:
        """imp/kWh."""
        return self._s0_rate

    @s0_rate.setter
    def s0_rate(self, rate: float) -> None:
        # A rate comes as a 32 bit float, in which 0.1 and 0.01 are not exact.
        for known in S0_RATES:
            if isclose(rate, known, rel_tol=1e-6):
                self._s0_rate = known
                return
        raise ValueError(f"the meter knows no S0 rate {rate}")

    @property
    def lcd_cycle_time(self) -> int:
        """Seconds."""
        return self._lcd_cycle_time

    @lcd_cycle_time.setter
    def lcd_cycle_time(self, seconds: int) -> None:
        if seconds not in LCD_CYCLE_TIMES:
            raise ValueError(f"the display cannot show a page for {seconds} s")
        self._lcd_cycle_time = seconds

    @property
    def supplied(self) -> ByPhase[bool]:
        """Which phases reach the meter. The others carry nothing."""
        return self._supplied

    @supplied.setter
    def supplied(self, supplied: ByPhase[bool]) -> None:
        self._live()
        self._supplied = supplied
