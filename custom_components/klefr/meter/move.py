"""Change how a meter communicates, and know where it is afterwards.

A meter takes one change at a time, and with each it is somewhere else: at another address, or
on a line that is set otherwise. Whether it took a change is told by where it answers from then
on, not by whether it acknowledged: that may be lost, or may come from elsewhere already.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

from .bus import Bus
from .errors import (
    AddressTakenError,
    KlefrError,
    LinkError,
    MeterLostError,
    NotMovedError,
    WrongMeterError,
)
from .link import BaudRate, Parity
from .model import Communication, Setting
from .protocols import identify, is_answered

# The addresses come first: they change nothing for others on the line.
ORDER: Final = (Setting.ADDRESS, Setting.SECONDARY_ADDRESS, Setting.PARITY, Setting.BAUD_RATE)

# A meter that was switched off for a moment is not lost.
ROUNDS: Final = 2
PAUSE: Final = 3.0  # seconds


@dataclass(frozen=True, kw_only=True)
class Way:
    """How to get at one meter, wherever it is."""

    open_bus: Callable[[BaudRate, Parity], Bus]
    """Gives the bus with these line settings. Raises LinkError if it cannot be set so."""
    serial_number: str
    by_secondary_address: bool

    def address(self, place: Communication) -> int | str:
        """Return the address that the meter is asked by."""
        if self.by_secondary_address and place.secondary_address is not None:
            return place.secondary_address
        return place.address

    def name(self, place: Communication) -> str:
        """Return the serial number that the meter gives: on M-Bus it goes with the address."""
        return place.secondary_address or self.serial_number


def places_between(now: Communication, wanted: Communication) -> list[Communication]:
    """Return where a meter can be that was to change, the likeliest first."""
    choices = ((getattr(wanted, setting), getattr(now, setting)) for setting in ORDER)
    mixtures = (
        Communication(**dict(zip(ORDER, values, strict=True))) for values in product(*choices)
    )
    return list(dict.fromkeys((wanted, now, *mixtures)))


async def check_free(way: Way, now: Communication, wanted: Communication) -> None:
    """Make sure that nobody else is where the meter will be, also on its way there.

    Raises AddressTakenError, and LinkError if the line cannot be set like that.
    """
    for _, place in _stops(now, wanted):
        addresses = {place.address, place.secondary_address} - {now.address, now.secondary_address}
        if (place.baud_rate, place.parity) != (now.baud_rate, now.parity):
            addresses.add(way.address(place))
        # Some adapters ignore parity: through them it is the meter itself that answers.
        maybe_itself = place == replace(now, parity=place.parity)
        async with way.open_bus(place.baud_rate, place.parity) as bus:
            for address in addresses - {None}:
                assert address is not None
                if await is_answered(bus, address) and not (
                    maybe_itself and await _look(way, place)
                ):
                    raise AddressTakenError(address)


async def move(way: Way, now: Communication, wanted: Communication) -> None:
    """Change how a meter communicates, one setting after the other.

    Raises NotMovedError if the meter is somewhere else in the end than where it should be, and
    MeterLostError if it is not found any more.
    """
    place = now
    for setting, stop in _stops(now, wanted):
        failure: KlefrError | None = None
        try:
            async with way.open_bus(place.baud_rate, place.parity) as bus:
                meter = await identify(bus, way.address(place))
                if meter.identity.serial_number != way.name(place):
                    raise WrongMeterError(
                        expected=way.name(place), found=meter.identity.serial_number
                    )
                await meter.write_communication(setting, getattr(stop, setting))
        except KlefrError as err:
            failure = err
        found = await find(way, (stop, place, *places_between(now, wanted)))
        if found != stop:
            raise NotMovedError(wanted=wanted, found=found) from failure
        place = stop


async def find(way: Way, places: Iterable[Communication], *, rounds: int = ROUNDS) -> Communication:
    """Return where the meter is. Raises MeterLostError if it answers at none of the places."""
    places = dict.fromkeys(places)
    untried: list[Communication] = []
    for number in range(rounds):
        await asyncio.sleep(PAUSE if number else 0)
        untried.clear()
        for place in places:
            try:
                told = await _look(way, place)
            except LinkError:
                untried.append(place)
                continue
            if told is not None:
                # What else it tells it may do only later, so that has to be tried.
                with suppress(LinkError):
                    if told != place and await _look(way, told) is not None:
                        return told
                return place
    raise MeterLostError(tried=[place for place in places if place not in untried], untried=untried)


async def _look(way: Way, place: Communication) -> Communication | None:
    """Return what the meter tells at a place, None if it does not answer there."""
    try:
        async with way.open_bus(place.baud_rate, place.parity) as bus:
            meter = await identify(bus, way.address(place))
            if meter.identity.serial_number == way.name(place):
                return await meter.read_communication()
    except LinkError:
        raise
    except KlefrError:
        pass
    return None


def _stops(now: Communication, wanted: Communication) -> Iterator[tuple[Setting, Communication]]:
    """Give each setting that changes, and where the meter is when it has."""
    place = now
    for setting in ORDER:
        if (value := getattr(wanted, setting)) != getattr(place, setting):
            # A setting has the name of its field.
            place = replace(place, **{setting: value})
            yield setting, place
