"""What meters send in their records, and what they must never send."""

from datetime import date, datetime, time
from decimal import Decimal
from fractions import Fraction
from itertools import islice
import struct

from hypothesis import given, settings, strategies as st
import meterbus
import pytest

from custom_components.klefr.meter import GarbledAnswerError
from custom_components.klefr.meter.mbus.frame import FrameParser, LongFrame
from custom_components.klefr.meter.mbus.record import (
    Function,
    Header,
    Medium,
    Record,
    Telegram,
    bcd,
    parse,
)
from custom_components.klefr.meter.mbus.vif import Meaning, Qualifier, Unit
from simulator.mutation import mutations
from tests.data.mbus import telegrams

TELEGRAMS = telegrams()
HEADER = bytes.fromhex("78 56 34 12 CD 25 18 02 2A 00 00 00")

unhurried = settings(deadline=None)


def telegram(name: str) -> Telegram:
    (frame,) = FrameParser().feed(TELEGRAMS[name])
    assert isinstance(frame, LongFrame)
    return parse(frame.data)


def record(sent: str) -> Record:
    """Read the only record of a telegram, which is known."""
    answer = parse(HEADER + bytes.fromhex(sent))
    assert answer.unknown == ()
    (only,) = answer.records
    return only


def test_a_klefr_meter_is_read_as_its_manual_reads_it() -> None:
    answer = telegram("klefr_6933")
    assert answer.header == Header(
        identification="00000000",
        manufacturer=0x25CD,
        version=1,
        medium=Medium.ELECTRICITY,
        access_number=2,
        status=0,
        signature=0,
    )
    assert answer.header.manufacturer_letters == "INM"
    assert [(r.function, r.tariff, r.value) for r in answer.records] == [
        (Function.INSTANTANEOUS, 0, Decimal(16048140)),
        (Function.INSTANTANEOUS, 1, Decimal(3580230)),
        (Function.INSTANTANEOUS, 2, Decimal(12467910)),
        (Function.MAXIMUM, 0, Decimal(6913460)),
        (Function.MAXIMUM, 1, Decimal(1234560)),
        (Function.MAXIMUM, 2, Decimal(5678900)),
        (Function.MINIMUM, 0, Decimal(9134680)),
        (Function.MINIMUM, 1, Decimal(2345670)),
        (Function.MINIMUM, 2, Decimal(6789010)),
    ]
    for each in answer.records:
        assert (each.meaning, each.unit) == (Meaning.ENERGY, Unit.WATT_HOUR)
        assert (each.storage_number, each.subunit, each.qualifiers) == (0, 0, frozenset())
        assert each.text is None
    assert answer.unknown == ()
    assert not answer.more_records_follow
    assert answer.manufacturer_data == b""


def test_the_header_is_read_low_byte_first() -> None:
    header = parse(bytes.fromhex("15 01 23 45 42 04 20 02 FF 02 34 12")).header
    assert header == Header(
        identification="45230115",
        manufacturer=0x0442,
        version=0x20,
        medium=Medium.ELECTRICITY,
        access_number=255,
        status=2,
        signature=0x1234,
    )
    assert header.manufacturer_letters == "ABB"


