"""A meter in software, read and set over a line in memory."""

import asyncio
import json
import math
from typing import Any

import pytest

from custom_components.klefr.meter import (
    S0_RATES,
    CalculationCode,
    Counter,
    GarbledAnswerError,
    InvalidRangeError,
    InvalidValueError,
    ModbusBus,
    ModbusMeter,
    Model,
    NoAnswerError,
    NotAcceptedError,
    NotAKlefrMeterError,
    NotReadyError,
    NotResetError,
    Quantity,
    RefusedError,
    SerialLink,
    Setting,
    Tariff,
    WrongConfirmationError,
    WrongMeterError,
    identify,
)
from custom_components.klefr.meter.relations import TOTALS, parts_of
from simulator.line import Line
from simulator.meter import VirtualMeter
from simulator.modbus import serve
from simulator.registers import load_image, put_image
from tests.data import DATA

from .conftest import PORT
from .test_registers import READ_BY_A_PERSON


async def test_a_real_meters_registers_over_the_line() -> None:
    virtual_meter = VirtualMeter(serial_number="22091039")
    put_image(virtual_meter, load_image(DATA / "real_meter_registers.json"))
    async with (
        serve(virtual_meter, virtual=PORT) as line,
        ModbusBus(SerialLink(port=line.port)) as bus,
    ):
        meter = await ModbusMeter.identify(bus, 1)
        values: dict[Any, Any] = {
            **await meter.read(meter.quantities),
            **await meter.read_settings(),
        }
    assert meter.identity.serial_number == "22091039"
    assert meter.identity.model is Model.KLEFR_6934
    assert meter.identity.firmware_version == "2.18"
    assert meter.identity.hardware_version == "1.32"
    assert meter.identity.transformer_primary_current is None
    assert values == {key: READ_BY_A_PERSON[key] for key in values}


async def test_a_transformer_meter_is_known_by_what_it_says() -> None:
    virtual_meter = VirtualMeter(serial_number="22091040", model="6944")
    async with (
        serve(virtual_meter, virtual=PORT) as line,
        ModbusBus(SerialLink(port=line.port)) as bus,
    ):
        meter = await ModbusMeter.identify(bus, 1)
        readings = await meter.read(meter.quantities)
    assert meter.identity.model is Model.KLEFR_6944
    assert meter.identity.transformer_primary_current == virtual_meter.ct_primary
    assert meter.identity.transformer_secondary_current == virtual_meter.ct_secondary
    assert None not in readings.values()


async def test_no_total_comes_along_without_what_it_is_made_of(meter: ModbusMeter) -> None:
    wanted = {Quantity.TOTAL_ACTIVE_ENERGY_T2, Quantity.FORWARD_ACTIVE_ENERGY_T1}
    along = (await meter.read_along(wanted)).values.keys() - wanted
    assert Quantity.FORWARD_ACTIVE_ENERGY in along
    assert not TOTALS & along
    wanted.add(Quantity.REVERSE_ACTIVE_ENERGY)
    along = (await meter.read_along(wanted)).values.keys() - wanted
    assert all(along >= {*parts_of(total)} - wanted for total in TOTALS & along)


@pytest.mark.parametrize(("model", "known"), [("6944", False), ("6934", True)])
async def test_transformers_that_there_are_not_are_damage(model: str, known: bool) -> None:
    """Energies are judged by what a meter measures, and 1280 A is 5 A with its bytes swapped."""
    virtual_meter = VirtualMeter(serial_number="22091040", model=model)
    virtual_meter.overrides[0x401F] = 1280
    async with (
        serve(virtual_meter, virtual=PORT) as line,
        ModbusBus(SerialLink(port=line.port)) as bus,
    ):
        if known:
            assert (await ModbusMeter.identify(bus, 1)).identity.maximum_current == 100
            return
        with pytest.raises(GarbledAnswerError):
            await ModbusMeter.identify(bus, 1)


