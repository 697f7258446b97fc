"""The register map, against the manual's table and a real meter."""

import math
import struct

import pytest

from custom_components.klefr.meter import (
    BaudRate,
    CalculationCode,
    Direction,
    Parity,
    Quadrant,
    Quantity,
    Setting,
    Tariff,
)
from custom_components.klefr.meter.family import SINGLE_PHASE_ONLY
from custom_components.klefr.meter.modbus.registers import REGISTERS, Identifier
from tests.data import manual_rows, real_meter_words

Q = Quantity

# What a person reads off the real meter.
READ_BY_A_PERSON = {
    Identifier.SERIAL_NUMBER: "22091039",
    Identifier.METER_CODE: "0102",
    Setting.ADDRESS: 1,
    Setting.BAUD_RATE: BaudRate.B9600,
    Identifier.PROTOCOL_VERSION: "3.20",
    Identifier.FIRMWARE_VERSION: "2.18",
    Identifier.HARDWARE_VERSION: "1.32",
    Identifier.RATED_CURRENT: 100,
    Identifier.CT_RATIO: 0,
    Setting.S0_RATE: 1000.0,
    Setting.CALCULATION_CODE: CalculationCode.FORWARD,
    Setting.LCD_CYCLE_TIME: 10,
    Setting.PARITY: Parity.EVEN,
    Q.CURRENT_DIRECTION_L1: Direction.FORWARD,
    Q.CURRENT_DIRECTION_L2: Direction.REVERSE,
    Q.CURRENT_DIRECTION_L3: Direction.REVERSE,
    Q.ERROR_CODE: 0,
    Q.POWER_DOWN_COUNTER: 12,
    Q.QUADRANT: Quadrant.IV,
    Q.QUADRANT_L1: Quadrant.IV,
    Q.QUADRANT_L2: Quadrant.III,
    Q.QUADRANT_L3: Quadrant.III,
    Identifier.CHECKSUM: "0D012D35",
    Q.PROGRAM_OK: True,
    Q.EEPROM_OK: True,
    Q.SUPPLY_L1: True,
    Q.SUPPLY_L2: True,
    Q.SUPPLY_L3: True,
    Identifier.CT_MODE: 5,
    Q.VOLTAGE: 0.0,
    Q.VOLTAGE_L1: 234.3,
    Q.VOLTAGE_L2: 233.4,
    Q.VOLTAGE_L3: 234.4,
    Q.FREQUENCY: 49.98,
    Q.CURRENT: 0.0,
    Q.CURRENT_L1: 4.05,
    Q.CURRENT_L2: -1.62,
    Q.CURRENT_L3: -2.15,
    Q.ACTIVE_POWER: 0.175,
    Q.ACTIVE_POWER_L1: 0.9,
    Q.ACTIVE_POWER_L2: -0.232,
    Q.ACTIVE_POWER_L3: -0.492,
    Q.REACTIVE_POWER: -0.569,
    Q.REACTIVE_POWER_L1: -0.244,
    Q.REACTIVE_POWER_L2: -0.258,
    Q.REACTIVE_POWER_L3: -0.066,
    Q.APPARENT_POWER: 1.777,
    Q.APPARENT_POWER_L1: 0.932,
    Q.APPARENT_POWER_L2: 0.347,
    Q.APPARENT_POWER_L3: 0.497,
    Q.POWER_FACTOR: 0.29,
    Q.POWER_FACTOR_L1: 0.97,
    Q.POWER_FACTOR_L2: 0.67,
    Q.POWER_FACTOR_L3: 0.99,
    Q.TOTAL_ACTIVE_ENERGY: 15062.03,
    Q.TOTAL_ACTIVE_ENERGY_T1: 15062.03,
    Q.TOTAL_ACTIVE_ENERGY_T2: 0.0,
    Q.TOTAL_ACTIVE_ENERGY_L1: 4691.18,
    Q.TOTAL_ACTIVE_ENERGY_L2: 5750.29,
    Q.TOTAL_ACTIVE_ENERGY_L3: 4620.54,
    Q.FORWARD_ACTIVE_ENERGY: 15062.03,
    Q.FORWARD_ACTIVE_ENERGY_T1: 15062.03,
    Q.FORWARD_ACTIVE_ENERGY_T2: 0.0,
    Q.FORWARD_ACTIVE_ENERGY_L1: 4691.18,
    Q.FORWARD_ACTIVE_ENERGY_L2: 5750.29,
    Q.FORWARD_ACTIVE_ENERGY_L3: 4620.54,
    Q.REVERSE_ACTIVE_ENERGY: 20257.91,
    Q.REVERSE_ACTIVE_ENERGY_T1: 20257.91,
    Q.REVERSE_ACTIVE_ENERGY_T2: 0.0,
    Q.REVERSE_ACTIVE_ENERGY_L1: 6733.89,
    Q.REVERSE_ACTIVE_ENERGY_L2: 6483.44,
    Q.REVERSE_ACTIVE_ENERGY_L3: 7040.57,
    Q.TOTAL_REACTIVE_ENERGY: 133.62,
    Q.TOTAL_REACTIVE_ENERGY_T1: 133.62,
    Q.TOTAL_REACTIVE_ENERGY_T2: 0.0,
    Q.TOTAL_REACTIVE_ENERGY_L1: 125.07,
    Q.TOTAL_REACTIVE_ENERGY_L2: 2.08,
    Q.TOTAL_REACTIVE_ENERGY_L3: 6.46,
    Q.FORWARD_REACTIVE_ENERGY: 133.62,
    Q.FORWARD_REACTIVE_ENERGY_T1: 133.62,
    Q.FORWARD_REACTIVE_ENERGY_T2: 0.0,
    Q.FORWARD_REACTIVE_ENERGY_L1: 125.07,
    Q.FORWARD_REACTIVE_ENERGY_L2: 2.08,
    Q.FORWARD_REACTIVE_ENERGY_L3: 6.46,
    Q.REVERSE_REACTIVE_ENERGY: 12538.79,
    Q.REVERSE_REACTIVE_ENERGY_T1: 12538.79,
    Q.REVERSE_REACTIVE_ENERGY_T2: 0.0,
    Q.REVERSE_REACTIVE_ENERGY_L1: 4685.95,
    Q.REVERSE_REACTIVE_ENERGY_L2: 5681.59,
    Q.REVERSE_REACTIVE_ENERGY_L3: 2171.24,
    Setting.TARIFF: Tariff.T1,
    Q.RESETTABLE_COUNTER: 15056.17,
}