def test_an_identification_may_break_the_rules() -> None:
    assert parse(bytes.fromhex("0A 00 00 F0") + HEADER[4:]).header.identification == "F000000A"


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ("00 03", None),
        ("08 03", None),
        ("01 03 FE", -2),
        ("02 03 FF 7F", 32767),
        ("03 03 00 00 80", -8388608),
        ("04 03 FE FF FF FF", -2),
        ("06 03 00 00 00 00 00 80", -(2**47)),
        ("07 03 FF FF FF FF FF FF FF 7F", 2**63 - 1),
        ("05 03 00 00 C0 BF", "-1.5"),
        ("05 04 00 00 C0 3F", 15),
        ("05 03 00 00 C0 7F", None),
        ("05 03 00 00 80 FF", None),
        ("09 03 99", 99),
        ("0A 03 34 12", 1234),
        ("0A 03 34 F2", -234),
        ("0B 03 56 34 12", 123456),
        ("0C 03 78 56 34 12", 12345678),
        ("0C 03 00 00 00 F0", 0),
        ("0E 03 12 90 78 56 34 F2", -23456789012),
        ("09 03 A0", None),
        ("09 03 0A", None),
        ("09 03 FF", None),
        ("0C 03 00 1F 00 00", None),
        ("0C 03 00 00 00 E0", None),
    ],
)
def test_numbers_are_exact_whatever_their_coding(sent: str, value: str | int | None) -> None:
    assert record(sent).value == (None if value is None else Decimal(value))


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ("00", None),
        ("03 43 42 41", "ABC"),
        ("02 B5 41", "Aµ"),
        ("C0", None),
        ("C2 34 12", Decimal(1234)),
        ("C9 89 67 45 23 01 89 67 45 23", Decimal(234567890123456789)),
        ("C1 1A", None),
        ("D0", None),
        ("D1 00", Decimal(0)),
        ("D2 34 12", Decimal(-1234)),
        ("E0", None),
        ("E1 FF", Decimal(-1)),
        ("EF" + "00" * 14 + "01", Decimal(2**112)),
        ("F0" + "00" * 15 + "01", Decimal(2**120)),
        ("F4" + "00" * 31 + "01", Decimal(2**248)),
        ("F5" + "00" * 47 + "01", Decimal(2**376)),
        ("F6" + "FF" * 64, Decimal(-1)),
    ],
)
def test_data_of_variable_length(sent: str, value: Decimal | str | None) -> None:
    answer = parse(HEADER + bytes.fromhex("0D FD 3A" + sent + "01 FD 3A 07"))
    assert [each.value for each in answer.records] == [value, Decimal(7)]


@pytest.mark.parametrize("length", [*range(0xCA, 0xD0), *range(0xDA, 0xE0), *range(0xF7, 0x100)])
def test_reserved_lengths_are_errors(length: int) -> None:
    with pytest.raises(GarbledAnswerError):
        parse(HEADER + b"\x0d\x03" + bytes((length,)) + bytes(200))


@pytest.mark.parametrize(
    ("sent", "function", "storage_number", "tariff", "subunit"),
    [
        ("0C 04", Function.INSTANTANEOUS, 0, 0, 0),
        ("1C 04", Function.MAXIMUM, 0, 0, 0),
        ("2C 04", Function.MINIMUM, 0, 0, 0),
        ("3C 04", Function.ERROR, 0, 0, 0),
        ("4C 04", Function.INSTANTANEOUS, 1, 0, 0),
        ("8C 10 04", Function.INSTANTANEOUS, 0, 1, 0),
        ("8C 20 04", Function.INSTANTANEOUS, 0, 2, 0),
        ("8C 40 04", Function.INSTANTANEOUS, 0, 0, 1),
        ("CC 01 04", Function.INSTANTANEOUS, 3, 0, 0),
        ("9C B0 41 04", Function.MAXIMUM, 32, 3, 2),
        ("8C 80 10 04", Function.INSTANTANEOUS, 0, 4, 0),
        ("CC" + "FF" * 9 + "7F 04", Function.INSTANTANEOUS, 2**41 - 1, 2**20 - 1, 2**10 - 1),
    ],
)
def test_a_chain_of_difes_counts_up(
    sent: str, function: Function, storage_number: int, tariff: int, subunit: int
) -> None:
    read = record(sent + "78 56 34 12")
    assert (read.function, read.storage_number) == (function, storage_number)
    assert (read.tariff, read.subunit) == (tariff, subunit)
    assert read.value == Decimal(123456780)


