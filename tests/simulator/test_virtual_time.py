"""Time jumps to the next timer, but only when nothing is left to do."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
import contextlib
import socket
import threading
import time

import pytest

from simulator.virtual_time import VirtualTimeLoop

DAY = 24 * 3600.0


async def test_waiting_takes_no_time() -> None:
    loop = asyncio.get_running_loop()
    began, really_began = loop.time(), time.monotonic()
    await asyncio.sleep(3 * DAY)
    assert loop.time() - began == pytest.approx(3 * DAY)
    assert time.monotonic() - really_began < 60


async def test_another_clock_moves_along() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    moves: list[float] = []
    loop.follow_time(moves.append)
    began = loop.time()
    for seconds in (3, DAY, 0.5):
        await asyncio.sleep(seconds)
        assert sum(moves) == pytest.approx(loop.time() - began)
    loop.follow_time(None)
    await asyncio.sleep(1)
    assert sum(moves) == pytest.approx(DAY + 3.5)


async def test_timers_end_in_their_order() -> None:
    loop = asyncio.get_running_loop()
    ended: list[tuple[float, float]] = []
    began = loop.time()

    def end(delay: float) -> None:
        ended.append((delay, loop.time() - began))

    for delay in (7, 1, 3, 2):
        loop.call_later(delay, end, delay)
    await asyncio.sleep(10)
    assert ended == [(delay, pytest.approx(delay)) for delay in (1, 2, 3, 7)]


async def test_what_is_ready_goes_before_time() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    for _ in range(1000):
        await asyncio.sleep(0)
    assert loop.time() == began


async def test_time_stands_still_while_an_executor_works() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    go_on = threading.Event()
    really_later = threading.Timer(0.05, go_on.set)
    really_later.start()
    async with asyncio.timeout(0.001):
        assert await asyncio.to_thread(go_on.wait, 60)
    with ThreadPoolExecutor() as executor:
        assert await loop.run_in_executor(executor, lambda: 7) == 7
    assert loop.time() == began
    really_later.join()


async def test_an_error_in_an_executor_is_handed_on() -> None:
    with pytest.raises(ZeroDivisionError):
        await asyncio.to_thread(lambda: 1 // 0)


async def test_work_that_was_given_up_is_waited_for_too() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    finished = threading.Event()
    go_on = threading.Event()

    def work() -> None:
        go_on.wait(60)
        finished.set()

    future = loop.run_in_executor(None, work)
    future.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await future
    really_later = threading.Timer(0.05, go_on.set)
    really_later.start()
    await asyncio.sleep(1)
    assert finished.is_set()
    assert loop.time() - began == pytest.approx(1)
    really_later.join()


async def test_a_thread_wakes_a_loop_that_has_nothing_to_wait_for() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    woken = asyncio.Event()
    really_later = threading.Timer(0.05, lambda: loop.call_soon_threadsafe(woken.set))
    really_later.start()
    await woken.wait()
    assert loop.time() == began
    really_later.join()


@pytest.mark.usefixtures("socket_enabled")
async def test_while_a_file_is_watched_time_passes_as_it_really_does() -> None:
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    near.setblocking(False)
    began, really_began = loop.time(), time.monotonic()
    really_later = threading.Timer(0.05, lambda: far.send(b"late"))
    really_later.start()
    async with asyncio.timeout(DAY):
        assert await loop.sock_recv(near, 4) == b"late"
    assert 0 < loop.time() - began <= time.monotonic() - really_began
    loop.add_reader(near, lambda: None)
    began, really_began = loop.time(), time.monotonic()
    await asyncio.sleep(0.05)
    assert loop.time() - began == pytest.approx(0.05)
    assert time.monotonic() - really_began >= 0.05
    loop.remove_reader(near)
    began = time.monotonic()
    await asyncio.sleep(DAY)
    assert time.monotonic() - began < 60
    near.close()
    far.close()
    really_later.join()


async def test_the_real_clock_cannot_be_put_in() -> None:
    loop = asyncio.get_running_loop()
    loop.time = time.monotonic  # type: ignore[method-assign]
    began = loop.time()
    await asyncio.sleep(DAY)
    assert loop.time() - began == pytest.approx(DAY)


def test_the_end_of_the_executor_is_waited_for() -> None:
    finished = threading.Event()

    def work() -> None:
        time.sleep(0.05)
        finished.set()

    async def main() -> None:
        asyncio.get_running_loop().run_in_executor(None, work)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())
    assert finished.is_set()