def decode(
    key: Quantity | Setting | Identifier, *words: int, maximum_current: float = 100
) -> object:
    return REGISTERS[key].form.value(words, maximum_current)


def float_words(value: float) -> tuple[int, ...]:
    return struct.unpack(">2H", struct.pack(">f", value))


def test_the_map_is_the_manuals() -> None:
    manual = {
        (
            int(row["address"], 16),
            int(row["length"]),
            int(row["write_function"] or 0),
            row["single_phase_only"] == "yes",
        )
        for row in manual_rows()
    }
    # The map has a row for each digit of the status word, which is one row of the manual.
    status = range(0x401D, 0x401F)
    ours = {
        (
            register.address,
            register.form.length,
            register.write or 0,
            key in SINGLE_PHASE_ONLY,
        )
        for key, register in REGISTERS.items()
        if register.address not in status
    } | {(status.start, len(status), 0, False)}
    assert ours == manual
    assert {r.address for r in REGISTERS.values() if r.address in status} == set(status)
    assert len(manual) == 88


def test_every_quantity_and_setting_has_a_register() -> None:
    assert {key for key in REGISTERS if isinstance(key, Quantity)} == (
        set(Quantity) - {Quantity.ACCESS_NUMBER, Quantity.STATUS_OK}
    )
    settings = {key for key in REGISTERS if isinstance(key, Setting)}
    assert settings == set(Setting) - {Setting.SECONDARY_ADDRESS}


def test_a_real_meter_is_read_as_a_person_reads_it() -> None:
    words = real_meter_words()
    decoded = {
        key: register.form.value([words[a] for a in register.addresses], 100)
        for key, register in REGISTERS.items()
    }
    assert decoded == READ_BY_A_PERSON


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        3.0e38,
        -0.01,
        100_000_000.0,
        struct.unpack(">f", b"\xff\xff\xff\xff")[0],
    ],
)
def test_energy_that_cannot_be_is_unknown(value: float) -> None:
    assert decode(Q.FORWARD_ACTIVE_ENERGY, *float_words(value)) is None


