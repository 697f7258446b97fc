"""From any bytes come values that a meter can measure, or errors of ours."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import batched, cycle
import struct
from typing import Final

from hypothesis import given, settings, strategies as st
import pytest

from custom_components.klefr.meter import (
    Bus,
    KlefrError,
    MBusBus,
    ModbusBus,
    ModbusTcpBus,
    Quantity,
    SerialLink,
    identify,
)
from custom_components.klefr.meter.guarded import GuardedReader
from custom_components.klefr.meter.modbus.registers import REGISTERS, Register
from custom_components.klefr.meter.verdict import Memory, Moment
from simulator import mbus, modbus
from simulator.faults import Codec, MBusCodec, ModbusCodec, ModbusTcpCodec
from simulator.line import Piece
from simulator.meter import VirtualMeter
from simulator.modbus import Framing
from simulator.virtual_time import VirtualTimeLoop

from .conftest import GATEWAY, PORT

RATED_CURRENT: Final = 100
RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "voltage": (0, 500),
    "frequency": (40, 70),
    "current": (-120, 120),
    "active_power": (-180, 180),
    "reactive_power": (-180, 180),
    "apparent_power": (0, 180),
    "power_factor": (-1, 1),
    "total": (-99_999_999, 99_999_999),
    "forward": (0, 99_999_999),
    "reverse": (0, 99_999_999),
    "resettable_counter": (0, 99_999_999),
}
"""What a direct meter measures, by the beginning of a quantity's name."""

BUSES: Final[Mapping[str, tuple[str, Callable[[SerialLink], Bus], Codec]]] = {
    "modbus": (PORT, ModbusBus, ModbusCodec()),
    "modbus over the network": (GATEWAY, ModbusTcpBus, ModbusTcpCodec()),
    "m-bus": (PORT, MBusBus, MBusCodec()),
}


def is_in_range(quantity: Quantity, value: object) -> bool:
    if not isinstance(value, float):
        return True
    [(lowest, highest)] = [bounds for name, bounds in RANGES.items() if quantity.startswith(name)]
    return lowest <= value <= highest


MEASURED = [register for register in REGISTERS.values() if isinstance(register.key, Quantity)]


@pytest.mark.parametrize("register", MEASURED, ids=lambda register: str(register.key))
@settings(max_examples=30, derandomize=True, deadline=None)
@given(st.data())
def test_any_words_are_a_value_in_range_or_none(register: Register, data: st.DataObject) -> None:
    length = register.form.length
    words = data.draw(st.lists(st.integers(0, 0xFFFF), min_size=length, max_size=length))
    value = register.form.value(words, RATED_CURRENT)
    assert isinstance(register.key, Quantity)
    assert is_in_range(register.key, value)


new_values = st.lists(
    st.tuples(
        st.binary(min_size=1, max_size=1),
        st.binary(min_size=4, max_size=4)
        | st.floats(-1000, 1000, width=32).map(lambda number: struct.pack(">f", number)),
    ).map(b"".join),
    min_size=1,
    max_size=10,
).map(b"".join)
answers = st.lists(
    st.tuples(st.just("as it is"), st.just(b""))
    | st.tuples(st.just("bytes"), st.binary(max_size=300))
    | st.tuples(st.just("content"), st.binary(min_size=1, max_size=250))
    | st.tuples(st.just("values"), new_values),
    min_size=1,
    max_size=8,
)


def changed(codec: Codec, request: bytes, frame: bytes, kind: str, data: bytes) -> bytes:
    """Return other bytes, or the answer with other content or values and a right checksum."""
    sent = bytearray(frame)
    match kind:
        case "bytes":
            return data
        case "content":
            for place, byte in zip(codec.content(frame), cycle(data), strict=False):
                sent[place] = byte
        case "values" if places := codec.values(request, frame):
            for which, *value in batched(data, 5, strict=True):
                place = places[which % len(places)]
                sent[place : place + 4] = bytes(value)
    return codec.seal(bytes(sent))


@pytest.mark.parametrize("kind", BUSES)
@settings(max_examples=40, derandomize=True, deadline=None)
@given(answers)
def test_any_answers_are_values_in_range_or_an_error_of_ours(
    kind: str, sent: list[tuple[str, bytes]]
) -> None:
    port, bus_of, codec = BUSES[kind]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        meter = VirtualMeter(
            model="6933" if kind == "m-bus" else "6934",
            serial_number="22091039",
            address=1,
            clock=loop.time,
        )
        if kind == "m-bus":
            serving = mbus.serve(meter, virtual=port)
        else:
            framing = Framing.SOCKET if port == GATEWAY else Framing.RTU
            serving = modbus.serve(meter, virtual=port, framing=framing)
        following = cycle(sent)

        async def change(request: bytes, answer: bytes) -> Sequence[Piece]:
            return ((0.0, changed(codec, request, answer, *next(following))),)

        async with serving as line, bus_of(SerialLink(port=line.port)) as bus:
            known = await identify(bus, 1)
            reader = GuardedReader(
                known, Memory(), lambda: Moment(monotonic=loop.time(), wall=1.8e9 + loop.time())
            )
            line.change_answer = change
            for ask in (
                lambda: identify(bus, 1),
                known.read_settings,
                known.read_communication,
                known.dump,
            ):
                with suppress(KlefrError):
                    await ask()
            for _ in range(4):
                with suppress(KlefrError):
                    verdict = await reader.read(known.quantities)
                    for quantity, value in verdict.readings.items():
                        assert is_in_range(quantity, value), quantity
                await asyncio.sleep(10)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())
