"""Meters that speak Modbus."""

from .bus import ModbusBus, ModbusTcpBus
from .meter import MODBUS_ADDRESSES, ModbusMeter

__all__ = ["MODBUS_ADDRESSES", "ModbusBus", "ModbusMeter", "ModbusTcpBus"]
