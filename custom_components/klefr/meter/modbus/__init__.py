"""Meters that speak Modbus."""

from .bus import ModbusBus, ModbusTcpBus
from .line import ModbusLine
from .meter import MODBUS_ADDRESSES, ModbusMeter

__all__ = ["MODBUS_ADDRESSES", "ModbusBus", "ModbusLine", "ModbusMeter", "ModbusTcpBus"]
