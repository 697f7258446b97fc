"""Conversations on an M-Bus line that is not always kind."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from custom_components.klefr.meter import (
    BaudRate,
    GarbledAnswerError,
    LinkError,
    MBusBus,
    NoAnswerError,
    NotAcknowledgedError,
    NotAKlefrMeterError,
    SerialLink,
    WrongMeterError,
)
from custom_components.klefr.meter.mbus.bus import Command, SecondaryAddress
from custom_components.klefr.meter.mbus.record import Telegram
from simulator.line import Line
from simulator.mbus import serve
from simulator.meter import Parity, VirtualMeter
from simulator.virtual import VirtualLine
from tests.simulator.client import connect

from .conftest import PORT, answer_late

OWN = SecondaryAddress(identification="22091039", manufacturer=0x25CD)
OTHERS = SecondaryAddress(identification="22091040", manufacturer=0x25CD)

TARIFF_2 = Command(data=bytes.fromhex("097C015402"))

SND_NKE = "1040004016"
SELECTED_SND_NKE = "1040fd3d16"
REQUEST = "105b005b16"
COUNTED_REQUEST = "107b007b16"
SELECTED_REQUEST = "107bfd7816"


@pytest.fixture
def virtual_meter() -> VirtualMeter:
    """A meter whose clock stands still."""
    return VirtualMeter(model="6933", serial_number="22091039", clock=lambda: 0.0)


@pytest.fixture
def other_meter() -> VirtualMeter:
    return VirtualMeter(model="6943", serial_number="22091040", clock=lambda: 0.0)


@pytest.fixture
async def line(virtual_meter: VirtualMeter, other_meter: VirtualMeter) -> AsyncIterator[Line]:
    other_meter.address = 1
    async with serve(virtual_meter, other_meter, virtual=PORT) as line:
        yield line


@pytest.fixture
async def bus(line: Line) -> AsyncIterator[MBusBus]:
    async with MBusBus(SerialLink(port=line.port)) as bus:
        yield bus


def nothing_wrong(_telegrams: list[Telegram]) -> None:
    """Let everything be written."""


def sent(line: Line) -> list[str]:
    """What was put on the line since the last look."""
    frames = [frame.hex() for frame in line.requests]
    line.requests.clear()
    return frames


async def identification(bus: MBusBus, target: int | SecondaryAddress) -> str:
    return (await bus.read(target))[0].header.identification


async def test_a_meter_is_reset_once_and_asked_with_alternating_bits(
    bus: MBusBus, line: Line
) -> None:
    for _ in range(3):
        assert await identification(bus, 0) == "22091039"
    assert sent(line) == [SND_NKE, COUNTED_REQUEST, REQUEST, COUNTED_REQUEST]


async def test_every_meter_has_a_bit_of_its_own(bus: MBusBus, line: Line) -> None:
    assert await identification(bus, 0) == "22091039"
    assert await identification(bus, 1) == "22091040"
    sent(line)
    assert await identification(bus, 0) == "22091039"
    assert await identification(bus, 1) == "22091040"
    assert sent(line) == [REQUEST, "105b015c16"]


async def test_a_meter_that_is_selected_already_is_not_selected_again(
    bus: MBusBus, line: Line
) -> None:
    for _ in range(3):
        assert await identification(bus, OWN) == "22091039"
    first, second, *rest = sent(line)
    assert first == SELECTED_SND_NKE
    assert second.startswith("680b0b6853fd5239100922cd25ffff")
    assert rest == [SELECTED_REQUEST, "105bfd5816", SELECTED_REQUEST]


async def test_a_selection_deselects_the_meter_before(bus: MBusBus, line: Line) -> None:
    """So each readout takes two exchanges, and two meters never answer together."""
    await bus.read(OWN)
    sent(line)
    bus.tally.clear()
    for _ in range(3):
        assert await identification(bus, OTHERS) == "22091040"
        assert await identification(bus, OWN) == "22091039"
    frames = sent(line)
    assert [frame[:10] for frame in frames[::2]] == ["680b0b6853"] * 6
    assert frames[1::2] == [SELECTED_REQUEST] * 6
    assert bus.tally == {"requests": 12}


async def test_a_meter_that_missed_the_next_ones_selection_is_deselected(
    bus: MBusBus, line: Line, virtual_meter: VirtualMeter
) -> None:
    await bus.read(OWN)
    sent(line)

    def be_deaf(frame: bytes) -> None:
        virtual_meter.powered = not frame.startswith(b"\x68")

    line.before_hearing = be_deaf
    assert await identification(bus, OTHERS) == "22091040"
    frames = [frame[:10] for frame in sent(line)]
    assert frames == [
        "680b0b6853",
        SELECTED_REQUEST,
        SELECTED_SND_NKE,
        "680b0b6853",
        SELECTED_REQUEST,
    ]


async def test_a_meter_that_lost_its_power_while_it_was_selected_is_selected_again(
    bus: MBusBus, line: Line, virtual_meter: VirtualMeter
) -> None:
    await bus.read(OWN)
    virtual_meter.power_cycle()
    sent(line)
    assert await identification(bus, OWN) == "22091039"
    frames = [frame[:10] for frame in sent(line)]
    # None is selected that could be deselected.
    assert frames == ["105bfd5816", SELECTED_SND_NKE, "680b0b6853", SELECTED_REQUEST]


async def test_a_search_and_a_change_select_afresh(bus: MBusBus, line: Line) -> None:
    await bus.read(OWN)
    sent(line)
    await bus.find(OWN)
    await bus.write(OWN, TARIFF_2, nothing_wrong)
    await bus.read(OWN)
    frames = [frame[:10] for frame in sent(line)]
    found, changed = frames[:4], frames[4:8]
    assert found == [SELECTED_SND_NKE, "680b0b6853", SELECTED_REQUEST, SELECTED_SND_NKE]
    assert changed == ["680b0b6853", SELECTED_REQUEST, "6808086853", SELECTED_SND_NKE]
    assert frames[8:] == ["680b0b6853", SELECTED_REQUEST]


async def test_a_meter_is_deselected_when_the_port_is_closed(line: Line) -> None:
    async with MBusBus(SerialLink(port=line.port)) as bus:
        await bus.read(OWN)
        sent(line)
    assert sent(line) == [SELECTED_SND_NKE]


async def test_a_meter_that_somebody_left_selected_does_not_disturb(
    bus: MBusBus, line: Line
) -> None:
    async with connect(line.port) as somebody:
        somebody.send(bytes.fromhex("680b0b6853fd5239100922cd25ffff0616"))
        assert await somebody.receive() == b"\xe5"
    assert await identification(bus, OTHERS) == "22091040"
    assert await identification(bus, 0) == "22091039"


async def test_nobody_at_an_address_is_said_so(bus: MBusBus, line: Line) -> None:
    with pytest.raises(NoAnswerError):
        await bus.read(7)
    assert sent(line) == ["1040074716"] * 3
    with pytest.raises(NoAnswerError):
        await bus.read(SecondaryAddress(identification="12345678", manufacturer=0x25CD))


async def test_an_echo_of_the_request_is_no_answer() -> None:
    class Echo:
        async def hear(self, frame: bytes, line: Line) -> bytes:
            return frame

    async with (
        VirtualLine(Echo(), port=PORT, baud_rate=9600, parity=Parity.EVEN) as echo,
        MBusBus(SerialLink(port=echo.port)) as lonely,
    ):
        with pytest.raises(NoAnswerError):
            await lonely.read(0)


@pytest.mark.parametrize(
    "noise",
    [
        b"\x00",
        b"\x68",
        b"\x10\x40",
        b"\xff\xff\xff",
        bytes.fromhex(SND_NKE),
        bytes.fromhex(REQUEST),
        bytes.fromhex("680303680800720a"),
        bytes.fromhex("68 4B 4B 68 08 00 72 39 10"),
    ],
    ids=lambda noise: noise.hex()[:16],
)
async def test_noise_before_an_answer_does_not_matter(
    bus: MBusBus, line: Line, noise: bytes
) -> None:
    await identification(bus, 0)
    line.noise = noise
    assert await identification(bus, 0) == "22091039"


async def test_a_damaged_answer_is_asked_for_again_with_the_same_bit(
    bus: MBusBus, line: Line, virtual_meter: VirtualMeter
) -> None:
    before = (await bus.read(0))[0].header.access_number
    sent(line)
    line.garble_next = 2
    telegrams = await bus.read(0)
    assert sent(line) == [REQUEST] * 3
    # It is the same telegram, not the next one.
    assert telegrams[0].header.access_number == before + 1
    await bus.read(0)
    assert sent(line) == [COUNTED_REQUEST]


async def test_nothing_but_damaged_answers_is_an_error(bus: MBusBus, line: Line) -> None:
    await bus.read(0)
    line.garble = 1.0
    with pytest.raises(GarbledAnswerError):
        await bus.read(0)
    line.garble = 0.0
    sent(line)
    # What the meter has seen of that is not known.
    await bus.read(0)
    assert sent(line) == [SND_NKE, COUNTED_REQUEST]


async def test_a_readout_of_several_telegrams_is_read_to_its_end(
    bus: MBusBus, line: Line, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.records_per_telegram = 4
    for target in (0, OWN):
        telegrams = await bus.read(target)
        assert [len(telegram.records) for telegram in telegrams] == [4, 4, 1]
        assert [telegram.more_records_follow for telegram in telegrams] == [True, True, False]


async def test_a_readout_without_end_is_an_error() -> None:
    class Endless:
        async def hear(self, frame: bytes, line: Line) -> bytes:
            if frame[1] == 0x40:
                return b"\xe5"
            return long_frame("08 00 72 39100922 CD25 01 02 00 00 0000 1F")

    async with (
        VirtualLine(Endless(), port=PORT, baud_rate=9600, parity=Parity.EVEN) as endless,
        MBusBus(SerialLink(port=endless.port)) as bus,
    ):
        with pytest.raises(GarbledAnswerError):
            await bus.read(0)


async def test_an_answer_without_records_is_no_meters() -> None:
    class Stranger:
        async def hear(self, frame: bytes, line: Line) -> bytes:
            return b"\xe5" if frame[1] == 0x40 else long_frame("08 00 70 08")

    async with (
        VirtualLine(Stranger(), port=PORT, baud_rate=9600, parity=Parity.EVEN) as strange,
        MBusBus(SerialLink(port=strange.port)) as bus,
    ):
        with pytest.raises(NotAKlefrMeterError):
            await bus.read(0)


def long_frame(content: str) -> bytes:
    data = bytes.fromhex(content)
    return bytes((0x68, len(data), len(data), 0x68, *data, sum(data) & 0xFF, 0x16))


@pytest.mark.parametrize("target", [0, OWN], ids=["primary", "secondary"])
async def test_data_is_sent_after_a_look_at_who_answers(
    bus: MBusBus, line: Line, virtual_meter: VirtualMeter, target: int | SecondaryAddress
) -> None:
    seen: list[Telegram] = []
    await bus.write(target, TARIFF_2, seen.extend)
    assert virtual_meter.tariff == 2
    assert [telegram.header.identification for telegram in seen] == ["22091039"]
    [data] = [frame for frame in sent(line) if TARIFF_2.data.hex() in frame]
    address = "00" if target == 0 else "fd"
    assert data.startswith(f"6808086853{address}51097c0154")


@pytest.mark.parametrize("target", [0, OWN], ids=["primary", "secondary"])
async def test_nothing_is_sent_to_whom_the_look_does_not_please(
    bus: MBusBus, line: Line, virtual_meter: VirtualMeter, target: int | SecondaryAddress
) -> None:
    def refuse(_telegrams: list[Telegram]) -> None:
        raise WrongMeterError(expected="22091041", found="22091039")

    with pytest.raises(WrongMeterError):
        await bus.write(target, TARIFF_2, refuse)
    assert virtual_meter.tariff == 1
    assert not [frame for frame in sent(line) if TARIFF_2.data.hex() in frame]
    assert await identification(bus, OTHERS) == "22091040"


async def test_a_lost_acknowledgement_is_asked_for_again_with_the_same_bit(
    bus: MBusBus, line: Line, virtual_meter: VirtualMeter
) -> None:
    await bus.read(0)
    sent(line)

    def spoil(_telegrams: list[Telegram]) -> None:
        line.garble_next = 2

    await bus.write(0, TARIFF_2, spoil)
    request, *data = sent(line)
    assert request == REQUEST
    assert len(data) == 3
    assert len(set(data)) == 1
    assert virtual_meter.tariff == 2


async def test_what_is_not_acknowledged_is_an_error(
    bus: MBusBus, line: Line, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.refuse_writes = True
    with pytest.raises(NotAcknowledgedError):
        await bus.write(0, TARIFF_2, nothing_wrong)
    assert virtual_meter.tariff == 1
    assert await identification(bus, 0) == "22091039"


async def test_a_late_acknowledgement_is_not_taken_for_that_of_the_next_command(
    bus: MBusBus, line: Line, virtual_meter: VirtualMeter
) -> None:
    def delay(_telegrams: list[Telegram]) -> None:
        answer_late(line, 2.4, 0.1, 0.1)

    with pytest.raises(NotAcknowledgedError):
        await bus.write(0, TARIFF_2, delay)
    # The acknowledgements of the first command are on their way.
    virtual_meter.refuse_writes = True
    with pytest.raises(NotAcknowledgedError):
        await bus.write(1, Command(data=bytes.fromhex("097C015403")), nothing_wrong)


async def test_a_late_answer_is_not_taken_for_another_meters(bus: MBusBus, line: Line) -> None:
    await bus.read(0)
    await bus.read(1)
    answer_late(line, 0.6)
    read = asyncio.create_task(bus.read(0))
    await asyncio.sleep(0.3)
    read.cancel()
    assert await identification(bus, 1) == "22091040"
    assert await identification(bus, OWN) == "22091039"
    assert await identification(bus, OTHERS) == "22091040"


async def test_conversations_take_turns(bus: MBusBus) -> None:
    targets: list[int | SecondaryAddress] = [0, OWN, OTHERS, 1] * 5
    found = await asyncio.gather(*(identification(bus, target) for target in targets))
    assert found == ["22091039", "22091039", "22091040", "22091040"] * 5


@pytest.mark.parametrize("pause", [step / 40 for step in range(20)])
async def test_a_cancelled_conversation_leaves_no_meter_selected(
    bus: MBusBus, pause: float
) -> None:
    read = asyncio.create_task(bus.read(OWN))
    await asyncio.sleep(pause)
    read.cancel()
    await asyncio.wait({read})
    assert await identification(bus, OTHERS) == "22091040"


@pytest.mark.parametrize("baud_rate", BaudRate)
async def test_every_baud_rate_is_waited_for(
    virtual_meter: VirtualMeter, baud_rate: BaudRate
) -> None:
    async with (
        serve(virtual_meter, baud_rate=baud_rate, virtual=PORT) as line,
        MBusBus(SerialLink(port=line.port, baud_rate=baud_rate)) as bus,
    ):
        assert await identification(bus, 0) == "22091039"
        assert len(line.requests) == 2


async def test_another_baud_rate_is_silence(line: Line) -> None:
    async with MBusBus(SerialLink(port=line.port, baud_rate=BaudRate.B2400)) as bus:
        with pytest.raises(NoAnswerError):
            await bus.read(0)


@pytest.mark.parametrize("target", [0, OWN], ids=["primary", "secondary"])
async def test_an_unplugged_converter_is_an_error_and_found_again(
    virtual_meter: VirtualMeter, target: int | SecondaryAddress
) -> None:
    async with (
        serve(virtual_meter, virtual=PORT) as line,
        MBusBus(SerialLink(port=line.port)) as bus,
    ):
        await bus.read(target)
        await line.unplug()
        for _ in range(2):
            with pytest.raises(LinkError):
                await bus.read(target)
        await line.plug()
        assert await identification(bus, target) == "22091039"


async def test_unplugging_while_waiting_is_an_error(bus: MBusBus, line: Line) -> None:
    line.delay_answer = 1
    read = asyncio.create_task(bus.read(0))
    await asyncio.sleep(0.1)
    await line.unplug()
    with pytest.raises(LinkError):
        await read