@pytest.mark.parametrize(
    ("quantity", "possible", "impossible"),
    [
        (Q.VOLTAGE_L1, 276.0, 501.0),
        (Q.VOLTAGE_L1, 0.0, -1.0),
        (Q.FREQUENCY, 45.0, 0.0),
        (Q.CURRENT_L1, -119.0, -121.0),
        (Q.ACTIVE_POWER, 69.0, 181.0),
        (Q.APPARENT_POWER, 69.0, -1.0),
        (Q.POWER_FACTOR, -1.0, 1.01),
        (Q.TOTAL_ACTIVE_ENERGY, -5000.0, -1e9),
        (Q.RESETTABLE_COUNTER, 0.0, -0.5),
    ],
)
def test_a_value_beyond_the_meters_range_is_unknown(
    quantity: Quantity, possible: float, impossible: float
) -> None:
    assert decode(quantity, *float_words(possible)) == possible
    assert decode(quantity, *float_words(impossible)) is None


def test_the_range_grows_with_the_current_that_can_be_measured() -> None:
    words = float_words(800.0)
    assert decode(Q.CURRENT_L1, *words, maximum_current=100) is None
    assert decode(Q.CURRENT_L1, *words, maximum_current=1000) == 800.0


@pytest.mark.parametrize(
    ("quantity", "raw", "shown"),
    [
        (Q.FORWARD_ACTIVE_ENERGY, 15062.0346, 15062.03),
        (Q.ACTIVE_POWER_L1, 0.12349, 0.123),
        (Q.VOLTAGE_L1, 234.26, 234.3),
        (Q.CURRENT_L1, 4.046, 4.05),
        (Q.FREQUENCY, 49.984, 49.98),
        (Q.ACTIVE_POWER, -0.0001, 0.0),
    ],
)
def test_values_are_rounded_to_what_the_meter_resolves(
    quantity: Quantity, raw: float, shown: float
) -> None:
    value = decode(quantity, *float_words(raw))
    assert isinstance(value, float)
    assert value == shown
    assert math.copysign(1, value) == math.copysign(1, shown)


@pytest.mark.parametrize(
    ("key", "word"),
    [
        (Q.QUADRANT, 0),
        (Q.QUADRANT, 5),
        (Q.CURRENT_DIRECTION_L1, 0x3246),
        (Q.CURRENT_DIRECTION_L1, 0x3158),
        (Q.CURRENT_DIRECTION_L1, 0xFFFF),
        (Q.POWER_DOWN_COUNTER, 0xFFFF),
        (Q.PROGRAM_OK, 0x0021),
        (Setting.TARIFF, 3),
        (Setting.CALCULATION_CODE, 2),
        (Setting.BAUD_RATE, 19200),
        (Setting.PARITY, 0),
        (Setting.LCD_CYCLE_TIME, 0x001A),
        (Setting.LCD_CYCLE_TIME, 0x0031),
        (Setting.LCD_CYCLE_TIME, 0x0000),
    ],
)
def test_a_word_that_the_manual_does_not_know_is_unknown(
    key: Quantity | Setting, word: int
) -> None:
    assert decode(key, word) is None


def test_each_digit_of_the_status_word_is_its_own() -> None:
    assert decode(Q.PROGRAM_OK, 0x0001) is False
    assert decode(Q.EEPROM_OK, 0x0001) is True
    assert decode(Q.SUPPLY_L1, 0x0100) is True
    assert decode(Q.SUPPLY_L2, 0x0100) is False
    assert decode(Q.SUPPLY_L3, 0x0100) is False


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        (Setting.ADDRESS, 10, [0x000A]),
        (Setting.BAUD_RATE, BaudRate.B9600, [0x2580]),
        (Setting.S0_RATE, 10.0, [0x4120, 0x0000]),
        (Setting.CALCULATION_CODE, CalculationCode.FORWARD_MINUS_REVERSE_NET, [0x000A]),
        (Setting.LCD_CYCLE_TIME, 25, [0x0025]),
        (Setting.PARITY, Parity.NONE, [0x0002]),
        (Setting.TARIFF, Tariff.T2, [0x0002]),
    ],
)
def test_settings_are_written_as_the_manual_writes_them(
    setting: Setting, value: object, words: list[int]
) -> None:
    form = REGISTERS[setting].form
    assert form.encode is not None
    assert list(form.encode(value)) == words
    assert form.decode(words) == value
