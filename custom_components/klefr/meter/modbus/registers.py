"""The Modbus register map of the 6934, the 6944 and their family, as data.

The tables below are in the order of the manual's (appendix 3.2): three contiguous
blocks of holding registers, addresses as on the wire, floats and pairs of registers
with the high word first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum
from functools import cached_property, partial
import math
import struct
from typing import Any, override

from ..link import BaudRate, Parity
from ..model import (
    LCD_CYCLE_TIMES,
    S0_RATES,
    CalculationCode,
    Direction,
    Quadrant,
    Quantity,
    Setting,
    Tariff,
)

FLOAT = struct.Struct(">f")
TWO_WORDS = struct.Struct(">2H")


class Identifier(StrEnum):
    """Registers that say which meter it is."""

    SERIAL_NUMBER = "serial_number"
    METER_CODE = "meter_code"
    PROTOCOL_VERSION = "protocol_version"
    FIRMWARE_VERSION = "firmware_version"
    HARDWARE_VERSION = "hardware_version"
    RATED_CURRENT = "rated_current"
    CT_RATIO = "ct_ratio"
    CT_MODE = "ct_mode"
    CHECKSUM = "checksum"


class WriteFunction(IntEnum):
    """The function code that writes a register."""

    SINGLE = 6
    MULTIPLE = 16


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a value lies in its registers.

    `decode` gives None for words that stand for no value the meter can mean.
    """

    length: int
    decode: Callable[[Sequence[int]], Any]
    encode: Callable[[Any], Sequence[int]] | None = None

    def value(self, words: Sequence[int], maximum_current: float) -> Any:
        """Give the value of these words, or None if it is not to be trusted.

        `maximum_current` is the greatest current in A that the meter can measure.
        """
        return self.decode(words)


@dataclass(frozen=True, kw_only=True)
class Measure(Form):
    """A measured value: what the meter resolves, and what it can measure.

    The bounds are absolute, or multiples of the greatest current that the meter
    can measure.
    """

    decimals: int
    lowest: float
    highest: float
    per_ampere: bool = False

    @override
    def value(self, words: Sequence[int], maximum_current: float) -> float | None:
        """Round to what the meter resolves; None if it cannot have measured that."""
        value = self.decode(words)
        if not math.isfinite(value):
            return None
        # Adding zero turns the -0.0 that rounding leaves into 0.0.
        rounded: float = round(value, self.decimals) + 0.0
        scale = maximum_current if self.per_ampere else 1
        if not self.lowest * scale <= rounded <= self.highest * scale:
            return None
        return rounded


@dataclass(frozen=True, kw_only=True)
class Register:
    """One row of the manual's map."""

    address: int
    key: Quantity | Setting | Identifier
    form: Form
    write: WriteFunction | None = None

    @cached_property
    def addresses(self) -> range:
        """Where its words are."""
        return range(self.address, self.address + self.form.length)


def _hex_digits(words: Sequence[int]) -> str:
    return "".join(f"{word:04X}" for word in words)


def _decimal_digits(words: Sequence[int]) -> int | None:
    digits = _hex_digits(words)
    return int(digits) if digits.isdecimal() else None


def _as_decimal_digits(value: int) -> Sequence[int]:
    return (int(str(value), 16),)


def _signed(words: Sequence[int]) -> int:
    return int(struct.unpack(">h", struct.pack(">H", *words))[0])


def _count(words: Sequence[int]) -> int | None:
    count = _signed(words)
    return count if count >= 0 else None


def _float(words: Sequence[int]) -> float:
    value: float = FLOAT.unpack(TWO_WORDS.pack(*words))[0]
    return value


def _as_float(value: float) -> Sequence[int]:
    return TWO_WORDS.unpack(FLOAT.pack(value))


def _version(words: Sequence[int]) -> str | None:
    version = _float(words)
    return f"{version:.2f}" if 0 <= version < 100 else None


def _s0_rate(words: Sequence[int]) -> float | None:
    rate = _float(words)
    return next((known for known in S0_RATES if math.isclose(rate, known, rel_tol=1e-6)), None)


def _lcd_cycle_time(words: Sequence[int]) -> int | None:
    seconds = _decimal_digits(words)
    return seconds if seconds in LCD_CYCLE_TIMES else None


def _member[E: Enum](members: type[E], words: Sequence[int]) -> E | None:
    try:
        return members(_signed(words))
    except ValueError:
        return None


def _direction(phase: str, words: Sequence[int]) -> Direction | None:
    return {
        f"{phase}F": Direction.FORWARD,
        f"{phase}R": Direction.REVERSE,
    }.get(struct.pack(">H", *words).decode("latin-1"))


