"""A KLEFR meter as M-Bus shows it."""

from collections.abc import AsyncIterator
from decimal import Decimal
import json

import pytest

from custom_components.klefr.meter import (
    CalculationCode,
    Counter,
    GarbledAnswerError,
    InvalidAddressError,
    InvalidRangeError,
    InvalidValueError,
    MBusBus,
    MBusMeter,
    NoAnswerError,
    NotAcknowledgedError,
    NotAKlefrMeterError,
    NotReadyError,
    Quantity,
    SerialLink,
    Setting,
    SettingValue,
    Tariff,
    WrongConfirmationError,
    WrongMeterError,
    identify,
    parse_address,
)
from simulator.line import Line
from simulator.mbus import serve
from simulator.meter import Parity, VirtualMeter
from simulator.virtual import VirtualLine
from tests.data.mbus import telegrams

from .conftest import PORT

SERIAL_NUMBER = "22091039"

MANUAL_TELEGRAM = telegrams()["klefr_6933"]
MANUAL_VALUES = {
    Quantity.TOTAL_ACTIVE_ENERGY: 16048.14,
    Quantity.TOTAL_ACTIVE_ENERGY_T1: 3580.23,
    Quantity.TOTAL_ACTIVE_ENERGY_T2: 12467.91,
    Quantity.FORWARD_ACTIVE_ENERGY: 6913.46,
    Quantity.FORWARD_ACTIVE_ENERGY_T1: 1234.56,
    Quantity.FORWARD_ACTIVE_ENERGY_T2: 5678.90,
    Quantity.REVERSE_ACTIVE_ENERGY: 9134.68,
    Quantity.REVERSE_ACTIVE_ENERGY_T1: 2345.67,
    Quantity.REVERSE_ACTIVE_ENERGY_T2: 6789.01,
    Quantity.ACCESS_NUMBER: 2,
    Quantity.STATUS_OK: True,
}


@pytest.fixture
def virtual_meter() -> VirtualMeter:
    """A meter whose clock stands still."""
    return VirtualMeter(model="6933", serial_number=SERIAL_NUMBER, clock=lambda: 0.0)


@pytest.fixture
async def line(virtual_meter: VirtualMeter) -> AsyncIterator[Line]:
    async with serve(virtual_meter, virtual=PORT) as line:
        yield line


@pytest.fixture
async def bus(line: Line) -> AsyncIterator[MBusBus]:
    async with MBusBus(SerialLink(port=line.port)) as bus:
        yield bus


@pytest.fixture(params=[0, SERIAL_NUMBER], ids=["primary", "secondary"])
async def meter(bus: MBusBus, request: pytest.FixtureRequest) -> MBusMeter:
    return await MBusMeter.identify(bus, request.param)


class Telegrams:
    """Answers every request for a readout with the same telegram."""

    def __init__(self, telegram: bytes) -> None:
        self.telegram = telegram

    async def hear(self, frame: bytes, line: Line) -> bytes:
        return b"\xe5" if frame[1] == 0x40 or frame[0] == 0x68 else self.telegram


def changed(old: bytes, new: bytes) -> bytes:
    """The manual's telegram with something else in it."""
    telegram = MANUAL_TELEGRAM
    assert telegram.count(old) == 1
    content = telegram[4:-2].replace(old, new)
    head = bytes((0x68, len(content), len(content), 0x68))
    return head + content + bytes((sum(content) & 0xFF, 0x16))


async def read(telegram: bytes) -> dict[Quantity, object]:
    async with (
        VirtualLine(Telegrams(telegram), port=PORT, baud_rate=9600, parity=Parity.EVEN) as line,
        MBusBus(SerialLink(port=line.port)) as bus,
    ):
        meter = await MBusMeter.identify(bus, 0)
        return dict(await meter.read(meter.quantities))


async def test_the_manuals_telegram_is_read() -> None:
    assert await read(MANUAL_TELEGRAM) == MANUAL_VALUES


