"""How the values of records are coded (EN 13757-3:2018, data types A to J)."""

from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Context, Decimal
import math
import struct
from typing import Final

from .vif import Unit

type Value = Decimal | str | date | datetime | time
"""A number in the record's unit, a text, or a time point of the meter's own clock."""

type Decoder = Callable[[bytes], Value | None]
"""Reads the bytes of a value; None if they stand for none."""

# More digits than any number sent or the exact value of any real has.
EXACT: Final = Context(prec=200)


def integer(content: bytes) -> Decimal:
    """Read a signed integer. Integers are signed unless their VIF says that they are not."""
    return Decimal(int.from_bytes(content, "little", signed=True))


def unsigned_integer(content: bytes) -> Decimal:
    """Read an integer without sign, or bits."""
    return Decimal(int.from_bytes(content, "little"))


def _real(content: bytes) -> Decimal | None:
    (real,) = struct.unpack("<f", content)
    return Decimal(real) if math.isfinite(real) else None


def _bcd(content: bytes) -> Decimal | None:
    digits = content[::-1].hex()
    if digits.startswith("f") and digits[1:].isdecimal():
        return Decimal(-int(digits[1:]))
    return Decimal(digits) if digits.isdecimal() else None


def _negative_bcd(content: bytes) -> Decimal | None:
    number = _bcd(content)
    return None if number is None else EXACT.minus(number)


def text(content: bytes) -> str:
    """Read a text, whose last character is sent first."""
    return content[::-1].decode("latin-1")


def _possible[T](decode: Callable[[bytes], T]) -> Callable[[bytes], T | None]:
    """Give None for what stands on no calendar or clock, like the 31st hour: every hour."""

    def decode_possible(content: bytes) -> T | None:
        try:
            return decode(content)
        except ValueError:
            return None

    return decode_possible


def _date(low: int, high: int, century: int = 0) -> date:
    year = low >> 5 | high >> 4 << 3
    if year > 99:
        raise ValueError("Every year")
    # Where no century is sent, EN 13757-3 takes years up to 80 for those after 2000.
    year += 1900 + 100 * (century or year <= 80)
    return date(year, high & 0x0F, low & 0x1F)


# The bits of a minute, and the one which says that the time is not valid: no minute has it.
MINUTE_BITS: Final = 0xBF


@_possible
def _type_f(content: bytes) -> datetime:
    minute, hour, low, high = content
    return datetime.combine(
        _date(low, high, hour >> 5 & 3), time(hour & 0x1F, minute & MINUTE_BITS)
    )


@_possible
def _type_g(content: bytes) -> date:
    return _date(*content)


@_possible
def _type_i(content: bytes) -> datetime:
    second, minute, hour, low, high, _ = content
    clock = time(hour & 0x1F, minute & MINUTE_BITS, second & 0x3F)
    return datetime.combine(_date(low, high), clock)


@_possible
def _type_j(content: bytes) -> time:
    second, minute, hour = content
    return time(hour & 0x1F, minute & MINUTE_BITS, second & 0x3F)


# Length in bytes and coding of each data field that is not a special function.
DATA_FIELDS: Final[dict[int, tuple[int, Decoder]]] = {
    0x00: (0, integer),
    0x01: (1, integer),
    0x02: (2, integer),
    0x03: (3, integer),
    0x04: (4, integer),
    0x05: (4, _real),
    0x06: (6, integer),
    0x07: (8, integer),
    0x08: (0, integer),
    0x09: (1, _bcd),
    0x0A: (2, _bcd),
    0x0B: (3, _bcd),
    0x0C: (4, _bcd),
    0x0E: (6, _bcd),
}
VARIABLE_LENGTH: Final = 0x0D
SPECIAL_FUNCTION: Final = 0x0F

# The same for the byte before data of variable length.
VARIABLE_LENGTHS: Final[dict[int, tuple[int, Decoder]]] = {
    **{code: (code, text) for code in range(0xC0)},
    **{code: (code - 0xC0, _bcd) for code in range(0xC0, 0xCA)},
    **{code: (code - 0xD0, _negative_bcd) for code in range(0xD0, 0xDA)},
    **{code: (code - 0xE0, integer) for code in range(0xE0, 0xF0)},
    **{code: (4 * (code - 0xEC), integer) for code in range(0xF0, 0xF5)},
    0xF5: (48, integer),
    0xF6: (64, integer),
}

# How a time point is coded, by the length of its data.
TIME_POINTS: Final[dict[Unit, dict[int, Decoder]]] = {
    Unit.DATE: {2: _type_g},
    Unit.DATE_TIME: {2: _type_g, 3: _type_j, 4: _type_f, 6: _type_i},
}
