"""A meter whose time stands still, alone on a line in memory, and a client."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from simulator.line import Line
from simulator.meter import VirtualMeter
from simulator.modbus import serve
from simulator.virtual_time import VirtualTimeLoop

from .client import Client, connect
from .clock import Clock

PORT = "virtual://meter"
GATEWAY = "socket://gateway:4001"


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Let tests run in virtual time, but for those over what is no line in memory."""
    real = item.get_closest_marker("real_time") is not None
    return {"loop": asyncio.new_event_loop if real else VirtualTimeLoop}


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
