"""Requests are answered as the manual says."""

import json
import math
from pathlib import Path
import struct
from typing import Any

import pytest

from simulator.line import Line
from simulator.meter import CalculationCode, LongRead, Parity, Tariff, VirtualMeter
from simulator.modbus import serve
from simulator.registers import Registers, load_image, put_image

from .client import Client, connect, frame
from .clock import Clock
from .conftest import PORT

REAL_METER = Path(__file__).parents[1] / "data" / "real_meter_registers.json"
BLOCKS = [(0x4000, 32), (0x5000, 50), (0x6000, 75)]

ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE = 1, 2, 3


@pytest.mark.parametrize(("address", "count"), BLOCKS)
async def test_each_block_is_read_in_one_request(
    client: Client, meter: VirtualMeter, address: int, count: int
) -> None:
    assert await client.read(address, count) == Registers(meter).read(address, count)


async def test_values_are_where_the_map_says(client: Client, meter: VirtualMeter) -> None:
    assert await client.read(0x4000, 5) == [0x2209, 0x1039, 0x0102, 1, 9600]
    assert await client.read(0x400B, 2) == [100, 0]
    assert await client.read(0x4010, 2) == [0x0010, 1]
    assert await client.read(0x401D, 2) == [0x0011, 0x0111]
    assert await client.read_float(0x4007) == pytest.approx(2.18)
    assert await client.read_float(0x5012) == pytest.approx(meter.power, abs=0.001)
    assert await client.read_float(0x600C) == pytest.approx(meter.forward_active_energy, abs=0.01)
    assert await client.read_float(0x6018) == pytest.approx(meter.reverse_active_energy, abs=0.01)
    assert await client.read(0x5000, 2) == await client.read(0x500A, 2) == [0, 0]


async def test_direction_and_quadrant_follow_the_power(client: Client, meter: VirtualMeter) -> None:
    directions = b"".join(word.to_bytes(2) for word in await client.read(0x4012, 3))
    assert (
        directions
        == "".join(
            f"{number}{'R' if phase.active_power < 0 else 'F'}"
            for number, phase in enumerate(meter.sample.phases, 1)
        ).encode()
    )
    assert await client.read(0x4017, 4) == [
        meter.sample.quadrant,
        *(phase.quadrant for phase in meter.sample.phases),
    ]


async def test_phase_without_supply_reads_zero(client: Client, meter: VirtualMeter) -> None:
    meter.supplied = (True, False, True)
    meter.eeprom_ok = False
    assert await client.read(0x401D, 2) == [0x0010, 0x0101]
    assert await client.read_float(0x5004) == 0


async def test_behind_current_transformers_the_ratio_is_shown(clock: Clock) -> None:
    meter = VirtualMeter(model="6944", ct_primary=250, ct_secondary=1, clock=clock)
    assert Registers(meter).read(0x400B, 2) == [6, 0x0250]
    assert Registers(meter).read(0x401F, 1) == [1]


@pytest.mark.parametrize(
    ("request_pdu", "setting", "value"),
    [
        ("06 4003 000A", "address", 10),
        ("06 4004 25 80", "baud_rate", 9600),
        ("06 4004 012C", "baud_rate", 300),
        ("10 400D 0002 04 41 20 00 00", "s0_rate", 10.0),
        ("10 400D 0002 04 3C 23 D7 0A", "s0_rate", 0.01),
        ("06 400F 000A", "calculation_code", CalculationCode.FORWARD_MINUS_REVERSE_NET),
        ("06 4010 0025", "lcd_cycle_time", 25),
        ("06 4011 0002", "parity", Parity.NONE),
        ("06 4016 0000", "power_down_counter", 0),
        ("06 6048 0002", "tariff", Tariff.T2),
        ("06 6048 000C", "tariff", Tariff.T2_UNTIL_RESTART),
        ("10 6049 0002 04 0000 0000", "day_counter", 0.0),
    ],
)
async def test_write_is_acknowledged_and_kept(
    client: Client, meter: VirtualMeter, request_pdu: str, setting: str, value: Any
) -> None:
    request = bytes.fromhex(request_pdu)
    assert await client.ask(request) == request[:5]
    assert getattr(meter, setting) == value
    words = struct.unpack(f">{len(request[6:]) // 2}H", request[6:]) or (
        int.from_bytes(request[3:5]),
    )
    address = int.from_bytes(request[1:3])
    assert Registers(meter).read(address, len(words)) == list(words)


