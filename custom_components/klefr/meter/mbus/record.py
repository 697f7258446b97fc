"""The data records with which a meter answers (EN 13757-3:2018, variable data structure)."""

from dataclasses import dataclass
from decimal import Decimal
from enum import IntEnum
from functools import lru_cache
import re
import struct
from typing import Final

from ..errors import GarbledAnswerError
from .data import (
    DATA_FIELDS,
    EXACT,
    SPECIAL_FUNCTION,
    TIME_POINTS,
    VARIABLE_LENGTH,
    VARIABLE_LENGTHS,
    Value,
    integer,
    text,
    unsigned_integer,
)
from .vif import PLAIN_TEXT, Meaning, Qualifier, Unit, value_information


class Medium(IntEnum):
    """What a meter measures."""

    ELECTRICITY = 2


class Function(IntEnum):
    """What kind of value a record holds."""

    INSTANTANEOUS = 0
    MAXIMUM = 1
    MINIMUM = 2
    ERROR = 3


@dataclass(frozen=True, kw_only=True)
class Header:
    """Who answers, and how it is doing.

    `identification` has eight digits; a meter that breaks the rules may show letters from
    A to F among them. `manufacturer` is the number sent, low byte first.
    """

    identification: str
    manufacturer: int
    version: int
    medium: int
    access_number: int
    status: int
    signature: int

    @property
    def manufacturer_letters(self) -> str:
        """The three letters that the manufacturer's number stands for."""
        return "".join(chr(ord("@") + (self.manufacturer >> shift & 0x1F)) for shift in (10, 5, 0))


@dataclass(frozen=True, kw_only=True)
class Record:
    """One value of a meter.

    `value` is None if the meter sent none, or one that cannot be. `text` is the unit's
    name where the meter spells it out.
    """

    function: Function
    storage_number: int
    tariff: int
    subunit: int
    meaning: Meaning
    unit: Unit
    text: str | None
    qualifiers: frozenset[Qualifier]
    value: Value | None


@dataclass(frozen=True, kw_only=True)
class Telegram:
    """All that one answer holds.

    `unknown` are the records, as they were sent, that hold something not known here.
    """

    header: Header
    records: tuple[Record, ...]
    unknown: tuple[bytes, ...]
    more_records_follow: bool
    manufacturer_data: bytes


HEADER: Final = struct.Struct("<4sHBBBBH")

DIF_MANUFACTURER_DATA: Final = 0x0F
DIF_MORE_RECORDS_FOLLOW: Final = 0x1F
DIF_IDLE_FILLER: Final = 0x2F


def parse(data: bytes) -> Telegram:
    """Read what follows the control information 72 of an answer.

    Raises GarbledAnswerError where it breaks the rules.
    """
    header = parse_header(data)
    records: list[Record] = []
    unknown: list[bytes] = []
    manufacturer_data = b""
    more_records_follow = False
    position = HEADER.size
    while position < len(data):
        dif = data[position]
        if dif & DATA_FIELD != SPECIAL_FUNCTION:
            record, end = _record(data, position)
            if record is None:
                unknown.append(data[position:end])
            else:
                records.append(record)
            position = end
        elif dif == DIF_IDLE_FILLER:
            position += 1
        elif dif in {DIF_MANUFACTURER_DATA, DIF_MORE_RECORDS_FOLLOW}:
            manufacturer_data = data[position + 1 :]
            more_records_follow = dif == DIF_MORE_RECORDS_FOLLOW
            break
        else:
            raise GarbledAnswerError(f"DIF {dif:02X} is reserved")
    return Telegram(
        header=header,
        records=tuple(records),
        unknown=tuple(unknown),
        more_records_follow=more_records_follow,
        manufacturer_data=manufacturer_data,
    )


def bcd(number: int, digits: int) -> bytes:
    """Write a number with an even count of decimal digits, low byte first.

    Raises ValueError if it does not fit.
    """
    text = f"{number:0{digits}d}"
    if number < 0 or len(text) > digits:
        raise ValueError(f"{number} does not fit into {digits} digits")
    return bytes.fromhex(text)[::-1]


