"""What can go wrong with a meter or on the way to it."""

from collections.abc import Sequence
from typing import ClassVar

from .model import Communication


class KlefrError(Exception):
    """Base of all errors that this package raises."""

    key: ClassVar[str]
    """Names the kind of error, so that an application can give it a message."""


class LinkError(KlefrError):
    """The link to the bus could not be opened, or broke while in use."""

    key = "link_failed"


class PortNotFoundError(LinkError):
    """The serial port does not exist."""

    key = "port_not_found"


class PortPermissionError(LinkError):
    """The user of this process has no permission to open the serial port."""

    key = "port_permission"


class PortInUseError(LinkError):
    """Another program has opened the serial port."""

    key = "port_in_use"


class LineSettingsError(LinkError):
    """The port is open already, with another protocol or other line settings."""

    key = "line_settings_in_use"


class NeverSilentError(LinkError):
    """So much arrives at the port that no meter can have sent it."""

    key = "never_silent"


class CommunicationError(KlefrError):
    """The link is open, but no usable answer came back."""


class NoAnswerError(CommunicationError):
    """No meter answered in time."""

    key = "no_answer"


class GarbledAnswerError(CommunicationError):
    """Something arrived that is not an answer to the request."""

    key = "garbled_answer"


class NotReadyError(CommunicationError):
    """A meter that has just been powered up does not know its serial number yet."""

    key = "not_ready"


class RefusedError(KlefrError):
    """The meter answered a request with a Modbus exception."""

    key = "refused"

    def __init__(self, code: int) -> None:
        """Keep the Modbus exception code."""
        super().__init__(f"The meter refused the request (exception code {code})")
        self.code = code


class NotAKlefrMeterError(KlefrError):
    """What answers at the address is not a KLEFR meter."""

    key = "not_a_klefr_meter"


class WrongMeterError(KlefrError):
    """A different meter answers at the address."""

    key = "wrong_meter"

    def __init__(self, *, expected: str, found: str) -> None:
        """Keep the serial numbers of both meters."""
        super().__init__(f"Expected meter {expected}, found meter {found}")
        self.expected = expected
        self.found = found


class InvalidValueError(KlefrError):
    """A value is not written, because it is out of range or irreversible."""

    key = "invalid_value"


class InvalidAddressError(InvalidValueError):
    """No meter can have this address."""

    key = "invalid_address"


class InvalidRangeError(InvalidValueError):
    """The meter does not have all of these registers."""

    key = "invalid_range"


class NotAcceptedError(KlefrError):
    """The meter acknowledged a value, but holds a different one afterwards."""

    key = "not_accepted"

    def __init__(self, *, written: object, found: object) -> None:
        """Keep what was written and what the meter holds."""
        super().__init__(f"Wrote {written}, but the meter holds {found}")
        self.written = written
        self.found = found


class NotAcknowledgedError(KlefrError):
    """The meter can be read, but did not acknowledge what was sent to it."""

    key = "not_acknowledged"


class AddressTakenError(KlefrError):
    """Another device already has the address that a meter should get."""

    key = "address_taken"

    def __init__(self, address: int | str, holder: str | None = None) -> None:
        """Keep the address, and the name of the device that has it, if known."""
        super().__init__(f"Address {address} is taken by {holder or 'another device'}")
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
