"""Characters as levels on a wire, and what a receiver makes of them.

Times are in bits of the sender. The wire is high unless one pulls it low.
"""

from collections.abc import Set as AbstractSet

from .meter import Parity

DATA_BITS = 8


def character_bits(parity: Parity) -> int:
    """Return how many bits a character takes, with one to start and one to stop."""
    return DATA_BITS + (2 if parity is Parity.NONE else 3)


def low_bits(characters: bytes, parity: Parity, *, start: int = 0) -> set[int]:
    """Return when characters that follow each other pull the wire low."""
    low: set[int] = set()
    for character in characters:
        low.add(start)
        low.update(start + 1 + bit for bit in range(DATA_BITS) if not character >> bit & 1)
        odd = character.bit_count() % 2 == 1
        if parity is not Parity.NONE and odd is (parity is Parity.ODD):
            low.add(start + 1 + DATA_BITS)
        start += character_bits(parity)
    return low


def characters(low: AbstractSet[int], parity: Parity, *, bit_time: float = 1.0) -> bytes:
    """Return what a receiver hears whose own bits take `bit_time`.

    It looks at the middle of each bit. As a serial port it passes on what fails the parity.
    """
    heard = bytearray()
    listening_from = 0.0
    for start in sorted(low):
        if start + 1 > listening_from:
            begin = max(float(start), listening_from)
            heard.append(
                sum(
                    (int(begin + (1.5 + bit) * bit_time) not in low) << bit
                    for bit in range(DATA_BITS)
                )
            )
            listening_from = begin + character_bits(parity) * bit_time
    return bytes(heard)
