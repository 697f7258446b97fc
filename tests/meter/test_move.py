"""Changing how a meter communicates, whatever happens meanwhile."""

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache

import pytest

from custom_components.klefr.meter import (
    AddressTakenError,
    BaudRate,
    Bus,
    Communication,
    MBusBus,
    MeterAccess,
    MeterLostError,
    ModbusBus,
    NotMovedError,
    Parity,
    RefusedError,
    SerialLink,
    check_free,
    find,
    move,
    possible_communications,
)
from simulator import mbus, modbus
from simulator.line import Line
from simulator.meter import VirtualMeter

from .conftest import PORT

SERIAL_NUMBER = "22091039"
OTHER = "22091040"

MODBUS = Communication(address=1, baud_rate=BaudRate.B9600, parity=Parity.EVEN)
MBUS = replace(MODBUS, address=0, secondary_address=SERIAL_NUMBER)

MODBUS_CHANGES = [
    replace(MODBUS, address=7),
    replace(MODBUS, baud_rate=BaudRate.B1200),
    replace(MODBUS, parity=Parity.NONE),
    Communication(address=247, baud_rate=BaudRate.B4800, parity=Parity.ODD),
]
MBUS_CHANGES = [
    replace(MBUS, address=250),
    replace(MBUS, secondary_address="12345678"),
    replace(MBUS, baud_rate=BaudRate.B2400),
    replace(MBUS, address=5, secondary_address="00000001", baud_rate=BaudRate.B4800),
]


@pytest.fixture(params=["modbus", "mbus by primary", "mbus by secondary"])
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
def virtual_meter(kind: str) -> VirtualMeter:
    model = "6934" if kind == "modbus" else "6933"
    return VirtualMeter(serial_number=SERIAL_NUMBER, model=model, clock=lambda: 0.0)


@pytest.fixture
def other_meter(virtual_meter: VirtualMeter) -> VirtualMeter:
    """Another meter on the line."""
    return VirtualMeter(
        serial_number=OTHER, model=virtual_meter.model, address=9, clock=lambda: 0.0
    )


@pytest.fixture
async def line(virtual_meter: VirtualMeter, other_meter: VirtualMeter) -> AsyncIterator[Line]:
    serve = mbus.serve if virtual_meter.model.speaks_mbus else modbus.serve
    async with serve(virtual_meter, other_meter, virtual=PORT) as line:
        yield line


@pytest.fixture
def way(kind: str, line: Line) -> MeterAccess:
    @cache
    def open_bus(baud_rate: BaudRate, parity: Parity) -> Bus:
        bus = ModbusBus if kind == "modbus" else MBusBus
        return bus(SerialLink(port=line.port, baud_rate=baud_rate, parity=parity))

    return MeterAccess(
        open_bus=open_bus,
        serial_number=SERIAL_NUMBER,
        by_secondary_address=kind == "mbus by secondary",
    )


@pytest.fixture
def now(kind: str) -> Communication:
    return MODBUS if kind == "modbus" else MBUS


def changed(kind: str, **values: object) -> Communication:
    return replace(MODBUS if kind == "modbus" else MBUS, **values)  # type: ignore[arg-type]


def place_of(virtual_meter: VirtualMeter) -> Communication:
    """Where the meter really is."""
    mbus = virtual_meter.model.speaks_mbus
    return Communication(
        address=virtual_meter.address,
        secondary_address=virtual_meter.secondary_address if mbus else None,
        baud_rate=BaudRate(virtual_meter.baud_rate),
        parity={"E": Parity.EVEN, "N": Parity.NONE, "O": Parity.ODD}[virtual_meter.parity],
    )


def writes(line: Line) -> list[bytes]:
    """What was sent to set something."""
    return [
        frame
        for frame in line.requests
        if (frame[0] == 0x68 and frame[6] != 0x52) or (frame[0] != 0x68 and frame[1] in (6, 16))
    ]


@pytest.mark.parametrize("change", range(4))
async def test_a_meter_takes_every_change(
    way: MeterAccess, now: Communication, virtual_meter: VirtualMeter, kind: str, change: int
) -> None:
    wanted = (MODBUS_CHANGES if kind == "modbus" else MBUS_CHANGES)[change]
    await check_free(way, now, wanted)
    await move(way, now, wanted)
    assert place_of(virtual_meter) == wanted
    assert await find(way, [wanted]) == wanted


async def test_nothing_is_sent_to_all_meters(
    way: MeterAccess, now: Communication, line: Line, kind: str
) -> None:
    wanted = (MODBUS_CHANGES if kind == "modbus" else MBUS_CHANGES)[-1]
    await check_free(way, now, wanted)
    await move(way, now, wanted)
    assert len(writes(line)) == 3
    broadcast = {0} if kind == "modbus" else {254, 255}
    position = 0 if kind == "modbus" else 5
    assert not broadcast & {frame[position] for frame in writes(line)}


