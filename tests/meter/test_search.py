"""Looking for meters where it is not known what there is."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from importlib import import_module
from itertools import pairwise

import pytest

from custom_components.klefr.meter import (
    BaudRate,
    Bus,
    Found,
    LinkError,
    MBusBus,
    MBusMeter,
    ModbusBus,
    ModbusMeter,
    ModbusTcpBus,
    Parity as LineParity,
    Protocol,
    Quantity,
    SerialLink,
    Step,
    identify,
    is_bus_answered,
    search,
    with_all_line_settings,
)
from simulator import mbus, modbus
from simulator.line import Line
from simulator.mbus import MBusFace
from simulator.meter import Parity, VirtualMeter
from simulator.modbus import ModbusFace
from simulator.virtual import VirtualLine
from tests.simulator import mbus_client

from .conftest import GATEWAY, PORT

# `search` is the name of the function, too, where the module is imported from.
MODULE = import_module("custom_components.klefr.meter.search")

ALL_UNITS = range(1, 248)
UNITS = (1, 2, 3, 122, 123, 124, 246, 247)
ALL_PRIMARY_ADDRESSES = range(251)
PRIMARY_ADDRESSES = (0, 1, 2, 125, 250)
ALL_DIGITS = "0123456789"
DIGITS = "012349"

SERIAL_NUMBER_REGISTER = 0x4000
REQUEST_LENGTH = 8  # bytes of one that reads registers
SELECTED_REQUEST = "5B FD"
SELECTED_COUNTED_REQUEST = "7B FD"


@pytest.fixture(autouse=True)
def _few_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try the ends and a few addresses between, for each costs computing time."""
    monkeypatch.setattr(MODULE, "MODBUS_ADDRESSES", UNITS)
    monkeypatch.setattr(MODULE, "PRIMARY_ADDRESSES", PRIMARY_ADDRESSES)
    monkeypatch.setattr(MODULE, "DIGITS", DIGITS)


def modbus_meter(serial_number: str, address: int) -> VirtualMeter:
    return VirtualMeter(
        serial_number=serial_number, address=address, seed=address, clock=lambda: 0.0
    )


def mbus_meter(serial_number: str, address: int = 0) -> VirtualMeter:
    return VirtualMeter(
        model="6933",
        serial_number=serial_number,
        address=address,
        # Meters whose telegrams differ collide with more of a noise.
        seed=int(serial_number) % 1000 + 1,
        clock=lambda: 0.0,
    )


async def steps_on(bus: Bus) -> list[Step]:
    async with bus:
        return [step async for step in search(bus)]


async def modbus_steps(line: Line) -> list[Step]:
    return await steps_on(ModbusBus(SerialLink(port=line.port)))


async def mbus_steps(line: Line) -> list[Step]:
    return await steps_on(MBusBus(SerialLink(port=line.port)))


def found(steps: Sequence[Step]) -> list[tuple[int | str, str]]:
    """Addresses and serial numbers, in the order in which they were found."""
    return [(step.found.address, step.found.identity.serial_number) for step in steps if step.found]


def several(steps: Sequence[Step]) -> list[int | str]:
    """Where more than one meter answered."""
    return [step.address for step in steps if step.several]


def units_asked(line: Line) -> list[int]:
    # The line does not part requests that follow each other too soon.
    heard = b"".join(line.requests)
    return list(heard[::REQUEST_LENGTH])


def groups_asked(line: Line) -> list[str]:
    return [
        request[7:11][::-1].hex().upper()
        for request in line.requests
        if request.startswith(bytes.fromhex("680B0B6853FD52"))
    ]


async def test_modbus_meters_are_found_at_the_ends_and_in_the_middle() -> None:
    meters = [
        modbus_meter("22091039", 1),
        modbus_meter("22091040", 123),
        modbus_meter("22091041", 247),
    ]
    async with modbus.serve(*meters, virtual=PORT) as line:
        steps = await modbus_steps(line)
    assert found(steps) == [(1, "22091039"), (123, "22091040"), (247, "22091041")]
    assert not several(steps)
    assert [step.address for step in steps] == list(UNITS)


