"""A meter in software on a real pseudo-terminal."""

from collections.abc import AsyncIterator

import pytest

from custom_components.klefr.meter import ModbusBus, ModbusMeter, SerialLink
from simulator.line import Line
from simulator.meter import VirtualMeter
from simulator.modbus import serve


@pytest.fixture
def virtual_meter() -> VirtualMeter:
    """A meter whose clock stands still."""
    return VirtualMeter(serial_number="22091039", address=1, clock=lambda: 0.0)


@pytest.fixture
async def line(virtual_meter: VirtualMeter) -> AsyncIterator[Line]:
    async with serve(virtual_meter, pacing=False) as line:
        yield line


@pytest.fixture
async def bus(line: Line) -> AsyncIterator[ModbusBus]:
    async with ModbusBus(SerialLink(port=line.port)) as bus:
        yield bus


@pytest.fixture
async def meter(bus: ModbusBus) -> ModbusMeter:
    return await ModbusMeter.identify(bus, 1)