@pytest.mark.parametrize(
    ("vib", "meaning", "unit", "value"),
    [
        ("00", Meaning.ENERGY, Unit.WATT_HOUR, "0.012"),
        ("03", Meaning.ENERGY, Unit.WATT_HOUR, "12"),
        ("07", Meaning.ENERGY, Unit.WATT_HOUR, "120000"),
        ("08", Meaning.ENERGY, Unit.JOULE, "12"),
        ("0F", Meaning.ENERGY, Unit.JOULE, "120000000"),
        ("20", Meaning.ON_TIME, Unit.SECOND, "12"),
        ("23", Meaning.ON_TIME, Unit.DAY, "12"),
        ("25", Meaning.OPERATING_TIME, Unit.MINUTE, "12"),
        ("26", Meaning.OPERATING_TIME, Unit.HOUR, "12"),
        ("28", Meaning.POWER, Unit.WATT, "0.012"),
        ("2F", Meaning.POWER, Unit.WATT, "120000"),
        ("30", Meaning.POWER, Unit.JOULE_PER_HOUR, "12"),
        ("78", Meaning.FABRICATION_NUMBER, Unit.NONE, "12"),
        ("79", Meaning.IDENTIFICATION, Unit.NONE, "12"),
        ("7A", Meaning.BUS_ADDRESS, Unit.NONE, "12"),
        ("FB 00", Meaning.ENERGY, Unit.WATT_HOUR, "1200000"),
        ("FB 01", Meaning.ENERGY, Unit.WATT_HOUR, "12000000"),
        ("FB 02", Meaning.ENERGY, Unit.VAR_HOUR, "12000"),
        ("FB 04", Meaning.ENERGY, Unit.VOLT_AMPERE_HOUR, "12000"),
        ("FB 08", Meaning.ENERGY, Unit.JOULE, "1200000000"),
        ("FB 14", Meaning.POWER, Unit.VAR, "12"),
        ("FB 17", Meaning.POWER, Unit.VAR, "12000"),
        ("FB 29", Meaning.POWER, Unit.WATT, "12000000"),
        ("FB 2A", Meaning.PHASE_BETWEEN_VOLTAGES, Unit.DEGREE, "1.2"),
        ("FB 2B", Meaning.PHASE_OF_CURRENT, Unit.DEGREE, "1.2"),
        ("FB 2C", Meaning.FREQUENCY, Unit.HERTZ, "0.012"),
        ("FB 2F", Meaning.FREQUENCY, Unit.HERTZ, "12"),
        ("FB 30", Meaning.POWER, Unit.JOULE_PER_HOUR, "1200000000"),
        ("FB 34", Meaning.POWER, Unit.VOLT_AMPERE, "12"),
        ("FB 78", Meaning.CUMULATED_MAXIMUM_POWER, Unit.WATT, "0.012"),
        ("FD 0D", Meaning.HARDWARE_VERSION, Unit.NONE, "12"),
        ("FD 0E", Meaning.FIRMWARE_VERSION, Unit.NONE, "12"),
        ("FD 0F", Meaning.SOFTWARE_VERSION, Unit.NONE, "12"),
        ("FD 17", Meaning.ERROR_FLAGS, Unit.NONE, "12"),
        ("FD 1A", Meaning.DIGITAL_OUTPUT, Unit.NONE, "12"),
        ("FD 1B", Meaning.DIGITAL_INPUT, Unit.NONE, "12"),
        ("FD 3A", Meaning.DIMENSIONLESS, Unit.NONE, "12"),
        ("FD 40", Meaning.VOLTAGE, Unit.VOLT, "0.000000012"),
        ("FD 48", Meaning.VOLTAGE, Unit.VOLT, "1.2"),
        ("FD 50", Meaning.CURRENT, Unit.AMPERE, "0.000000000012"),
        ("FD 5B", Meaning.CURRENT, Unit.AMPERE, "1.2"),
        ("FD 60", Meaning.RESET_COUNTER, Unit.NONE, "12"),
        # Multiplied by a VIFE.
        ("84 70", Meaning.ENERGY, Unit.WATT_HOUR, "0.00012"),
        ("84 77", Meaning.ENERGY, Unit.WATT_HOUR, "1200"),
        ("84 7D", Meaning.ENERGY, Unit.WATT_HOUR, "120000"),
        ("84 F5 FD 00", Meaning.ENERGY, Unit.WATT_HOUR, "12000"),
        ("FD BA 73", Meaning.DIMENSIONLESS, Unit.NONE, "0.012"),
        ("FB 97 72", Meaning.POWER, Unit.VAR, "1.2"),
    ],
)
def test_the_units_of_electricity_meters(
    vib: str, meaning: Meaning, unit: Unit, value: str
) -> None:
    read = record(f"02 {vib} 0C 00")
    assert (read.meaning, read.unit, read.value) == (meaning, unit, Decimal(value))
    assert read.qualifiers == frozenset()


