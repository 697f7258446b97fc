"""What is spoken on a bus: the kinds of bus and of meter that go together."""

from collections.abc import Mapping
from typing import Any, Final

from .bus import ATTEMPTS, Bus
from .link import Protocol
from .mbus import MBusBus, MBusMeter
from .meter import Meter
from .modbus import ModbusBus, ModbusLine, ModbusMeter, ModbusTcpBus

BUSES: Final[Mapping[Protocol, type[Bus]]] = {
    bus.protocol: bus for bus in (ModbusBus, ModbusTcpBus, MBusBus)
}


async def identify(
    bus: Bus, address: int | str, *, memory: Mapping[str, Any] | None = None
) -> Meter:
    """Ask which meter answers at an address: a number, or the 8 digits of a secondary address.

    `memory` is what `Meter.memory` gave before, if this may be the same meter. Raises NotAKlefrMeterError if it is something else, and what `Meter` raises.
    """
    if isinstance(bus, MBusBus):
        return await MBusMeter.identify(bus, address)
    assert isinstance(bus, ModbusLine)
    assert isinstance(address, int)
    return await ModbusMeter.identify(bus, address, memory=memory)


async def is_answered(bus: Bus, address: int | str) -> bool:
    """Tell whether anybody answers at an address, or several at once. Raises LinkError."""
    if isinstance(bus, MBusBus):
        return await MBusMeter.is_answered(bus, address, attempts=ATTEMPTS)
    assert isinstance(bus, ModbusLine)
    assert isinstance(address, int)
    return await ModbusMeter.is_answered(bus, address, attempts=ATTEMPTS)
