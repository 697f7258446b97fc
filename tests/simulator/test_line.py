"""The line takes its time, and goes wrong when told to."""

import asyncio

import pytest
import serialx

from simulator.line import Line
from simulator.meter import Parity, VirtualMeter
from simulator.modbus import serve

from .client import Client, connect, frame
from .conftest import PORT

READ_SERIAL_NUMBER = bytes.fromhex("03 4000 0002")
SERIAL_NUMBER = bytes.fromhex("03 04 2209 1039")


@pytest.mark.parametrize(("baud_rate", "parity", "bits"), [(9600, "E", 11), (1200, "N", 10)])
async def test_bytes_come_as_fast_as_the_line(
    meter: VirtualMeter, baud_rate: int, parity: str, bits: int
) -> None:
    async with (
        serve(meter, baud_rate=baud_rate, parity=parity, virtual=PORT) as line,
        connect(line.port, baud_rate=baud_rate, parity=serialx.Parity(parity)) as client,
    ):
        loop = asyncio.get_running_loop()
        start = loop.time()
        await client.read(0x6000, 75)
        assert loop.time() - start == pytest.approx((8 + 3.5 + 155) * bits / baud_rate)


async def test_a_line_without_pacing_is_in_no_hurry_only_to_end_a_frame(
    meter: VirtualMeter,
) -> None:
    async with serve(meter, pacing=False, virtual=PORT) as line, connect(line.port) as client:
        loop = asyncio.get_running_loop()
        start = loop.time()
        await client.read(0x6000, 75)
        assert loop.time() - start == pytest.approx(0.00175)


@pytest.mark.parametrize(
    ("baud_rate", "parity"),
    [(4800, serialx.Parity.EVEN), (9600, serialx.Parity.ODD), (19200, serialx.Parity.NONE)],
)
async def test_wrong_settings_meet_silence(
    line: Line, baud_rate: int, parity: serialx.Parity
) -> None:
    async with connect(line.port, baud_rate=baud_rate, parity=parity) as client:
        assert await client.ask(READ_SERIAL_NUMBER) == b""
    async with connect(line.port) as client:
        assert await client.ask(READ_SERIAL_NUMBER) == SERIAL_NUMBER


async def test_clients_come_and_go(line: Line) -> None:
    for _ in range(3):
        async with connect(line.port) as client:
            assert await client.ask(READ_SERIAL_NUMBER) == SERIAL_NUMBER


async def test_silent_line_is_heard_but_says_nothing(
    line: Line, client: Client, meter: VirtualMeter
) -> None:
    line.silent = True
    assert await client.ask("06 6048 0002") == b""
    assert meter.tariff == 2
    line.silent = False
    assert await client.ask(READ_SERIAL_NUMBER) == SERIAL_NUMBER


async def test_garbled_answers_fail_their_check(line: Line, client: Client) -> None:
    line.garble = 1.0
    for _ in range(50):
        client.send(frame(1, READ_SERIAL_NUMBER))
        answer = await client.receive()
        assert answer
        assert answer != frame(1, SERIAL_NUMBER)
    line.garble = 0.0
    assert await client.ask(READ_SERIAL_NUMBER) == SERIAL_NUMBER


async def test_only_the_next_answers_are_garbled(line: Line, client: Client) -> None:
    line.garble_next = 1
    client.send(frame(1, READ_SERIAL_NUMBER))
    assert await client.receive() != frame(1, SERIAL_NUMBER)
    assert await client.ask(READ_SERIAL_NUMBER) == SERIAL_NUMBER


async def test_noise_comes_first(line: Line, client: Client) -> None:
    line.noise = b"\xff\x00"
    client.send(frame(1, READ_SERIAL_NUMBER))
    assert await client.receive() == b"\xff\x00" + frame(1, SERIAL_NUMBER)


async def test_late_answers_still_come_in_order(line: Line, client: Client) -> None:
    line.delay_answer = 7
    client.send(frame(1, READ_SERIAL_NUMBER))
    assert await client.receive() == b""
    client.send(frame(1, bytes.fromhex("03 4003 0001")))
    assert await client.receive() == frame(1, SERIAL_NUMBER)
    assert await client.receive(10) == frame(1, bytes.fromhex("03 02 0001"))


async def test_requests_are_kept_as_they_came(line: Line, client: Client) -> None:
    await client.ask(READ_SERIAL_NUMBER)
    client.send(b"nonsense")
    await client.receive()
    assert list(line.requests) == [frame(1, READ_SERIAL_NUMBER), b"nonsense"]


async def test_meters_do_not_hear_while_they_talk(line: Line, client: Client) -> None:
    client.send(frame(1, bytes.fromhex("03 6000 004B")))
    await asyncio.sleep(0.1)  # The answer takes 0.18 s.
    client.send(frame(1, READ_SERIAL_NUMBER))
    assert len(await client.receive()) == 155
    assert await client.receive() == b""


async def test_what_is_done_before_hearing_and_before_answering(
    line: Line, client: Client, meter: VirtualMeter
) -> None:
    tariffs = []
    line.before_hearing = line.before_answering = lambda _frame: tariffs.append(meter.tariff)
    await client.ask("06 6048 0002")
    assert tariffs == [1, 2]


async def test_a_meter_without_power_neither_answers_nor_obeys(
    client: Client, meter: VirtualMeter
) -> None:
    meter.power_down()
    assert await client.ask(bytes.fromhex("06 6048 0002")) == b""
    meter.power_up()
    assert meter.tariff == 1
    assert await client.ask(READ_SERIAL_NUMBER) == SERIAL_NUMBER


@pytest.mark.parametrize("parity", Parity)
async def test_a_collision_is_heard_as_one_talker_while_they_say_the_same(parity: Parity) -> None:
    meter = VirtualMeter(parity=parity)
    async with serve(meter, virtual=PORT) as line:
        assert line.collide([]) == b""
        assert line.collide([SERIAL_NUMBER]) == SERIAL_NUMBER
        together = {line.collide([SERIAL_NUMBER, SERIAL_NUMBER]) for _ in range(100)}
    assert SERIAL_NUMBER in together
    assert len(together) > 5
