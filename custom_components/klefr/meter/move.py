"""Change how a meter communicates, and know how to reach it afterwards.

A meter takes one change at a time, and after each it has another address or other line settings.
Whether it took a change shows in how it answers from then on. Its acknowledgement proves nothing:
it can get lost, or come with the new line settings already.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

from .bus import Bus
from .errors import AddressTakenError, KlefrError, LinkError, MeterLostError, NotMovedError
from .link import BaudRate, Parity
from .meter import check_serial_number
from .model import Communication, Setting
from .protocols import identify, is_answered

# The addresses come first: they change nothing for others on the bus.
ORDER: Final = (Setting.ADDRESS, Setting.SECONDARY_ADDRESS, Setting.PARITY, Setting.BAUD_RATE)

# A meter that does not answer may only have been switched off for a moment.
ROUNDS: Final = 2
PAUSE: Final = 3.0
"""Seconds between two rounds."""


@dataclass(frozen=True, kw_only=True)
class MeterAccess:
    """How to reach one meter, however it communicates."""

    open_bus: Callable[[BaudRate, Parity], Bus]
    """Returns the bus with these line settings. Raises LinkError if it cannot have them."""
    serial_number: str
    by_secondary_address: bool

    def address(self, communication: Communication) -> int | str:
        """Return the address to ask the meter at while it communicates like this."""
        if self.by_secondary_address and communication.secondary_address is not None:
            return communication.secondary_address
        return communication.address

    def reported_number(self, communication: Communication) -> str:
        """Return the serial number that the meter reports while it communicates like this.

        On M-Bus that is its secondary address.
        """
        return communication.secondary_address or self.serial_number


def possible_communications(current: Communication, wanted: Communication) -> list[Communication]:
    """Return how a meter may communicate whose change was begun, the likeliest first."""
    choices = ((getattr(wanted, setting), getattr(current, setting)) for setting in ORDER)
    mixtures = (
        Communication(**dict(zip(ORDER, values, strict=True))) for values in product(*choices)
    )
    return list(dict.fromkeys((wanted, current, *mixtures)))


async def check_free(access: MeterAccess, current: Communication, wanted: Communication) -> None:
    """Make sure that no other device has an address that the meter gets, also in between.

    Raises AddressTakenError, and LinkError if the bus cannot have the line settings.
    """
    for _, moved in _moves(current, wanted):
        addresses = {moved.address, moved.secondary_address}
        addresses -= {current.address, current.secondary_address, None}
        if (moved.baud_rate, moved.parity) != (current.baud_rate, current.parity):
            addresses.add(access.address(moved))
        # Some adapters ignore parity. Through them the meter itself answers.
        maybe_itself = moved == replace(current, parity=moved.parity)
        async with access.open_bus(moved.baud_rate, moved.parity) as bus:
            for address in addresses:
                assert address is not None
                if await is_answered(bus, address) and not (
                    maybe_itself and await _ask(access, moved)
                ):
                    raise AddressTakenError(address)


async def move(access: MeterAccess, current: Communication, wanted: Communication) -> None:
    """Change how a meter communicates, one setting after the other.

    Raises NotMovedError if the meter communicates differently in the end, and MeterLostError if
    it does not answer any more.
    """
    reached = current
    for setting, moved in _moves(current, wanted):
        failure: KlefrError | None = None
        try:
            async with access.open_bus(reached.baud_rate, reached.parity) as bus:
                meter = await identify(bus, access.address(reached))
                check_serial_number(
                    expected=access.reported_number(reached), found=meter.identity.serial_number
                )
                await meter.write_communication(setting, getattr(moved, setting))
        except KlefrError as err:
            failure = err
        found_at = await find(access, (moved, reached, *possible_communications(current, wanted)))
        if found_at != moved:
            raise NotMovedError(wanted=wanted, found=found_at) from failure
        reached = moved


async def find(
    access: MeterAccess, candidates: Iterable[Communication], *, rounds: int = ROUNDS
) -> Communication:
    """Return which of the candidates a meter communicates like.

    Raises MeterLostError if it answers at none of them.
    """
    candidates = dict.fromkeys(candidates)
    untried: list[Communication] = []
    for number in range(rounds):
        await asyncio.sleep(PAUSE if number else 0)
        untried.clear()
        for candidate in candidates:
            try:
                reported = await _ask(access, candidate)
            except LinkError:
                untried.append(candidate)
                continue
            if reported is not None:
                # A meter may report a setting before it uses it, so try what it reports.
                with suppress(LinkError):
                    if reported != candidate and await _ask(access, reported) is not None:
                        return reported
                return candidate
    raise MeterLostError(
        tried=[each for each in candidates if each not in untried], untried=untried
    )


async def _ask(access: MeterAccess, communication: Communication) -> Communication | None:
    """Return how the meter says that it communicates, or None if it does not answer like this."""
    try:
        async with access.open_bus(communication.baud_rate, communication.parity) as bus:
            meter = await identify(bus, access.address(communication))
            if meter.identity.serial_number == access.reported_number(communication):
                return await meter.read_communication()
    except LinkError:
        raise
    except KlefrError:
        pass
    return None


def _moves(
    current: Communication, wanted: Communication
) -> Iterator[tuple[Setting, Communication]]:
    """Yield each setting that changes, and how the meter communicates with it changed."""
    moved = current
    for setting in ORDER:
        if (value := getattr(wanted, setting)) != getattr(moved, setting):
            # A setting has the name of its field.
            moved = replace(moved, **{setting: value})
            yield setting, moved
