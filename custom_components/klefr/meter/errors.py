"""What can go wrong with a meter or on the way to it."""

from collections.abc import Sequence
from typing import ClassVar

from .link import Protocol, SerialLink
from .model import Communication, Counter, Setting, SettingValue


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


class NotASerialPortError(LinkError):
    """What is at the port's name is a folder, a file or another device."""

    key = "not_a_serial_port"


class PortPermissionError(LinkError):
    """The user of this process has no permission to open the serial port."""

    key = "port_permission"


class PortInUseError(LinkError):
    """Another program has opened the serial port."""

    key = "port_in_use"


class HostNotFoundError(LinkError):
    """The network does not know the name of the gateway or the serial proxy."""

    key = "host_not_found"


class HostRefusedError(LinkError):
    """The gateway or the serial proxy refuses the connection."""

    key = "host_refused"


class HostSilentError(LinkError):
    """The gateway or the serial proxy does not answer, or cannot be reached."""

    key = "host_silent"


class LineSettingsError(LinkError):
    """The port is open already, with another protocol or other line settings."""

    key = "line_settings_in_use"

    def __init__(self, *, protocol: Protocol, used: SerialLink, wanted: SerialLink) -> None:
        """Keep the protocol and the line settings in force, and the line settings wanted."""
        super().__init__(f"{protocol} is spoken with {used}, so {wanted} cannot be opened")
        self.protocol = protocol
        self.used = used
        self.wanted = wanted


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
        # The text may get into a log, where serial numbers do not belong.
        super().__init__("A different meter answers")
        self.expected = expected
        self.found = found


class InvalidValueError(KlefrError):
    """A value is not written, because it is out of range or irreversible."""

    key = "invalid_value"

    def __init__(self, setting: Setting, value: SettingValue) -> None:
        """Keep the setting and the value."""
        super().__init__(f"{setting} cannot be set to {value!r}")
        self.setting = setting
        self.value = value


class WrongConfirmationError(KlefrError):
    """The serial number that confirms an irreversible change is not that of the meter."""

    key = "wrong_serial_number"


class InvalidAddressError(KlefrError):
    """No meter can have this address."""

    key = "invalid_address"


class InvalidRangeError(KlefrError):
    """The meter does not have all of these registers."""

    key = "invalid_range"


class NotAcceptedError(KlefrError):
    """The meter acknowledged a value, but holds a different one afterwards."""

    key = "not_accepted"

    def __init__(
        self, setting: Setting, *, written: SettingValue, found: SettingValue | None
    ) -> None:
        """Keep what was written and what the meter holds, None if it holds no valid value."""
        super().__init__(f"{setting} was set to {written!r}, but the meter holds {found!r}")
        self.setting = setting
        self.written = written
        self.found = found


class NotResetError(KlefrError):
    """The meter acknowledged the reset of a counter, but the counter goes on from its value."""

    key = "not_reset"

    def __init__(self, counter: Counter, *, found: float | None) -> None:
        """Keep what the counter holds, None if it holds no valid value."""
        super().__init__(f"The {counter} counter was reset, but holds {found}")
        self.counter = counter
        self.found = found


class NotAcknowledgedError(KlefrError):
    """The meter can be read, but did not acknowledge what was sent to it."""

    key = "not_acknowledged"


class CodeNotAcknowledgedError(NotAcknowledgedError):
    """The meter did not acknowledge a calculation code. One that has code 10 never does."""

    key = "code_not_acknowledged"


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
