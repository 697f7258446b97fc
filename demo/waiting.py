"""Wait for what takes its time."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

from . import DemoError

POLL_SECONDS = 0.5


async def settle(seconds: float, complaint: Callable[[], Awaitable[str]]) -> None:
    """Wait until there is nothing left to complain of, or give up with the last complaint."""
    end = monotonic() + seconds
    while problem := await complaint():
        if monotonic() > end:
            raise DemoError(f"{problem} (waited {seconds:.0f} s)")
        await asyncio.sleep(POLL_SECONDS)
