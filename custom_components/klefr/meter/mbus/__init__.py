"""Meters that speak M-Bus."""

from .bus import MBusBus
from .meter import PRIMARY_ADDRESSES, MBusMeter, parse_address

__all__ = ["PRIMARY_ADDRESSES", "MBusBus", "MBusMeter", "parse_address"]