async def test_a_current_range_that_is_said_once_changes_nothing(
    meter: ModbusMeter, line: Line, virtual_meter: VirtualMeter
) -> None:
    """What the checksum does not see would shift what is plausible for minutes."""
    before = meter.identity
    virtual_meter.overrides[0x400B] = 32767
    line.before_answering = lambda _: virtual_meter.overrides.clear()
    await meter.read_settings()
    assert meter.identity == before


@pytest.mark.parametrize("address", [0x400B, 0x400C, 0x401F])
async def test_a_current_range_is_read_twice_before_a_meter_is_known(
    bus: ModbusBus, line: Line, virtual_meter: VirtualMeter, address: int
) -> None:
    virtual_meter.overrides[address] = 4
    line.before_answering = lambda request: (
        virtual_meter.overrides.clear() if request[5] > 2 else None
    )
    with pytest.raises(GarbledAnswerError):
        await ModbusMeter.identify(bus, 1)
    meter = await ModbusMeter.identify(bus, 1)
    assert meter.identity.maximum_current == 100


async def test_a_transformer_ratio_that_is_set_later_is_read_with_the_settings() -> None:
    virtual_meter = VirtualMeter(serial_number="22091040", model="6944", ct_primary=0)
    virtual_meter.overrides |= {0x500C: 180.0, 0x5012: 60.0}
    load = {Quantity.CURRENT_L1, Quantity.ACTIVE_POWER}
    async with (
        serve(virtual_meter, virtual="virtual://later") as line,
        ModbusBus(SerialLink(port=line.port)) as bus,
    ):
        meter = await ModbusMeter.identify(bus, 1)
        assert set((await meter.read(load)).values()) == {None}
        virtual_meter.ct_primary, virtual_meter.ct_secondary = 250, 1
        # An unclear answer changes nothing.
        virtual_meter.overrides[0x400C] = 0x0A50
        await meter.read_settings()
        assert meter.identity.transformer_primary_current is None
        del virtual_meter.overrides[0x400C]
        line.requests.clear()
        await meter.read_settings()
        # Those that hold the settings, and those that ask whether it is so. The tariff is asked
        # for twice, because the answer before it says 1 as well.
        addresses = [request[2:4].hex() for request in line.requests]
        assert addresses == ["4000", "401f", "6048", "6048", "4000", "401f"]
        readings = await meter.read(load)
    assert readings == {Quantity.CURRENT_L1: 180.0, Quantity.ACTIVE_POWER: 60.0}
    assert meter.identity.model is Model.KLEFR_6944
    assert meter.identity.transformer_primary_current == 250
    assert meter.identity.transformer_secondary_current == 1


async def test_all_values_take_as_long_as_the_line_needs(meter: ModbusMeter, line: Line) -> None:
    line.requests.clear()
    loop = asyncio.get_running_loop()
    start = loop.time()
    await meter.read(meter.quantities)
    assert [(request[2:4].hex(), request[5]) for request in line.requests] == [
        ("4000", 2),
        ("4012", 13),
        ("5002", 48),
        ("6000", 75),
    ]
    characters = sum(8 + 5 + 2 * request[5] for request in line.requests)
    on_the_line = characters * 11 / 9600
    # Each request and each answer follows a silence, which takes 3.5 characters.
    assert on_the_line < loop.time() - start < on_the_line + 4 * 0.009


async def test_a_slow_meter_is_asked_for_more_at_a_time(meter: ModbusMeter, line: Line) -> None:
    """A request more would cost longer than what lies between two values."""
    apart = {Quantity.ACTIVE_POWER_L3, Quantity.POWER_FACTOR}
    line.requests.clear()
    await meter.read(apart)
    assert [request[5] for request in line.requests] == [2, 2, 2]
    line.delay_answer = 0.05
    for _ in range(5):
        await meter.read(apart)
    line.requests.clear()
    await meter.read(apart)
    assert [request[5] for request in line.requests] == [2, 20]


