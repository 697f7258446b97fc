"""What is counted of the requests to a meter, and which frames are kept."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from custom_components.klefr.meter import (
    BUSES,
    Bus,
    CommunicationError,
    Exchange,
    Health,
    LinkError,
    Meter,
    ModbusMeter,
    Outcome,
    Protocol,
    Quantity,
    RefusedError,
    SerialLink,
    Summary,
    identify,
)
from custom_components.klefr.meter.health import EXCHANGES_KEPT, HOUR, PERIOD
from simulator import mbus, modbus
from simulator.line import Line
from simulator.meter import VirtualMeter

from .conftest import GATEWAY, PORT, answer_late

SERIAL_NUMBER = "22091039"
OTHER = "22091040"

PLACES: dict[str, tuple[Protocol, int | str, Callable[..., Any]]] = {
    "modbus": (Protocol.MODBUS, 1, lambda *meters: modbus.serve(*meters, virtual=PORT)),
    "gateway": (Protocol.MODBUS, 1, lambda *meters: modbus.serve(*meters, virtual=GATEWAY)),
    "modbus_tcp": (
        Protocol.MODBUS_TCP,
        1,
        lambda *meters: modbus.serve(*meters, virtual=GATEWAY, framing=modbus.Framing.SOCKET),
    ),
    "mbus": (Protocol.MBUS, 1, lambda *meters: mbus.serve(*meters, virtual=PORT)),
    "mbus_secondary": (
        Protocol.MBUS,
        SERIAL_NUMBER,
        lambda *meters: mbus.serve(*meters, virtual=PORT),
    ),
}
"""The protocol, the address, and what serves the meters, by name."""


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> str:
    place: str = request.param
    return place


@pytest.fixture
async def line(place: str) -> AsyncIterator[Line]:
    """A line with the meter, and another one."""
    protocol, _, serve = PLACES[place]
    model = "6933" if protocol is Protocol.MBUS else "6934"
    meters = (
        VirtualMeter(model=model, serial_number=number, address=address, clock=lambda: 0.0)
        for number, address in ((SERIAL_NUMBER, 1), (OTHER, 2))
    )
    serving: AbstractAsyncContextManager[Line] = serve(*meters)
    async with serving as line:
        yield line


@pytest.fixture
async def bus(place: str, line: Line) -> AsyncIterator[Bus]:
    port = line.port if line.port.startswith(("virtual", "socket")) else f"socket://{line.port}"
    async with BUSES[PLACES[place][0]](SerialLink(port=port)) as bus:
        yield bus


@pytest.fixture
async def health(bus: Bus, place: str) -> Health:
    health = Health(since=now())
    bus.watch(PLACES[place][1], health)
    return health


@pytest.fixture
async def meter(bus: Bus, health: Health, place: str) -> Meter:
    return await identify(bus, PLACES[place][1])


def now() -> float:
    return asyncio.get_running_loop().time()


async def read(meter: Meter) -> None:
    await meter.read({Quantity.FORWARD_ACTIVE_ENERGY})


def counts(health: Health) -> dict[Outcome, int]:
    return dict(health.last_hour(now()).failures)


async def test_good_requests_are_counted_and_no_frames_kept(
    meter: Meter, health: Health, line: Line
) -> None:
    summary = health.last_hour(now())
    deselections = sum(frame.startswith(b"\x10\x40\xfd") for frame in line.requests)
    assert summary.requests == len(line.requests) - deselections > 0
    assert summary.failures == {}
    assert summary.share == 0.0
    assert health.exchanges == ()


async def test_the_response_time_is_what_the_meter_takes(
    meter: Meter, health: Health, line: Line
) -> None:
    before = health.last_hour(now()).response_time
    assert before is not None
    assert before < 0.1
    await asyncio.sleep(HOUR)
    line.delay_answer = 0.08
    await read(meter)
    after = health.last_hour(now()).response_time
    assert after == pytest.approx(before + 0.08, abs=0.04)


async def test_silence_is_counted(meter: Meter, health: Health, line: Line) -> None:
    line.silent = True
    with pytest.raises(CommunicationError):
        await read(meter)
    assert counts(health).keys() == {Outcome.NO_ANSWER}
    assert health.exchanges[-1].outcome is Outcome.NO_ANSWER
    assert health.exchanges[-1].sent in line.requests
    assert health.exchanges[-1].received == b""


async def test_garbage_is_counted(meter: Meter, health: Health, line: Line, place: str) -> None:
    async def damage(_: bytes, answer: bytes) -> list[tuple[float, bytes]]:
        # Over Modbus TCP no checksum would notice a wrong byte.
        end = b"" if place == "modbus_tcp" else bytes((answer[-1] ^ 0x10,))
        return [(0.0, answer[:-1] + end)]

    line.change_answer = damage
    with pytest.raises(CommunicationError):
        await read(meter)
    assert counts(health).keys() == {Outcome.GARBLED}
    assert health.exchanges[-1].received


async def test_a_lost_link_is_counted(meter: Meter, health: Health, line: Line) -> None:
    pulling: list[asyncio.Task[None]] = []

    def pull(_: bytes) -> None:
        pulling.append(asyncio.create_task(line.unplug()))

    line.before_hearing = pull
    with pytest.raises(LinkError):
        await read(meter)
    await asyncio.gather(*pulling)
    assert counts(health) == {Outcome.LINK_FAILED: 1}
    assert health.exchanges[-1].response_time is None


async def test_an_answer_after_the_deadline_is_late(
    meter: Meter, health: Health, line: Line
) -> None:
    line.delay_answer = 6.0
    with pytest.raises(CommunicationError):
        await read(meter)
    line.delay_answer = 0.0
    await asyncio.sleep(30)
    found = counts(health)
    assert found[Outcome.LATE] >= 1
    assert found.get(Outcome.NO_ANSWER, 0) <= 1
    late = [each for each in health.exchanges if each.outcome is Outcome.LATE]
    assert all(each.received_late for each in late)


async def test_a_repetition_that_is_answered_twice_was_late(
    meter: Meter, health: Health, line: Line
) -> None:
    answer_late(line, 1.2)
    await read(meter)
    line.before_hearing = None
    await asyncio.sleep(10)
    await read(meter)
    assert counts(health) == {Outcome.LATE: 1}


async def test_a_repetition_that_is_answered_once_was_lost(
    meter: Meter, health: Health, line: Line
) -> None:
    line.silent = True

    def hear(_: bytes) -> None:
        line.silent = len(line.requests) == lost

    lost = len(line.requests) + 1
    line.before_hearing = hear
    await read(meter)
    for _ in range(3):
        await read(meter)
    assert counts(health) == {Outcome.NO_ANSWER: 1}


async def test_other_addresses_are_not_counted(bus: Bus, health: Health, place: str) -> None:
    await identify(bus, OTHER if place == "mbus_secondary" else 2)
    assert health.last_hour(now()).requests == 0


async def test_nothing_is_counted_any_more_after_the_end(bus: Bus, place: str) -> None:
    first, second = Health(since=now()), Health(since=now())
    end = bus.watch(PLACES[place][1], first)
    bus.watch(PLACES[place][1], second)
    end()
    await identify(bus, PLACES[place][1])
    assert first.last_hour(now()).requests == 0
    assert second.last_hour(now()).requests > 0


@pytest.mark.parametrize("place", ["modbus", "modbus_tcp"])
async def test_a_refusal_is_counted(meter: ModbusMeter, health: Health) -> None:
    with pytest.raises(RefusedError):
        await meter._bus.write_register(1, 0x0001, 1)
    assert counts(health) == {Outcome.REFUSED: 1}


@pytest.mark.parametrize("place", ["modbus_tcp"])
async def test_a_gateway_that_reports_no_answer_is_no_refusal(
    bus: Bus, health: Health, line: Line
) -> None:
    async def report(frame: bytes, _: bytes) -> list[tuple[float, bytes]]:
        return [(0.0, frame[:4] + b"\x00\x03" + frame[6:7] + b"\x83\x0b")]

    line.change_answer = report
    with pytest.raises(CommunicationError):
        await identify(bus, 1)
    assert counts(health).keys() == {Outcome.NO_ANSWER}
    assert health.exchanges[-1].received


@pytest.mark.parametrize("place", ["modbus"])
async def test_frames_are_kept_around_failures(meter: Meter, health: Health, line: Line) -> None:
    await read(meter)
    start = len(line.requests)
    line.garble_next = 1
    await read(meter)
    for _ in range(3):
        await read(meter)
    exchanges = health.exchanges
    assert [each.outcome for each in exchanges] == ["answered", "garbled_answer", "answered"]
    assert [each.sent for each in exchanges] == list(line.requests)[start - 1 : start + 2]
    assert exchanges[0].sent_at < exchanges[1].sent_at < exchanges[2].sent_at <= now()
    assert exchanges[2].received != exchanges[1].received != b""


# The counts themselves.


def exchange(sent_at: float, outcome: Outcome = Outcome.ANSWERED) -> Exchange:
    answered = outcome is Outcome.ANSWERED
    return Exchange(sent_at=sent_at, outcome=outcome, response_time=0.05 if answered else None)


def filled(
    *, hours: float, fails: Callable[[int], bool], every: float = 10, start: float = 1000.0
) -> tuple[Health, float]:
    """Return counts of requests of which those with some numbers failed, and when it is now."""
    health = Health(since=start)
    total = int(hours * HOUR / every)
    for number in range(total):
        outcome = Outcome.GARBLED if fails(number) else Outcome.ANSWERED
        health.add(exchange(start + number * every, outcome))
    return health, start + total * every


def test_the_last_hour_ends_now() -> None:
    health = Health(since=0.0)
    health.add(exchange(100.0, Outcome.NO_ANSWER))
    health.add(exchange(3000.0))
    assert health.last_hour(3000.0) == Summary(
        requests=2, failures={Outcome.NO_ANSWER: 1}, response_time=0.05
    )
    assert health.last_hour(3000.0).share == 0.5
    assert health.last_hour(3000.0).prevailing is Outcome.NO_ANSWER
    assert health.last_hour(3601.0) == Summary(requests=1, response_time=0.05)
    assert health.last_hour(10_000.0) == Summary()
    assert health.last_hour(10_000.0).share is None


def test_the_last_day_is_kept_by_hours() -> None:
    health, end = filled(hours=40, fails=lambda number: number % 10 == 0, start=0.0)
    health.add_suspect(end)
    day = health.last_day(end)
    assert day.keys() == set(range(24))
    assert day[0] == Summary(suspect_readings=1)
    assert day[1] == day[23]
    assert day[1].requests == 360
    assert day[1].failures == {Outcome.GARBLED: 36}
    assert day[1].response_time == pytest.approx(0.05)
    # A day of nothing.
    assert health.last_day(end + 30 * HOUR) == {}


def test_suspect_readings_are_counted_since_the_beginning() -> None:
    health = Health(since=0.0)
    assert health.suspect_at is None
    for time in (10.0, 20.0, 200_000.0):
        health.add_suspect(time)
    assert health.suspect_readings == 3
    assert health.suspect_at == 200_000.0
    assert health.last_hour(200_000.0).suspect_readings == 1


def test_memory_is_bounded() -> None:
    health, end = filled(hours=100, fails=lambda number: number % 2 == 0, every=5)
    assert len(health.exchanges) == EXCHANGES_KEPT
    assert len(health._periods._periods) <= HOUR // PERIOD + 1
    assert len(health._hours._periods) <= 25
    assert end > 0


@pytest.mark.parametrize(
    ("hours", "fails", "expected"),
    [
        (2, lambda number: number % 10 == 0, True),
        (2, lambda number: number % 19 == 0, True),
        (2, lambda number: number % 21 == 0, False),
        (2, lambda number: False, False),
        (2, lambda number: True, True),
        # It began less than an hour ago.
        (2, lambda number: number > 500, False),
        # It ended a quarter of an hour ago.
        (2, lambda number: number < 600, False),
        # Ten minutes without a supply.
        (2, lambda number: 500 <= number < 560, False),
        # Not enough is known.
        (0.8, lambda number: number % 10 == 0, None),
        (0.1, lambda number: False, None),
        (0, lambda number: False, None),
        # After a restart, all is well.
        (0.4, lambda number: False, False),
    ],
)
def test_what_fails_lastingly(
    hours: float, fails: Callable[[int], bool], expected: bool | None
) -> None:
    health, end = filled(hours=hours, fails=fails)
    assert health.fails_lastingly(end, 0.05) is expected


def test_the_first_failures_after_a_long_pause_last_no_hour() -> None:
    health, end = filled(hours=2, fails=lambda _: False)
    later = end + 3 * HOUR
    for number in range(5):
        health.add(exchange(later + number, Outcome.NO_ANSWER))
    assert health.fails_lastingly(later + 10, 0.05) is None


def test_two_failures_are_few_however_few_requests_there_are() -> None:
    health, end = filled(hours=3, fails=lambda number: True, every=1700)
    assert health.fails_lastingly(end, 0.05) is not True


def test_an_answer_that_was_late_is_counted_as_such() -> None:
    health = Health(since=0.0)
    lost = exchange(100.0, Outcome.NO_ANSWER)
    health.add(exchange(50.0))
    health.add(lost)
    health.answered_late(lost, b"\x01")
    assert health.last_hour(200.0).failures == {Outcome.LATE: 1}
    assert health.last_day(200.0)[0].failures == {Outcome.LATE: 1}
    assert [each.outcome for each in health.exchanges] == [Outcome.ANSWERED, Outcome.LATE]
    assert health.exchanges[-1].received_late == b"\x01"
