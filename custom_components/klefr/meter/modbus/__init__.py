"""Meters that speak Modbus RTU."""

from .bus import ModbusBus
from .meter import MODBUS_ADDRESSES, ModbusMeter

__all__ = ["MODBUS_ADDRESSES", "ModbusBus", "ModbusMeter"]