@pytest.mark.parametrize("baud_rate", [BaudRate.B9600, BaudRate.B1200])
async def test_an_address_that_somebody_has_is_refused(
    way: MeterAccess,
    now: Communication,
    line: Line,
    virtual_meter: VirtualMeter,
    other_meter: VirtualMeter,
    kind: str,
    baud_rate: BaudRate,
) -> None:
    other_meter.baud_rate = baud_rate
    with pytest.raises(AddressTakenError, match="9"):
        await check_free(way, now, changed(kind, address=9, baud_rate=baud_rate))
    assert not writes(line)
    assert place_of(virtual_meter) == now


@pytest.mark.parametrize("kind", ["mbus by primary", "mbus by secondary"], indirect=True)
async def test_a_secondary_address_that_somebody_has_is_refused(
    way: MeterAccess, now: Communication, line: Line
) -> None:
    with pytest.raises(AddressTakenError, match=OTHER):
        await check_free(way, now, replace(now, secondary_address=OTHER))
    assert not writes(line)


async def test_an_address_that_several_have_is_refused(
    way: MeterAccess, now: Communication, line: Line, other_meter: VirtualMeter, kind: str
) -> None:
    twin = VirtualMeter(serial_number="22091041", model=other_meter.model, address=9)
    serve = mbus.serve if other_meter.model.speaks_mbus else modbus.serve
    async with serve(other_meter, twin, virtual="virtual://crowded") as crowded:
        way = replace(
            way,
            open_bus=lambda *_: (ModbusBus if kind == "modbus" else MBusBus)(
                SerialLink(port=crowded.port)
            ),
        )
        with pytest.raises(AddressTakenError):
            await check_free(way, now, replace(now, address=9))


async def test_somebody_at_the_same_address_on_the_line_to_come_is_noticed(
    way: MeterAccess, now: Communication, other_meter: VirtualMeter, kind: str
) -> None:
    other_meter.baud_rate = 1200
    other_meter.address = now.address
    if kind == "mbus by secondary":
        other_meter.secondary_address = SERIAL_NUMBER
    with pytest.raises(AddressTakenError):
        await check_free(way, now, replace(now, baud_rate=BaudRate.B1200))


@pytest.mark.parametrize("kind", ["mbus by secondary"], indirect=True)
async def test_meters_that_keep_the_factorys_primary_address_may_meet(
    way: MeterAccess, now: Communication, virtual_meter: VirtualMeter, other_meter: VirtualMeter
) -> None:
    other_meter.baud_rate = 1200
    other_meter.address = now.address
    wanted = replace(now, baud_rate=BaudRate.B1200)
    await check_free(way, now, wanted)
    await move(way, now, wanted)
    assert place_of(virtual_meter) == wanted


async def test_a_lost_acknowledgement_is_no_failure(
    way: MeterAccess, now: Communication, line: Line, virtual_meter: VirtualMeter, kind: str
) -> None:
    def spoil(frame: bytes) -> None:
        if writes(line)[-1:] == [frame]:
            line.garble_next = 1

    line.before_answering = spoil
    wanted = (MODBUS_CHANGES if kind == "modbus" else MBUS_CHANGES)[-1]
    await move(way, now, wanted)
    assert place_of(virtual_meter) == wanted


async def test_a_meter_that_refuses_stays_where_it_is(
    way: MeterAccess, now: Communication, virtual_meter: VirtualMeter, kind: str
) -> None:
    virtual_meter.refuse_writes = True
    with pytest.raises(NotMovedError) as error:
        await move(way, now, changed(kind, address=7, baud_rate=BaudRate.B1200))
    assert error.value.found == now
    if kind == "modbus":
        assert isinstance(error.value.__cause__, RefusedError)


@pytest.mark.parametrize("change", range(4))
async def test_a_change_that_is_acknowledged_but_not_made_is_noticed(
    way: MeterAccess, now: Communication, virtual_meter: VirtualMeter, kind: str, change: int
) -> None:
    virtual_meter.ignore_writes = True
    with pytest.raises(NotMovedError) as error:
        await move(way, now, (MODBUS_CHANGES if kind == "modbus" else MBUS_CHANGES)[change])
    assert error.value.found == now


