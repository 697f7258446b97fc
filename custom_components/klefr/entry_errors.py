"""What can go wrong with the entries of meters, beside the meters themselves."""

from collections.abc import Sequence

from .meter import KlefrError


class DamagedEntryError(KlefrError):
    """The entry does not say where its meter is."""

    key = "damaged_entry"


class AlreadyAddedError(KlefrError):
    """The meter that shall take the place of another has an entry already."""

    key = "already_added"

    def __init__(self, *, meter: str, holder: str) -> None:
        """Keep the names of the meter that is replaced and of the one that has an entry."""
        super().__init__("The new meter has an entry already")
        self.meter = meter
        self.holder = holder


class OldMeterAnswersError(KlefrError):
    """The meter that a new one shall replace answers again."""

    key = "old_meter_answers"

    def __init__(self, meter: str) -> None:
        """Keep the name of the meter."""
        super().__init__("The old meter answers again")
        self.meter = meter


class ThirdMeterAnswersError(KlefrError):
    """Neither the meter that shall be replaced answers, nor the one that shall replace it."""

    key = "third_meter_answers"


class EntriesError(KlefrError):
    """Home Assistant could not load or unload entries of meters that share a port."""

    def __init__(self, meters: Sequence[str]) -> None:
        """Keep the names of their meters."""
        super().__init__(", ".join(meters))
        self.meters = meters


class NotYetError(KlefrError):
    """Entries of other integrations that will share the port have to be set up first."""

    key = "not_yet"

    def __init__(self, users: Sequence[str]) -> None:
        """Keep the names of the entries."""
        super().__init__(", ".join(users))
        self.users = users


class NotSetAsideError(EntriesError):
    """Entries could not be unloaded, so they keep the port."""

    key = "not_set_aside"


class NotPutBackError(EntriesError):
    """Entries that were set aside could not be loaded again."""

    key = "not_put_back"
