"""An event loop whose time jumps to the next timer when nothing is left to do.

What waits for a slow line then takes no longer than its computing, and the times that it
measures are the same on every machine:

- While anything is ready to run, time stands still.
- While work is under way in an executor, the loop really waits for it, and time stands
  still. Such work must not itself wait for a timer of the loop: both would wait for ever.
- While a real file descriptor is watched (a socket, a pseudo-terminal, a child process),
  the world outside has a say, so time passes as fast as it really does.
- When not even a timer is left, the loop really waits, for a thread that calls
  `call_soon_threadsafe`. It does not know of threads that belong to no executor: while
  only they are at work, time jumps.

Only the loop's time is virtual. `time.time()` and `time.monotonic()` go on as they do, unless
`follow_time` moves them along.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
import contextlib
import selectors
import time
from typing import override

START = 1000.0
"""Seconds on the loop's clock at first, as on a machine that has been on for a while."""


class _Selector(selectors.DefaultSelector):
    """Waits for files like any other, but moves the clock instead of waiting for time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.own_files = 0
        """How many files the loop watches for its own use."""
        self.work = 0
        """How many things are under way in threads that the loop waits for."""
        self.time_moved: Callable[[float], object] | None = None

    def clock(self) -> float:
        return self.now

    def _move(self, seconds: float) -> None:
        self.now += seconds
        if self.time_moved:
            self.time_moved(seconds)

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        if ready := super().select(0):
            return ready
        if self.work:
            return super().select(None)
        if len(self.get_map()) > self.own_files:
            began = time.monotonic()
            if ready := super().select(timeout):
                self._move(min(time.monotonic() - began, timeout))
                return ready
        self._move(timeout)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time."""

    def __init__(self) -> None:
        """Start the clock anew."""
        self._files = _Selector()
        self._executor: Executor | None = None
        super().__init__(self._files)
        self._files.own_files = len(self._files.get_map())

    def _clock(self) -> Callable[[], float]:
        return self._files.clock

    def _keep_clock(self, _clock: Callable[[], float]) -> None:
        """Home Assistant puts the real clock into every loop that it configures. Not here."""

    time = property(_clock, _keep_clock)

    def follow_time(self, moved: Callable[[float], object] | None) -> None:
        """Call this with the seconds by which time has moved, whenever it has."""
        self._files.time_moved = moved

    @override
    def set_default_executor(self, executor: Executor) -> None:
        assert isinstance(executor, ThreadPoolExecutor)
        super().set_default_executor(executor)
        self._executor = executor

    @override
    def run_in_executor[*Ts, T](
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        if executor is None:
            if self._executor is None:
                self.set_default_executor(ThreadPoolExecutor(thread_name_prefix="asyncio"))
            executor = self._executor
            assert executor is not None
        work = executor.submit(func, *args)
        self._files.work += 1
        future = asyncio.wrap_future(work, loop=self)
        # Added last, so that the future has the result before time may jump.
        work.add_done_callback(self._work_done)
        return future

    def _work_done(self, _work: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            self.call_soon_threadsafe(self._count_work_done)

    def _count_work_done(self) -> None:
        self._files.work -= 1

    @override
    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        self._files.work += 1
        try:
            await super().shutdown_default_executor(timeout)
        finally:
            self._files.work -= 1