@pytest.mark.parametrize(
    ("old", "new", "quantity", "value"),
    [
        # Reverse energy in excess, with codes that subtract.
        ("0C0414486001", "0C04144860F1", Quantity.TOTAL_ACTIVE_ENERGY, -16048.14),
        # Forward energy is never negative, whatever the telegram says.
        ("9C100456341200", "9C1004563412F0", Quantity.FORWARD_ACTIVE_ENERGY_T1, None),
        ("AC100467452300", "AC1004674523F0", Quantity.REVERSE_ACTIVE_ENERGY_T1, None),
        # A digit that is none.
        ("9C100456341200", "9C100456A41200", Quantity.FORWARD_ACTIVE_ENERGY_T1, None),
        # Another unit: 100 Wh.
        ("9C100456341200", "9C100556341200", Quantity.FORWARD_ACTIVE_ENERGY_T1, 12345.6),
        # Another quantity: power.
        ("9C100456341200", "9C102B56341200", Quantity.FORWARD_ACTIVE_ENERGY_T1, None),
        # Not now, but when it was last stored.
        ("9C100456341200", "DC100456341200", Quantity.FORWARD_ACTIVE_ENERGY_T1, None),
        # Of another unit of the device.
        ("9C100456341200", "9C500456341200", Quantity.FORWARD_ACTIVE_ENERGY_T1, None),
        # Only the forward share of it.
        ("9C100456341200", "9C10843B56341200", Quantity.FORWARD_ACTIVE_ENERGY_T1, None),
        # Said twice, and differently.
        ("9C200490785600", "9C100490785600", Quantity.FORWARD_ACTIVE_ENERGY_T1, None),
        ("9C200490785600", "9C100490785600", Quantity.FORWARD_ACTIVE_ENERGY_T2, None),
        # Said twice, and alike.
        ("9C200490785600", "9C100456341200", Quantity.FORWARD_ACTIVE_ENERGY_T1, 1234.56),
        # A status that is not in the manual, and the one of a broken meter.
        ("0102020000", "0102020100", Quantity.STATUS_OK, None),
        ("0102020000", "0102020200", Quantity.STATUS_OK, False),
    ],
)
async def test_a_value_is_what_the_telegram_says_or_unknown(
    old: str, new: str, quantity: Quantity, value: object
) -> None:
    values = await read(changed(bytes.fromhex(old), bytes.fromhex(new)))
    assert values[quantity] == value


async def test_swapped_bytes_of_the_manufacturer_are_accepted() -> None:
    values = await read(changed(bytes.fromhex("CD25"), bytes.fromhex("25CD")))
    assert values == MANUAL_VALUES


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("CD250102", "CD240102"),  # another maker
        ("CD250102", "CD250107"),  # a water meter
        ("7200000000CD25", "72000000A0CD25"),  # no number
    ],
)
async def test_what_is_no_klefr_meter_is_said_to_be_none(old: str, new: str) -> None:
    with pytest.raises(NotAKlefrMeterError):
        await read(changed(bytes.fromhex(old), bytes.fromhex(new)))


async def test_a_telegram_that_breaks_off_is_an_error() -> None:
    with pytest.raises(GarbledAnswerError):
        await read(changed(bytes.fromhex("AC200401896700"), bytes.fromhex("AC2004018967")))


async def test_the_energies_are_the_meters(meter: MBusMeter, virtual_meter: VirtualMeter) -> None:
    virtual_meter.add_energy(l1=12.34, l3=-5.67)
    energy = virtual_meter.active_energy
    values = await meter.read(meter.quantities)
    assert values[Quantity.TOTAL_ACTIVE_ENERGY] == pytest.approx(
        virtual_meter.total_active_energy, abs=0.006
    )
    assert values[Quantity.FORWARD_ACTIVE_ENERGY] == pytest.approx(energy.forward.total, abs=0.006)
    assert values[Quantity.REVERSE_ACTIVE_ENERGY] == pytest.approx(energy.reverse.total, abs=0.006)
    # As many decimals as the meter resolves.
    assert all(
        Decimal(str(value)) == round(Decimal(str(value)), 2)
        for value in values.values()
        if isinstance(value, float)
    )


