"""What the value of a record is: the value information of EN 13757-3:2018, for electricity."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum, StrEnum, auto
from functools import lru_cache
from typing import Final


class Unit(StrEnum):
    """The unit of a record's value."""

    WATT_HOUR = "Wh"
    JOULE = "J"
    VAR_HOUR = "varh"
    VOLT_AMPERE_HOUR = "VAh"
    WATT = "W"
    JOULE_PER_HOUR = "J/h"
    VAR = "var"
    VOLT_AMPERE = "VA"
    VOLT = "V"
    AMPERE = "A"
    HERTZ = "Hz"
    DEGREE = "°"
    SECOND = "s"
    MINUTE = "min"
    HOUR = "h"
    DAY = "d"
    DATE = "date"
    DATE_TIME = "date and time"
    PLAIN_TEXT = "plain text"
    NONE = ""


class Meaning(Enum):
    """What a record's value means, where its unit does not say so."""

    ENERGY = auto()
    POWER = auto()
    CUMULATED_MAXIMUM_POWER = auto()
    VOLTAGE = auto()
    CURRENT = auto()
    FREQUENCY = auto()
    PHASE_BETWEEN_VOLTAGES = auto()
    PHASE_OF_CURRENT = auto()
    ON_TIME = auto()
    OPERATING_TIME = auto()
    TIME_POINT = auto()
    FABRICATION_NUMBER = auto()
    IDENTIFICATION = auto()
    BUS_ADDRESS = auto()
    HARDWARE_VERSION = auto()
    FIRMWARE_VERSION = auto()
    SOFTWARE_VERSION = auto()
    ERROR_FLAGS = auto()
    DIGITAL_OUTPUT = auto()
    DIGITAL_INPUT = auto()
    RESET_COUNTER = auto()
    DIMENSIONLESS = auto()
    PLAIN_TEXT = auto()


class Qualifier(Enum):
    """What a VIFE narrows a value down to."""

    AVERAGE = auto()
    FORWARD = auto()
    BACKWARD = auto()
    BOTH_DIRECTIONS = auto()
    FORWARD_MINUS_BACKWARD = auto()
    LOWER_LIMIT = auto()
    UPPER_LIMIT = auto()
    FUTURE = auto()
    L1 = auto()
    L2 = auto()
    L3 = auto()
    N = auto()
    L1_L2 = auto()
    L2_L3 = auto()
    L3_L1 = auto()
    Q1 = auto()
    Q2 = auto()
    Q3 = auto()
    Q4 = auto()


@dataclass(frozen=True, kw_only=True)
class ValueInformation:
    """What stands in a record's VIF and VIFEs.

    The value is the record's number times ten to the power of `exponent`. `failed` says
    that the meter sent an error in place of the value.
    """

    meaning: Meaning
    unit: Unit = Unit.NONE
    exponent: int = 0
    unsigned: bool = False
    failed: bool = False
    qualifiers: frozenset[Qualifier] = frozenset()


type Table = dict[int, ValueInformation]


def _decades(codes: range, meaning: Meaning, unit: Unit, exponent: int) -> Table:
    """Codes that differ by a factor of ten each, from `exponent` up."""
    return {
        code: ValueInformation(meaning=meaning, unit=unit, exponent=exponent + code - codes.start)
        for code in codes
    }


def _units(first: int, meaning: Meaning, units: Iterable[Unit]) -> Table:
    """Codes that differ by their unit."""
    return {
        code: ValueInformation(meaning=meaning, unit=unit)
        for code, unit in enumerate(units, start=first)
    }


def _single(
    code: int, meaning: Meaning, unit: Unit = Unit.NONE, *, unsigned: bool = False
) -> Table:
    return {code: ValueInformation(meaning=meaning, unit=unit, unsigned=unsigned)}


_SECONDS_TO_DAYS: Final = (Unit.SECOND, Unit.MINUTE, Unit.HOUR, Unit.DAY)

PLAIN_TEXT: Final = 0x7C

PRIMARY: Final[Table] = {
    **_decades(range(0x08), Meaning.ENERGY, Unit.WATT_HOUR, -3),
    **_decades(range(0x08, 0x10), Meaning.ENERGY, Unit.JOULE, 0),
    **_units(0x20, Meaning.ON_TIME, _SECONDS_TO_DAYS),
    **_units(0x24, Meaning.OPERATING_TIME, _SECONDS_TO_DAYS),
    **_decades(range(0x28, 0x30), Meaning.POWER, Unit.WATT, -3),
    **_decades(range(0x30, 0x38), Meaning.POWER, Unit.JOULE_PER_HOUR, 0),
    **_single(0x6C, Meaning.TIME_POINT, Unit.DATE),
    **_single(0x6D, Meaning.TIME_POINT, Unit.DATE_TIME),
    **_single(0x78, Meaning.FABRICATION_NUMBER),
    **_single(0x79, Meaning.IDENTIFICATION),
    **_single(0x7A, Meaning.BUS_ADDRESS, unsigned=True),
    **_single(PLAIN_TEXT, Meaning.PLAIN_TEXT, Unit.PLAIN_TEXT),
}