@pytest.mark.parametrize(
    ("vifes", "qualifiers"),
    [
        ("12", {Qualifier.AVERAGE}),
        ("3B", {Qualifier.FORWARD}),
        ("3C", {Qualifier.BACKWARD}),
        ("40", {Qualifier.LOWER_LIMIT}),
        ("48", {Qualifier.UPPER_LIMIT}),
        ("7E", {Qualifier.FUTURE}),
        # Standard conform data, and no error.
        ("1D", set()),
        ("00", set()),
        ("FC 01", {Qualifier.L1}),
        ("FC 02", {Qualifier.L2}),
        ("FC 03", {Qualifier.L3}),
        ("FC 04", {Qualifier.N}),
        ("FC 05", {Qualifier.L1_L2}),
        ("FC 06", {Qualifier.L2_L3}),
        ("FC 07", {Qualifier.L3_L1}),
        ("FC 08", {Qualifier.Q1}),
        ("FC 09", {Qualifier.Q2}),
        ("FC 0A", {Qualifier.Q3}),
        ("FC 0B", {Qualifier.Q4}),
        ("FC 0C", {Qualifier.FORWARD_MINUS_BACKWARD}),
        ("FC 10", {Qualifier.BOTH_DIRECTIONS}),
        ("FC 82 F6 BC 00", {Qualifier.L2, Qualifier.BACKWARD}),
        ("FC 81" + "80" * 6 + "3B", {Qualifier.L1, Qualifier.FORWARD}),
    ],
)
def test_vifes_qualify_a_value(vifes: str, qualifiers: set[Qualifier]) -> None:
    for vif in ("83", "FD C9"):
        read = record(f"02 {vif} {vifes} 0C 00")
        assert read.qualifiers == qualifiers
        assert read.value == 12


@pytest.mark.parametrize(
    "vife", [*range(0x01, 0x08), *range(0x0B, 0x10), 0x15, 0x16, 0x17, 0x18, 0x1C]
)
def test_a_record_that_the_meter_calls_an_error_has_no_value(vife: int) -> None:
    read = record(f"02 84 {vife:02X} 0C 00")
    assert (read.unit, read.value) == (Unit.WATT_HOUR, None)


def test_bits_have_no_sign() -> None:
    for vib in ("7A", "FD 17", "FD 1A", "FD 1B", "83 FC 11", "83 FC 12"):
        assert record(f"01 {vib} FF").value == 255
    assert record("01 FD 3A FF").value == -1
    assert record("09 FD 17 10").value == 10


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ("02 6C 01 39", date(2024, 9, 1)),
        ("02 6C 01 A1", date(2080, 1, 1)),
        ("02 6C 21 A1", date(1981, 1, 1)),
        ("02 6D 01 39", date(2024, 9, 1)),
        ("04 6D 2C 30 10 39", datetime(2024, 9, 16, 16, 44)),
        ("04 6D 2C 10 10 39", datetime(2024, 9, 16, 16, 44)),
        ("04 6D 2C 10 50 C9", datetime(1998, 9, 16, 16, 44)),
        ("04 6D 6C B0 10 39", datetime(2024, 9, 16, 16, 44)),
        ("04 6D AC 30 10 39", None),
        ("04 6D 2C 3F 10 39", None),
        ("04 6D 3F 30 10 39", None),
        ("04 6D 00 00 00 00", None),
        ("04 6D FF FF FF FF", None),
        ("02 6C FF FF", None),
        ("02 6C 81 C1", None),
        ("02 6C E1 F1", None),
        ("02 6C 1E 32", None),
        ("06 6D 46 11 0D 44 38 40", datetime(2026, 8, 4, 13, 17, 6)),
        ("06 6D 46 91 0D 44 38 40", None),
        ("06 6D 7F 11 0D 44 38 40", None),
        ("03 6D 3B 3B 17", time(23, 59, 59)),
        ("03 6D 3C 3B 17", None),
        ("00 6D", None),
    ],
)
def test_time_points(sent: str, value: date | time | None) -> None:
    read = record(sent)
    assert read.meaning is Meaning.TIME_POINT
    assert read.value == value
    assert type(read.value) is type(value)


