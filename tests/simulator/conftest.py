"""A meter whose time stands still, alone on a line in memory, and a client."""

from collections.abc import AsyncIterator

import pytest

from simulator.line import Line
from simulator.meter import VirtualMeter
from simulator.modbus import serve

from .client import Client, connect
from .clock import Clock

PORT = "virtual://meter"
GATEWAY = "socket://gateway:4001"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def meter(clock: Clock) -> VirtualMeter:
    return VirtualMeter(clock=clock)


@pytest.fixture
async def line(meter: VirtualMeter) -> AsyncIterator[Line]:
    async with serve(meter, virtual=PORT) as line:
        yield line


@pytest.fixture
async def client(line: Line) -> AsyncIterator[Client]:
    async with connect(line.port) as client:
        yield client
