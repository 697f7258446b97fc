"""Faults do what their names say."""

from random import Random

import pytest
from tmodbus.utils.crc import calculate_crc16

from simulator.faults import ANSWER_FAULTS, TIMING_FAULTS, Codec, MBusCodec, ModbusCodec, Passage
from simulator.mbus import MBusFace
from simulator.meter import VirtualMeter
from simulator.modbus import Framing, ModbusFace
from simulator.virtual import VirtualLine

READ_ENERGIES_PDU = bytes.fromhex("01 03 60 00 00 4B")
READ_ENERGIES = READ_ENERGIES_PDU + calculate_crc16(READ_ENERGIES_PDU)
READ_OUT = bytes.fromhex("10 5B 01 5C 16")
UNSEEN = [
    kind
    for kind in ANSWER_FAULTS
    if kind.startswith(("unseen", "value", "words", "all", "answer of another unit"))
]
TRIES = 30


async def passage_of(model: str) -> Passage:
    answers = []
    codec: Codec
    for seed in (1, 2):
        meter = VirtualMeter(
            model=model, serial_number=f"2209103{seed}", address=1, clock=lambda: 0.0, seed=seed
        )
        if model == "6933":
            codec, request, face = MBusCodec(), READ_OUT, MBusFace([meter], answer_delay=0)
        else:
            codec, request = ModbusCodec(), READ_ENERGIES
            face = ModbusFace([meter], Framing.RTU)  # type: ignore[assignment]
        line = VirtualLine(
            face, port="virtual://faults", baud_rate=meter.baud_rate, parity=meter.parity
        )
        answers.append(await face.hear(request, line))
    answer, other = answers
    assert answer
    assert other
    return Passage(
        request=request,
        answer=answer,
        other=other,
        earlier=(answer[:-3] + b"abc",),
        codec=codec,
        random=Random(1),
    )


both = pytest.mark.parametrize("model", ["6934", "6933"])


@both
@pytest.mark.parametrize("kind", ANSWER_FAULTS)
async def test_a_fault_changes_an_answer(model: str, kind: str) -> None:
    passage = await passage_of(model)
    change = ANSWER_FAULTS[kind]
    assert any(change(passage.answer, passage) != passage.answer for _ in range(TRIES))


@both
@pytest.mark.parametrize("kind", UNSEEN)
async def test_an_unseen_fault_leaves_a_checksum_that_is_right(model: str, kind: str) -> None:
    passage = await passage_of(model)
    for _ in range(TRIES):
        frame = ANSWER_FAULTS[kind](passage.answer, passage)
        assert passage.codec.seal(frame) == frame


@both
@pytest.mark.parametrize("kind", ANSWER_FAULTS)
async def test_a_fault_can_follow_any_other(model: str, kind: str) -> None:
    passage = await passage_of(model)
    for first in ANSWER_FAULTS.values():
        for _ in range(5):
            frame = first(passage.answer, passage)
            assert isinstance(ANSWER_FAULTS[kind](frame, passage), bytes)


@both
@pytest.mark.parametrize("kind", TIMING_FAULTS)
async def test_a_fault_of_time_loses_nothing(model: str, kind: str) -> None:
    passage = await passage_of(model)
    pieces = TIMING_FAULTS[kind](passage.answer, passage)
    assert b"".join(data for _, data in pieces).startswith(passage.answer)
    assert sum(silence for silence, _ in pieces) > 0


@both
async def test_all_energies_are_found(model: str) -> None:
    passage = await passage_of(model)
    codec = passage.codec
    places = codec.energies(passage.request, passage.answer)
    assert len(places) == (9 if model == "6933" else 37)
    frame = ANSWER_FAULTS["all energies read 0"](passage.answer, passage)
    assert {frame[place : place + 4] for place in places} == {codec.zero}