def _display_digit(place: int, words: Sequence[int]) -> bool | None:
    """Read a digit of the status word, where 1 is good; place 0 is the last digit."""
    return {0: False, 1: True}.get(words[0] >> 4 * place & 0xF)


_PARITIES = {1: Parity.EVEN, 2: Parity.NONE, 3: Parity.ODD}
_PARITY_NUMBERS = {parity: number for number, parity in _PARITIES.items()}


def _single(value: int) -> Sequence[int]:
    return (value,)


WORD_DIGITS = Form(length=1, decode=_hex_digits)
TWO_WORD_DIGITS = Form(length=2, decode=_hex_digits)
DECIMAL_DIGITS = Form(length=1, decode=_decimal_digits)
VERSION = Form(length=2, decode=_version)
COUNT = Form(length=1, decode=_count)
COUNTER = Form(length=1, decode=_count, encode=_single)
QUADRANT = Form(length=1, decode=partial(_member, Quadrant))
TARIFF = Form(length=1, decode=partial(_member, Tariff), encode=_single)
CALCULATION_CODE = Form(length=1, decode=partial(_member, CalculationCode), encode=_single)
BAUD_RATE = Form(length=1, decode=partial(_member, BaudRate), encode=_single)
PARITY = Form(
    length=1,
    decode=lambda words: _PARITIES.get(_signed(words)),
    encode=lambda parity: (_PARITY_NUMBERS[parity],),
)
S0_RATE = Form(length=2, decode=_s0_rate, encode=_as_float)
LCD_CYCLE_TIME = Form(length=1, decode=_lcd_cycle_time, encode=_as_decimal_digits)
DIRECTION_L1, DIRECTION_L2, DIRECTION_L3 = (
    Form(length=1, decode=partial(_direction, phase)) for phase in "123"
)
LAST_DIGIT, SECOND_LAST_DIGIT, THIRD_LAST_DIGIT = (
    Form(length=1, decode=partial(_display_digit, place)) for place in range(3)
)

_measure = partial(Measure, length=2, decode=_float)
# Between phases of a delta network the meter sees up to 400 V + 20 %.
VOLTAGE = _measure(decimals=1, lowest=0, highest=500)
FREQUENCY = _measure(decimals=2, lowest=40, highest=70)
CURRENT = _measure(decimals=2, lowest=-1.2, highest=1.2, per_ampere=True)
# Three phases at 500 V and 1.2 times the greatest current.
POWER = _measure(decimals=3, lowest=-1.8, highest=1.8, per_ampere=True)
APPARENT_POWER = _measure(decimals=3, lowest=0, highest=1.8, per_ampere=True)
POWER_FACTOR = _measure(decimals=2, lowest=-1, highest=1)
# The display has eight digits.
ENERGY = _measure(decimals=2, lowest=0, highest=99_999_999)
BALANCE = _measure(decimals=2, lowest=-99_999_999, highest=99_999_999)
RESETTABLE_COUNTER = _measure(decimals=2, lowest=0, highest=99_999_999, encode=_as_float)