async def test_only_what_is_wanted_is_handed_out(meter: MBusMeter) -> None:
    wanted = {Quantity.FORWARD_ACTIVE_ENERGY_T2, Quantity.STATUS_OK}
    assert (await meter.read(wanted)).keys() == wanted


async def test_what_a_telegram_lacks_is_unknown_even_if_it_is_not_wanted() -> None:
    """The guard has to hear of it: the telegram is damaged."""
    telegram = changed(bytes.fromhex("9C100456341200"), bytes.fromhex("DC100456341200"))
    async with (
        VirtualLine(Telegrams(telegram), port=PORT, baud_rate=9600, parity=Parity.EVEN) as line,
        MBusBus(SerialLink(port=line.port)) as bus,
    ):
        meter = await MBusMeter.identify(bus, 0)
        reading = await meter.read_along({Quantity.STATUS_OK})
    assert reading.values[Quantity.FORWARD_ACTIVE_ENERGY_T1] is None
    assert reading.values[Quantity.FORWARD_ACTIVE_ENERGY_T2] == 5678.90


async def test_energies_come_out_of_a_readout_of_several_telegrams(
    meter: MBusMeter, virtual_meter: VirtualMeter
) -> None:
    whole = await meter.read(meter.quantities - {Quantity.ACCESS_NUMBER})
    virtual_meter.records_per_telegram = 2
    virtual_meter.extra_records = bytes.fromhex("2F 04FF0011223344 0F010203")
    assert await meter.read(meter.quantities - {Quantity.ACCESS_NUMBER}) == whole
    assert None not in whole.values()


async def test_the_identity_is_that_of_the_header(meter: MBusMeter) -> None:
    assert meter.identity.serial_number == SERIAL_NUMBER
    assert meter.identity.model == "6933/6943"
    assert meter.identity.firmware_version == "1"
    assert meter.identity.hardware_version is None


async def test_a_meter_with_swapped_bytes_is_selected_too(
    bus: MBusBus, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.manufacturer_swapped = True
    meter = await MBusMeter.identify(bus, SERIAL_NUMBER)
    assert meter.identity.serial_number == SERIAL_NUMBER
    await meter.write(Setting.TARIFF, Tariff.T2)
    assert virtual_meter.tariff == 2


@pytest.mark.parametrize(
    ("setting", "value", "attribute", "data"),
    [
        (Setting.TARIFF, Tariff.T2, "tariff", "097c015402"),
        (Setting.CALCULATION_CODE, CalculationCode.FORWARD_PLUS_REVERSE, "calculation_code", None),
        (
            Setting.CALCULATION_CODE,
            CalculationCode.FORWARD_MINUS_REVERSE_NET_PULSES,
            "calculation_code",
            "09fd3a11",
        ),
        (Setting.S0_RATE, 100.0, "s0_rate", "0cfd3a00000100"),
        (Setting.S0_RATE, 10000.0, "s0_rate", "0cfd3a00000001"),
        (Setting.S0_RATE, 0.01, "s0_rate", "0cfd3a01000000"),
    ],
)
async def test_a_setting_is_written_as_the_manual_says(
    meter: MBusMeter,
    virtual_meter: VirtualMeter,
    line: Line,
    setting: Setting,
    value: SettingValue,
    attribute: str,
    data: str | None,
) -> None:
    await meter.write(setting, value)
    assert getattr(virtual_meter, attribute) == value
    assert data is None or [frame for frame in line.requests if data in frame.hex()]


async def test_every_value_that_may_be_written_is_taken(
    meter: MBusMeter, virtual_meter: VirtualMeter
) -> None:
    for setting, values in meter.settings.items():
        for value in values:
            await meter.write(setting, value)
            assert getattr(virtual_meter, setting) == value


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        (Setting.CALCULATION_CODE, CalculationCode.FORWARD_MINUS_REVERSE_NET),
        (Setting.TARIFF, Tariff.T1_UNTIL_RESTART),
        (Setting.TARIFF, 3),
        (Setting.S0_RATE, 50.0),
        (Setting.LCD_CYCLE_TIME, 10),
        (Setting.PARITY, 1),
    ],
)
async def test_what_may_not_be_written_is_not_sent(
    meter: MBusMeter, line: Line, setting: Setting, value: SettingValue
) -> None:
    line.requests.clear()
    with pytest.raises(InvalidValueError):
        await meter.write(setting, value)
    assert not line.requests


