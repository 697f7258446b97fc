"""A meter in software on a line in memory, in virtual time."""

from collections.abc import AsyncIterator

import pytest

from custom_components.klefr.meter import ModbusBus, ModbusMeter, SerialLink
from simulator.line import Line
from simulator.meter import VirtualMeter
from simulator.modbus import serve

PORT = "virtual://meter"
GATEWAY = "socket://gateway:502"


@pytest.fixture
def virtual_meter() -> VirtualMeter:
    """A meter whose clock stands still."""
    return VirtualMeter(serial_number="22091039", address=1, clock=lambda: 0.0)


@pytest.fixture
async def line(virtual_meter: VirtualMeter) -> AsyncIterator[Line]:
    async with serve(virtual_meter, virtual=PORT) as line:
        yield line


def answer_late(line: Line, *delays: float) -> None:
    """Let the next answers each come so many seconds late."""
    late = iter(delays)

    def delay(_frame: bytes) -> None:
        line.delay_answer = next(late, 0.0)

    line.before_hearing = delay


@pytest.fixture
async def bus(line: Line) -> AsyncIterator[ModbusBus]:
    async with ModbusBus(SerialLink(port=line.port)) as bus:
        yield bus


@pytest.fixture
async def meter(bus: ModbusBus) -> ModbusMeter:
    return await ModbusMeter.identify(bus, 1)