def parse_header(data: bytes) -> Header:
    """Read only the header of what follows the control information 72 of an answer.

    Raises GarbledAnswerError if it is cut off.
    """
    if len(data) < HEADER.size:
        raise GarbledAnswerError("The header is cut off")
    identification, manufacturer, version, medium, access_number, status, signature = (
        HEADER.unpack_from(data)
    )
    return Header(
        identification=identification[::-1].hex().upper(),
        manufacturer=manufacturer,
        version=version,
        medium=medium,
        access_number=access_number,
        status=status,
        signature=signature,
    )


# A field has bit 7 set if another one belongs to it, and at most ten do.
_FIELDS: Final = rb"([\x80-\xFF]{0,10}[\x00-\x7F])"
_INFORMATION: Final = re.compile(_FIELDS + _FIELDS)


def _record(data: bytes, position: int) -> tuple[Record | None, int]:
    """Read the record at a position; give it, if all in it is known, and where it ends."""
    fields = _INFORMATION.match(data, position)
    if fields is None:
        raise GarbledAnswerError("The information fields of a record do not end")
    dib, vib = fields.groups()
    data_information = _data_information(dib)
    information = value_information(vib)
    position = fields.end()

    unit_text = None
    if vib[0] & 0x7F == PLAIN_TEXT:
        # Behind all VIFEs: so EN 13757-3:2018 has it, while some old meters, none of them
        # for electricity, put it before them.
        length = _take(data, position, 1)[0]
        unit_text = text(_take(data, position + 1, length))
        position += 1 + length

    if data_information.data_field == VARIABLE_LENGTH:
        length_code = _take(data, position, 1)[0]
        if length_code not in VARIABLE_LENGTHS:
            raise GarbledAnswerError(f"LVAR {length_code:02X} is reserved")
        length, decode = VARIABLE_LENGTHS[length_code]
        position += 1
    else:
        length, decode = DATA_FIELDS[data_information.data_field]
    content = _take(data, position, length)
    position += length

    if information is None:
        return None, position
    if information.unit in TIME_POINTS and content:
        if decode is not integer or length not in TIME_POINTS[information.unit]:
            return None, position
        decode = TIME_POINTS[information.unit][length]
    elif information.unsigned and decode is integer:
        decode = unsigned_integer
    value = decode(content) if content and not information.failed else None
    if isinstance(value, Decimal):
        value = value.scaleb(information.exponent, EXACT)
    record = Record(
        function=data_information.function,
        storage_number=data_information.storage_number,
        tariff=data_information.tariff,
        subunit=data_information.subunit,
        meaning=information.meaning,
        unit=information.unit,
        text=unit_text,
        qualifiers=information.qualifiers,
        value=value,
    )
    return record, position


def _take(data: bytes, position: int, length: int) -> bytes:
    if position + length > len(data):
        raise GarbledAnswerError("A record is cut off")
    return data[position : position + length]


@dataclass(frozen=True, kw_only=True)
class _DataInformation:
    """What stands in a record's DIF and DIFEs."""

    function: Function
    storage_number: int
    tariff: int
    subunit: int
    data_field: int


DATA_FIELD: Final = 0x0F


# A telegram repeats few of them over and over.
@lru_cache(maxsize=1024)
def _data_information(dib: bytes) -> _DataInformation:
    dif, *difes = dib
    storage_number = dif >> 6 & 1
    tariff = subunit = 0
    for place, dife in enumerate(difes):
        storage_number |= (dife & 0x0F) << 1 + 4 * place
        tariff |= (dife >> 4 & 3) << 2 * place
        subunit |= (dife >> 6 & 1) << place
    return _DataInformation(
        function=Function(dif >> 4 & 3),
        storage_number=storage_number,
        tariff=tariff,
        subunit=subunit,
        data_field=dif & DATA_FIELD,
    )