async def test_counters_are_reset(meter: MBusMeter, virtual_meter: VirtualMeter) -> None:
    assert virtual_meter.power_down_counter
    await meter.reset(Counter.RESETTABLE)
    assert virtual_meter.day_counter == 0
    assert virtual_meter.power_down_counter
    await meter.reset(Counter.POWER_DOWN)
    assert virtual_meter.power_down_counter == 0


async def test_a_refused_setting_is_an_error(meter: MBusMeter, virtual_meter: VirtualMeter) -> None:
    virtual_meter.calculation_code = 10
    with pytest.raises(NotAcknowledgedError):
        await meter.write(Setting.CALCULATION_CODE, CalculationCode.FORWARD)


async def test_code_10_is_locked_as_the_manual_says(
    meter: MBusMeter, virtual_meter: VirtualMeter, line: Line
) -> None:
    line.requests.clear()
    await meter.lock_calculation_code(SERIAL_NUMBER)
    assert virtual_meter.calculation_code == 10
    assert [frame for frame in line.requests if "5109fd3a10" in frame.hex()]


async def test_code_10_is_not_locked_without_the_meters_serial_number(
    meter: MBusMeter, line: Line
) -> None:
    line.requests.clear()
    for serial_number in ("", "22091040", f"{SERIAL_NUMBER} "):
        with pytest.raises(WrongConfirmationError):
            await meter.lock_calculation_code(serial_number)
    assert not line.requests


