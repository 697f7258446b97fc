"""Answers of electricity meters of several makes, as whole frames; makes.csv says whose.

Most come from the test frames of libmbus, some from what users of libraries like it have
published. KLEFR's is the example in its manual.
"""

import csv
from pathlib import Path

FOLDER = Path(__file__).parent


def telegrams() -> dict[str, bytes]:
    """The frames, by the names of their files."""
    with (FOLDER / "makes.csv").open(newline="") as file:
        names = [row["file"] for row in csv.DictReader(file)]
    return {name: bytes.fromhex((FOLDER / f"{name}.hex").read_text()) for name in names}
