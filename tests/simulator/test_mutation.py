"""Mutated telegrams come without end, and the same ones for the same seed."""

from itertools import islice

from simulator.mutation import mutations
from tests.data.mbus import telegrams

from .mbus_client import is_frame

LONGEST = 261
TELEGRAMS = telegrams()


def sample(seed: int) -> list[bytes]:
    every = list(TELEGRAMS.values())
    return list(islice(mutations(TELEGRAMS["klefr_6933"], every, seed=seed), 2000))


def test_same_seed_makes_the_same() -> None:
    assert sample(1) == sample(1) != sample(2)


def test_most_are_whole_frames_with_something_else_in_them() -> None:
    made = sample(1)
    whole = [telegram for telegram in made if len(telegram) <= LONGEST and is_frame(telegram)]
    assert 0.6 * len(made) < len(whole) < 0.9 * len(made)
    assert len(set(made)) > 0.8 * len(made)
    assert sum(telegram in TELEGRAMS.values() for telegram in made) < 0.1 * len(made)
