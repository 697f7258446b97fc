"""Frames of the M-Bus link layer (EN 13757-2), and finding them in what a line carries."""

from dataclasses import dataclass
from enum import IntEnum
import re
from typing import Final

ACKNOWLEDGEMENT: Final = 0xE5
SHORT_START: Final = 0x10
LONG_START: Final = 0x68
STOP: Final = 0x16

# The bytes around a frame's content.
SHORT_LENGTH: Final = 5
LONG_OVERHEAD: Final = 6
HEADER_LENGTH: Final = 4
SHORTEST_CONTENT: Final = 3

# Toggled by the master with every new request, so that a repeated one is not done twice.
FRAME_COUNT_BIT: Final = 0x20


class Control(IntEnum):
    """What a frame does; the frame count bit may be set as well."""

    SND_NKE = 0x40
    SND_UD = 0x53
    REQ_UD2 = 0x5B
    RSP_UD = 0x08


class ControlInformation(IntEnum):
    """What the data of a long frame is."""

    APPLICATION_RESET = 0x50
    DATA_SEND = 0x51
    SLAVE_SELECT = 0x52
    VARIABLE_DATA = 0x72
    BAUD_300 = 0xB8
    BAUD_600 = 0xB9
    BAUD_1200 = 0xBA
    BAUD_2400 = 0xBB
    BAUD_4800 = 0xBC
    BAUD_9600 = 0xBD


class SpecialAddress(IntEnum):
    """Addresses that are not one meter's primary address (0 to 250)."""

    SELECTED = 253
    EVERYBODY_ANSWERS = 254
    NOBODY_ANSWERS = 255


@dataclass(frozen=True, kw_only=True)
class Acknowledgement:
    """The single character with which a meter confirms."""

    def encode(self) -> bytes:
        """Give the bytes on the line."""
        return bytes((ACKNOWLEDGEMENT,))


@dataclass(frozen=True, kw_only=True)
class ShortFrame:
    """A frame of fixed length, without data."""

    control: int
    address: int

    def encode(self) -> bytes:
        """Give the bytes on the line."""
        content = bytes((self.control, self.address))
        return bytes((SHORT_START, *content, _checksum(content), STOP))


@dataclass(frozen=True, kw_only=True)
class LongFrame:
    """A frame with up to 252 bytes of data; one without any is called a control frame."""

    control: int
    address: int
    information: int
    data: bytes = b""

    def encode(self) -> bytes:
        """Give the bytes on the line."""
        content = bytes((self.control, self.address, self.information)) + self.data
        length = len(content)
        header = bytes((LONG_START, length, length, LONG_START))
        return header + content + bytes((_checksum(content), STOP))


type Frame = Acknowledgement | ShortFrame | LongFrame


def _checksum(content: bytes | bytearray) -> int:
    return sum(content) & 0xFF


# Where a frame may begin. A long one repeats its length and its start byte: where that
# fails there is no frame, however little of it has arrived.
_START: Final = re.compile(
    rb"\xE5 | \x10 | \x68 (?: \Z | ([\x03-\xFF]) (?: \Z | \1 (?: \Z | \x68 )))",
    re.VERBOSE,
)


class FrameParser:
    """Finds the frames in what arrives, whatever surrounds them and however it is cut up.

    What may be the start of a frame holds back everything behind it until it is whole,
    proves wrong, or the line falls silent: bytes that look like a frame are no rarity
    in the data of a longer one, and an acknowledgement read out of a meter's values
    would be a command believed to be done. Silence ends the waiting soon enough. For the
    same reason no acknowledgement is found in a long frame that came damaged or broken
    off, while frames that have a checksum are.
    """

    def __init__(self) -> None:
        """Wait for the first frame."""
        self._begun = bytearray()
        self._distrusted = 0

    @property
    def missing(self) -> int:
        """How many bytes the frame that has begun still lacks at least; 0 if none has."""
        return _length(self._begun) - len(self._begun) if self._begun else 0

    def feed(self, data: bytes) -> list[Frame]:
        """Take what has arrived, and give the frames that are whole by now."""
        self._begun += data
        frames: list[Frame] = []
        while start := _START.search(self._begun):
            self._drop(start.start())
            length = _length(self._begun)
            if length > len(self._begun):
                return frames
            frame = _decode(bytes(self._begun[:length]))
            if frame is None:
                self._distrust(length)
            elif self._distrusted == 0 or not isinstance(frame, Acknowledgement):
                frames.append(frame)
            self._drop(length if frame else 1)
        self._drop(len(self._begun))
        return frames

    def flush(self) -> list[Frame]:
        """Give up what has begun, and give the frames that are whole behind its start.

        To be called when the line has been silent for longer than a frame allows.
        """
        frames: list[Frame] = []
        while self._begun:
            self._distrust(len(self._begun))
            self._drop(1)
            frames += self.feed(b"")
        return frames

    def _distrust(self, length: int) -> None:
        # A lone start byte proves little, a whole header is no accident.
        if len(self._begun) >= HEADER_LENGTH and self._begun[0] == LONG_START:
            self._distrusted = max(self._distrusted, length)

    def _drop(self, length: int) -> None:
        del self._begun[:length]
        self._distrusted = max(0, self._distrusted - length)


def _length(begun: bytearray) -> int:
    """Give the length of the frame that has begun, or of the shortest that begins so."""
    if begun[0] == ACKNOWLEDGEMENT:
        return 1
    if begun[0] == SHORT_START:
        return SHORT_LENGTH
    return LONG_OVERHEAD + (begun[1] if len(begun) > 1 else SHORTEST_CONTENT)


def _decode(frame: bytes) -> Frame | None:
    """Decode a frame of the right length; None if it came damaged."""
    if frame[0] == ACKNOWLEDGEMENT:
        return Acknowledgement()
    content = frame[1:-2] if frame[0] == SHORT_START else frame[HEADER_LENGTH:-2]
    if frame[-2] != _checksum(content) or frame[-1] != STOP:
        return None
    if frame[0] == SHORT_START:
        return ShortFrame(control=content[0], address=content[1])
    control, address, information, *_ = content
    return LongFrame(
        control=control, address=address, information=information, data=content[SHORTEST_CONTENT:]
    )
