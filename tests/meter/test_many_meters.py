"""As many meters on one line as the manual allows, read all at once."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Final

from custom_components.klefr.meter import (
    MBusBus,
    MBusMeter,
    Meter,
    ModbusBus,
    ModbusMeter,
    NoAnswerError,
    Quantity,
    SerialLink,
)
from simulator import mbus, modbus
from simulator.meter import VirtualMeter

from .conftest import PORT

MODBUS_METERS = 60
MBUS_METERS = 64
ROUNDS = 2

MODBUS_QUANTITY = Quantity.POWER_DOWN_COUNTER
REQUESTS: Final = 2
"""The serial number is read with it."""
MBUS_QUANTITY = Quantity.FORWARD_ACTIVE_ENERGY


def serial_number(place: int) -> str:
    return f"{22091000 + place}"


async def read_rounds(meters: Sequence[Meter], quantity: Quantity) -> list[list[object]]:
    """Return what each meter says of a quantity, round by round, None for no answer."""

    async def read(meter: Meter) -> list[object]:
        values: list[object] = []
        for _ in range(ROUNDS):
            try:
                values.append((await meter.read([quantity]))[quantity])
            except NoAnswerError:
                values.append(None)
        return values

    return await asyncio.gather(*(read(meter) for meter in meters))


async def test_sixty_modbus_meters_are_read_in_turn_and_one_that_is_dead_delays_nobody() -> None:
    virtual = [
        VirtualMeter(
            serial_number=serial_number(address), address=address, seed=address, clock=lambda: 0.0
        )
        for address in range(1, MODBUS_METERS + 1)
    ]
    for meter in virtual:
        meter.power_down_counter = 1000 + meter.address
    async with (
        modbus.serve(*virtual, virtual=PORT) as line,
        ModbusBus(SerialLink(port=line.port)) as bus,
    ):
        meters = await asyncio.gather(
            *(ModbusMeter.identify(bus, meter.address) for meter in virtual)
        )
        assert [meter.identity.serial_number for meter in meters] == [
            meter.serial_number for meter in virtual
        ]
        assert bus.tally.keys() == {"requests"}

        loop = asyncio.get_running_loop()
        line.requests.clear()
        start = loop.time()
        values = await read_rounds(meters, MODBUS_QUANTITY)
        with_everybody = loop.time() - start
        assert values == [[1000 + meter.address] * ROUNDS for meter in virtual]
        asked = [request[0] for request in line.requests]
        everybody = {meter.address for meter in virtual}
        for start in range(0, len(asked), MODBUS_METERS):
            assert set(asked[start : start + MODBUS_METERS]) == everybody
        assert len(asked) == ROUNDS * REQUESTS * MODBUS_METERS

        dead = virtual[30]
        dead.baud_rate = 4800
        line.requests.clear()
        start = loop.time()
        values = await read_rounds(meters, MODBUS_QUANTITY)
        with_one_dead = loop.time() - start
        assert values == [
            [None if meter is dead else 1000 + meter.address] * ROUNDS for meter in virtual
        ]
        times_asked = Counter(request[0] for request in line.requests)
        # Three times, until it is taken to be silent. Then once in a round.
        assert times_asked.pop(dead.address) == 3 + (ROUNDS - 1)
        assert set(times_asked.values()) == {ROUNDS * REQUESTS}
        # Each time the line waits for it for about a second.
        assert with_one_dead - with_everybody < 1.1 * (3 + (ROUNDS - 1))

        dead.baud_rate = 9600
        line.requests.clear()
        assert await read_rounds(meters[30:31], MODBUS_QUANTITY) == [[1000 + dead.address] * ROUNDS]
        assert len(line.requests) == ROUNDS * REQUESTS


async def test_sixty_four_m_bus_meters_are_read_however_they_are_addressed() -> None:
    with_primary_address = range(1, MBUS_METERS // 2 + 1)
    virtual = [
        VirtualMeter(
            model="6933",
            serial_number=serial_number(place),
            # The others have the factory's.
            address=place if place in with_primary_address else 0,
            seed=place,
            clock=lambda: 0.0,
        )
        for place in range(1, MBUS_METERS + 1)
    ]
    # Neighbours on the line are addressed in different ways.
    virtual = [meter for pair in zip(virtual[:32], virtual[32:], strict=True) for meter in pair]
    async with (
        mbus.serve(*virtual, virtual=PORT) as line,
        MBusBus(SerialLink(port=line.port)) as bus,
    ):
        meters = await asyncio.gather(
            *(MBusMeter.identify(bus, meter.address or meter.serial_number) for meter in virtual)
        )
        assert [meter.identity.serial_number for meter in meters] == [
            meter.serial_number for meter in virtual
        ]
        readings = await asyncio.gather(*(meter.read([MBUS_QUANTITY]) for meter in meters))
        assert [reading[MBUS_QUANTITY] for reading in readings] == [
            round(meter.forward_active_energy, 2) for meter in virtual
        ]
        assert len({reading[MBUS_QUANTITY] for reading in readings}) == MBUS_METERS
        assert "garbled_answer" not in bus.tally
