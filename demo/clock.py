"""What time it is in the house of the demo."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

TIME_ZONE = "Europe/Amsterdam"
DAYS = 4


class Clock:
    """A meter's clock, behind until the meter has lived through the days before the demo."""

    def __init__(self, days: int = DAYS) -> None:
        now = datetime.now(ZoneInfo(TIME_ZONE))
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        self.start = (midnight - timedelta(days=days)).astimezone(UTC)
        # The same for all of that time: a meter's clock knows no daylight saving.
        self._offset = now.utcoffset() or timedelta()
        self.stopped_at: datetime | None = self.start

    def __call__(self) -> float:
        """Return seconds since a midnight of the house."""
        return ((self.stopped_at or datetime.now(UTC)) + self._offset).timestamp()
