"""Meters that speak Modbus RTU."""

from .bus import ModbusBus
from .meter import ADDRESSES, ModbusMeter

__all__ = ["ADDRESSES", "ModbusBus", "ModbusMeter"]