@pytest.mark.parametrize(
    ("sent", "text", "value"),
    [
        ("09 7C 01 54 02", "T", 2),
        ("02 7C 03 48 52 25 0C 00", "%RH", 12),
        ("01 7C 00 0C", "", 12),
        ("02 FC 74 03 48 52 25 0C 00", "%RH", "0.12"),
        ("02 FC F4 3B 03 48 52 25 0C 00", "%RH", "0.12"),
    ],
)
def test_a_unit_in_plain_text_stands_behind_the_vifes(
    sent: str, text: str, value: int | str
) -> None:
    read = record(sent)
    assert (read.meaning, read.unit) == (Meaning.PLAIN_TEXT, Unit.PLAIN_TEXT)
    assert (read.text, read.value) == (text, Decimal(value))


@pytest.mark.parametrize(
    "sent",
    [
        # VIFs for water, gas and heat, reserved ones, and those that only a request has.
        "02 13 0C 00",
        "02 6F 0C 00",
        "02 EF 01 0C 00",
        "02 7B 0C 00",
        "02 7D 0C 00",
        "02 7E 0C 00",
        "02 FB 06 0C 00",
        "02 FB 0A 0C 00",
        "02 FD 71 0C 00",
        "02 FD FD 00 0C 00",
        # Known to its maker only.
        "02 7F 0C 00",
        "02 FF 0C 0C 00",
        "02 84 7F 0C 00",
        "02 84 FF 01 0C 00",
        "02 FD C8 FF 81 00 0C 00",
        "02 FF FC 01 0C 00",
        # VIFEs that make something else of the unit, and reserved ones.
        "02 84 22 0C 00",
        "02 84 39 0C 00",
        "02 84 08 0C 00",
        "02 84 1E 0C 00",
        "02 84 79 0C 00",
        "02 84 FC 00 0C 00",
        "02 84 FC 7F 0C 00",
        "02 84 7C 0C 00",
        "02 FC 7F 03 48 52 25 0C 00",
        # Time points that are coded as no time point is.
        "0C 6D 12 34 56 78",
        "04 6C 2C 30 10 39",
        "05 6D 00 00 00 00",
        "01 6D 00",
        "0D 6D 04 41 42 43 44",
        "0D 13 03 41 42 43",
    ],
)
def test_what_is_not_known_is_left_out_with_its_length(sent: str) -> None:
    known = bytes.fromhex("01 03 07")
    answer = parse(HEADER + known + bytes.fromhex(sent) + known)
    assert [each.value for each in answer.records] == [7, 7]
    assert answer.unknown == (bytes.fromhex(sent),)


def test_fillers_mean_nothing() -> None:
    answer = parse(HEADER + bytes.fromhex("2F 2F 01 03 07 2F 01 03 08 2F"))
    assert [each.value for each in answer.records] == [7, 8]
    assert answer.unknown == ()


@pytest.mark.parametrize(("dif", "more"), [("0F", False), ("1F", True)])
@pytest.mark.parametrize("data", ["", "00", "FF FF 0D 7C"])
def test_what_the_manufacturer_adds_is_not_read(dif: str, more: bool, data: str) -> None:
    answer = parse(HEADER + bytes.fromhex("01 03 07" + dif + data))
    assert [each.value for each in answer.records] == [7]
    assert answer.manufacturer_data == bytes.fromhex(data)
    assert answer.more_records_follow is more


def test_an_answer_may_hold_no_records() -> None:
    answer = parse(HEADER)
    assert (answer.records, answer.unknown, answer.more_records_follow) == ((), (), False)


@pytest.mark.parametrize("length", range(len(HEADER)))
def test_a_header_that_is_cut_off_is_an_error(length: int) -> None:
    with pytest.raises(GarbledAnswerError):
        parse(HEADER[:length])


