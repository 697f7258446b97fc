"""Which kind of bus and of meter belongs to which protocol."""

from collections.abc import Mapping
from typing import Any, Final

from .bus import ATTEMPTS, Bus
from .errors import NotReadyError
from .link import Protocol
from .mbus import MBusBus, MBusMeter
from .meter import Meter
from .modbus import ModbusBus, ModbusLine, ModbusMeter, ModbusTcpBus
from .model import NO_SERIAL_NUMBER

BUSES: Final[Mapping[Protocol, type[Bus]]] = {
    bus.protocol: bus for bus in (ModbusBus, ModbusTcpBus, MBusBus)
}


async def identify(
    bus: Bus, address: int | str, *, memory: Mapping[str, Any] | None = None
) -> Meter:
    """Return the meter that answers at an address: a number, or a secondary address of 8 digits.

    `memory` is what `Meter.memory` gave before, if it may be the same meter. Raises
    NotAKlefrMeterError if something else answers, NotReadyError if a meter reports no serial
    number yet, and what `Meter` raises.
    """
    meter: Meter
    if isinstance(bus, MBusBus):
        meter = await MBusMeter.identify(bus, address)
    else:
        assert isinstance(bus, ModbusLine)
        assert isinstance(address, int)
        meter = await ModbusMeter.identify(bus, address, memory=memory)
    if meter.identity.serial_number == NO_SERIAL_NUMBER:
        raise NotReadyError("The meter reports no serial number")
    return meter


async def is_answered(bus: Bus, address: int | str) -> bool:
    """Return whether one or more devices answer at an address. Raises LinkError."""
    if isinstance(bus, MBusBus):
        return await MBusMeter.is_answered(bus, address, attempts=ATTEMPTS)
    assert isinstance(bus, ModbusLine)
    assert isinstance(address, int)
    return await ModbusMeter.is_answered(bus, address, attempts=ATTEMPTS)