METER_REGISTERS = (
    Register(address=0x4000, key=Identifier.SERIAL_NUMBER, form=TWO_WORD_DIGITS),
    Register(address=0x4002, key=Identifier.METER_CODE, form=WORD_DIGITS),
    Register(address=0x4003, key=Setting.ADDRESS, form=COUNTER, write=WriteFunction.SINGLE),
    Register(address=0x4004, key=Setting.BAUD_RATE, form=BAUD_RATE, write=WriteFunction.SINGLE),
    Register(address=0x4005, key=Identifier.PROTOCOL_VERSION, form=VERSION),
    Register(address=0x4007, key=Identifier.FIRMWARE_VERSION, form=VERSION),
    Register(address=0x4009, key=Identifier.HARDWARE_VERSION, form=VERSION),
    Register(address=0x400B, key=Identifier.RATED_CURRENT, form=COUNT),
    Register(address=0x400C, key=Identifier.CT_RATIO, form=DECIMAL_DIGITS),
    Register(address=0x400D, key=Setting.S0_RATE, form=S0_RATE, write=WriteFunction.MULTIPLE),
    Register(
        address=0x400F,
        key=Setting.CALCULATION_CODE,
        form=CALCULATION_CODE,
        write=WriteFunction.SINGLE,
    ),
    Register(
        address=0x4010,
        key=Setting.LCD_CYCLE_TIME,
        form=LCD_CYCLE_TIME,
        write=WriteFunction.SINGLE,
    ),
    Register(address=0x4011, key=Setting.PARITY, form=PARITY, write=WriteFunction.SINGLE),
    Register(address=0x4012, key=Quantity.CURRENT_DIRECTION_L1, form=DIRECTION_L1),
    Register(address=0x4013, key=Quantity.CURRENT_DIRECTION_L2, form=DIRECTION_L2),
    Register(address=0x4014, key=Quantity.CURRENT_DIRECTION_L3, form=DIRECTION_L3),
    Register(address=0x4015, key=Quantity.ERROR_CODE, form=COUNT),
    Register(
        address=0x4016,
        key=Quantity.POWER_DOWN_COUNTER,
        form=COUNTER,
        write=WriteFunction.SINGLE,
    ),
    Register(address=0x4017, key=Quantity.QUADRANT, form=QUADRANT),
    Register(address=0x4018, key=Quantity.QUADRANT_L1, form=QUADRANT),
    Register(address=0x4019, key=Quantity.QUADRANT_L2, form=QUADRANT),
    Register(address=0x401A, key=Quantity.QUADRANT_L3, form=QUADRANT),
    Register(address=0x401B, key=Identifier.CHECKSUM, form=TWO_WORD_DIGITS),
    # The status word: the display's two digits in its first register, three in its second.
    Register(address=0x401D, key=Quantity.PROGRAM_OK, form=SECOND_LAST_DIGIT),
    Register(address=0x401D, key=Quantity.EEPROM_OK, form=LAST_DIGIT),
    Register(address=0x401E, key=Quantity.SUPPLY_L1, form=THIRD_LAST_DIGIT),
    Register(address=0x401E, key=Quantity.SUPPLY_L2, form=SECOND_LAST_DIGIT),
    Register(address=0x401E, key=Quantity.SUPPLY_L3, form=LAST_DIGIT),
    Register(address=0x401F, key=Identifier.CT_MODE, form=COUNT),
)

MEASUREMENT_REGISTERS = (
    Register(address=0x5000, key=Quantity.VOLTAGE, form=VOLTAGE),
    Register(address=0x5002, key=Quantity.VOLTAGE_L1, form=VOLTAGE),
    Register(address=0x5004, key=Quantity.VOLTAGE_L2, form=VOLTAGE),
    Register(address=0x5006, key=Quantity.VOLTAGE_L3, form=VOLTAGE),
    Register(address=0x5008, key=Quantity.FREQUENCY, form=FREQUENCY),
    Register(address=0x500A, key=Quantity.CURRENT, form=CURRENT),
    Register(address=0x500C, key=Quantity.CURRENT_L1, form=CURRENT),
    Register(address=0x500E, key=Quantity.CURRENT_L2, form=CURRENT),
    Register(address=0x5010, key=Quantity.CURRENT_L3, form=CURRENT),
    Register(address=0x5012, key=Quantity.ACTIVE_POWER, form=POWER),
    Register(address=0x5014, key=Quantity.ACTIVE_POWER_L1, form=POWER),
    Register(address=0x5016, key=Quantity.ACTIVE_POWER_L2, form=POWER),
    Register(address=0x5018, key=Quantity.ACTIVE_POWER_L3, form=POWER),
    Register(address=0x501A, key=Quantity.REACTIVE_POWER, form=POWER),
    Register(address=0x501C, key=Quantity.REACTIVE_POWER_L1, form=POWER),
    Register(address=0x501E, key=Quantity.REACTIVE_POWER_L2, form=POWER),
    Register(address=0x5020, key=Quantity.REACTIVE_POWER_L3, form=POWER),
    Register(address=0x5022, key=Quantity.APPARENT_POWER, form=APPARENT_POWER),
    Register(address=0x5024, key=Quantity.APPARENT_POWER_L1, form=APPARENT_POWER),
    Register(address=0x5026, key=Quantity.APPARENT_POWER_L2, form=APPARENT_POWER),
    Register(address=0x5028, key=Quantity.APPARENT_POWER_L3, form=APPARENT_POWER),
    Register(address=0x502A, key=Quantity.POWER_FACTOR, form=POWER_FACTOR),
    Register(address=0x502C, key=Quantity.POWER_FACTOR_L1, form=POWER_FACTOR),
    Register(address=0x502E, key=Quantity.POWER_FACTOR_L2, form=POWER_FACTOR),
    Register(address=0x5030, key=Quantity.POWER_FACTOR_L3, form=POWER_FACTOR),
)

