"""No serial number is shown in the frames of a bug report."""

from collections.abc import Callable
from random import Random
import re

import pytest

from custom_components.klefr.meter import Exchange, Outcome, Protocol, hide
from custom_components.klefr.meter.mbus.frame import LongFrame
from custom_components.klefr.meter.modbus.bus import RTU, SOCKET

OWN = "22091039"
OTHER = "30000040"

RTU_ANSWER = RTU.encode(b"\x03\x08\x22\x09\x10\x39\x01\x02\x00\x01", 1, 0)
ENERGY_ANSWER = RTU.encode(b"\x03\x04\x46\x9e\x43\xd2", 1, 0)
TELEGRAM = LongFrame(
    control=0x08,
    address=1,
    information=0x72,
    data=bytes.fromhex("39100922cd25010205000000 04 04 11223344".replace(" ", "")),
).encode()
SELECTION = LongFrame(
    control=0x53,
    address=253,
    information=0x52,
    data=bytes.fromhex("39100922cd25ffff"),
).encode()
NEW_NUMBER = LongFrame(
    control=0x53,
    address=1,
    information=0x51,
    data=bytes.fromhex("0c7939100922"),
).encode()


def read(address: int, count: int) -> bytes:
    return RTU.encode(bytes((3,)) + address.to_bytes(2, "big") + count.to_bytes(2, "big"), 1, 0)


def shown(
    protocol: Protocol, sent: bytes, received: bytes, *, own: str = OWN, late: bytes = b""
) -> dict[str, str]:
    exchange = Exchange(
        sent_at=0.0, outcome=Outcome.GARBLED, sent=sent, received=received, received_late=late
    )
    return dict(hide(exchange, protocol, own=[own], others=[OTHER]))


def test_a_registers_serial_number_is_hidden() -> None:
    frames = shown(Protocol.MODBUS, read(0x4000, 4), RTU_ANSWER)
    assert frames["sent"].startswith("01 03 40 00 00 04")
    assert frames["received"].startswith("01 03 08 xx xx xx xx 01 02 00 01")
    assert "received_late" not in frames


def test_an_unknown_serial_number_is_hidden() -> None:
    frames = shown(Protocol.MODBUS, read(0x4000, 4), b"\x00\x00" + RTU_ANSWER, own="87654321")
    assert frames["received"].startswith("00 00 01 03 08 xx xx xx xx 01 02 00 01")


def test_a_serial_number_that_arrives_late_is_hidden() -> None:
    frames = shown(Protocol.MODBUS, read(0x6000, 2), b"", late=RTU_ANSWER, own="87654321")
    assert frames["received"] == ""
    assert frames["received_late"].startswith("01 03 08 xx xx xx xx 01")


def test_other_registers_are_shown() -> None:
    frames = shown(Protocol.MODBUS, read(0x6000, 2), ENERGY_ANSWER)
    assert frames["received"].startswith("01 03 04 46 9E 43 D2")


def test_a_serial_number_over_modbus_tcp_is_hidden() -> None:
    asked = SOCKET.encode(b"\x03\x40\x00\x00\x02", 1, 7)
    answer = SOCKET.encode(b"\x03\x04\x22\x09\x10\x39", 1, 7)
    frames = shown(Protocol.MODBUS_TCP, asked, answer, own="87654321")
    assert frames["received"] == "00 07 00 00 00 07 01 03 04 xx xx xx xx"
    asked = SOCKET.encode(b"\x03\x60\x00\x00\x02", 1, 7)
    answer = SOCKET.encode(b"\x03\x04\x46\x9e\x43\xd2", 1, 7)
    frames = shown(Protocol.MODBUS_TCP, asked, answer)
    assert frames["received"] == "00 07 00 00 00 07 01 03 04 46 9E 43 D2"


@pytest.mark.parametrize("frame", [TELEGRAM, SELECTION, NEW_NUMBER])
def test_a_secondary_address_is_hidden(frame: bytes) -> None:
    digits = r"39 10 09 22"
    for own in (OWN, "87654321"):
        for frames in (
            shown(Protocol.MBUS, frame, b"", own=own),
            shown(Protocol.MBUS, b"", b"\x00" + frame, own=own),
        ):
            text = " ".join(frames.values())
            assert not re.search(digits, text)
            assert "xx xx xx xx" in text
            # The energies are shown.
            assert frame is not TELEGRAM or "11 22 33 44" in text


@pytest.mark.parametrize(
    "encoded",
    [
        b"\x22\x09\x10\x39",
        b"\x39\x10\x09\x22",
        b"\x10\x39\x22\x09",
        b"\x09\x22\x39\x10",
        b"22091039",
        b"93019022",
        (22091039).to_bytes(4, "big"),
        (22091039).to_bytes(4, "little"),
    ],
)
@pytest.mark.parametrize("protocol", Protocol)
def test_a_known_number_is_hidden_wherever_it_is(protocol: Protocol, encoded: bytes) -> None:
    frames = shown(protocol, b"\xaa" + encoded, b"\xbb\xcc" + encoded + b"\xdd")
    # What is beside it may look similar to another order of its digits.
    assert frames["sent"].split()[1:] == ["xx"] * len(encoded)
    assert frames["received"].split()[2:-1] == ["xx"] * len(encoded)
    assert frames["received"].startswith("BB")


@pytest.mark.parametrize("protocol", Protocol)
def test_the_number_of_another_known_meter_is_hidden(protocol: Protocol) -> None:
    frames = shown(protocol, b"", b"\xbb\x40\x00\x00\x30\xdd")
    assert frames["received"] == "BB xx xx xx xx DD"


def flip(frame: bytes, random: Random) -> bytes:
    damaged = bytearray(frame)
    damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)
    return bytes(damaged)


def cut(frame: bytes, random: Random) -> bytes:
    return frame[random.randrange(len(frame)) :]


def break_off(frame: bytes, random: Random) -> bytes:
    return frame[: random.randrange(1, len(frame))]


@pytest.mark.parametrize("damage", [flip, cut, break_off])
@pytest.mark.parametrize(
    ("protocol", "answer"), [(Protocol.MODBUS, RTU_ANSWER), (Protocol.MBUS, TELEGRAM)]
)
def test_a_damaged_number_is_hidden(
    damage: Callable[[bytes, Random], bytes], protocol: Protocol, answer: bytes
) -> None:
    random = Random(1)
    for _ in range(300):
        frames = shown(protocol, read(0x4000, 4), damage(answer, random))
        text = frames["received"].replace(" ", "")
        # No five digits of it are left.
        digits = OWN if protocol is Protocol.MODBUS else "39100922"
        assert not any(digits[start : start + 5] in text for start in range(4)), text
