"""Frames are answered as the manual and EN 13757 say."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from simulator.line import Line
from simulator.mbus import serve
from simulator.meter import CalculationCode, Tariff, VirtualMeter
from tests.data.mbus import telegrams

from .clock import Clock
from .conftest import GATEWAY, PORT
from .mbus_client import ACKNOWLEDGEMENT, MBusClient, connect, frame, is_frame, selection

MANUAL = telegrams()["klefr_6933"]

RESET = "40 00"
REQUEST, COUNTED_REQUEST = "5B 00", "7B 00"
AS_SELECTED, COUNTED_AS_SELECTED = "5B FD", "7B FD"
DESELECTION = "40 FD"
SET_TARIFF_2 = "51 09 7C 01 54 02"

# Where things are in a telegram.
ADDRESS = 5
IDENTIFICATION = slice(7, 11)
MANUFACTURER = slice(11, 13)
ACCESS_NUMBER = 15
STATUS = 16
RECORDS = slice(19, -2)


@pytest.fixture
def meter(clock: Clock) -> VirtualMeter:
    return VirtualMeter(model="6933", serial_number="22091039", clock=clock)


@pytest.fixture
async def line(meter: VirtualMeter) -> AsyncIterator[Line]:
    async with serve(meter, virtual=PORT) as line:
        yield line


@pytest.fixture
async def client(line: Line) -> AsyncIterator[MBusClient]:
    async with connect(line.port) as client:
        yield client


@pytest.fixture
def other(clock: Clock) -> VirtualMeter:
    return VirtualMeter(model="6943", serial_number="22091540", address=1, seed=2, clock=clock)


@pytest.fixture
async def shared_line(meter: VirtualMeter, other: VirtualMeter) -> AsyncIterator[Line]:
    async with serve(meter, other, virtual=PORT) as line:
        yield line


@pytest.fixture
async def master(shared_line: Line) -> AsyncIterator[MBusClient]:
    """A client of both meters."""
    async with connect(shared_line.port) as client:
        yield client


# Readouts


async def test_readout_is_the_manuals(clock: Clock) -> None:
    meter = VirtualMeter(
        model="6933",
        secondary_address="00000000",
        calculation_code=CalculationCode.FORWARD_PLUS_REVERSE,
        factory_new=True,
        clock=clock,
    )
    meter.add_energy(l1=1234.56, l2=-2345.67)
    meter.tariff = Tariff.T2
    meter.add_energy(l1=5678.90, l2=-6789.01)
    async with serve(meter, virtual=PORT) as line, connect(line.port) as client:
        await client.ask(COUNTED_REQUEST)
        # The second telegram, as the access number in the example says.
        assert await client.ask(REQUEST) == MANUAL


async def test_records_are_the_meters_energies(
    client: MBusClient, meter: VirtualMeter, clock: Clock
) -> None:
    meter.tariff = Tariff.T2
    clock.advance(3600)
    forward, reverse = meter.active_energy.forward, meter.active_energy.reverse
    records = (await client.ask(REQUEST))[RECORDS]
    energies = {
        "0C04": meter.total_active_energy,
        "1C04": forward.total,
        "9C1004": forward.tariffs[Tariff.T1],
        "9C2004": forward.tariffs[Tariff.T2],
        "2C04": reverse.total,
        "AC1004": reverse.tariffs[Tariff.T1],
        "AC2004": reverse.tariffs[Tariff.T2],
    }
    for head, energy in energies.items():
        digits = f"{round(energy * 100):08d}"
        assert bytes.fromhex(head) + bytes.fromhex(digits)[::-1] in records


async def test_reverse_energy_in_excess_has_a_minus_sign(
    client: MBusClient, meter: VirtualMeter
) -> None:
    meter.calculation_code = CalculationCode.REVERSE_MINUS_FORWARD
    assert meter.total_active_energy < 0
    digits = f"F{round(-meter.total_active_energy * 100):07d}"
    records = (await client.ask(REQUEST))[RECORDS]
    assert records.startswith(b"\x0c\x04" + bytes.fromhex(digits)[::-1])


async def test_every_telegram_has_another_access_number(
    client: MBusClient, meter: VirtualMeter
) -> None:
    meter.access_number = 254
    numbers = [
        (await client.ask(request))[ACCESS_NUMBER]
        for request in (REQUEST, COUNTED_REQUEST, REQUEST)
    ]
    assert numbers == [255, 0, 1]


@pytest.mark.parametrize("broken", ["program_ok", "eeprom_ok"])
async def test_status_says_that_the_meter_is_broken(
    client: MBusClient, meter: VirtualMeter, broken: str
) -> None:
    assert (await client.ask(REQUEST))[STATUS] == 0
    setattr(meter, broken, False)
    assert (await client.ask(COUNTED_REQUEST))[STATUS] == 2


async def test_readout_carries_the_primary_address(client: MBusClient, meter: VirtualMeter) -> None:
    meter.address = 250
    assert (await client.ask("5B FA"))[ADDRESS] == 250


async def test_nothing_is_alarming(client: MBusClient) -> None:
    assert await client.ask("5A 00") == ACKNOWLEDGEMENT
    assert await client.ask("7A 00") == ACKNOWLEDGEMENT


# Commands


@pytest.mark.parametrize("control", ["53", "73"])
@pytest.mark.parametrize(
    ("data", "setting", "value"),
    [
        ("B8", "baud_rate", 300),
        ("B9", "baud_rate", 600),
        ("BA", "baud_rate", 1200),
        ("BB", "baud_rate", 2400),
        ("BC", "baud_rate", 4800),
        ("51 01 7A 01", "address", 1),
        ("51 01 7A FA", "address", 250),
        ("51 0C 79 15 01 23 45", "secondary_address", "45230115"),
        ("51 09 7C 01 54 02", "tariff", Tariff.T2),
        ("51 09 FD 3A 04", "calculation_code", CalculationCode.REVERSE),
        ("51 09 FD 3A 10", "calculation_code", CalculationCode.FORWARD_MINUS_REVERSE_NET),
        ("51 09 FD 3A 11", "calculation_code", CalculationCode.FORWARD_MINUS_REVERSE_NET_PULSES),
        ("51 0C FD 3A 00 00 01 00", "s0_rate", 100.0),
        ("51 0C FD 3A 00 00 00 01", "s0_rate", 10000.0),
        ("51 0C FD 3A 01 00 00 00", "s0_rate", 0.01),
        ("51 0C 04 00 00 00 00", "day_counter", 0.0),
        ("51 0C 04 12 34 56 78", "day_counter", 0.0),
        ("51 0A FD 60 00 00", "power_down_counter", 0),
        ("51 0A FD 60 12 34", "power_down_counter", 0),
    ],
)
async def test_command_is_acknowledged_and_executed(
    client: MBusClient, meter: VirtualMeter, control: str, data: str, setting: str, value: Any
) -> None:
    assert getattr(meter, setting) != value
    assert await client.ask(f"{control} 00 {data}") == ACKNOWLEDGEMENT
    assert getattr(meter, setting) == value


def settings(meter: VirtualMeter) -> dict[str, Any]:
    names = (
        *("baud_rate", "address", "secondary_address", "tariff", "calculation_code"),
        *("s0_rate", "day_counter", "power_down_counter"),
    )
    return {name: getattr(meter, name) for name in names}


@pytest.mark.parametrize(
    "data",
    [
        "B7",
        "BE",
        "BB 00",
        "51 01 7A FB",
        "51 01 7A FF",
        "51 0C 79 15 01 23 4A",
        "51 09 7C 01 54 00",
        "51 09 7C 01 54 03",
        "51 09 7C 01 54 11",
        "51 09 FD 3A 02",
        "51 09 FD 3A 0A",
        "51 0C FD 3A 00 00 05 00",
        "51 0C FD 3A 00 0F 00 00",
        "51 0C 04 00 00",
        "51 0C 04 00 00 00 00 00",
        "51 0C 13 00 00 00 00",
        "51",
        "50",
        "72 0C 04 00 00 00 00",
    ],
)
async def test_what_the_meter_cannot_do_is_not_acknowledged(
    client: MBusClient, meter: VirtualMeter, data: str
) -> None:
    before = settings(meter)
    assert await client.meets_silence(f"53 00 {data}")
    assert settings(meter) == before
    assert await client.ask(f"53 00 {SET_TARIFF_2}") == ACKNOWLEDGEMENT


async def test_calculation_code_10_refuses_every_other_code(
    client: MBusClient, meter: VirtualMeter
) -> None:
    assert await client.ask("73 00 51 09 FD 3A 10") == ACKNOWLEDGEMENT
    for code in ("01", "04", "05", "06", "09", "11"):
        assert await client.meets_silence(f"53 00 51 09 FD 3A {code}")
    assert await client.ask("53 00 51 09 FD 3A 10") == ACKNOWLEDGEMENT
    assert meter.calculation_code is CalculationCode.FORWARD_MINUS_REVERSE_NET


async def test_new_primary_address_is_in_force_after_the_acknowledgement(
    client: MBusClient,
) -> None:
    assert await client.ask("73 00 51 01 7A 05") == ACKNOWLEDGEMENT
    assert await client.meets_silence(RESET)
    assert await client.ask("40 05") == ACKNOWLEDGEMENT
    assert (await client.ask("7B 05"))[ADDRESS] == 5


async def test_new_baud_rate_is_in_force_after_the_acknowledgement(line: Line) -> None:
    async with connect(line.port) as client:
        assert await client.ask("73 00 BB") == ACKNOWLEDGEMENT
        assert await client.meets_silence(RESET)
    async with connect(line.port, baud_rate=2400) as client:
        assert await client.ask(RESET) == ACKNOWLEDGEMENT


async def test_new_secondary_address_is_in_force_at_the_next_selection(client: MBusClient) -> None:
    assert await client.ask(selection("22091039")) == ACKNOWLEDGEMENT
    assert await client.ask("73 FD 51 0C 79 78 56 34 12") == ACKNOWLEDGEMENT
    telegram = await client.ask(AS_SELECTED)
    assert telegram[IDENTIFICATION] == bytes.fromhex("78563412")
    assert await client.meets_silence(selection("22091039"))
    assert await client.ask(selection("12345678")) == ACKNOWLEDGEMENT


# The frame count bit


async def test_same_frame_count_bit_gets_the_same_answer(
    client: MBusClient, meter: VirtualMeter
) -> None:
    first = await client.ask(COUNTED_REQUEST)
    meter.add_energy(l1=1)
    assert await client.ask(COUNTED_REQUEST) == first
    second = await client.ask(REQUEST)
    assert second[ACCESS_NUMBER] == first[ACCESS_NUMBER] + 1
    assert second[RECORDS] != first[RECORDS]


async def test_command_is_not_executed_twice(client: MBusClient, meter: VirtualMeter) -> None:
    reset = "73 00 51 0A FD 60 00 00"
    assert await client.ask(reset) == ACKNOWLEDGEMENT
    meter.power_down_counter = 1
    assert await client.ask(reset) == ACKNOWLEDGEMENT
    assert meter.power_down_counter == 1
    assert await client.ask("53 00 51 0A FD 60 00 00") == ACKNOWLEDGEMENT
    assert meter.power_down_counter == 0


@pytest.mark.parametrize("request_frame", [REQUEST, COUNTED_REQUEST])
async def test_after_a_reset_either_bit_is_new(
    client: MBusClient, meter: VirtualMeter, request_frame: str
) -> None:
    before = await client.ask(request_frame)
    assert await client.ask(RESET) == ACKNOWLEDGEMENT
    assert (await client.ask(request_frame))[ACCESS_NUMBER] == before[ACCESS_NUMBER] + 1


async def test_after_a_restart_either_bit_is_new(client: MBusClient, meter: VirtualMeter) -> None:
    before = await client.ask(REQUEST)
    meter.power_cycle()
    assert (await client.ask(REQUEST))[ACCESS_NUMBER] == before[ACCESS_NUMBER] + 1


async def test_selected_meter_has_a_bit_of_its_own(client: MBusClient) -> None:
    first = await client.ask(COUNTED_REQUEST)
    await client.ask(selection("22091039"))
    as_selected = await client.ask(COUNTED_AS_SELECTED)
    assert as_selected[ACCESS_NUMBER] == first[ACCESS_NUMBER] + 1
    assert await client.ask(COUNTED_REQUEST) == first
    assert await client.ask(COUNTED_AS_SELECTED) == as_selected


async def test_selection_makes_either_bit_new(client: MBusClient) -> None:
    await client.ask(selection("22091039"))
    before = await client.ask(COUNTED_AS_SELECTED)
    await client.ask(selection("22091039"))
    after = await client.ask(COUNTED_AS_SELECTED)
    assert after[ACCESS_NUMBER] == before[ACCESS_NUMBER] + 1


@pytest.mark.parametrize("content", ["49 00", "69 00", MANUAL[4:-2].hex(), "28 00 72"])
async def test_what_is_no_request_is_no_repeated_one(client: MBusClient, content: str) -> None:
    await client.ask(REQUEST)
    assert await client.meets_silence(content)
    await client.ask(COUNTED_REQUEST)
    assert await client.meets_silence(content)


async def test_refused_command_leaves_the_bit_as_it_was(client: MBusClient) -> None:
    assert await client.meets_silence("73 00 51 01 7A FB")
    assert (await client.ask(COUNTED_REQUEST))[ADDRESS] == 0


# Selection


@pytest.mark.parametrize("control", ["53", "73"])
@pytest.mark.parametrize(
    ("identification", "rest"),
    [
        ("22091039", "CD25 01 02"),
        ("22091039", "FFFF FF FF"),
        ("FFFFFFFF", "FFFF FF FF"),
        ("2209FF3F", "CD25 FF 02"),
        ("FFFFF0FF", "FFFF 01 FF"),
    ],
)
async def test_selected_meter_answers_at_253(
    client: MBusClient, control: str, identification: str, rest: str
) -> None:
    assert await client.meets_silence(COUNTED_AS_SELECTED)
    content = control + selection(identification, rest).removeprefix("53")
    assert await client.ask(content) == ACKNOWLEDGEMENT
    telegram = await client.ask(COUNTED_AS_SELECTED)
    assert telegram[ADDRESS] == 0
    assert telegram[IDENTIFICATION] == bytes.fromhex("39100922")


@pytest.mark.parametrize(
    ("identification", "rest"),
    [
        ("12091039", "CD25 01 02"),
        ("2209F03A", "CD25 01 02"),
        ("22091039", "25CD 01 02"),
        ("22091039", "CDFF 01 02"),
        ("22091039", "CD25 02 02"),
        ("22091039", "CD25 01 03"),
        ("22091039", "CD25 01"),
        ("22091039", "CD25 01 02 00"),
    ],
)
async def test_meter_that_does_not_match_is_deselected(
    client: MBusClient, identification: str, rest: str
) -> None:
    assert await client.ask(selection("22091039")) == ACKNOWLEDGEMENT
    assert await client.meets_silence(selection(identification, rest))
    assert await client.meets_silence(COUNTED_AS_SELECTED)


async def test_reset_at_253_deselects(client: MBusClient) -> None:
    assert await client.meets_silence(DESELECTION)
    assert await client.ask(selection("22091039")) == ACKNOWLEDGEMENT
    assert await client.ask(DESELECTION) == ACKNOWLEDGEMENT
    assert await client.meets_silence(DESELECTION)
    assert await client.meets_silence(COUNTED_AS_SELECTED)


async def test_reset_at_the_primary_address_does_not_deselect(client: MBusClient) -> None:
    await client.ask(selection("22091039"))
    assert await client.ask(RESET) == ACKNOWLEDGEMENT
    assert (await client.ask(COUNTED_AS_SELECTED))[ADDRESS] == 0


async def test_restart_ends_the_selection(client: MBusClient, meter: VirtualMeter) -> None:
    await client.ask(selection("22091039"))
    meter.power_cycle()
    assert await client.meets_silence(COUNTED_AS_SELECTED)


async def test_commands_reach_a_selected_meter(client: MBusClient, meter: VirtualMeter) -> None:
    await client.ask(selection("22091039"))
    assert await client.ask(f"73 FD {SET_TARIFF_2}") == ACKNOWLEDGEMENT
    assert meter.tariff is Tariff.T2


async def test_selection_works_only_at_253(client: MBusClient) -> None:
    content = selection("22091039")
    assert await client.meets_silence(content.replace("53 FD", "53 00"))
    assert await client.meets_silence(content.replace("53 FD", "53 FE"))
    assert await client.meets_silence(COUNTED_AS_SELECTED)


async def test_selecting_one_meter_deselects_the_other(
    master: MBusClient, meter: VirtualMeter, other: VirtualMeter
) -> None:
    for one in (meter, other, meter):
        assert await master.ask(selection(one.serial_number)) == ACKNOWLEDGEMENT
        telegram = await master.ask(COUNTED_AS_SELECTED)
        assert telegram[ADDRESS] == one.address
        assert telegram[IDENTIFICATION][::-1].hex() == one.serial_number


# Who answers


async def test_meters_share_a_line(
    master: MBusClient, meter: VirtualMeter, other: VirtualMeter
) -> None:
    for one in (meter, other):
        telegram = await master.ask(f"7B {one.address:02X}")
        assert telegram[IDENTIFICATION][::-1].hex() == one.serial_number
    assert await master.ask(f"53 01 {SET_TARIFF_2}") == ACKNOWLEDGEMENT
    assert (meter.tariff, other.tariff) == (Tariff.T1, Tariff.T2)


async def test_everybody_answers_at_254_but_obeys_nothing(
    client: MBusClient, meter: VirtualMeter
) -> None:
    assert await client.ask("40 FE") == ACKNOWLEDGEMENT
    assert (await client.ask("7B FE"))[ADDRESS] == 0
    assert await client.meets_silence(f"53 FE {SET_TARIFF_2}")
    assert meter.tariff is Tariff.T1


async def test_nobody_answers_at_255(client: MBusClient, meter: VirtualMeter) -> None:
    assert await client.meets_silence("40 FF")
    assert await client.meets_silence("7B FF")
    assert await client.meets_silence(f"53 FF {SET_TARIFF_2}")
    assert meter.tariff is Tariff.T1
    assert meter.access_number == 0


@pytest.mark.parametrize(
    "data",
    [
        frame("5B 07"),
        bytes.fromhex("10 5B 00 5C 16"),
        bytes.fromhex("10 5B 00 5B 17"),
        bytes.fromhex("10 5B 00 5B"),
        frame(f"53 00 {SET_TARIFF_2}")[:-1],
        frame(f"53 00 {SET_TARIFF_2}")[:-2] + b"\x00\x16",
        frame("53 00 B8").replace(b"\x03\x03", b"\x03\x04"),
        frame("53 00 B8").replace(b"\x03\x03", b"\x04\x04"),
        frame("53 00 B8").replace(b"\x03\x68", b"\x03\x10"),
        b"\x68",
        b"\xff" + frame(RESET),
        ACKNOWLEDGEMENT,
        MANUAL,
    ],
    ids=lambda data: data.hex()[:16],
)
async def test_nothing_but_a_whole_frame_for_a_meter_is_answered(
    client: MBusClient, line: Line, meter: VirtualMeter, data: bytes
) -> None:
    before = settings(meter)
    client.send(data)
    assert await client.receive() == b""
    assert settings(meter) == before
    assert await client.ask(RESET) == ACKNOWLEDGEMENT
    assert list(line.requests) == [data, frame(RESET)]


async def test_wrong_baud_rate_meets_silence(line: Line) -> None:
    async with connect(line.port, baud_rate=4800) as client:
        assert await client.meets_silence(RESET)
    async with connect(line.port) as client:
        assert await client.ask(RESET) == ACKNOWLEDGEMENT


async def test_meter_at_another_baud_rate_stays_selected(
    master: MBusClient, meter: VirtualMeter
) -> None:
    await master.ask(selection("22091039"))
    meter.baud_rate = 300
    assert await master.ask(selection("22091540")) == ACKNOWLEDGEMENT
    meter.baud_rate = 9600
    master.send(frame(COUNTED_AS_SELECTED))
    assert not is_frame(await master.receive_all())


# Meters that answer at once


async def test_meters_with_one_address_talk_over_each_other(
    master: MBusClient, other: VirtualMeter
) -> None:
    other.address = 0
    for request in (COUNTED_REQUEST, REQUEST) * 3:
        master.send(frame(request))
        answer = await master.receive_all()
        assert answer
        assert not is_frame(answer)


async def test_acknowledgements_collide_in_many_ways(master: MBusClient) -> None:
    arrived = set()
    for _ in range(60):
        master.send(frame(selection("2209FFFF")))
        arrived.add(await master.receive_all())
    assert ACKNOWLEDGEMENT in arrived
    assert 2 * ACKNOWLEDGEMENT in arrived
    assert arrived - {ACKNOWLEDGEMENT, 2 * ACKNOWLEDGEMENT}
    assert b"" not in arrived


async def test_same_seed_collides_the_same_way(meter: VirtualMeter, other: VirtualMeter) -> None:
    async def collisions() -> list[bytes]:
        arrived = []
        async with serve(meter, other, virtual=PORT, seed=5) as line, connect(line.port) as client:
            for _ in range(8):
                client.send(frame(selection("FFFFFFFF")))
                arrived.append(await client.receive_all())
        return arrived

    assert await collisions() == await collisions()


async def test_both_meters_are_selected_by_wildcards(
    master: MBusClient, meter: VirtualMeter, other: VirtualMeter
) -> None:
    master.send(frame(selection("FFFFFFFF")))
    assert await master.receive_all()
    master.send(frame(f"73 FD {SET_TARIFF_2}"))
    assert await master.receive_all()
    assert (meter.tariff, other.tariff) == (Tariff.T2, Tariff.T2)


# Variants and faults


async def test_some_firmwares_swap_the_manufacturer(
    client: MBusClient, meter: VirtualMeter
) -> None:
    assert (await client.ask(REQUEST))[MANUFACTURER] == bytes.fromhex("CD25")
    meter.manufacturer_swapped = True
    assert (await client.ask(COUNTED_REQUEST))[MANUFACTURER] == bytes.fromhex("25CD")
    assert await client.meets_silence(selection("22091039", "CD25 FF FF"))
    assert await client.ask(selection("22091039", "25CD FF FF")) == ACKNOWLEDGEMENT


async def test_long_readout_comes_in_parts(client: MBusClient, meter: VirtualMeter) -> None:
    whole = (await client.ask(REQUEST))[RECORDS]
    meter.records_per_telegram = 4
    meter.extra_records = bytes.fromhex("0F 010203")
    first, second, third = [
        (await client.ask(request))[RECORDS]
        for request in (COUNTED_REQUEST, REQUEST, COUNTED_REQUEST)
    ]
    assert first[-1:] == second[-1:] == b"\x1f"
    assert first[:-1] + second[:-1] + third == whole + bytes.fromhex("0F 010203")
    assert (await client.ask(REQUEST))[RECORDS] == first


async def test_lost_part_is_repeated(client: MBusClient, meter: VirtualMeter) -> None:
    meter.records_per_telegram = 5
    first = await client.ask(COUNTED_REQUEST)
    second = await client.ask(REQUEST)
    assert await client.ask(REQUEST) == second
    assert (await client.ask(COUNTED_REQUEST))[RECORDS] == first[RECORDS]


@pytest.mark.parametrize("restart", [RESET, "40 FE", selection("22091039")])
async def test_readout_begins_anew(client: MBusClient, meter: VirtualMeter, restart: str) -> None:
    meter.records_per_telegram = 3
    first = await client.ask(COUNTED_REQUEST)
    await client.ask(REQUEST)
    assert await client.ask(restart) == ACKNOWLEDGEMENT
    request = COUNTED_AS_SELECTED if "FD" in restart else COUNTED_REQUEST
    assert (await client.ask(request))[RECORDS] == first[RECORDS]


async def test_records_can_be_replaced(client: MBusClient, meter: VirtualMeter) -> None:
    whole = (await client.ask(REQUEST))[RECORDS]
    error = bytes.fromhex("0C 04 EEEEEEEE")
    meter.record_overrides[0] = error
    meter.record_overrides[8] = b""
    assert (await client.ask(COUNTED_REQUEST))[RECORDS] == error + whole[6:-7]


async def test_commands_can_be_ignored_or_refused(client: MBusClient, meter: VirtualMeter) -> None:
    before = settings(meter)
    meter.ignore_writes = True
    assert await client.ask(f"73 00 {SET_TARIFF_2}") == ACKNOWLEDGEMENT
    assert await client.ask("53 00 B8") == ACKNOWLEDGEMENT
    meter.ignore_writes = False
    meter.refuse_writes = True
    assert await client.meets_silence(f"73 00 {SET_TARIFF_2}")
    assert await client.meets_silence("73 00 B8")
    assert settings(meter) == before


# The line


@pytest.mark.parametrize("baud_rate", [300, 2400, 9600])
async def test_answer_begins_when_the_standard_allows(meter: VirtualMeter, baud_rate: int) -> None:
    bit = 1 / baud_rate
    async with (
        serve(meter, baud_rate=baud_rate, virtual=PORT) as line,
        connect(line.port, baud_rate=baud_rate) as client,
    ):
        loop = asyncio.get_running_loop()
        for _ in range(30):
            start = loop.time()
            assert await client.ask(RESET) == ACKNOWLEDGEMENT
            delay = loop.time() - start - (5 + 1) * 11 * bit
            assert 11 * bit <= delay <= 330 * bit + 0.05


@pytest.mark.parametrize(("pacing", "on_the_line"), [(False, 0), (True, (5 + 1) * 11 / 9600)])
async def test_answer_can_take_a_fixed_time(
    meter: VirtualMeter, pacing: bool, on_the_line: float
) -> None:
    async with (
        serve(meter, pacing=pacing, answer_delay=0.3, virtual=PORT) as line,
        connect(line.port) as client,
    ):
        loop = asyncio.get_running_loop()
        start = loop.time()
        assert await client.ask(RESET) == ACKNOWLEDGEMENT
        assert loop.time() - start == pytest.approx(on_the_line + 0.3)


async def test_telegram_comes_as_fast_as_the_line(meter: VirtualMeter) -> None:
    async with (
        serve(meter, baud_rate=2400, answer_delay=0.1, virtual=PORT) as line,
        connect(line.port, baud_rate=2400) as client,
    ):
        loop = asyncio.get_running_loop()
        start = loop.time()
        assert len(await client.ask(REQUEST)) == len(MANUAL)
        assert loop.time() - start == pytest.approx((5 + len(MANUAL)) * 11 / 2400 + 0.1)


async def test_frames_may_follow_each_other_at_once(meter: VirtualMeter) -> None:
    async with serve(meter, pacing=False, virtual=PORT) as line, connect(line.port) as client:
        client.send(frame(RESET) + frame("5A 00"))
        assert await client.receive_bytes(2) == 2 * ACKNOWLEDGEMENT
        assert list(line.requests) == [frame(RESET), frame("5A 00")]


async def test_gateway_takes_frames_as_the_network_cuts_them(meter: VirtualMeter) -> None:
    async with serve(meter, virtual=GATEWAY) as line, connect(line.port) as client:
        client.send(frame(REQUEST)[:2])
        assert await client.receive(0.4) == b""
        client.send(frame(REQUEST)[2:] + frame(RESET)[:3])
        assert is_frame(await client.receive())
        client.send(frame(RESET)[3:])
        assert await client.receive() == ACKNOWLEDGEMENT


async def test_gateway_forgets_half_a_frame(meter: VirtualMeter) -> None:
    async with serve(meter, virtual=GATEWAY) as line, connect(line.port) as client:
        client.send(frame(REQUEST)[:3])
        assert await client.receive(0.6) == b""
        assert list(line.requests) == [frame(REQUEST)[:3]]
        assert await client.ask(RESET) == ACKNOWLEDGEMENT


async def test_damaged_answer_can_be_asked_for_again(client: MBusClient, line: Line) -> None:
    line.garble_next = 1
    client.send(frame(COUNTED_REQUEST))
    assert not is_frame(await client.receive_all())
    telegram = await client.ask(COUNTED_REQUEST)
    assert telegram[ACCESS_NUMBER] == 1
