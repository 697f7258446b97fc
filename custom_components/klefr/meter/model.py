"""What a meter measures, which settings it has, and how it identifies itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from .link import BaudRate, Parity

NO_SERIAL_NUMBER = "00000000"
"""What a meter reports that has just been powered up."""
TRANSFORMER_METER_CURRENT = 6
"""A. What a meter with transformers measures up to on their secondary side."""


class Model(StrEnum):
    """The models that have a bus, by KLEFR's number or by Inepro's name where KLEFR has none."""

    KLEFR_6933_OR_6943 = "6933/6943"
    """Over M-Bus these two models report the same."""
    KLEFR_6934 = "6934"
    KLEFR_6944 = "6944"
    PRO1 = "PRO1"
    PRO2 = "PRO2"
    PRO380_SOLAR = "PRO380 solar edition"
    PRO380_CT_SOLAR = "PRO380-CT solar edition"
    PRO1_SOLAR = "PRO1 solar edition"
    PRO2_SOLAR = "PRO2 solar edition"
    PRO_WITHOUT_TARIFFS = "PRO"
    """Over M-Bus. Which it is, it does not report."""
    UNKNOWN = "unknown"
    """Its meter code is not in any list, but its registers are those of the family."""


class Quantity(StrEnum):
    """What a meter measures, counts or reports about itself.

    Electrical quantities are in V, A, Hz, kW, kvar, kVA, kWh and kvarh. A name
    without a phase or tariff stands for the sum, or for the whole meter.
    """

    VOLTAGE = "voltage"
    """Only of a single-phase meter, as are CURRENT and ERROR_CODE."""
    VOLTAGE_L1 = "voltage_l1"
    VOLTAGE_L2 = "voltage_l2"
    VOLTAGE_L3 = "voltage_l3"
    FREQUENCY = "frequency"
    CURRENT = "current"
    CURRENT_L1 = "current_l1"
    CURRENT_L2 = "current_l2"
    CURRENT_L3 = "current_l3"
    ACTIVE_POWER = "active_power"
    ACTIVE_POWER_L1 = "active_power_l1"
    ACTIVE_POWER_L2 = "active_power_l2"
    ACTIVE_POWER_L3 = "active_power_l3"
    REACTIVE_POWER = "reactive_power"
    REACTIVE_POWER_L1 = "reactive_power_l1"
    REACTIVE_POWER_L2 = "reactive_power_l2"
    REACTIVE_POWER_L3 = "reactive_power_l3"
    APPARENT_POWER = "apparent_power"
    APPARENT_POWER_L1 = "apparent_power_l1"
    APPARENT_POWER_L2 = "apparent_power_l2"
    APPARENT_POWER_L3 = "apparent_power_l3"
    POWER_FACTOR = "power_factor"
    POWER_FACTOR_L1 = "power_factor_l1"
    POWER_FACTOR_L2 = "power_factor_l2"
    POWER_FACTOR_L3 = "power_factor_l3"

    TOTAL_ACTIVE_ENERGY = "total_active_energy"
    TOTAL_ACTIVE_ENERGY_T1 = "total_active_energy_t1"
    TOTAL_ACTIVE_ENERGY_T2 = "total_active_energy_t2"
    TOTAL_ACTIVE_ENERGY_L1 = "total_active_energy_l1"
    TOTAL_ACTIVE_ENERGY_L2 = "total_active_energy_l2"
    TOTAL_ACTIVE_ENERGY_L3 = "total_active_energy_l3"
    FORWARD_ACTIVE_ENERGY = "forward_active_energy"
    FORWARD_ACTIVE_ENERGY_T1 = "forward_active_energy_t1"
    FORWARD_ACTIVE_ENERGY_T2 = "forward_active_energy_t2"
    FORWARD_ACTIVE_ENERGY_L1 = "forward_active_energy_l1"
    FORWARD_ACTIVE_ENERGY_L2 = "forward_active_energy_l2"
    FORWARD_ACTIVE_ENERGY_L3 = "forward_active_energy_l3"
    REVERSE_ACTIVE_ENERGY = "reverse_active_energy"
    REVERSE_ACTIVE_ENERGY_T1 = "reverse_active_energy_t1"
    REVERSE_ACTIVE_ENERGY_T2 = "reverse_active_energy_t2"
    REVERSE_ACTIVE_ENERGY_L1 = "reverse_active_energy_l1"
    REVERSE_ACTIVE_ENERGY_L2 = "reverse_active_energy_l2"
    REVERSE_ACTIVE_ENERGY_L3 = "reverse_active_energy_l3"
    TOTAL_REACTIVE_ENERGY = "total_reactive_energy"
    TOTAL_REACTIVE_ENERGY_T1 = "total_reactive_energy_t1"
    TOTAL_REACTIVE_ENERGY_T2 = "total_reactive_energy_t2"
    TOTAL_REACTIVE_ENERGY_L1 = "total_reactive_energy_l1"
    TOTAL_REACTIVE_ENERGY_L2 = "total_reactive_energy_l2"
    TOTAL_REACTIVE_ENERGY_L3 = "total_reactive_energy_l3"
    FORWARD_REACTIVE_ENERGY = "forward_reactive_energy"
    FORWARD_REACTIVE_ENERGY_T1 = "forward_reactive_energy_t1"
    FORWARD_REACTIVE_ENERGY_T2 = "forward_reactive_energy_t2"
    FORWARD_REACTIVE_ENERGY_L1 = "forward_reactive_energy_l1"
    FORWARD_REACTIVE_ENERGY_L2 = "forward_reactive_energy_l2"
    FORWARD_REACTIVE_ENERGY_L3 = "forward_reactive_energy_l3"
    REVERSE_REACTIVE_ENERGY = "reverse_reactive_energy"
    REVERSE_REACTIVE_ENERGY_T1 = "reverse_reactive_energy_t1"
    REVERSE_REACTIVE_ENERGY_T2 = "reverse_reactive_energy_t2"
    REVERSE_REACTIVE_ENERGY_L1 = "reverse_reactive_energy_l1"
    REVERSE_REACTIVE_ENERGY_L2 = "reverse_reactive_energy_l2"
    REVERSE_REACTIVE_ENERGY_L3 = "reverse_reactive_energy_l3"
    RESETTABLE_COUNTER = "resettable_counter"
    POWER_DOWN_COUNTER = "power_down_counter"

    CURRENT_DIRECTION_L1 = "current_direction_l1"
    CURRENT_DIRECTION_L2 = "current_direction_l2"
    CURRENT_DIRECTION_L3 = "current_direction_l3"
    QUADRANT = "quadrant"
    QUADRANT_L1 = "quadrant_l1"
    QUADRANT_L2 = "quadrant_l2"
    QUADRANT_L3 = "quadrant_l3"

    ERROR_CODE = "error_code"
    ACCESS_NUMBER = "access_number"
    STATUS_OK = "status_ok"
    PROGRAM_OK = "program_ok"
    EEPROM_OK = "eeprom_ok"
    SUPPLY_L1 = "supply_l1"
    SUPPLY_L2 = "supply_l2"
    SUPPLY_L3 = "supply_l3"


class Direction(StrEnum):
    """Which way current flows through a phase (manual, section 7.1)."""

    FORWARD = "forward"
    REVERSE = "reverse"


class Quadrant(IntEnum):
    """Quadrant of active and reactive power, numbered as the meter does."""

    I = 1  # noqa: E741
    II = 2
    III = 3
    IV = 4


type Value = bool | int | float | Direction | Quadrant

type Readings = Mapping[Quantity, Value | None]
"""What was read. None stands for a value that the meter does not have or that cannot be true."""


class Tariff(IntEnum):
    """The tariff that energy is counted in (manual, appendix 3.2)."""

    T1 = 1
    T2 = 2
    T1_UNTIL_RESTART = 11
    T2_UNTIL_RESTART = 12


class CalculationCode(IntEnum):
    """What total active energy means (manual, section 7.11)."""

    FORWARD = 1
    REVERSE = 4
    FORWARD_PLUS_REVERSE = 5
    REVERSE_MINUS_FORWARD = 6
    FORWARD_MINUS_REVERSE = 9
    FORWARD_MINUS_REVERSE_NET = 10
    """Forward and reverse are net over the phases. Irreversible: a meter with this code refuses
    every other one for ever."""
    FORWARD_MINUS_REVERSE_NET_PULSES = 11
    """Like 9; only the S0 outputs are net over the phases."""


LOCKED_CODE = CalculationCode.FORWARD_MINUS_REVERSE_NET
"""The irreversible code: a meter that has it never takes another one."""

WRITABLE_CODES = frozenset(CalculationCode) - {LOCKED_CODE}
"""All other codes."""

S0_RATES = (10000.0, 2000.0, 1000.0, 100.0, 10.0, 1.0, 0.1, 0.01)
"""Rates of the S0 outputs in imp/kWh (manual, section 7.10)."""

LCD_CYCLE_TIMES = range(1, 31)
"""Seconds for which the display shows a page (manual, section 7.6)."""


class Setting(StrEnum):
    """The settings of a meter."""

    TARIFF = "tariff"
    CALCULATION_CODE = "calculation_code"
    S0_RATE = "s0_rate"
    LCD_CYCLE_TIME = "lcd_cycle_time"
    ADDRESS = "address"
    SECONDARY_ADDRESS = "secondary_address"
    BAUD_RATE = "baud_rate"
    PARITY = "parity"


type SettingValue = Tariff | CalculationCode | BaudRate | Parity | float | int | str

type Settings = Mapping[Setting, SettingValue | None]
"""The settings that a meter has. None stands for a value that the meter does not report, or
that is not in the manual."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a meter said when it was read once."""

    values: Readings
    """What was wanted, and what came along without another request."""
    settings: Settings
    """Those that were wanted, and those that came along."""
    spread: float
    """Seconds between the answers that the energies are from; 0 for a single answer."""


