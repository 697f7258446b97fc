"""What all tests share."""

import asyncio

import pytest


@pytest.fixture(autouse=True)
async def enable_event_loop_debug(request: pytest.FixtureRequest) -> None:
    """Use asyncio's debug mode in real time only: it more than doubles the computing time."""
    if request.node.get_closest_marker("real_time") is not None:
        asyncio.get_running_loop().set_debug(True)