async def test_what_is_found_can_be_identified_at_its_address() -> None:
    meters = [modbus_meter("22091039", 2), modbus_meter("22091040", 247)]
    async with (
        modbus.serve(*meters, virtual=PORT) as line,
        ModbusBus(SerialLink(port=line.port)) as bus,
    ):
        finds = [step.found async for step in search(bus) if step.found]
        assert len(finds) == 2
        for find in finds:
            meter = await identify(bus, find.address)
            assert find == Found(address=find.address, identity=meter.identity)


async def test_another_makers_modbus_device_is_not_found() -> None:
    other = modbus_meter("22091039", 2)
    other.overrides[SERIAL_NUMBER_REGISTER] = 0xABCDEF01
    async with modbus.serve(other, modbus_meter("22091040", 3), virtual=PORT) as line:
        steps = await modbus_steps(line)
    assert found(steps) == [(3, "22091040")]
    assert not several(steps)


async def test_two_modbus_meters_at_one_address_are_several() -> None:
    meters = [
        modbus_meter("22091039", 1),
        modbus_meter("22091040", 3),
        modbus_meter("22095555", 3),
        modbus_meter("22091041", 123),
    ]
    async with modbus.serve(*meters, virtual=PORT) as line:
        steps = await modbus_steps(line)
    assert found(steps) == [(1, "22091039"), (123, "22091041")]
    assert several(steps) == [3]


@pytest.mark.parametrize("garbled", [1, 2, 3])
async def test_a_modbus_meter_is_found_behind_garbled_answers(garbled: int) -> None:
    async with modbus.serve(modbus_meter("22091039", 2), virtual=PORT) as line:
        line.garble_next = garbled
        steps = await modbus_steps(line)
    assert found(steps) == [(2, "22091039")]
    assert not several(steps)


async def test_a_modbus_search_takes_turns_with_a_poll() -> None:
    async with (
        modbus.serve(modbus_meter("22091039", 200), virtual=PORT) as line,
        ModbusBus(SerialLink(port=line.port)) as bus,
    ):
        meter = await ModbusMeter.identify(bus, 200)
        line.requests.clear()
        poll = asyncio.create_task(keep_reading(meter))
        steps = [step async for step in search(bus)]
        units = units_asked(line)
        poll.cancel()
    assert len(steps) == len(UNITS)
    assert [unit for unit in units if unit != 200] == list(UNITS)
    # It is the poll's turn before every address that is tried but perhaps the first.
    positions = [units.index(unit) for unit in UNITS]
    assert all(200 in units[a:b] for a, b in pairwise(positions))


async def keep_reading(meter: ModbusMeter | MBusMeter) -> None:
    while True:
        await meter.read([Quantity.TOTAL_ACTIVE_ENERGY])


@pytest.mark.parametrize("stop_at", [1, 3])
async def test_a_search_that_nobody_follows_any_more_leaves_the_bus_usable(stop_at: int) -> None:
    async with (
        modbus.serve(modbus_meter("22091039", 1), virtual=PORT) as line,
        ModbusBus(SerialLink(port=line.port)) as bus,
    ):
        async with aclosing(search(bus)) as steps:
            async for step in steps:
                if step.address == stop_at:
                    break
        line.requests.clear()
        assert (await ModbusMeter.identify(bus, 1)).identity.serial_number == "22091039"
        assert set(units_asked(line)) == {1}


async def until_heard(line: Line, requests: int) -> None:
    heard = asyncio.Event()

    def count(_frame: bytes) -> None:
        if len(line.requests) >= requests:
            heard.set()

    line.before_hearing = count
    await heard.wait()


