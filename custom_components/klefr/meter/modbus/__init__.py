"""Meters that speak Modbus."""

from .bus import ModbusBus, ModbusLine, ModbusTcpBus
from .meter import MODBUS_ADDRESSES, ModbusMeter

__all__ = ["MODBUS_ADDRESSES", "ModbusBus", "ModbusLine", "ModbusMeter", "ModbusTcpBus"]
