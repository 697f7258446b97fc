"""What bad lines and bad meters might make of M-Bus telegrams, as many as are asked for."""

from collections.abc import Iterator, Sequence
from random import Random

LONGEST_CONTENT = 255


def mutations(favourite: bytes, telegrams: Sequence[bytes], *, seed: int) -> Iterator[bytes]:
    """Make telegrams without end that have something wrong with them.

    Three of four come from the favourite, the others from any of the telegrams. Three of
    four have lengths and a checksum that fit, so that what is wrong is in their records.
    """
    random = Random(seed)  # noqa: S311
    count = 0
    while True:
        start = favourite if count % 4 else random.choice(telegrams)
        mutated = _mutate(start, telegrams, random)
        yield _repair(mutated) if count // 4 % 4 else mutated
        count += 1


def _mutate(telegram: bytes, telegrams: Sequence[bytes], random: Random) -> bytes:
    """Do one to three things to a telegram."""
    mutated = bytearray(telegram)
    for _ in range(random.randint(1, 3)):
        place = random.randrange(len(mutated) + 1)
        match random.randrange(7):
            case 0:
                mutated[place : place + 1] = random.randbytes(1)
            case 1:
                mutated[place : place + 1] = bytes(
                    byte ^ 1 << random.randrange(8) for byte in mutated[place : place + 1]
                )
            case 2:
                del mutated[place : place + random.randint(1, 8)]
            case 3:
                mutated[place:place] = random.randbytes(random.randint(1, 8))
            case 4:
                del mutated[place:]
            case 5:
                other = random.choice(telegrams)
                mutated[place:] = other[random.randrange(len(other)) :]
            case 6:
                mutated[1:3] = random.randbytes(1) * 2
    return bytes(mutated)


def _repair(telegram: bytes) -> bytes:
    """Give a telegram the lengths and the checksum that its content asks for."""
    content = telegram[4:-2][:LONGEST_CONTENT]
    header = bytes((0x68, len(content), len(content), 0x68))
    return header + content + bytes((sum(content) % 256, 0x16))