@pytest.mark.parametrize(
    ("request_pdu", "exception"),
    [
        ("03 3FFF 0001", ILLEGAL_ADDRESS),
        ("03 4000 0021", ILLEGAL_ADDRESS),
        ("03 4020 0001", ILLEGAL_ADDRESS),
        ("03 5032 0001", ILLEGAL_ADDRESS),
        ("03 6049 0003", ILLEGAL_ADDRESS),
        ("03 4000 0000", ILLEGAL_VALUE),
        ("03 4000 007E", ILLEGAL_VALUE),
        ("03 4000", ILLEGAL_VALUE),
        ("06 4000 0001", ILLEGAL_ADDRESS),
        ("06 400D 0001", ILLEGAL_ADDRESS),
        ("06 6000 0001", ILLEGAL_ADDRESS),
        ("06 6049 0000", ILLEGAL_ADDRESS),
        ("10 4003 0001 02 0005", ILLEGAL_ADDRESS),
        ("10 6049 0001 02 0000", ILLEGAL_ADDRESS),
        ("10 6048 0002 04 0000 0000", ILLEGAL_ADDRESS),
        ("10 6049 0002 02 0000", ILLEGAL_VALUE),
        ("06 4003 0000", ILLEGAL_VALUE),
        ("06 4003 00F8", ILLEGAL_VALUE),
        ("06 4004 4B00", ILLEGAL_VALUE),
        ("10 400D 0002 04 42C90000", ILLEGAL_VALUE),
        ("10 400D 0002 04 7FC00000", ILLEGAL_VALUE),
        ("06 400F 0002", ILLEGAL_VALUE),
        ("06 4010 0000", ILLEGAL_VALUE),
        ("06 4010 0031", ILLEGAL_VALUE),
        ("06 4010 001A", ILLEGAL_VALUE),
        ("06 4011 0004", ILLEGAL_VALUE),
        ("06 4016 0001", ILLEGAL_VALUE),
        ("06 6048 0003", ILLEGAL_VALUE),
        ("10 6049 0002 04 3F800000", ILLEGAL_VALUE),
        ("01 0000 0001", ILLEGAL_FUNCTION),
        ("04 4000 0001", ILLEGAL_FUNCTION),
        ("2B 0E 01 00", ILLEGAL_FUNCTION),
        ("64 01", ILLEGAL_FUNCTION),
    ],
)
async def test_wrong_request_is_refused(
    client: Client, meter: VirtualMeter, request_pdu: str, exception: int
) -> None:
    before = Registers(meter).all()
    request = bytes.fromhex(request_pdu)
    assert await client.ask(request) == bytes([request[0] | 0x80, exception])
    assert Registers(meter).all() == before


async def test_calculation_code_10_refuses_every_other_code(client: Client) -> None:
    assert await client.ask("06 400F 000A") == bytes.fromhex("06 400F 000A")
    for code in (1, 4, 5, 6, 9, 11):
        assert await client.ask(f"06 400F {code:04X}") == bytes([0x86, ILLEGAL_VALUE])
    assert await client.read(0x400F, 1) == [10]


async def test_new_address_is_in_force_after_the_answer(client: Client) -> None:
    assert await client.ask("06 4003 0007", unit=1) == bytes.fromhex("06 4003 0007")
    assert await client.ask("03 4003 0001", unit=1) == b""
    assert await client.read(0x4003, 1, unit=7) == [7]


async def test_new_baud_rate_is_in_force_after_the_answer(line: Line) -> None:
    async with connect(line.port) as client:
        assert await client.ask("06 4004 0960") == bytes.fromhex("06 4004 0960")
        assert await client.ask("03 4004 0001") == b""
    async with connect(line.port, baud_rate=2400) as client:
        assert await client.read(0x4004, 1) == [2400]


async def test_broadcast_is_executed_without_an_answer(client: Client, meter: VirtualMeter) -> None:
    assert await client.ask("06 6048 0002", unit=0) == b""
    assert meter.tariff is Tariff.T2


async def test_other_addresses_meet_silence(client: Client) -> None:
    assert await client.ask("03 4000 0002", unit=2) == b""