EXTENSION_FB: Final[Table] = {
    **_decades(range(0x02), Meaning.ENERGY, Unit.WATT_HOUR, 5),
    **_decades(range(0x02, 0x04), Meaning.ENERGY, Unit.VAR_HOUR, 3),
    **_decades(range(0x04, 0x06), Meaning.ENERGY, Unit.VOLT_AMPERE_HOUR, 3),
    **_decades(range(0x08, 0x0A), Meaning.ENERGY, Unit.JOULE, 8),
    **_decades(range(0x14, 0x18), Meaning.POWER, Unit.VAR, 0),
    **_decades(range(0x28, 0x2A), Meaning.POWER, Unit.WATT, 5),
    **_decades(range(0x2A, 0x2B), Meaning.PHASE_BETWEEN_VOLTAGES, Unit.DEGREE, -1),
    **_decades(range(0x2B, 0x2C), Meaning.PHASE_OF_CURRENT, Unit.DEGREE, -1),
    **_decades(range(0x2C, 0x30), Meaning.FREQUENCY, Unit.HERTZ, -3),
    **_decades(range(0x30, 0x32), Meaning.POWER, Unit.JOULE_PER_HOUR, 8),
    **_decades(range(0x34, 0x38), Meaning.POWER, Unit.VOLT_AMPERE, 0),
    **_decades(range(0x78, 0x80), Meaning.CUMULATED_MAXIMUM_POWER, Unit.WATT, -3),
}

EXTENSION_FD: Final[Table] = {
    **_single(0x0D, Meaning.HARDWARE_VERSION),
    **_single(0x0E, Meaning.FIRMWARE_VERSION),
    **_single(0x0F, Meaning.SOFTWARE_VERSION),
    **_single(0x17, Meaning.ERROR_FLAGS, unsigned=True),
    **_single(0x1A, Meaning.DIGITAL_OUTPUT, unsigned=True),
    **_single(0x1B, Meaning.DIGITAL_INPUT, unsigned=True),
    **_single(0x3A, Meaning.DIMENSIONLESS),
    **_decades(range(0x40, 0x50), Meaning.VOLTAGE, Unit.VOLT, -9),
    **_decades(range(0x50, 0x60), Meaning.CURRENT, Unit.AMPERE, -12),
    **_single(0x60, Meaning.RESET_COUNTER),
}

EXTENSIONS: Final = {0x7B: EXTENSION_FB, 0x7D: EXTENSION_FD}


@dataclass(frozen=True, kw_only=True)
class Vife:
    """What a VIFE changes in the value information before it."""

    exponent: int = 0
    unsigned: bool = False
    failed: bool = False
    qualifier: Qualifier | None = None


# VIFEs that may follow every VIF. Those that change the unit itself (per hour, times
# second, date of a limit's first exceeding) are left out: electricity meters do without.
VIFES: Final = {
    **{code: Vife(exponent=code - 0x76) for code in range(0x70, 0x78)},
    0x7D: Vife(exponent=3),
    0x00: Vife(),
    **{code: Vife(failed=True) for code in (*range(0x01, 0x08), *range(0x0B, 0x10))},
    **{code: Vife(failed=True) for code in (0x15, 0x16, 0x17, 0x18, 0x1C)},
    0x1D: Vife(),
    0x12: Vife(qualifier=Qualifier.AVERAGE),
    0x3B: Vife(qualifier=Qualifier.FORWARD),
    0x3C: Vife(qualifier=Qualifier.BACKWARD),
    0x40: Vife(qualifier=Qualifier.LOWER_LIMIT),
    0x48: Vife(qualifier=Qualifier.UPPER_LIMIT),
    0x7E: Vife(qualifier=Qualifier.FUTURE),
}

VIFE_EXTENSION: Final = 0x7C
EXTENDED_VIFES: Final = {
    0x01: Vife(qualifier=Qualifier.L1),
    0x02: Vife(qualifier=Qualifier.L2),
    0x03: Vife(qualifier=Qualifier.L3),
    0x04: Vife(qualifier=Qualifier.N),
    0x05: Vife(qualifier=Qualifier.L1_L2),
    0x06: Vife(qualifier=Qualifier.L2_L3),
    0x07: Vife(qualifier=Qualifier.L3_L1),
    0x08: Vife(qualifier=Qualifier.Q1),
    0x09: Vife(qualifier=Qualifier.Q2),
    0x0A: Vife(qualifier=Qualifier.Q3),
    0x0B: Vife(qualifier=Qualifier.Q4),
    0x0C: Vife(qualifier=Qualifier.FORWARD_MINUS_BACKWARD),
    0x10: Vife(qualifier=Qualifier.BOTH_DIRECTIONS),
    0x11: Vife(unsigned=True),
    0x12: Vife(unsigned=True),
}


# A telegram repeats few of them over and over.
@lru_cache(maxsize=1024)
def value_information(vib: bytes) -> ValueInformation | None:
    """Read a VIF and the VIFEs behind it; None if one of them is not known here.

    Those that only their maker knows (VIF or VIFE 7F) are not.
    """
    codes = (byte & 0x7F for byte in vib)
    table, code = PRIMARY, next(codes)
    if code in EXTENSIONS and len(vib) > 1:
        table, code = EXTENSIONS[code], next(codes)
    information = table.get(code)
    vifes = [
        EXTENDED_VIFES.get(next(codes, -1)) if code == VIFE_EXTENSION else VIFES.get(code)
        for code in codes
    ]
    known = [vife for vife in vifes if vife]
    if information is None or len(known) < len(vifes):
        return None
    return replace(
        information,
        exponent=information.exponent + sum(vife.exponent for vife in known),
        unsigned=information.unsigned or any(vife.unsigned for vife in known),
        failed=any(vife.failed for vife in known),
        qualifiers=frozenset(vife.qualifier for vife in known if vife.qualifier),
    )