async def test_only_what_is_wanted_is_asked_for(meter: ModbusMeter, line: Line) -> None:
    line.requests.clear()
    await meter.read({Quantity.VOLTAGE_L1})
    assert [request[2:6].hex() for request in line.requests] == ["40000002", "50020002"]


@pytest.mark.parametrize(
    ("address", "value"),
    [
        (0x4000, 0x2209103A),
        (0x4000, 0xFFFFFFFF),
        (0x4004, 19200),
        (0x4005, math.nan),
        (0x400C, 0x00AB),
        (0x400F, 2),
        (0x4011, 0),
    ],
)
async def test_what_is_no_klefr_meter_is_told_apart(
    bus: ModbusBus, virtual_meter: VirtualMeter, address: int, value: float
) -> None:
    virtual_meter.overrides[address] = value
    with pytest.raises(NotAKlefrMeterError):
        await ModbusMeter.identify(bus, 1)


async def test_a_meter_that_reports_no_serial_number_yet_is_not_ready(
    bus: ModbusBus, virtual_meter: VirtualMeter
) -> None:
    meter = await ModbusMeter.identify(bus, 1)
    virtual_meter.serial_number = "00000000"
    with pytest.raises(NotReadyError):
        await meter.read({Quantity.FORWARD_ACTIVE_ENERGY})
    with pytest.raises(NotReadyError):
        await identify(bus, 1)
    # A device whose other registers are zero too is no meter.
    virtual_meter.overrides[0x4004] = 0
    with pytest.raises(NotAKlefrMeterError):
        await identify(bus, 1)


