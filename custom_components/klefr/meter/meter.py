"""What a meter can do, whatever it speaks."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .model import (
    Communication,
    Counter,
    Identity,
    Quantity,
    Readings,
    Setting,
    Settings,
    SettingValue,
)


class Meter(ABC):
    """A meter that has been found and identified.

    All methods raise LinkError and CommunicationError when the meter cannot be reached,
    RefusedError when it refuses, and WrongMeterError, before anything is handed out or
    written, when another meter answers in its place.
    """

    identity: Identity
    quantities: frozenset[Quantity]
    """What it measures."""
    settings: Mapping[Setting, Collection[SettingValue]]
    """What it can be set to, with the values that may be written."""
    counters: frozenset[Counter]
    """What can be reset."""
    registers: Sequence[range]
    """The blocks of addresses that can be read; only Modbus has any."""
    tells_settings: bool
    """Whether it can be asked what it is set to. Otherwise all that is known is what was
    written last."""

    @property
    @abstractmethod
    def memory(self) -> Mapping[str, Any]:
        """What to give to `identify` the next time, in values that JSON has.

        It says what had to be learned of the meter, and changes when more is learned.
        """

    @property
    @abstractmethod
    def diagnostics(self) -> Mapping[str, Any]:
        """What a bug report should tell about the communication."""

    @abstractmethod
    async def read(self, quantities: Collection[Quantity]) -> Readings:
        """Read these quantities, in as few requests as possible."""

    @abstractmethod
    async def read_settings(self) -> Settings:
        """Read all that the meter is set to."""

    @abstractmethod
    async def write(self, setting: Setting, value: SettingValue) -> None:
        """Set the meter and make sure that it took the value.

        Raises InvalidValueError before anything is sent, NotAcceptedError when the meter
        holds another value afterwards, and NotAcknowledgedError when it does not say that
        it took the value.
        """

    @abstractmethod
    async def lock_calculation_code(self, serial_number: str) -> None:
        """Set calculation code 10, which can never be undone, and make sure of it.

        Raises InvalidValueError before anything is sent if the serial number, which confirms
        that this is wanted, is not the meter's. Otherwise like `write`.
        """

    @abstractmethod
    async def reset(self, counter: Counter) -> None:
        """Let a counter start from zero and make sure that it did.

        Raises NotAcceptedError when it goes on counting from where it was, and
        NotAcknowledgedError when it does not say that it reset the counter.
        """

    @abstractmethod
    async def read_communication(self) -> Communication:
        """Ask how the meter communicates, as far as it tells; else it is as it was reached."""

    @abstractmethod
    async def write_communication(self, setting: Setting, value: SettingValue) -> None:
        """Set how the meter communicates, after which it may be reached otherwise.

        Raises InvalidValueError before anything is sent. After CommunicationError and
        NotAcknowledgedError it may have taken the value or not.
        """

    @abstractmethod
    async def dump(self, registers: range | None = None) -> Mapping[str, Any]:
        """Read what the meter sends, as it is sent and decoded, in values that JSON has.

        Without `registers` that is everything. Raises InvalidRangeError before anything is
        sent if the meter does not have all of them.
        """