async def test_code_10_that_is_not_acknowledged_is_an_error(
    meter: MBusMeter, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.refuse_writes = True
    with pytest.raises(NotAcknowledgedError):
        await meter.lock_calculation_code(SERIAL_NUMBER)
    assert virtual_meter.calculation_code == 1


async def test_the_telegram_is_dumped_raw_and_decoded() -> None:
    async with (
        VirtualLine(
            Telegrams(MANUAL_TELEGRAM), port=PORT, baud_rate=9600, parity=Parity.EVEN
        ) as line,
        MBusBus(SerialLink(port=line.port)) as bus,
    ):
        meter = await MBusMeter.identify(bus, 0)
        dump = await meter.dump()
    [telegram] = dump["telegrams"]
    assert bytes.fromhex(telegram["frame"]) == MANUAL_TELEGRAM
    assert telegram["header"]["manufacturer"] == "INM"
    assert telegram["header"]["identification"] == meter.identity.serial_number
    assert len(telegram["records"]) == 9
    assert telegram["records"][0]["function"] == "instantaneous"
    assert telegram["records"][0]["unit"] == "Wh"
    assert telegram["records"][0]["value"] == 16048140
    assert telegram["unknown"] == []
    assert dump["values"] == {str(key): value for key, value in MANUAL_VALUES.items()}
    assert json.loads(json.dumps(dump)) == dump


async def test_every_telegram_of_a_readout_is_dumped(
    meter: MBusMeter, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.records_per_telegram = 4
    dump = await meter.dump()
    assert [len(telegram["records"]) for telegram in dump["telegrams"]] == [4, 4, 1]


async def test_there_are_no_registers(meter: MBusMeter, line: Line) -> None:
    assert not meter.registers
    line.requests.clear()
    with pytest.raises(InvalidRangeError):
        await meter.dump(range(0x4000, 0x4001))
    assert not line.requests


async def test_settings_are_never_told(meter: MBusMeter) -> None:
    await meter.write(Setting.TARIFF, Tariff.T2)
    assert set((await meter.read_settings()).values()) == {None}
    assert not meter.reports_settings


async def test_another_meter_in_its_place_is_neither_read_nor_set(
    bus: MBusBus, virtual_meter: VirtualMeter, line: Line
) -> None:
    meter = await MBusMeter.identify(bus, 0)
    virtual_meter.secondary_address = "87654321"
    for action in (
        meter.read(meter.quantities),
        meter.write(Setting.TARIFF, Tariff.T2),
        meter.reset(Counter.POWER_DOWN),
        meter.lock_calculation_code(SERIAL_NUMBER),
        meter.dump(),
    ):
        with pytest.raises(WrongMeterError):
            await action
    assert virtual_meter.tariff == 1
    assert virtual_meter.power_down_counter


async def test_a_meter_that_reports_no_identification_yet_is_not_ready(
    bus: MBusBus, virtual_meter: VirtualMeter
) -> None:
    meter = await MBusMeter.identify(bus, 0)
    virtual_meter.secondary_address = "00000000"
    with pytest.raises(NotReadyError):
        await meter.read(meter.quantities)
    with pytest.raises(NotReadyError):
        await identify(bus, 0)


async def test_no_meter_gets_the_secondary_address_of_one_that_is_not_ready(
    meter: MBusMeter, line: Line
) -> None:
    line.requests.clear()
    with pytest.raises(InvalidValueError):
        await meter.write_communication(Setting.SECONDARY_ADDRESS, "00000000")
    assert not line.requests


async def test_a_meter_that_lost_its_secondary_address_is_gone(
    bus: MBusBus, virtual_meter: VirtualMeter
) -> None:
    meter = await MBusMeter.identify(bus, SERIAL_NUMBER)
    virtual_meter.secondary_address = "87654321"
    with pytest.raises(NoAnswerError):
        await meter.read(meter.quantities)


async def test_a_restart_of_the_meter_does_not_matter(
    meter: MBusMeter, virtual_meter: VirtualMeter
) -> None:
    for _ in range(3):
        virtual_meter.power_cycle()
        before = virtual_meter.forward_active_energy
        virtual_meter.add_energy(l1=1)
        values = await meter.read({Quantity.FORWARD_ACTIVE_ENERGY})
        assert values[Quantity.FORWARD_ACTIVE_ENERGY] == pytest.approx(before + 1, abs=0.006)


@pytest.mark.parametrize(
    ("text", "address"),
    [("0", 0), ("250", 250), (" 7 ", 7), ("007", 7), ("00000007", "00000007"), ("22091039",) * 2],
)
def test_addresses_are_told_apart_by_their_digits(text: str, address: int | str) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "251", "253", "-1", "1.0", "1234567", "2209103F", "٣"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidAddressError):
        parse_address(text)


@pytest.mark.parametrize("garble", [0.3, 0.6])
async def test_on_a_bad_line_a_value_is_right_or_an_error(
    meter: MBusMeter, line: Line, virtual_meter: VirtualMeter, garble: float
) -> None:
    line.garble = garble
    line.noise = b"\x68\xe5\x10"
    expected = pytest.approx(virtual_meter.forward_active_energy, abs=0.006)
    right = 0
    for _ in range(30):
        try:
            values = await meter.read({Quantity.FORWARD_ACTIVE_ENERGY})
        except NoAnswerError, GarbledAnswerError:
            continue
        assert values[Quantity.FORWARD_ACTIVE_ENERGY] == expected
        right += 1
    assert right
