"""What all tests share: in which time they run."""

import asyncio
from collections.abc import Callable, Mapping

from hypothesis import settings
import pytest

from simulator.virtual_time import VirtualTimeLoop

# They are in real time, in one loop, and have another command: `scripts/test --browser`.
collect_ignore = ["e2e"]

# The same examples in every run and on every machine, however long one takes.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


def _is_in_real_time(item: pytest.Item) -> bool:
    return item.get_closest_marker("real_time") is not None


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Let time jump, but not for tests of what the system or a thread does in its own time."""
    return {"loop": asyncio.new_event_loop if _is_in_real_time(item) else VirtualTimeLoop}


@pytest.fixture
def in_real_time(request: pytest.FixtureRequest) -> bool:
    """Whether the test runs in real time."""
    return _is_in_real_time(request.node)


@pytest.fixture(autouse=True)
async def enable_event_loop_debug(in_real_time: bool) -> None:
    """Use asyncio's debug mode in real time only: it more than doubles the computing time."""
    if in_real_time:
        asyncio.get_running_loop().set_debug(True)
