"""Values from elsewhere: a program that feeds a meter makes it a stand-in for a real one.

Each line is a JSON object. Its keys are registers, by address or by what the map calls them,
and its values are what they show from then on; null lets a register show its own value again:

    {"0x5012": -1.25, "total active power": -1.25, "L1 current": null}
"""

import json
import struct

from .meter import VirtualMeter
from .registers import REGISTERS

BY_CONTENT = {register.content: address for address, register in REGISTERS.items()}


def _address(key: str) -> int:
    """Return the register that a key names, or raise ValueError."""
    address = BY_CONTENT.get(key.lower())
    if address is None and key.lower().startswith("0x"):
        address = int(key, 16)
    if address not in REGISTERS:
        raise ValueError(f"there is no register {key!r}")
    return address


def show(meter: VirtualMeter, line: str) -> None:
    """Let a meter show the values of a line, all or none. Raises ValueError."""
    values = json.loads(line)
    if not isinstance(values, dict):
        raise ValueError("a line is a JSON object")  # noqa: TRY004
    shown: dict[int, float | None] = {}
    for key, value in values.items():
        address = _address(key)
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise ValueError(f"{key!r} has no number")  # noqa: TRY004
        if value is not None:
            try:
                REGISTERS[address].encode(value)
            except (OverflowError, ValueError, struct.error) as error:
                raise ValueError(f"{key!r} cannot hold {value}") from error
        shown[address] = value
    for address, value in shown.items():
        if value is None:
            meter.overrides.pop(address, None)
        else:
            meter.overrides[address] = value
