"""Hide serial numbers in the frames of a bus, so that they can be shown to others.

What arrives may be damaged, so a serial number is looked for where one can be, and wherever
something looks similar to one that is known. It is better to hide too much.
"""

from collections.abc import Collection, Iterator, Mapping
import re
import struct
from typing import Final

from .health import Exchange
from .link import Protocol

HIDDEN: Final = "xx"
NUMBER_LENGTH: Final = 4  # bytes, each of two decimal digits

# Modbus: what asks for registers, and how its answer starts: function 3, and the count of bytes.
MODBUS_REQUEST: Final = struct.Struct(">xBHH")
READ: Final = 3
MODBUS_ANSWER: Final = re.compile(rb"(?=\x03([\x04-\xfa]))", re.DOTALL)
MODBUS_ANSWER_START: Final = 2
TCP_HEADER_LENGTH: Final = 6
# The serial number is in the first registers of all.
SERIAL_NUMBER_REGISTERS: Final = range(0x4000, 0x4002)

# M-Bus: what comes before the number of a meter that answers, is selected, or gets another one.
MBUS_STARTS: Final = (
    (re.compile(rb"(?=\x68..\x68)", re.DOTALL), 7),
    (re.compile(rb"(?=[\x52\x72\x76])"), 1),
    (re.compile(rb"(?=\x0c\x79)"), 2),
)

# So many of the 8 digits make a number similar to another one.
SIMILAR: Final = 5


def hide(
    exchange: Exchange, protocol: Protocol, *, own: Collection[str], others: Collection[str]
) -> Mapping[str, str]:
    """Return the frames of an exchange in hexadecimal, without serial numbers.

    `own` are the serial numbers of the meter, of which also damaged ones are hidden, `others` those
    of other meters. Each has 8 digits.
    """
    sent = exchange.sent or b""
    return {
        name: _text(frame, protocol, sent, own, others)
        for name, frame in (
            ("sent", exchange.sent),
            ("received", exchange.received),
            ("received_late", exchange.received_late or None),
        )
        if frame is not None
    }


def _text(
    frame: bytes, protocol: Protocol, sent: bytes, own: Collection[str], others: Collection[str]
) -> str:
    hidden = {
        position
        for start in (
            *(_mbus_places(frame) if protocol is Protocol.MBUS else _modbus_places(frame, sent)),
            *(start for number in own for start in _similar_places(frame, number)),
        )
        for position in range(start, start + NUMBER_LENGTH)
    }
    for number in (*own, *others):
        for encoded in _encodings(number):
            for match in re.finditer(b"(?=%b)" % re.escape(encoded), frame):
                hidden.update(range(match.start(), match.start() + len(encoded)))
    return " ".join(
        HIDDEN if position in hidden else f"{byte:02X}" for position, byte in enumerate(frame)
    )


def _modbus_places(frame: bytes, sent: bytes) -> Iterator[int]:
    """Yield where answers have their first registers, unless others than the first were asked for."""
    if frame is sent:
        return
    harmless: int | None = None
    for start in (0, TCP_HEADER_LENGTH):
        request = sent[start : start + MODBUS_REQUEST.size]
        if len(request) == MODBUS_REQUEST.size:
            function, address, count = MODBUS_REQUEST.unpack(request)
            if function == READ:
                if address not in SERIAL_NUMBER_REGISTERS:
                    harmless = 2 * count
                break
    for match in MODBUS_ANSWER.finditer(frame):
        if match[1][0] != harmless:
            yield match.start() + MODBUS_ANSWER_START


def _mbus_places(frame: bytes) -> Iterator[int]:
    for pattern, length in MBUS_STARTS:
        for match in pattern.finditer(frame):
            yield match.start() + length


def _similar_places(frame: bytes, number: str) -> Iterator[int]:
    """Yield where similar digits are, maybe cut off at an end of the frame."""
    as_sent = bytes.fromhex(number)
    for digits in (as_sent, as_sent[::-1]):
        for start in range(2 - NUMBER_LENGTH, len(frame) - 1):
            compared = [
                (frame[start + index], byte)
                for index, byte in enumerate(digits)
                if 0 <= start + index < len(frame)
            ]
            alike = sum(
                (found >> 4 == byte >> 4) + (found & 0xF == byte & 0xF) for found, byte in compared
            )
            if alike >= min(SIMILAR, 2 * len(compared)):
                yield start


def _encodings(number: str) -> set[bytes]:
    """Return a serial number in all ways in which a frame could have it."""
    digits = bytes.fromhex(number)
    first, second = digits[:2], digits[2:]
    encodings = {
        digits,
        digits[::-1],
        second + first,
        first[::-1] + second[::-1],
        number.encode(),
        number[::-1].encode(),
    }
    if number.isdecimal():
        value = int(number)
        encodings |= {value.to_bytes(NUMBER_LENGTH, order) for order in ("big", "little")}
    return encodings