@pytest.mark.parametrize("requests", range(1, 8))
async def test_a_modbus_search_can_be_cancelled_during_any_request(requests: int) -> None:
    async with (
        modbus.serve(modbus_meter("22091039", 1), virtual=PORT) as line,
        ModbusBus(SerialLink(port=line.port)) as bus,
    ):
        searching = asyncio.create_task(steps_on(bus))
        await until_heard(line, requests)
        searching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await searching
        line.requests.clear()
        assert (await ModbusMeter.identify(bus, 1)).identity.serial_number == "22091039"
        assert set(units_asked(line)) == {1}


@pytest.mark.parametrize("bus_type", [ModbusBus, MBusBus])
async def test_a_search_ends_when_the_port_vanishes(bus_type: type[ModbusBus | MBusBus]) -> None:
    async with (
        modbus.serve(modbus_meter("22091039", 1), virtual=PORT) as line,
        bus_type(SerialLink(port=line.port)) as bus,
    ):
        steps = search(bus)
        for _ in range(2):
            await anext(steps)
        await line.unplug()
        with pytest.raises(LinkError):
            await anext(steps)
        await line.plug()
        async with aclosing(search(bus)) as steps:
            assert (await anext(steps)).address == (1 if bus_type is ModbusBus else 0)


async def test_m_bus_meters_with_addresses_of_their_own_are_found_once_at_those() -> None:
    meters = [mbus_meter("22091039", 1), mbus_meter("31091040", 250)]
    async with mbus.serve(*meters, virtual=PORT) as line:
        steps = await mbus_steps(line)
    assert found(steps) == [(1, "22091039"), (250, "31091040")]
    assert not several(steps)


async def test_m_bus_meters_that_share_the_factorys_address_are_found_by_selection() -> None:
    meters = [mbus_meter("22091039"), mbus_meter("31091040"), mbus_meter("41091041", 2)]
    async with mbus.serve(*meters, virtual=PORT) as line:
        steps = await mbus_steps(line)
    assert found(steps) == [(2, "41091041"), ("22091039", "22091039"), ("31091040", "31091040")]
    assert several(steps) == [0]


async def test_an_m_bus_meter_alone_at_the_factorys_address_is_found_by_selection() -> None:
    async with mbus.serve(mbus_meter("22091039"), virtual=PORT) as line:
        steps = await mbus_steps(line)
    assert found(steps) == [("22091039", "22091039")]
    assert not several(steps)


async def test_what_is_found_by_selection_can_be_identified_so() -> None:
    meters = [mbus_meter("22091039"), mbus_meter("31091040")]
    meters[1].manufacturer_swapped = True
    async with (
        mbus.serve(*meters, virtual=PORT) as line,
        MBusBus(SerialLink(port=line.port)) as bus,
    ):
        finds = [step.found async for step in search(bus) if step.found]
        assert len(finds) == 2
        for find in finds:
            meter = await identify(bus, find.address)
            assert find == Found(address=find.address, identity=meter.identity)


async def test_m_bus_meters_that_differ_in_the_last_digit_only_are_told_apart() -> None:
    meters = [mbus_meter("22091030"), mbus_meter("22091034"), mbus_meter("22091039")]
    async with mbus.serve(*meters, virtual=PORT) as line:
        steps = await mbus_steps(line)
        groups = groups_asked(line)
    assert [number for _, number in found(steps)] == ["22091030", "22091034", "22091039"]
    assert several(steps) == [0]
    for prefix in ("2", "22", "220", "2209", "22091", "220910", "2209103"):
        assert prefix.ljust(8, "F") in groups
    # No other group is opened.
    assert len(set(groups)) == 8 * len(DIGITS)


@pytest.mark.parametrize("first", ["00000001", "99999999"])
async def test_m_bus_identifications_at_the_ends_are_found(first: str) -> None:
    meters = [mbus_meter(first), mbus_meter("44444444")]
    async with mbus.serve(*meters, virtual=PORT) as line:
        steps = await mbus_steps(line)
    assert {number for _, number in found(steps)} == {first, "44444444"}


