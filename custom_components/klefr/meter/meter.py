"""What a meter can do, over any protocol."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from .errors import NotReadyError, WrongMeterError
from .model import (
    NO_SERIAL_NUMBER,
    Communication,
    Counter,
    Identity,
    Quantity,
    Reading,
    Readings,
    Setting,
    Settings,
    SettingValue,
)


class Meter(ABC):
    """A meter that has been found and identified.

    All methods raise LinkError and CommunicationError when the meter cannot be reached,
    RefusedError when it refuses a request, and WrongMeterError when a different meter answers
    twice. Nothing is then returned from that meter or written to it.
    """

    identity: Identity
    quantities: frozenset[Quantity]
    """What it measures."""
    settings: Mapping[Setting, Collection[SettingValue]]
    """The settings that can be written, with the values that they can be set to."""
    counters: frozenset[Counter]
    """The counters that can be reset."""
    registers: Sequence[range]
    """The addresses of the register map, in blocks. Empty over M-Bus."""
    reports_settings: bool
    """Whether the meter reports its settings. If not, all that is known of a setting is the value
    that was last written."""
    all_at_once: bool
    """Whether the meter always sends all that it measures."""

    @property
    @abstractmethod
    def memory(self) -> Mapping[str, Any]:
        """What to give to `identify` the next time, in values that JSON has.

        It says what had to be learned of the meter, and changes when more is learned.
        """

    @property
    @abstractmethod
    def diagnostics(self) -> Mapping[str, Any]:
        """What a bug report needs to say about the communication, in values that JSON has."""

    async def read(self, quantities: Collection[Quantity]) -> Readings:
        """Read these quantities, in as few requests as possible."""
        reading = await self.read_along(quantities)
        return {quantity: reading.values[quantity] for quantity in quantities}

    @abstractmethod
    async def read_along(
        self,
        quantities: Collection[Quantity],
        *,
        settings: Collection[Setting] = (),
        identified: bool = True,
    ) -> Reading:
        """Read these quantities and settings, and all that comes along to check energies with.

        Settings that the meter does not report are left out. Without `identified`, the meter may
        be read without its serial number, so that another one is not noticed.
        """

    @abstractmethod
    def line_time(
        self,
        quantities: Collection[Quantity],
        *,
        settings: Collection[Setting] = (),
        identified: bool = True,
    ) -> float:
        """Return how long the bus usually needs for that, in seconds."""

    @abstractmethod
    async def read_settings(self) -> Settings:
        """Read all settings."""

    @abstractmethod
    async def write(self, setting: Setting, value: SettingValue) -> None:
        """Write a setting and check that the meter took the value.

        Raises InvalidValueError before anything is sent, NotAcceptedError when the meter holds a
        different value afterwards, and NotAcknowledgedError when a meter that does not report its
        settings does not acknowledge the value.
        """

    @abstractmethod
    async def lock_calculation_code(self, serial_number: str) -> None:
        """Write calculation code 10, which is irreversible, and check that the meter took it.

        The serial number confirms that this is wanted. Raises InvalidValueError before anything
        is sent if it is not the meter's, and what `write` raises.
        """

    @abstractmethod
    async def reset(self, counter: Counter) -> None:
        """Reset a counter to zero and check that the meter did.

        Raises NotAcceptedError when the counter goes on from its old value, and
        NotAcknowledgedError when a meter that does not report its settings does not acknowledge.
        """

    @abstractmethod
    async def read_communication(self) -> Communication:
        """Ask how the meter communicates.

        What it does not report is returned as it was reached.
        """

    @abstractmethod
    async def write_communication(self, setting: Setting, value: SettingValue) -> None:
        """Change one setting of how the meter communicates.

        From then on it may have to be reached with another address or other line settings. Raises
        InvalidValueError before anything is sent. After CommunicationError and
        NotAcknowledgedError the meter may or may not have taken the value.
        """

    @abstractmethod
    async def dump(self, registers: range | None = None) -> Mapping[str, Any]:
        """Read registers, or everything, and return it raw and decoded, in values that JSON has.

        Raises InvalidRangeError before anything is sent if the meter does not have all of the
        registers.
        """


def check_serial_number(*, expected: str, found: str) -> None:
    """Make sure that the meter that answers is the one expected.

    Raises NotReadyError if it reports no serial number yet, and WrongMeterError.
    """
    if found == expected:
        return
    if found == NO_SERIAL_NUMBER:
        raise NotReadyError("The meter reports no serial number")
    raise WrongMeterError(expected=expected, found=found)


async def confirmed[T](ask: Callable[[], Awaitable[T]]) -> T:
    """Ask a second time if a different meter seems to answer, or one that is not ready.

    Gateways mix up answers, and a meter that starts reports no serial number. `ask` raises
    WrongMeterError and NotReadyError before it changes anything.
    """
    try:
        return await ask()
    except WrongMeterError, NotReadyError:
        return await ask()