async def test_damaged_request_meets_silence(client: Client) -> None:
    client.send(frame(1, bytes.fromhex("03 4000 0002"))[:-1] + b"\0")
    assert await client.receive() == b""
    assert await client.read(0x4000, 1) == [0x2209]


async def test_half_a_request_is_forgotten(client: Client) -> None:
    client.send(frame(1, bytes.fromhex("03 4000 0002"))[:5])
    assert await client.receive(0.05) == b""
    assert await client.read(0x4000, 1) == [0x2209]


@pytest.mark.parametrize(
    ("behaviour", "answer"),
    [
        (LongRead.ILLEGAL_ADDRESS, b"\x83\x02"),
        (LongRead.ILLEGAL_VALUE, b"\x83\x03"),
        (LongRead.SILENCE, b""),
    ],
)
async def test_long_reads_can_be_too_much(
    client: Client, meter: VirtualMeter, behaviour: LongRead, answer: bytes
) -> None:
    meter.max_read_count = 20
    meter.long_read = behaviour
    assert await client.ask("03 4000 0015") == answer
    assert len(await client.read(0x4000, 20)) == 20


async def test_values_can_be_forced(client: Client, meter: VirtualMeter) -> None:
    meter.overrides[0x5002] = math.nan
    meter.overrides[0x6048] = 7
    assert math.isnan(await client.read_float(0x5002))
    assert await client.read(0x6048, 1) == [7]
    meter.overrides.clear()
    assert await client.read_float(0x5002) > 200


async def test_writes_can_be_ignored_or_refused(client: Client, meter: VirtualMeter) -> None:
    meter.ignore_writes = True
    assert await client.ask("06 6048 0002") == bytes.fromhex("06 6048 0002")
    meter.ignore_writes = False
    meter.refuse_writes = True
    assert await client.ask("06 6048 0002") == bytes([0x86, ILLEGAL_VALUE])
    assert await client.read(0x6048, 1) == [1]


async def test_another_meter_may_answer(client: Client, meter: VirtualMeter) -> None:
    meter.serial_number = "12345678"
    assert await client.read(0x4000, 2) == [0x1234, 0x5678]


async def test_meters_share_a_line() -> None:
    meters = [VirtualMeter(address=n, serial_number=f"0000000{n}") for n in (1, 2)]
    async with serve(*meters, virtual=PORT) as line, connect(line.port) as client:
        for unit in (1, 2):
            assert await client.read(0x4000, 2, unit=unit) == [0, unit]
        await client.ask("06 6048 0002", unit=0)
        assert [meter.tariff for meter in meters] == [Tariff.T2, Tariff.T2]


async def test_meters_with_one_address_talk_over_each_other() -> None:
    meters = [VirtualMeter(serial_number=number) for number in ("11111111", "22222222")]
    async with serve(*meters, virtual=PORT) as line, connect(line.port) as client:
        client.send(frame(1, bytes.fromhex("03 4000 0002")))
        answer = await client.receive()
        assert answer
        assert answer != frame(1, answer[1:-2])


async def test_image_is_served_as_it_is(clock: Clock) -> None:
    real = json.loads(REAL_METER.read_text())
    meter = VirtualMeter(clock=clock)
    put_image(meter, load_image(REAL_METER))
    async with serve(meter, virtual=PORT) as line, connect(line.port) as client:
        clock.advance(3600)
        for address, count in BLOCKS:
            block = real[f"0x{address:04X}"]
            assert await client.read(address, count) == block["registers"]
            assert count == block["count"]


async def test_image_changes_only_where_it_is_written() -> None:
    image = load_image(REAL_METER)
    meter = VirtualMeter()
    put_image(meter, image)
    async with serve(meter, virtual=PORT) as line, connect(line.port) as client:
        await client.ask("06 400F 0005")
        await client.ask("06 4016 0000")
        await client.ask("10 6049 0002 04 00000000")
    changed = {0x400F: 5, 0x4016: 0, 0x6049: 0, 0x604A: 0}
    assert Registers(meter).all() == image | changed


def test_image_must_be_whole() -> None:
    image = load_image(REAL_METER)
    del image[0x5003]
    with pytest.raises(ValueError, match="0x5003"):
        put_image(VirtualMeter(), image)
