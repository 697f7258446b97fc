"""What can go wrong between a meter and whoever reads it."""

from collections.abc import Sequence
from typing import ClassVar

from .model import Communication


class KlefrError(Exception):
    """Base of all errors that this package raises.

    `key` names the kind of failure, for whoever words it for the user.
    """

    key: ClassVar[str]


class LinkError(KlefrError):
    """The link to the bus could not be opened, or broke while in use."""

    key = "link_failed"


class PortNotFoundError(LinkError):
    """The serial port does not exist."""

    key = "port_not_found"


class PortPermissionError(LinkError):
    """The serial port may not be opened by this user."""

    key = "port_permission"


class PortInUseError(LinkError):
    """Another program holds the serial port."""

    key = "port_in_use"


class LineSettingsError(LinkError):
    """The port is open already, with other line settings."""

    key = "line_settings_in_use"


class CommunicationError(KlefrError):
    """The link is open, but no usable answer came back."""


class NoAnswerError(CommunicationError):
    """Nobody answered in time."""

    key = "no_answer"


class GarbledAnswerError(CommunicationError):
    """Something arrived that is not an answer to the request."""

    key = "garbled_answer"


class RefusedError(KlefrError):
    """The meter answered that it will not do what was asked."""

    key = "refused"

    def __init__(self, code: int) -> None:
        """Keep the Modbus exception code."""
        super().__init__(f"The meter refused the request (exception code {code})")
        self.code = code


class NotAKlefrMeterError(KlefrError):
    """Something answers at the address, but not as a KLEFR meter does."""

    key = "not_a_klefr_meter"


class WrongMeterError(KlefrError):
    """Another meter answers at the address than the one expected there."""

    key = "wrong_meter"

    def __init__(self, *, expected: str, found: str) -> None:
        """Keep the serial numbers of both meters."""
        super().__init__(f"Expected meter {expected}, found meter {found}")
        self.expected = expected
        self.found = found


class InvalidValueError(KlefrError):
    """A value may not be written: it is out of range, or cannot be undone."""

    key = "invalid_value"


class InvalidAddressError(InvalidValueError):
    """A meter cannot have this address."""

    key = "invalid_address"


class InvalidRangeError(InvalidValueError):
    """A meter does not have all of these registers."""

    key = "invalid_range"


class NotAcceptedError(KlefrError):
    """The meter acknowledged a value, but does not hold it afterwards."""

    key = "not_accepted"

    def __init__(self, *, written: object, found: object) -> None:
        """Keep what was written and what the meter holds instead."""
        super().__init__(f"Wrote {written}, but the meter holds {found}")
        self.written = written
        self.found = found


class NotAcknowledgedError(KlefrError):
    """The meter can be read, but did not acknowledge what was sent to it."""

    key = "not_acknowledged"


class AddressTakenError(KlefrError):
    """Somebody else has the address that a meter was to get."""

    key = "address_taken"

    def __init__(self, address: int | str, holder: str | None = None) -> None:
        """Keep the address, and who has it if that is known."""
        super().__init__(f"Address {address} is taken by {holder or 'somebody'}")
        self.address = address
        self.holder = holder


class NotMovedError(KlefrError):
    """A meter did not take a change of how it communicates, or only a part of it."""

    key = "not_moved"

    def __init__(self, *, wanted: Communication, found: Communication) -> None:
        """Keep how it should communicate and how it does."""
        super().__init__(f"The meter did not accept {wanted}, it communicates with {found}")
        self.wanted = wanted
        self.found = found


class MeterLostError(KlefrError):
    """A meter does not answer, however it may communicate."""

    key = "meter_lost"

    def __init__(self, *, tried: Sequence[Communication], untried: Sequence[Communication]) -> None:
        """Keep what was tried, and what could not be tried because of the link."""
        super().__init__(f"No meter answers at {tried}; not tried: {untried}")
        self.tried = tried
        self.untried = untried