@pytest.mark.parametrize(
    "sent",
    [
        # Cut off.
        "01",
        "81",
        "81 80",
        "01 83",
        "01 FD",
        "02 03 0C",
        "0D 03",
        "0D 03 03 41 42",
        "0D 03 C2 12",
        "01 7C",
        "01 7C 02 41",
        "01 FC 74",
        "02 13 0C",
        "02 FF 01 0C",
        # More than ten DIFEs or VIFEs.
        "81" + "80" * 10 + "00 03 0C",
        "01 83" + "80" * 10 + "00 0C",
        "80" * 100,
        # Reserved DIFs.
        "3F",
        "4F 03 00",
        "7F",
        "8F 00 03",
        "FF 03",
    ],
)
def test_a_record_that_breaks_the_rules_is_an_error(sent: str) -> None:
    with pytest.raises(GarbledAnswerError):
        parse(HEADER + bytes.fromhex("01 03 07" + sent))


@pytest.mark.parametrize("name", TELEGRAMS)
def test_a_telegram_that_is_cut_off_gives_no_other_values(name: str) -> None:
    data = TELEGRAMS[name][7:-2]
    whole = parse(data)
    for length in range(len(data)):
        try:
            part = parse(data[:length])
        except GarbledAnswerError:
            continue
        assert part.records == whole.records[: len(part.records)]
        assert part.unknown == whole.unknown[: len(part.unknown)]


@pytest.mark.parametrize(
    ("number", "digits", "sent"),
    [(2, 2, "02"), (10, 2, "10"), (10000, 8, "00 00 01 00"), (45230115, 8, "15 01 23 45")],
)
def test_numbers_are_written_low_byte_first(number: int, digits: int, sent: str) -> None:
    assert bcd(number, digits) == bytes.fromhex(sent)