async def test_a_meter_that_reports_no_serial_number_yet_is_not_found() -> None:
    starting = "00000000"
    async with mbus.serve(mbus_meter(starting), mbus_meter("44444444", 1), virtual=PORT) as line:
        steps = await mbus_steps(line)
    assert found(steps) == [(1, "44444444")]
    async with modbus.serve(
        modbus_meter(starting, 1), modbus_meter("22091040", 2), virtual=PORT
    ) as line:
        steps = await modbus_steps(line)
    assert found(steps) == [(2, "22091040")]


async def test_an_m_bus_meter_whose_manufacturer_is_swapped_is_found() -> None:
    meters = [mbus_meter("22091039"), mbus_meter("31091040", 2)]
    for meter in meters:
        meter.manufacturer_swapped = True
    async with mbus.serve(*meters, virtual=PORT) as line:
        steps = await mbus_steps(line)
    assert found(steps) == [(2, "31091040"), ("22091039", "22091039")]


async def test_m_bus_meters_with_the_same_identification_are_several() -> None:
    meters = [mbus_meter("22091039"), mbus_meter("22091040"), mbus_meter("31091041")]
    meters[0].secondary_address = meters[1].secondary_address = "22091033"
    async with mbus.serve(*meters, virtual=PORT) as line:
        steps = await mbus_steps(line)
    assert found(steps) == [("31091041", "31091041")]
    assert several(steps) == [0, "22091033"]


async def test_an_m_bus_meter_is_found_beside_another_makers_with_its_identification() -> None:
    other = mbus_meter("22091039")
    other.manufacturer_swapped = True
    async with mbus.serve(other, mbus_meter("22091039"), virtual=PORT) as line:
        steps = await mbus_steps(line)
    assert found(steps) == [("22091039", "22091039")]
    assert several(steps) == [0]


class Unselectable:
    """Meters that know no secondary addresses."""

    def __init__(self, *meters: VirtualMeter) -> None:
        self._face = MBusFace(meters)

    async def hear(self, frame: bytes, line: Line) -> bytes:
        return b"" if frame[5:7] == b"\xfd\x52" else await self._face.hear(frame, line)


async def test_a_lone_m_bus_meter_that_cannot_be_selected_is_found_by_the_factorys_address() -> (
    None
):
    meters = Unselectable(mbus_meter("22091039"), mbus_meter("22091040", 2))
    async with VirtualLine(meters, port=PORT, baud_rate=9600, parity=Parity.EVEN) as line:
        steps = await mbus_steps(line)
    assert found(steps) == [(2, "22091040"), (0, "22091039")]
    assert not several(steps)
    assert steps[-1].share == 1


async def test_m_bus_meters_that_share_an_address_and_cannot_be_selected_are_several() -> None:
    meters = Unselectable(mbus_meter("22091039"), mbus_meter("22091040"))
    async with VirtualLine(meters, port=PORT, baud_rate=9600, parity=Parity.EVEN) as line:
        steps = await mbus_steps(line)
    assert not found(steps)
    assert several(steps) == [0]


class Foreign:
    """What is on the bus as well, of another maker."""

    def __init__(self, answer: str) -> None:
        self._answer = mbus_client.frame(answer)

    async def hear(self, frame: bytes, line: Line) -> bytes:
        _, control, address, *_ = frame
        if address != 1:
            return b""
        return mbus_client.ACKNOWLEDGEMENT if control == 0x40 else self._answer


