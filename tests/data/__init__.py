"""Facts about the meter that the tests hold the code against."""

import csv
import json
from pathlib import Path

DATA = Path(__file__).parent


def real_meter_words() -> dict[int, int]:
    """Registers of a real meter, by address."""
    blocks = json.loads((DATA / "real_meter_registers.json").read_text())
    return {
        int(start, 16) + offset: word
        for start, block in blocks.items()
        for offset, word in enumerate(block["registers"])
    }


def manual_rows() -> list[dict[str, str]]:
    """The rows of the manual's register map."""
    with (DATA / "modbus_registers.csv").open(newline="") as file:
        return list(csv.DictReader(file))
