"""Find the meters on a bus, however they are addressed.

A search is a stream of steps. It takes its turns on the line like everybody else, and ends,
with the line at rest, when nobody takes the next step.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

from .bus import Bus
from .errors import GarbledAnswerError, NoAnswerError, NotAKlefrMeterError, RefusedError
from .mbus import PRIMARY_ADDRESSES, MBusBus
from .mbus.bus import SecondaryAddress, Target
from .mbus.meter import MANUFACTURERS, identity_of
from .modbus import MODBUS_ADDRESSES, ModbusLine, ModbusMeter
from .model import Identity

FACTORY_ADDRESS: Final = 0
DIGITS: Final = "0123456789"
WILDCARD: Final = "F"

# How often to look at what seems to be several meters. Once it may be noise.
LOOKS: Final = 2

# So many that have the same secondary address are no meters: it is the line itself that is
# heard, and it would be heard at each of a hundred million addresses.
MOST_TWINS: Final = 10


@dataclass(frozen=True, kw_only=True)
class Found:
    """A meter, and the best address to reach it at."""

    address: int | str
    identity: Identity


@dataclass(frozen=True, kw_only=True)
class Step:
    """One address, or one group of secondary addresses, has been tried."""

    address: int | str
    share: float
    """How much of the search is done, from 0 to 1."""
    found: Found | None = None
    several: bool = False
    """Whether more than one meter answered where only one should."""


def search(bus: Bus) -> AsyncGenerator[Step]:
    """Try all addresses of a bus, those where nobody answers only once. Raises LinkError."""
    if isinstance(bus, MBusBus):
        return _search_mbus(bus)
    assert isinstance(bus, ModbusLine)
    return _search_modbus(bus)


async def _search_modbus(bus: ModbusLine) -> AsyncGenerator[Step]:
    for done, unit in enumerate(MODBUS_ADDRESSES, start=1):
        found, several = None, False
        if await ModbusMeter.is_answered(bus, unit):
            try:
                meter = await ModbusMeter.identify(bus, unit)
                found = Found(address=unit, identity=meter.identity)
            except GarbledAnswerError:
                several = True
            except NoAnswerError, NotAKlefrMeterError, RefusedError:
                pass
        share = done / len(MODBUS_ADDRESSES)
        yield Step(address=unit, share=share, found=found, several=several)


async def _search_mbus(bus: MBusBus) -> AsyncGenerator[Step]:
    seen: set[str] = set()
    unaddressed: Found | None = None
    for done, address in enumerate(PRIMARY_ADDRESSES, start=1):
        identity, several = await _ask(bus, address)
        found = None if identity is None else Found(address=address, identity=identity)
        if address == FACTORY_ADDRESS:
            # Any other new meter has that too, so its secondary address serves it better.
            unaddressed, found = found, None
        if found:
            seen.add(found.identity.serial_number)
        share = done / len(PRIMARY_ADDRESSES) / 2
        yield Step(address=address, share=share, found=found, several=several)

    twins = 0
    groups = [digit + WILDCARD * 7 for digit in reversed(DIGITS)]
    while groups:
        group = groups.pop()
        prefix = group.rstrip(WILDCARD)
        identity, several = await _ask(bus, SecondaryAddress(identification=group))
        if several and prefix == group:
            # One of them may be of another maker.
            identity, several = await _ask(
                bus, SecondaryAddress(identification=group, manufacturer=MANUFACTURERS[0])
            )
            twins += several
            if twins == MOST_TWINS:
                groups.clear()
        elif several:
            several = False
            groups += [(prefix + digit).ljust(len(group), WILDCARD) for digit in reversed(DIGITS)]
        found = None
        if identity and identity.serial_number not in seen:
            seen.add(identity.serial_number)
            found = Found(address=identity.serial_number, identity=identity)
        following = groups[-1].rstrip(WILDCARD) if groups else ""
        share = 0.5 + (int(following) / 10 ** len(following) if following else 1) / 2
        yield Step(address=group, share=share, found=found, several=several)

    if unaddressed and unaddressed.identity.serial_number not in seen:
        yield Step(address=unaddressed.address, share=1.0, found=unaddressed)


async def _ask(bus: MBusBus, target: Target) -> tuple[Identity | None, bool]:
    """Return which KLEFR meter answers, and whether several do."""
    for _ in range(LOOKS):
        try:
            header = await bus.find(target)
            return (identity_of(header) if header else None), False
        except NotAKlefrMeterError:
            return None, False
        except GarbledAnswerError:
            continue
    return None, True