@pytest.mark.parametrize(
    "answer",
    [
        "08 01 72 78563412 2423 01 07 00 00 0000",
        "08 01 72 78563412 CD25 01 07 00 00 0000",
        "08 01 72 785634A2 CD25 01 02 00 00 0000",
        "08 01 73 78563412 00 00 E9 7E 01000000 35010000",
        "08 01 72 78",
    ],
    ids=["maker", "medium", "identification", "fixed structure", "no header"],
)
async def test_another_makers_m_bus_device_is_not_found(
    monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setattr(MODULE, "PRIMARY_ADDRESSES", (1,))
    monkeypatch.setattr(MODULE, "DIGITS", "")
    async with VirtualLine(Foreign(answer), port=PORT, baud_rate=9600, parity=Parity.EVEN) as line:
        steps = await mbus_steps(line)
    assert steps == [Step(address=1, share=0.5)]


@pytest.mark.parametrize("garbled", [1, 2, 4])
@pytest.mark.parametrize("address", [0, 2])
async def test_an_m_bus_meter_is_found_behind_garbled_answers(garbled: int, address: int) -> None:
    # What is garbled first is an acknowledgement, of which nothing at all may arrive.
    async with mbus.serve(mbus_meter("22091039", address), virtual=PORT) as line:
        line.garble_next = garbled
        steps = await mbus_steps(line)
    assert [number for _, number in found(steps)] == ["22091039"]


@pytest.mark.parametrize("spoilt", ["acknowledgement", "answer"])
async def test_one_garbled_answer_is_not_several_m_bus_meters(spoilt: str) -> None:
    class OnceGarbled:
        def __init__(self) -> None:
            self._face = MBusFace([mbus_meter("22091039", 1)])
            self._spoilt = False

        async def hear(self, frame: bytes, line: Line) -> bytes:
            answer = await self._face.hear(frame, line)
            if answer and not self._spoilt and (len(answer) == 1) == (spoilt == "acknowledgement"):
                self._spoilt = True
                return b"\x00" + answer[1:]
            return answer

    async with VirtualLine(OnceGarbled(), port=PORT, baud_rate=9600, parity=Parity.EVEN) as line:
        steps = await mbus_steps(line)
    assert found(steps) == [(1, "22091039")]
    assert not several(steps)


async def test_a_line_of_nothing_but_noise_is_not_searched_for_ever() -> None:
    class Noise:
        async def hear(self, frame: bytes, line: Line) -> bytes:
            return b"\x55\xaa"

    async with VirtualLine(Noise(), port=PORT, baud_rate=9600, parity=Parity.EVEN) as line:
        steps = await mbus_steps(line)
    assert not found(steps)
    several_at = several(steps)
    assert several_at[: len(PRIMARY_ADDRESSES)] == list(PRIMARY_ADDRESSES)
    # No ten meters have the same identification.
    assert len(several_at) == len(PRIMARY_ADDRESSES) + 10
    assert steps[-1].share == 1


async def test_a_silent_modbus_line_is_asked_once_at_every_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(MODULE, "MODBUS_ADDRESSES", ALL_UNITS)
    async with modbus.serve(modbus_meter("22091039", 1), virtual=PORT) as line:
        line.silent = True
        steps = await modbus_steps(line)
        assert units_asked(line) == list(ALL_UNITS)
    assert [step.address for step in steps] == list(ALL_UNITS)
    assert not found(steps)
    assert not several(steps)


async def test_a_silent_m_bus_line_is_asked_once_at_every_address_and_for_every_first_digit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(MODULE, "PRIMARY_ADDRESSES", ALL_PRIMARY_ADDRESSES)
    monkeypatch.setattr(MODULE, "DIGITS", ALL_DIGITS)
    async with mbus.serve(mbus_meter("22091039"), virtual=PORT) as line:
        line.silent = True
        steps = await mbus_steps(line)
        resets = [request[2] for request in line.requests if request[:2] == b"\x10\x40"]
        assert [address for address in resets if address != 253] == list(ALL_PRIMARY_ADDRESSES)
        groups = [f"{digit}FFFFFFF" for digit in ALL_DIGITS]
        assert groups_asked(line) == groups
    assert [step.address for step in steps] == [*ALL_PRIMARY_ADDRESSES, *groups]
    assert not found(steps)
    assert not several(steps)


async def test_nobody_is_selected_after_a_search() -> None:
    meters = [mbus_meter("22091039"), mbus_meter("31091040")]
    async with mbus.serve(*meters, virtual=PORT) as line:
        assert len(found(await mbus_steps(line))) == 2
        await assert_nobody_is_selected(line)


async def assert_nobody_is_selected(line: Line) -> None:
    async with mbus_client.connect(line.port) as client:
        for request in (SELECTED_REQUEST, SELECTED_COUNTED_REQUEST):
            assert await client.meets_silence(request)


@pytest.mark.parametrize("requests", range(1, 10))
async def test_an_m_bus_search_can_be_cancelled_during_any_request(
    monkeypatch: pytest.MonkeyPatch, requests: int
) -> None:
    monkeypatch.setattr(MODULE, "PRIMARY_ADDRESSES", (0,))
    meters = [mbus_meter("02091039"), mbus_meter("02191040")]
    async with mbus.serve(*meters, virtual=PORT) as line:
        async with MBusBus(SerialLink(port=line.port)) as bus:
            searching = asyncio.create_task(steps_on(bus))
            await until_heard(line, requests)
            searching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await searching
            for serial_number in ("02191040", "02091039"):
                meter = await MBusMeter.identify(bus, serial_number)
                assert meter.identity.serial_number == serial_number
        await assert_nobody_is_selected(line)


async def test_an_m_bus_search_takes_turns_with_a_poll() -> None:
    meters = [mbus_meter("22091039", 7), mbus_meter("31091040")]
    async with (
        mbus.serve(*meters, virtual=PORT) as line,
        MBusBus(SerialLink(port=line.port)) as bus,
    ):
        meter = await MBusMeter.identify(bus, 7)
        line.requests.clear()
        poll = asyncio.create_task(keep_reading(meter))
        steps = [step async for step in search(bus)]
        addresses = [request[2] if len(request) == 5 else 253 for request in line.requests]
        poll.cancel()
    assert found(steps) == [("22091039", "22091039"), ("31091040", "31091040")]
    assert not several(steps)
    # The poll is served once between any two primary addresses.
    positions = [addresses.index(address) for address in PRIMARY_ADDRESSES]
    assert all(7 in addresses[a:b] for a, b in pairwise(positions))
    # And between any two groups, each a conversation at the address of whoever is selected.
    assert addresses[positions[-1] :].count(7) >= len(DIGITS)


@pytest.mark.parametrize("serial_numbers", [[], ["22091039"], ["22091039", "24091039"]])
async def test_the_share_grows_to_the_whole(serial_numbers: list[str]) -> None:
    meters = [mbus_meter(number) for number in serial_numbers]
    async with mbus.serve(*meters, mbus_meter("99091041", 1), virtual=PORT) as line:
        shares = [step.share for step in await mbus_steps(line)]
    async with modbus.serve(modbus_meter("22091039", 2), virtual=PORT) as line:
        modbus_shares = [step.share for step in await modbus_steps(line)]
    for each in (shares, modbus_shares):
        assert each[0] > 0
        assert each == sorted(each)
        assert each[-1] == 1


def test_every_address_that_a_meter_can_have_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert list(MODULE.MODBUS_ADDRESSES) == list(ALL_UNITS)
    assert list(MODULE.PRIMARY_ADDRESSES) == list(ALL_PRIMARY_ADDRESSES)
    assert MODULE.DIGITS == ALL_DIGITS


async def test_a_gateway_that_waits_long_for_missing_units_hides_no_meter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = ModbusFace._answers

    async def answers_late(self: ModbusFace, unit: int, pdu: bytes, line: Line) -> list[bytes]:
        found = await answers(self, unit, pdu, line)
        if not found:
            await asyncio.sleep(1.0)
        return found

    monkeypatch.setattr(ModbusFace, "_answers", answers_late)
    monkeypatch.setattr(MODULE, "MODBUS_ADDRESSES", range(1, 7))
    meters = [
        VirtualMeter(serial_number=f"2209100{address}", address=address, clock=lambda: 0.0)
        for address in (1, 5, 6)
    ]
    async with (
        modbus.serve(*meters, virtual=GATEWAY, framing="socket") as line,
        ModbusTcpBus(SerialLink(port=line.port)) as bus,
    ):
        steps = [step async for step in search(bus)]
    assert [step.found.address for step in steps if step.found] == [1, 5, 6]
    assert not [step.address for step in steps if step.several]


# All line settings


@pytest.mark.parametrize("protocol", [Protocol.MODBUS, Protocol.MBUS])
def test_all_line_settings_are_tried_once_the_likely_ones_first(protocol: Protocol) -> None:
    chosen = SerialLink(port=PORT, baud_rate=BaudRate.B1200)
    links = with_all_line_settings(chosen, protocol)
    assert links[0] == chosen
    assert len(links) == len(set(links))
    assert {link.port for link in links} == {PORT}
    settings = [(link.baud_rate, link.parity) for link in links]
    if protocol is Protocol.MBUS:
        assert set(settings) == {(rate, LineParity.EVEN) for rate in BaudRate}
        assert [rate for rate, _ in settings[1:]] == [9600, 2400, 4800, 600, 300]
    else:
        assert set(settings) == {(rate, parity) for rate in BaudRate for parity in LineParity}
        assert settings[1:3] == [(9600, LineParity.EVEN), (9600, LineParity.NONE)]
        assert settings[-1] == (300, LineParity.ODD)


async def answered(bus: Bus) -> bool:
    async with bus:
        return await is_bus_answered(bus)


@pytest.mark.parametrize(("address", "expected"), [(1, True), (10, True), (11, False)])
async def test_a_modbus_line_is_answered_by_a_meter_at_a_likely_address(
    address: int, expected: bool
) -> None:
    async with modbus.serve(modbus_meter("22091039", address), virtual=PORT, baud_rate=1200):
        link = SerialLink(port=PORT, baud_rate=BaudRate.B1200)
        assert await answered(ModbusBus(link)) is expected
        assert not await answered(ModbusBus(SerialLink(port=PORT)))


async def test_a_modbus_line_is_answered_by_whatever_answers() -> None:
    other = modbus_meter("22091039", 4)
    other.overrides[SERIAL_NUMBER_REGISTER] = 0xABCDEF01
    async with modbus.serve(other, virtual=PORT):
        assert await answered(ModbusBus(SerialLink(port=PORT)))
    twins = [modbus_meter("22091039", 4), modbus_meter("22091040", 4)]
    async with modbus.serve(*twins, virtual=PORT):
        assert await answered(ModbusBus(SerialLink(port=PORT)))


@pytest.mark.parametrize("meters", [1, 2, 5])
async def test_an_m_bus_line_is_answered_by_any_number_of_meters(meters: int) -> None:
    served = [mbus_meter(f"2209100{number}", 20 + number) for number in range(meters)]
    async with mbus.serve(*served, virtual=PORT, baud_rate=2400) as line:
        link = SerialLink(port=PORT, baud_rate=BaudRate.B2400)
        assert not await answered(MBusBus(SerialLink(port=PORT)))
        line.requests.clear()
        async with MBusBus(link) as bus:
            assert await is_bus_answered(bus)
            assert len(line.requests) == 1
            for meter in served:
                found = await identify(bus, meter.address)
                assert found.identity.serial_number == meter.serial_number


async def test_an_m_bus_line_is_answered_by_meters_that_take_a_selection_only() -> None:
    class NoBroadcast:
        def __init__(self) -> None:
            self._face = MBusFace([mbus_meter("22091039"), mbus_meter("31091040", 3)])

        async def hear(self, frame: bytes, line: Line) -> bytes:
            return b"" if frame[2] == 254 else await self._face.hear(frame, line)

    async with VirtualLine(NoBroadcast(), port=PORT, baud_rate=9600, parity=Parity.EVEN) as line:
        assert await answered(MBusBus(SerialLink(port=PORT)))
        await assert_nobody_is_selected(line)
        line.silent = True
        assert not await answered(MBusBus(SerialLink(port=PORT)))


@pytest.mark.parametrize("bus_type", [ModbusBus, MBusBus])
async def test_whether_a_line_that_is_gone_is_answered_is_not_known(
    bus_type: type[ModbusBus | MBusBus],
) -> None:
    with pytest.raises(LinkError):
        await answered(bus_type(SerialLink(port=PORT)))
