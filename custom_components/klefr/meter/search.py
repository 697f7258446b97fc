"""Find all meters on a bus, by all kinds of address, and the line settings that they have.

A search is a generator of steps. Between two steps others can use the bus. A search that is closed
sends nothing more.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

from .bus import Bus
from .errors import (
    GarbledAnswerError,
    NoAnswerError,
    NotAKlefrMeterError,
    NotReadyError,
    RefusedError,
)
from .link import BaudRate, Parity, Protocol, SerialLink
from .mbus import PRIMARY_ADDRESSES, MBusBus
from .mbus.bus import SecondaryAddress, Target
from .mbus.meter import MANUFACTURERS, identity_of
from .modbus import MODBUS_ADDRESSES, ModbusLine, ModbusMeter
from .model import NO_SERIAL_NUMBER, Identity
from .protocols import identify

# What a meter is set to, the likeliest first: what the factory sets, and what is usual in the field.
MODBUS_BAUD_RATES: Final = tuple(reversed(BaudRate))
MBUS_BAUD_RATES: Final = (
    BaudRate.B9600,
    BaudRate.B2400,
    BaudRate.B4800,
    BaudRate.B1200,
    BaudRate.B600,
    BaudRate.B300,
)
LIKELY_LINE_SETTINGS: Final[Mapping[Protocol, tuple[Sequence[BaudRate], Sequence[Parity]]]] = {
    Protocol.MODBUS: (MODBUS_BAUD_RATES, (Parity.EVEN, Parity.NONE, Parity.ODD)),
    Protocol.MBUS: (MBUS_BAUD_RATES, (Parity.EVEN,)),
}

# Where there is a meter on Modbus, there is nearly always one at one of these.
LIKELY_ADDRESSES: Final = range(1, 11)

FACTORY_ADDRESS: Final = 0
DIGITS: Final = "0123456789"
WILDCARD: Final = "F"

# An answer of several meters at once is garbled. So is one that noise disturbs, but rarely twice.
ATTEMPTS: Final = 2

# If so many secondary addresses seem to have several meters, the bus itself is disturbed: the
# search would go on through all hundred million addresses.
MAXIMUM_DUPLICATES: Final = 10


@dataclass(frozen=True, kw_only=True)
class Found:
    """A meter, and the address to reach it at."""

    address: int | str
    identity: Identity


@dataclass(frozen=True, kw_only=True)
class Step:
    """The result for one address, or for one group of secondary addresses."""

    address: int | str
    share: float
    """The part of the search that is done, from 0 to 1."""
    found: Found | None = None
    several: bool = False
    """Whether several meters answered at this one address."""


def with_all_line_settings(link: SerialLink, protocol: Protocol) -> list[SerialLink]:
    """Return a link, then its port with all other line settings of a protocol.

    The likelier ones come first: those that differ least from what is likeliest.
    """
    baud_rates, parities = LIKELY_LINE_SETTINGS[protocol]
    ranked = sorted(
        product(enumerate(baud_rates), enumerate(parities)),
        key=lambda ranks: (ranks[0][0] + ranks[1][0], ranks[0][0]),
    )
    links = [
        replace(link, baud_rate=baud_rate, parity=parity) for (_, baud_rate), (_, parity) in ranked
    ]
    return list(dict.fromkeys([link, *links]))


async def is_bus_answered(bus: Bus) -> bool:
    """Return whether anything answers with the line settings of a bus, without a long search.

    Meters on Modbus cannot be asked all at once, so some are missed that are at unlikely
    addresses. Raises LinkError.
    """
    if isinstance(bus, MBusBus):
        return await bus.is_answered()
    assert isinstance(bus, ModbusLine)
    for unit in LIKELY_ADDRESSES:
        if await ModbusMeter.is_answered(bus, unit):
            return True
    return False


def search(bus: Bus) -> AsyncGenerator[Step]:
    """Try all addresses of a bus, once each if no meter answers. Raises LinkError."""
    if isinstance(bus, MBusBus):
        return _search_mbus(bus)
    assert isinstance(bus, ModbusLine)
    return _search_modbus(bus)


async def _search_modbus(bus: ModbusLine) -> AsyncGenerator[Step]:
    for done, unit in enumerate(MODBUS_ADDRESSES, start=1):
        found, several = None, False
        if await ModbusMeter.is_answered(bus, unit):
            try:
                meter = await identify(bus, unit)
                found = Found(address=unit, identity=meter.identity)
            except GarbledAnswerError:
                several = True
            except NoAnswerError, NotAKlefrMeterError, NotReadyError, RefusedError:
                pass
        share = done / len(MODBUS_ADDRESSES)
        yield Step(address=unit, share=share, found=found, several=several)


async def _search_mbus(bus: MBusBus) -> AsyncGenerator[Step]:
    seen: set[str] = set()
    at_factory_address: Found | None = None
    for done, address in enumerate(PRIMARY_ADDRESSES, start=1):
        identity, several = await _ask(bus, address)
        found = None if identity is None else Found(address=address, identity=identity)
        if address == FACTORY_ADDRESS:
            # The next new meter has this address too, so the secondary address is better.
            at_factory_address, found = found, None
        if found:
            seen.add(found.identity.serial_number)
        share = done / len(PRIMARY_ADDRESSES) / 2
        yield Step(address=address, share=share, found=found, several=several)

    duplicates = 0
    groups = [digit + WILDCARD * 7 for digit in reversed(DIGITS)]
    while groups:
        group = groups.pop()
        prefix = group.rstrip(WILDCARD)
        identity, several = await _ask(bus, SecondaryAddress(identification=group))
        if several and prefix == group:
            # All but one of them may be of other manufacturers.
            identity, several = await _ask(
                bus, SecondaryAddress(identification=group, manufacturer=MANUFACTURERS[0])
            )
            duplicates += several
            if duplicates == MAXIMUM_DUPLICATES:
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

    if at_factory_address and at_factory_address.identity.serial_number not in seen:
        # It cannot be selected by its secondary address.
        yield Step(address=FACTORY_ADDRESS, share=1.0, found=at_factory_address)


async def _ask(bus: MBusBus, target: Target) -> tuple[Identity | None, bool]:
    """Return the KLEFR meter that answers, if one does, and whether several meters do."""
    for _ in range(ATTEMPTS):
        try:
            telegram = await bus.find(target)
            if telegram is None or telegram.header.identification == NO_SERIAL_NUMBER:
                return None, False
            return identity_of([telegram]), False
        except NotAKlefrMeterError:
            return None, False
        except GarbledAnswerError:
            continue
    return None, True