@dataclass(frozen=True, kw_only=True)
class Communication:
    """How a meter communicates (manual, sections 7.12 to 7.14)."""

    address: int
    """1 to 247 on Modbus. On M-Bus the primary address, 0 to 250."""
    secondary_address: str | None = None
    """8 digits; only on M-Bus."""
    baud_rate: BaudRate
    parity: Parity


class Counter(StrEnum):
    """The counters of a meter that can be reset."""

    RESETTABLE = "resettable"
    POWER_DOWN = "power_down"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """How a meter identifies itself. None stands for what the protocol does not report."""

    serial_number: str
    model: Model
    firmware_version: str
    phases: int = 3
    """1 or 3, and 3 where it is not known. A three-phase meter may be wired for one phase."""
    meter_code: str | None = None
    protocol_version: str | None = None
    hardware_version: str | None = None
    checksum: str | None = None
    rated_current: int | None = None
    """A."""
    transformer_primary_current: int | None = None
    """A; None where no ratio is set."""
    transformer_secondary_current: int | None = None
    """A; None where no ratio is set."""

    @property
    def maximum_current(self) -> float | None:
        """The greatest current in A that the meter measures, None if it is not reported."""
        if not (primary := self.transformer_primary_current):
            return self.rated_current or None
        return primary * TRANSFORMER_METER_CURRENT / (self.transformer_secondary_current or 1)
