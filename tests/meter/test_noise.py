"""Garbage that arrives at full speed and never ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
import time
import tracemalloc

import pytest

from custom_components.klefr.meter import (
    Bus,
    KlefrError,
    MBusBus,
    ModbusBus,
    ModbusTcpBus,
    SerialLink,
    identify,
)
from simulator import mbus, modbus
from simulator.line import Line
from simulator.meter import VirtualMeter
from simulator.virtual import VirtualGateway, VirtualLine

PORTS = ("virtual://meter", "socket://gateway:502")
CHUNK = 65536
"""What a read of a socket or a terminal gives at most."""
CHUNKS = 1000
"""65 MB in all, on a line that carries less than 1 kB in a second."""
ROUNDS = 5

# Each of these begins frames that are never completed.
GARBAGE = [b"\x68", bytes.fromhex("68FFFF68"), bytes.fromhex("010304"), b"\x00\x01\x00\x00\x00\xff"]


@asynccontextmanager
async def connected(kind: type[Bus], port: str) -> AsyncIterator[tuple[Line, Bus]]:
    model = "6933" if kind is MBusBus else "6934"
    meter = VirtualMeter(model=model, serial_number="22091039", address=1, clock=lambda: 0.0)
    if kind is MBusBus:
        line = mbus.serve(meter, virtual=port)
    else:
        framing = "socket" if kind is ModbusTcpBus else "rtu"
        line = modbus.serve(meter, virtual=port, framing=framing)
    async with line as served, kind(SerialLink(port=port)) as bus:
        yield served, bus


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each step keeps the event loop busy, in seconds of its CPU time."""
    steps: list[float] = []
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        before = time.thread_time()
        run(handle)
        steps.append(time.thread_time() - before)

    monkeypatch.setattr(asyncio.Handle, "_run", timed)
    return steps


@pytest.mark.parametrize("garbage", GARBAGE, ids=bytes.hex)
@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("kind", [ModbusBus, ModbusTcpBus, MBusBus])
async def test_endless_garbage_grows_no_memory_and_blocks_nothing(
    kind: type[Bus], port: str, garbage: bytes, steps: list[float]
) -> None:
    chunk = garbage * (CHUNK // len(garbage))
    async with connected(kind, port) as (line, bus):
        meter = await identify(bus, 1)
        face = line._face
        sent = 0

        class Firehose:
            async def hear(self, frame: bytes, line: Line) -> bytes:
                return b""

        def pour(_frame: bytes) -> None:
            # Whatever listens on the line by now hears it.
            nonlocal sent
            assert isinstance(line, VirtualLine | VirtualGateway)
            listeners = [line._client] if isinstance(line, VirtualLine) else list(line._connections)
            for listener in filter(None, listeners):
                for _ in range(CHUNKS // ROUNDS):
                    listener.deliver(chunk)
                    sent += len(chunk)

        line._face = Firehose()
        line.before_answering = pour
        tracemalloc.start()
        try:
            for _ in range(ROUNDS):
                with pytest.raises(KlefrError):
                    await meter.read(meter.quantities)
                await asyncio.sleep(31)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert sent >= CHUNKS * len(chunk) / 2
        assert peak < 2_000_000
        assert max(steps) < 0.05
        assert bus.tally["never_silent"] >= ROUNDS

        line._face = face
        line.before_answering = None
        assert (await meter.read(meter.quantities)).keys() == meter.quantities
