"""What a meter can do, whatever it speaks."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any

from .model import Counter, Identity, Quantity, Readings, Setting, Settings, SettingValue


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
    tells_settings: bool
    """Whether it can be asked what it is set to. Otherwise all that is known is what was
    written last."""

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
    async def reset(self, counter: Counter) -> None:
        """Let a counter start from zero and make sure that it did.

        Raises NotAcceptedError when it goes on counting from where it was, and
        NotAcknowledgedError when it does not say that it reset the counter.
        """