ENERGY_REGISTERS = (
    Register(address=0x6000, key=Quantity.TOTAL_ACTIVE_ENERGY, form=BALANCE),
    Register(address=0x6002, key=Quantity.TOTAL_ACTIVE_ENERGY_T1, form=BALANCE),
    Register(address=0x6004, key=Quantity.TOTAL_ACTIVE_ENERGY_T2, form=BALANCE),
    Register(address=0x6006, key=Quantity.TOTAL_ACTIVE_ENERGY_L1, form=BALANCE),
    Register(address=0x6008, key=Quantity.TOTAL_ACTIVE_ENERGY_L2, form=BALANCE),
    Register(address=0x600A, key=Quantity.TOTAL_ACTIVE_ENERGY_L3, form=BALANCE),
    Register(address=0x600C, key=Quantity.FORWARD_ACTIVE_ENERGY, form=ENERGY),
    Register(address=0x600E, key=Quantity.FORWARD_ACTIVE_ENERGY_T1, form=ENERGY),
    Register(address=0x6010, key=Quantity.FORWARD_ACTIVE_ENERGY_T2, form=ENERGY),
    Register(address=0x6012, key=Quantity.FORWARD_ACTIVE_ENERGY_L1, form=ENERGY),
    Register(address=0x6014, key=Quantity.FORWARD_ACTIVE_ENERGY_L2, form=ENERGY),
    Register(address=0x6016, key=Quantity.FORWARD_ACTIVE_ENERGY_L3, form=ENERGY),
    Register(address=0x6018, key=Quantity.REVERSE_ACTIVE_ENERGY, form=ENERGY),
    Register(address=0x601A, key=Quantity.REVERSE_ACTIVE_ENERGY_T1, form=ENERGY),
    Register(address=0x601C, key=Quantity.REVERSE_ACTIVE_ENERGY_T2, form=ENERGY),
    Register(address=0x601E, key=Quantity.REVERSE_ACTIVE_ENERGY_L1, form=ENERGY),
    Register(address=0x6020, key=Quantity.REVERSE_ACTIVE_ENERGY_L2, form=ENERGY),
    Register(address=0x6022, key=Quantity.REVERSE_ACTIVE_ENERGY_L3, form=ENERGY),
    Register(address=0x6024, key=Quantity.TOTAL_REACTIVE_ENERGY, form=BALANCE),
    Register(address=0x6026, key=Quantity.TOTAL_REACTIVE_ENERGY_T1, form=BALANCE),
    Register(address=0x6028, key=Quantity.TOTAL_REACTIVE_ENERGY_T2, form=BALANCE),
    Register(address=0x602A, key=Quantity.TOTAL_REACTIVE_ENERGY_L1, form=BALANCE),
    Register(address=0x602C, key=Quantity.TOTAL_REACTIVE_ENERGY_L2, form=BALANCE),
    Register(address=0x602E, key=Quantity.TOTAL_REACTIVE_ENERGY_L3, form=BALANCE),
    Register(address=0x6030, key=Quantity.FORWARD_REACTIVE_ENERGY, form=ENERGY),
    Register(address=0x6032, key=Quantity.FORWARD_REACTIVE_ENERGY_T1, form=ENERGY),
    Register(address=0x6034, key=Quantity.FORWARD_REACTIVE_ENERGY_T2, form=ENERGY),
    Register(address=0x6036, key=Quantity.FORWARD_REACTIVE_ENERGY_L1, form=ENERGY),
    Register(address=0x6038, key=Quantity.FORWARD_REACTIVE_ENERGY_L2, form=ENERGY),
    Register(address=0x603A, key=Quantity.FORWARD_REACTIVE_ENERGY_L3, form=ENERGY),
    Register(address=0x603C, key=Quantity.REVERSE_REACTIVE_ENERGY, form=ENERGY),
    Register(address=0x603E, key=Quantity.REVERSE_REACTIVE_ENERGY_T1, form=ENERGY),
    Register(address=0x6040, key=Quantity.REVERSE_REACTIVE_ENERGY_T2, form=ENERGY),
    Register(address=0x6042, key=Quantity.REVERSE_REACTIVE_ENERGY_L1, form=ENERGY),
    Register(address=0x6044, key=Quantity.REVERSE_REACTIVE_ENERGY_L2, form=ENERGY),
    Register(address=0x6046, key=Quantity.REVERSE_REACTIVE_ENERGY_L3, form=ENERGY),
    Register(address=0x6048, key=Setting.TARIFF, form=TARIFF, write=WriteFunction.SINGLE),
    Register(
        address=0x6049,
        key=Quantity.RESETTABLE_COUNTER,
        form=RESETTABLE_COUNTER,
        write=WriteFunction.MULTIPLE,
    ),
)

REGISTERS = {
    register.key: register
    for register in (*METER_REGISTERS, *MEASUREMENT_REGISTERS, *ENERGY_REGISTERS)
}
