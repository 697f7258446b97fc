"""A real gateway that sends garbage as fast as the network takes it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
import socket
from statistics import median
import threading
import time
import tracemalloc
from typing import Any
from unittest.mock import patch

from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import STATE_UNAVAILABLE, Platform
from homeassistant.core import HomeAssistant
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.klefr.const import DOMAIN
from custom_components.klefr.meter import bus
from simulator import mbus, modbus
from simulator.meter import VirtualMeter

from . import SERIAL_NUMBER, state, wait

pytestmark = [pytest.mark.real_time, pytest.mark.usefixtures("socket_enabled")]

HOST = "127.0.0.1"
ROUNDS = 5
LONGEST_STEP = 0.05
"""Seconds of the event loop's computing time."""
MOST_MEMORY = 2_000_000
"""Bytes."""

# Beginnings of frames that are never completed, and lines of text.
GARBAGE = {
    "modbus": bytes.fromhex("010304"),
    "modbus_tcp": b"\x00\x01\x00\x00\x00\xff",
    "mbus": bytes.fromhex("68FFFF68"),
}


class Firehose:
    """A gateway that sends the same for ever to all who connect."""

    def __init__(self, tcp_port: int, garbage: bytes) -> None:
        self.sent = 0
        self._garbage = garbage * (65536 // len(garbage))
        self._listening = socket.create_server((HOST, tcp_port))
        self._clients: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            self._clients.append(client)
            self._threads.append(threading.Thread(target=self._pour, args=(client,)))
            self._threads[-1].start()

    def _pour(self, client: socket.socket) -> None:
        try:
            while True:
                self.sent += client.send(self._garbage)
        except OSError:
            client.close()

    def close(self) -> None:
        for each in (self._listening, *self._clients):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join()


@contextmanager
def firehose(tcp_port: int, protocol: str) -> Iterator[Firehose]:
    hose = Firehose(tcp_port, GARBAGE[protocol])
    try:
        yield hose
    finally:
        hose.close()


@contextmanager
def longest_steps() -> Iterator[list[float]]:
    """Note how long the longest step of each round keeps the event loop busy.

    The caller begins a round by appending a zero. What counts is computing time, so a busy machine
    makes no difference.
    """
    longest: list[float] = []
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        before = time.thread_time()
        run(handle)
        if longest:
            longest[-1] = max(longest[-1], time.thread_time() - before)

    with patch.object(asyncio.Handle, "_run", timed):
        yield longest


@pytest.mark.parametrize("protocol", GARBAGE)
async def test_garbage_at_full_speed_blocks_nothing_and_is_not_kept(
    hass: HomeAssistant, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A port that has sent garbage is left alone for 30 seconds.
    monkeypatch.setattr(bus, "REST_AFTER_NOISE", 0.0)
    kwargs: dict[str, Any] = {"tcp": (HOST, 0), "pacing": False}
    meter = VirtualMeter(
        model="6933" if protocol == "mbus" else "6934",
        serial_number=SERIAL_NUMBER,
        address=1,
        clock=lambda: 0.0,
    )
    if protocol == "mbus":
        serve = mbus.serve(meter, **kwargs)
    else:
        serve = modbus.serve(
            meter, framing="socket" if protocol == "modbus_tcp" else "rtu", **kwargs
        )
    async with serve as gateway:
        tcp_port = int(gateway.port.rpartition(":")[2])
        entry = MockConfigEntry(
            domain=DOMAIN,
            unique_id=SERIAL_NUMBER,
            title="Meter",
            data={
                "port": f"socket://{gateway.port}",
                "protocol": protocol,
                "address": 1,
                "baud_rate": 9600,
                "parity": "even",
            },
        )
        entry.add_to_hass(hass)
        assert await hass.config_entries.async_setup(entry.entry_id)
        await wait(hass)
        before = state(hass, Platform.SENSOR, "forward_active_energy")
        assert float(before or "") > 0
        await gateway.unplug()

        with firehose(tcp_port, protocol) as hose:
            # The first one loads what is only needed to say what is wrong.
            await wait(hass)
            assert state(hass, Platform.SENSOR, "forward_active_energy") == STATE_UNAVAILABLE
            with longest_steps() as longest:
                for _ in range(ROUNDS):
                    longest.append(0.0)
                    await wait(hass)
            # What is done now and then, such as collecting garbage, is not in most of them.
            assert 0 < median(longest) < LONGEST_STEP
            tracemalloc.start()
            try:
                for _ in range(ROUNDS):
                    await wait(hass)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak < MOST_MEMORY
            assert hose.sent > ROUNDS * 65536
            assert entry.runtime_data.meter.diagnostics["bus"]["never_silent"] >= 2 * ROUNDS
            # Nor does a start of Home Assistant take it for a meter.
            await hass.config_entries.async_reload(entry.entry_id)
            assert entry.state is ConfigEntryState.SETUP_RETRY
            assert entry.error_reason_translation_key == "never_silent_gateway"

        await gateway.plug()
        assert await hass.config_entries.async_reload(entry.entry_id)
        assert state(hass, Platform.SENSOR, "forward_active_energy") == before
        await hass.config_entries.async_unload(entry.entry_id)