@pytest.mark.parametrize(("number", "digits"), [(-1, 2), (100, 2), (100_000_000, 8)])
def test_a_number_that_does_not_fit_is_not_written(number: int, digits: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        bcd(number, digits)


@unhurried
@given(st.integers(0, 10**12 - 1))
def test_numbers_are_read_as_they_were_written(number: int) -> None:
    assert record(f"0E 03 {bcd(number, 12).hex()}").value == number


@unhurried
@given(st.one_of(st.binary(), st.binary().map(lambda data: HEADER + data)))
def test_any_bytes_are_a_telegram_or_garbled(data: bytes) -> None:
    try:
        answer = parse(data)
    except GarbledAnswerError:
        return
    assert sum(map(len, answer.unknown)) + len(answer.manufacturer_data) <= len(data)


# An encoder that shares nothing with the decoder but the standard.
INTEGERS = {1: 0x01, 2: 0x02, 3: 0x03, 4: 0x04, 6: 0x06, 8: 0x07}
BCDS = {1: 0x09, 2: 0x0A, 3: 0x0B, 4: 0x0C, 6: 0x0E}
VIBS = {
    b"\x03": (Unit.WATT_HOUR, 1),
    b"\x06": (Unit.WATT_HOUR, 1000),
    b"\x2b": (Unit.WATT, 1),
    b"\xfb\x03": (Unit.VAR_HOUR, 10000),
    b"\xfd\x49": (Unit.VOLT, 1),
    b"\xfd\x5c": (Unit.AMPERE, 1),
    b"\xfd\xdc\xfc\x83\x7d": (Unit.AMPERE, 1000),
}


@st.composite
def numbers(draw: st.DrawFn) -> tuple[int, bytes, Decimal]:
    """Draw a data field, the bytes of a number so coded, and the number."""
    length = draw(st.sampled_from(sorted(INTEGERS)))
    match draw(st.sampled_from(["integer", "bcd", "real", "text"])):
        case "integer":
            half = 2 ** (8 * length - 1)
            number = draw(st.integers(-half, half - 1))
            return (
                INTEGERS[length],
                (number % (2 * half)).to_bytes(length, "little"),
                Decimal(number),
            )
        case "bcd":
            length = draw(st.sampled_from(sorted(BCDS)))
            number = draw(st.integers(1 - 10 ** (2 * length - 1), 10 ** (2 * length) - 1))
            digits = f"f{-number:0{2 * length - 1}d}" if number < 0 else f"{number:0{2 * length}d}"
            sent = bytes(reversed(bytes.fromhex(digits)))
            return BCDS[length], sent, Decimal(number)
        case "real":
            real = draw(st.floats(width=32, allow_nan=False, allow_infinity=False))
            return 0x05, struct.pack("<f", real), Decimal(real)
    digits = draw(st.from_regex(r"[1-9][0-9]{0,17}", fullmatch=True))
    digits = digits.rjust(len(digits) + len(digits) % 2, "0")
    sent = bytes.fromhex(digits)[::-1]
    negative = draw(st.booleans())
    code = (0xD0 if negative else 0xC0) + len(sent)
    return 0x0D, bytes((code,)) + sent, Decimal(digits) * (-1 if negative else 1)


@unhurried
@given(
    st.lists(
        st.tuples(
            st.sampled_from(Function),
            st.integers(0, 2**41 - 1),
            st.integers(0, 2**20 - 1),
            st.integers(0, 2**10 - 1),
            st.sampled_from(sorted(VIBS)),
            numbers(),
        ),
        max_size=6,
    )
)
def test_records_are_read_as_an_independent_encoder_writes_them(
    records: list[tuple[Function, int, int, int, bytes, tuple[int, bytes, Decimal]]],
) -> None:
    data = HEADER
    for function, storage_number, tariff, subunit, vib, (data_field, content, _) in records:
        dib = [data_field + 16 * function + 64 * (storage_number % 2)]
        storage_number //= 2
        while storage_number or tariff or subunit:
            dib[-1] += 128
            dib.append(storage_number % 16 + 16 * (tariff % 4) + 64 * (subunit % 2))
            storage_number, tariff, subunit = storage_number // 16, tariff // 4, subunit // 2
        data += bytes(dib) + vib + content
    read = parse(data).records
    assert [(r.function, r.storage_number, r.tariff, r.subunit) for r in read] == [
        sent[:4] for sent in records
    ]
    for each, (*_, vib, (_, _, number)) in zip(read, records, strict=True):
        unit, factor = VIBS[vib]
        assert each.unit is unit
        assert isinstance(each.value, Decimal)
        assert Fraction(each.value) == Fraction(number) * factor


UNITS = {
    Unit.WATT_HOUR: ("Wh", 1),
    Unit.WATT: ("W", 1),
    Unit.VOLT: ("V", 1),
    Unit.AMPERE: ("A", 1),
    Unit.SECOND: ("seconds", 1),
    Unit.HOUR: ("seconds", 3600),
    Unit.NONE: ("none", 1),
}

# VIF or VIFE 7F says that only the maker knows what it is: mostly one of three phases.
# pyMeterBus takes each for the total that the VIF before it means.
MAKERS_OWN = {
    "abb_delta": ["FF9300", "FF9200", "FF9800"],
    "emu_professional": [
        *("ABFF01", "ABFF02", "ABFF03") * 2,
        *("FDC8FF01", "FDC8FF02", "FDC8FF03") * 3,
        *("FDD9FF01", "FDD9FF02", "FDD9FF03"),
        *("FFE1FF01", "FFE1FF02", "FFE1FF03", "FF52"),
    ],
    "finder_7e": ["FDC9FF01", "FDDBFF01", "ACFF01", "ACFF01"],
    "ime_conto_d4": [
        *("FF80843B", "FF80843C", "FF81843B", "FF81843C"),
        *("FF80843B", "FF80843B", "FF80843C", "FF80843C"),
        *("FF81843B", "FF81843B", "FF81843C", "FF81843C"),
        *("FF80843B", "FF80843C", "FF81843B", "FF81843C"),
        *("FF9029", "FF912B"),
    ],
    "nzr_dhz": ["837F"],
    "saia_ale3": [
        *("FDC9FF01", "FDDBFF01", "ACFF01", "ACFF01"),
        *("FDC9FF02", "FDDBFF02", "ACFF02", "ACFF02"),
        *("FDC9FF03", "FDDBFF03", "ACFF03", "ACFF03"),
        *("FF68", "ACFF00", "ACFF00", "FF14"),
    ],
}

# What pyMeterBus reads otherwise: (its unit and value, ours).
DIFFERENCES: dict[str, dict[str, tuple[tuple[str, Decimal], tuple[Unit, Decimal]]]] = {
    "gavazzi_em111": {
        # Codes that were reserved before EN 13757-3:2004; and it reads no VIFE behind FB.
        "FB8275": (("Reserved", Decimal(0)), (Unit.VAR_HOUR, Decimal(0))),
        "FB9772": (("Reserved", Decimal(-414)), (Unit.VAR, Decimal("-41.4"))),
        "FBB772": (("Reserved", Decimal(633)), (Unit.VOLT_AMPERE, Decimal("63.3"))),
        "FB2E": (("Reserved", Decimal(500)), (Unit.HERTZ, Decimal("50.0"))),
        # It reads no VIFE behind FD: a power factor of 758.
        "FDBA73": (("none", Decimal(758)), (Unit.NONE, Decimal("0.758"))),
    },
}

# LVAR F0, 16 bytes, is no length to pyMeterBus: it reads the value's bytes as records.
ONLY_OURS = "inepro_plain_text"


@pytest.mark.parametrize("name", [name for name in TELEGRAMS if name != ONLY_OURS])
def test_other_makes_are_read_as_by_pymeterbus(name: str) -> None:
    answer = telegram(name)
    ours = iter(answer.records)
    makers_own = []
    differences = {}
    for theirs in meterbus.load(TELEGRAMS[name]).records:
        if theirs.dib.is_eoud:
            assert theirs.dib.more_records_follow == answer.more_records_follow
            continue
        vib = bytes(theirs.vib.parts)
        if bytes(theirs.dib.parts) + vib + bytes(theirs.dataField.parts) in answer.unknown:
            makers_own.append(vib.hex().upper())
            continue
        our = next(ours)
        place = theirs.dib.parse_dife()
        assert our.function.value == theirs.function
        # pyMeterBus has None for a tariff and a subunit that no DIFE tells.
        assert (our.storage_number, our.tariff, our.subunit) == tuple(n or 0 for n in place)
        assert isinstance(our.value, Decimal)
        unit, factor = UNITS.get(our.unit, ("", 1))
        if (theirs.unit, round(Decimal(theirs.value), 9)) != (unit, our.value * factor):
            differences[vib.hex().upper()] = (
                (theirs.unit, round(Decimal(theirs.value), 9)),
                (our.unit, our.value),
            )
    assert list(ours) == []
    assert makers_own == MAKERS_OWN.get(name, [])
    assert len(makers_own) == len(answer.unknown)
    assert differences == DIFFERENCES.get(name, {})


def test_what_pymeterbus_cannot_read() -> None:
    (only,) = telegram(ONLY_OURS).records
    assert (only.unit, only.text) == (Unit.PLAIN_TEXT, "PW")
    sent = bytes.fromhex("96 07 5B 2A 27 A6 93 01 3D B5 1A B3 DC D1 3E 17")
    assert only.value == Decimal(int.from_bytes(sent, "little"))


def test_a_meter_that_uses_the_newer_tables_agrees_with_itself() -> None:
    values = {each.unit: each.value for each in telegram("gavazzi_em111").records}
    assert values[Unit.VOLT] == Decimal("236.1")
    assert values[Unit.AMPERE] == Decimal("0.268")
    assert values[Unit.VOLT_AMPERE] == round(Decimal("236.1") * Decimal("0.268"), 1)
    assert values[Unit.NONE] == round(Decimal("48.0") / Decimal("63.3"), 3)


def test_no_mutated_telegram_does_more_than_be_garbled() -> None:
    # A sample: the soak reads a million.
    read = garbled = 0
    for sent in islice(
        mutations(TELEGRAMS["klefr_6933"], list(TELEGRAMS.values()), seed=1), 10_000
    ):
        parser = FrameParser()
        frames = parser.feed(sent) + parser.flush()
        for frame in frames:
            if not isinstance(frame, LongFrame):
                continue
            try:
                parse(frame.data)
            except GarbledAnswerError:
                garbled += 1
            else:
                read += 1
    assert min(read, garbled) > 2_000
