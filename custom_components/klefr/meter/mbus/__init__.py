"""Meters that speak M-Bus."""

from .bus import MBusBus
from .meter import PRIMARY_ADDRESSES, MBusMeter, is_secondary_address, parse_address

__all__ = ["PRIMARY_ADDRESSES", "MBusBus", "MBusMeter", "is_secondary_address", "parse_address"]