async def test_a_meter_without_these_registers_is_no_klefr_meter(
    bus: ModbusBus, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.max_read_count = 0
    with pytest.raises(NotAKlefrMeterError):
        await ModbusMeter.identify(bus, 1)


async def test_an_unknown_value_is_none_and_the_others_stay(
    meter: ModbusMeter, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.overrides[0x600C] = math.nan
    readings = await meter.read({Quantity.FORWARD_ACTIVE_ENERGY, Quantity.REVERSE_ACTIVE_ENERGY})
    assert readings[Quantity.FORWARD_ACTIVE_ENERGY] is None
    assert readings[Quantity.REVERSE_ACTIVE_ENERGY] == pytest.approx(
        virtual_meter.reverse_active_energy, abs=0.01
    )


async def test_no_value_of_another_meter_is_handed_out(
    meter: ModbusMeter, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.serial_number = "87654321"
    with pytest.raises(WrongMeterError) as error:
        await meter.read({Quantity.FORWARD_ACTIVE_ENERGY})
    assert (error.value.expected, error.value.found) == ("22091039", "87654321")
    with pytest.raises(WrongMeterError):
        await meter.read_settings()


async def test_nothing_is_written_to_another_meter(
    meter: ModbusMeter, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.serial_number = "87654321"
    day_counter = virtual_meter.day_counter
    with pytest.raises(WrongMeterError):
        await meter.write(Setting.TARIFF, Tariff.T2)
    with pytest.raises(WrongMeterError):
        await meter.reset(Counter.RESETTABLE)
    assert virtual_meter.tariff == 1
    assert virtual_meter.day_counter == day_counter > 0


@pytest.mark.parametrize("tariff", Tariff)
async def test_the_tariff_is_set(
    meter: ModbusMeter, virtual_meter: VirtualMeter, tariff: Tariff
) -> None:
    await meter.write(Setting.TARIFF, tariff)
    assert virtual_meter.tariff == tariff
    assert (await meter.read_settings())[Setting.TARIFF] is tariff


@pytest.mark.parametrize("rate", S0_RATES)
async def test_the_s0_rate_is_set(
    meter: ModbusMeter, virtual_meter: VirtualMeter, rate: float
) -> None:
    await meter.write(Setting.S0_RATE, rate)
    assert virtual_meter.s0_rate == pytest.approx(rate)
    assert (await meter.read_settings())[Setting.S0_RATE] == rate


@pytest.mark.parametrize("code", set(CalculationCode) - {CalculationCode.FORWARD_MINUS_REVERSE_NET})
async def test_the_calculation_code_is_set(
    meter: ModbusMeter, virtual_meter: VirtualMeter, code: CalculationCode
) -> None:
    await meter.write(Setting.CALCULATION_CODE, code)
    assert virtual_meter.calculation_code == code


@pytest.mark.parametrize("seconds", [1, 9, 25, 30])
async def test_the_lcd_cycle_time_is_set(
    meter: ModbusMeter, virtual_meter: VirtualMeter, seconds: int
) -> None:
    await meter.write(Setting.LCD_CYCLE_TIME, seconds)
    assert virtual_meter.lcd_cycle_time == seconds


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        (Setting.CALCULATION_CODE, CalculationCode.FORWARD_MINUS_REVERSE_NET),
        (Setting.CALCULATION_CODE, 2),
        (Setting.TARIFF, 3),
        (Setting.S0_RATE, 50.0),
        (Setting.LCD_CYCLE_TIME, 0),
        (Setting.LCD_CYCLE_TIME, 31),
        (Setting.ADDRESS, 2),
        (Setting.BAUD_RATE, 1200),
    ],
)
async def test_a_value_that_may_not_be_set_is_never_sent(
    meter: ModbusMeter, line: Line, setting: Setting, value: int
) -> None:
    line.requests.clear()
    with pytest.raises(InvalidValueError):
        await meter.write(setting, value)
    assert not line.requests


async def test_a_meter_locked_to_code_10_refuses_every_other(
    meter: ModbusMeter, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.calculation_code = 10
    with pytest.raises(RefusedError):
        await meter.write(Setting.CALCULATION_CODE, CalculationCode.FORWARD)
    assert virtual_meter.calculation_code == 10


async def test_code_10_is_locked_and_read_back(
    meter: ModbusMeter, virtual_meter: VirtualMeter, line: Line
) -> None:
    line.requests.clear()
    await meter.lock_calculation_code("22091039")
    assert virtual_meter.calculation_code == 10
    [sent] = [request for request in line.requests if request[1] == 6]
    assert sent[2:6].hex() == "400f000a"
    settings = await meter.read_settings()
    assert settings[Setting.CALCULATION_CODE] is CalculationCode.FORWARD_MINUS_REVERSE_NET


@pytest.mark.parametrize("serial_number", ["", "22091040", "22091039 ", "2209103"])
async def test_code_10_is_not_locked_without_the_meters_serial_number(
    meter: ModbusMeter, line: Line, serial_number: str
) -> None:
    line.requests.clear()
    with pytest.raises(WrongConfirmationError):
        await meter.lock_calculation_code(serial_number)
    assert not line.requests


async def test_code_10_that_does_not_stick_is_an_error(
    meter: ModbusMeter, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.ignore_writes = True
    with pytest.raises(NotAcceptedError):
        await meter.lock_calculation_code("22091039")


async def test_code_10_is_not_locked_on_another_meter(
    meter: ModbusMeter, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.serial_number = "87654321"
    with pytest.raises(WrongMeterError):
        await meter.lock_calculation_code("22091039")
    assert virtual_meter.calculation_code == 1


async def test_a_value_that_does_not_stick_is_an_error(
    meter: ModbusMeter, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.ignore_writes = True
    with pytest.raises(NotAcceptedError) as error:
        await meter.write(Setting.TARIFF, Tariff.T2)
    assert (error.value.written, error.value.found) == (Tariff.T2, Tariff.T1)
    with pytest.raises(NotResetError):
        await meter.reset(Counter.RESETTABLE)
    with pytest.raises(NotResetError):
        await meter.reset(Counter.POWER_DOWN)


async def test_counters_are_reset(meter: ModbusMeter, virtual_meter: VirtualMeter) -> None:
    assert virtual_meter.day_counter > 0
    assert virtual_meter.power_down_counter > 0
    await meter.reset(Counter.RESETTABLE)
    await meter.reset(Counter.POWER_DOWN)
    assert virtual_meter.day_counter == 0
    assert virtual_meter.power_down_counter == 0
    # Nothing has been counted since, so nothing can fall.
    await meter.reset(Counter.RESETTABLE)


async def test_a_reset_that_cannot_be_seen_is_an_error(
    meter: ModbusMeter, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.overrides[0x6049] = math.nan
    with pytest.raises(NotResetError):
        await meter.reset(Counter.RESETTABLE)


async def test_a_meter_that_falls_silent(meter: ModbusMeter, line: Line) -> None:
    line.silent = True
    with pytest.raises(NoAnswerError):
        await meter.read(meter.quantities)


async def test_every_other_answer_damaged_still_gives_right_values(
    meter: ModbusMeter, virtual_meter: VirtualMeter, line: Line
) -> None:
    expected = await meter.read(meter.quantities)
    line.garble = 0.5
    read = 0
    for _ in range(5):
        try:
            assert await meter.read(meter.quantities) == expected
        except GarbledAnswerError:
            continue
        read += 1
    assert read


async def test_a_real_meters_registers_are_dumped_as_they_are() -> None:
    image = load_image(DATA / "real_meter_registers.json")
    virtual_meter = VirtualMeter(serial_number="22091039")
    put_image(virtual_meter, image)
    async with (
        serve(virtual_meter, virtual=PORT) as line,
        ModbusBus(SerialLink(port=line.port)) as bus,
    ):
        meter = await ModbusMeter.identify(bus, 1)
        dump = await meter.dump()
    words = {
        int(start, 16) + offset: int(word, 16)
        for start, block in dump["registers"].items()
        for offset, word in enumerate(block)
    }
    assert list(dump["registers"]) == ["0x4000", "0x5000", "0x6000"]
    assert words == {address: image[address] for block in meter.registers for address in block}
    assert dump["values"].keys() == READ_BY_A_PERSON.keys()
    assert dump["values"]["tariff"] == "t1"
    assert dump["values"]["calculation_code"] == "forward"
    assert dump["values"]["parity"] == "even"
    assert dump["values"]["current_direction_l2"] == "reverse"
    assert dump["values"]["serial_number"] == "22091039"
    assert json.loads(json.dumps(dump)) == dump


async def test_a_part_is_dumped_with_raw_words_where_a_value_is_cut_in_half(
    meter: ModbusMeter, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.overrides[0x5002] = 230.0
    virtual_meter.overrides[0x5004] = 231.0
    virtual_meter.overrides[0x5006] = 232.0
    assert await meter.dump(range(0x5003, 0x5007)) == {
        "registers": {"0x5003": ["0000", "4367", "0000", "4368"]},
        "values": {"voltage_l2": 231.0},
    }
    # Both registers of the status word hold several values.
    dump = await meter.dump(range(0x401E, 0x401F))
    assert dump["registers"] == {"0x401E": ["0111"]}
    assert dump["values"] == {"supply_l1": True, "supply_l2": True, "supply_l3": True}


@pytest.mark.parametrize(
    "registers",
    [
        range(0x3FFF, 0x4001),
        range(0x4020, 0x4021),
        range(0x401F, 0x4021),
        range(0x4000, 0x5001),
        range(0x5031, 0x6001),
        range(0x604B, 0x604C),
        range(0x4000, 0x4000),
        range(0x4000, 10**30),
    ],
)
async def test_registers_outside_of_the_map_are_not_asked_for(
    meter: ModbusMeter, line: Line, registers: range
) -> None:
    line.requests.clear()
    with pytest.raises(InvalidRangeError):
        await meter.dump(registers)
    assert not line.requests


async def test_no_register_of_another_meter_is_dumped(
    meter: ModbusMeter, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.serial_number = "87654321"
    with pytest.raises(WrongMeterError):
        await meter.dump()