@pytest.mark.parametrize("kind", ["modbus"], indirect=True)
async def test_a_change_that_waits_for_a_restart_leaves_the_meter_where_it_answers(
    way: MeterAccess, now: Communication, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.ignore_writes = True
    virtual_meter.overrides[0x4003] = 7
    with pytest.raises(NotMovedError) as error:
        await move(way, now, replace(now, address=7))
    assert error.value.found == now


async def test_a_meter_that_takes_only_some_changes_is_found_in_between(
    way: MeterAccess, now: Communication, line: Line, virtual_meter: VirtualMeter, kind: str
) -> None:
    def tire(frame: bytes) -> None:
        virtual_meter.refuse_writes = len(writes(line)) > 1

    line.before_hearing = tire
    wanted = changed(kind, address=7, baud_rate=BaudRate.B1200)
    with pytest.raises(NotMovedError) as error:
        await move(way, now, wanted)
    assert error.value.found == place_of(virtual_meter) == changed(kind, address=7)


async def test_another_meter_in_its_place_is_not_set(
    way: MeterAccess, now: Communication, line: Line, virtual_meter: VirtualMeter, kind: str
) -> None:
    virtual_meter.serial_number = "87654321"
    with pytest.raises(MeterLostError):
        await move(way, now, changed(kind, address=7))
    assert not writes(line)


def cut_before(line: Line, meter: VirtualMeter, _now: Communication, number: int) -> None:
    """Let the power fail before the meter hears a frame."""

    def fail(_frame: bytes) -> None:
        if len(line.requests) == number:
            meter.power_down()

    line.before_hearing = fail


def cut_after(line: Line, meter: VirtualMeter, _now: Communication, number: int) -> None:
    """Let it fail when the meter has done what a frame says, but has not answered."""

    def fail(_frame: bytes) -> None:
        if len(line.requests) == number:
            meter.power_down()
            line.silent = True

    line.before_answering = fail


def cut_and_forget(line: Line, meter: VirtualMeter, now: Communication, number: int) -> None:
    """The same, and it has not been stored yet."""

    def fail(_frame: bytes) -> None:
        if len(line.requests) == number:
            meter.power_down()
            line.silent = True
            meter.address = now.address
            if now.secondary_address is not None:
                meter.secondary_address = now.secondary_address

    line.before_answering = fail


@pytest.mark.parametrize(
    ("kind", "cut"),
    [
        ("modbus", cut_before),
        ("modbus", cut_after),
        ("modbus", cut_and_forget),
        ("mbus by primary", cut_after),
        ("mbus by secondary", cut_and_forget),
    ],
    indirect=["kind"],
)
async def test_a_meter_is_found_again_wherever_its_power_fails(
    way: MeterAccess,
    now: Communication,
    line: Line,
    virtual_meter: VirtualMeter,
    kind: str,
    cut: Callable[[Line, VirtualMeter, Communication, int], None],
) -> None:
    wanted = changed(kind, address=7)
    number = 0
    lost = 0
    while True:
        number += 1
        line.requests.clear()
        cut(line, virtual_meter, now, number)
        with suppress(MeterLostError):
            await move(way, now, wanted)
        cut_short = not virtual_meter.powered
        lost += cut_short
        line.before_hearing = line.before_answering = None
        line.silent = False
        virtual_meter.power_up()
        assert await find(way, possible_communications(now, wanted)) == place_of(virtual_meter)
        if not cut_short:
            break
        virtual_meter.address = now.address
    # Identified, written, and found.
    assert lost >= 5
    assert place_of(virtual_meter) == wanted


@pytest.mark.parametrize("kind", ["modbus", "mbus by primary"], indirect=True)
@pytest.mark.parametrize("written", [1, 2, 3])
async def test_a_meter_is_found_again_between_all_old_and_new_settings(
    way: MeterAccess,
    now: Communication,
    line: Line,
    virtual_meter: VirtualMeter,
    kind: str,
    written: int,
) -> None:
    def fail(_frame: bytes) -> None:
        if len(writes(line)) == written and virtual_meter.powered:
            virtual_meter.power_down()
            line.silent = True

    line.before_answering = fail
    wanted = (MODBUS_CHANGES if kind == "modbus" else MBUS_CHANGES)[-1]
    with pytest.raises(MeterLostError) as error:
        await move(way, now, wanted)
    assert set(error.value.tried) == set(possible_communications(now, wanted))
    assert len(error.value.tried) == 8
    line.before_answering = None
    line.silent = False
    virtual_meter.power_up()
    place = place_of(virtual_meter)
    assert place != now
    assert await find(way, possible_communications(now, wanted)) == place


async def test_a_meter_that_comes_back_meanwhile_is_not_lost(
    way: MeterAccess, now: Communication, line: Line, virtual_meter: VirtualMeter, kind: str
) -> None:
    wanted = changed(kind, address=7)

    def fail(_frame: bytes) -> None:
        if writes(line) and virtual_meter.powered:
            virtual_meter.power_down()

    def restore(frame: bytes) -> None:
        # It is looked for at the first place again.
        if not virtual_meter.powered and line.requests.count(frame) > 3:
            virtual_meter.power_up()
            line.before_answering = None

    line.before_answering = fail
    line.before_hearing = restore
    await move(way, now, wanted)
    assert place_of(virtual_meter) == wanted


async def test_a_line_that_breaks_is_said_not_to_have_been_tried(
    way: MeterAccess, now: Communication, line: Line
) -> None:
    await line.unplug()
    with pytest.raises(MeterLostError) as error:
        await move(way, now, replace(now, address=7))
    assert not error.value.tried
    assert set(error.value.untried) == {now, replace(now, address=7)}
