"""How well a meter can be reached: what became of the requests, and the frames around failures."""

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

HOUR: Final = 3600
HOURS_KEPT: Final = 24
# The last hour is counted in shorter periods, so that it goes on with the clock.
PERIOD: Final = 300
PERIODS_PER_HOUR: Final = HOUR // PERIOD
PERIODS_PER_QUARTER: Final = PERIODS_PER_HOUR // 4

# A request and its answer are two frames.
EXCHANGES_KEPT: Final = 25

# So few failures in an hour mean nothing, however few requests there were.
FEWEST_FAILURES: Final = 3


class Outcome(StrEnum):
    """What became of a request."""

    ANSWERED = "answered"
    NO_ANSWER = "no_answer"
    GARBLED = "garbled_answer"
    LATE = "late_answer"
    """The answer came when it was not waited for any more."""
    REFUSED = "refused"
    LINK_FAILED = "link_failed"


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A request that was sent once, and what became of it."""

    sent_at: float
    """In the time of the event loop, in seconds."""
    outcome: Outcome
    response_time: float | None = None
    """From the end of the request to the start of its answer, in seconds. None without an answer.

    It is the time of the whole exchange, less what both frames take on the bus.
    """
    sent: bytes | None = None
    """The frame. None if it was made elsewhere, and is not known."""
    received: bytes | None = None
    """All that arrived while an answer was waited for."""
    received_late: bytes = b""
    """What arrived afterwards, with the answer in it."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What became of the requests in a time."""

    requests: int = 0
    failures: Mapping[Outcome, int] = field(default_factory=dict)
    response_time: float | None = None
    """The average, in seconds."""
    suspect_readings: int = 0

    @property
    def failed(self) -> int:
        """How many requests failed."""
        return sum(self.failures.values())

    @property
    def share(self) -> float | None:
        """The share of the requests that failed, 0 to 1. None if there were no requests."""
        return self.failed / self.requests if self.requests else None

    @property
    def prevailing(self) -> Outcome:
        """How most of the requests that failed did so."""
        return max(self.failures, key=lambda outcome: self.failures[outcome])


class Health:
    """Counts for one meter, over the last hour and the last day.

    All times are those of the event loop, in seconds.
    """

    def __init__(self, *, since: float) -> None:
        """Begin to count."""
        self.since = since
        self.suspect_readings = 0
        """How many readings had an energy that cannot be true, since the beginning."""
        self.suspect_at: float | None = None
        """When the last of these readings was."""
        self._exchanges: deque[Exchange] = deque(maxlen=EXCHANGES_KEPT)
        self._last_answered: Exchange | None = None
        self._failed_last = False
        self._periods = _Periods(PERIOD, PERIODS_PER_HOUR)
        self._hours = _Periods(HOUR, HOURS_KEPT)

    @property
    def exchanges(self) -> Sequence[Exchange]:
        """The last requests that failed, each with the one before and the one after it."""
        return tuple(self._exchanges)

    def add(self, exchange: Exchange) -> None:
        """Count a request."""
        for periods in (self._periods, self._hours):
            periods.at(exchange.sent_at).add(exchange)
        if exchange.outcome is not Outcome.ANSWERED:
            if self._last_answered is not None:
                self._exchanges.append(self._last_answered)
            self._exchanges.append(exchange)
            self._last_answered = None
            self._failed_last = True
        elif self._failed_last:
            self._exchanges.append(exchange)
            self._failed_last = False
        else:
            self._last_answered = exchange

    def answered_late(self, exchange: Exchange, received: bytes) -> None:
        """Count a request as answered late that was counted as failed before."""
        late = replace(exchange, outcome=Outcome.LATE, received_late=received)
        for periods in (self._periods, self._hours):
            failures = periods.at(exchange.sent_at).failures
            failures[exchange.outcome] -= 1
            failures[late.outcome] += 1
        for index, kept in enumerate(self._exchanges):
            if kept is exchange:
                self._exchanges[index] = late

    def add_suspect(self, now: float) -> None:
        """Count a reading with an energy that cannot be true."""
        self.suspect_readings += 1
        self.suspect_at = now
        for periods in (self._periods, self._hours):
            periods.at(now).suspect_readings += 1

    def last_hour(self, now: float) -> Summary:
        """Return what became of the requests in the last hour, or since the beginning."""
        return _summary(self._periods.until(now).values())

    def last_day(self, now: float) -> Mapping[int, Summary]:
        """Return the same for each hour, by how many hours ago it began."""
        return {ago: _summary([hour]) for ago, hour in self._hours.until(now).items()}

    def fails_lastingly(self, now: float, share: float) -> bool | None:
        """Return whether more than a share of the requests has failed for the last hour.

        That is so if more failed in the hour, and more than half of that share in each of its
        quarters: a meter that was off for ten minutes is not meant. Returns None while too little
        is known to say that it is so, or that it is over.
        """
        periods = self._periods.until(now)
        quarters = [
            _summary(each for ago, each in periods.items() if ago // PERIODS_PER_QUARTER == quarter)
            for quarter in range(4)
        ]
        shares = [each.share for each in quarters]
        counted_for_a_quarter = (
            int(now // PERIOD) - int(self.since // PERIOD) >= PERIODS_PER_QUARTER
        )
        if counted_for_a_quarter and shares[0] is not None and shares[0] <= share / 2:
            return False
        if max(periods, default=0) < PERIODS_PER_HOUR - 1:
            return None
        hour = _summary(periods.values())
        return (
            hour.failed >= FEWEST_FAILURES
            and (hour.share or 0.0) > share
            and all(each > share / 2 for each in shares if each is not None)
        )


@dataclass(kw_only=True, slots=True)
class _Period:
    """Counts for a period that may not be over."""

    requests: int = 0
    failures: Counter[Outcome] = field(default_factory=Counter)
    answered: int = 0
    response_times: float = 0.0
    suspect_readings: int = 0

    def add(self, exchange: Exchange) -> None:
        self.requests += 1
        if exchange.outcome is not Outcome.ANSWERED:
            self.failures[exchange.outcome] += 1
        if exchange.response_time is not None:
            self.answered += 1
            self.response_times += exchange.response_time


class _Periods:
    """The last periods of a length, in seconds, in which something was counted."""

    def __init__(self, length: int, kept: int) -> None:
        self._length = length
        self._kept = kept
        self._periods: dict[int, _Period] = {}

    def at(self, time: float) -> _Period:
        """Return the period of a time."""
        number = int(time // self._length)
        if number not in self._periods:
            oldest = number - self._kept
            self._periods = {each: self._periods[each] for each in self._periods if each > oldest}
            self._periods[number] = _Period()
        return self._periods[number]

    def until(self, now: float) -> Mapping[int, _Period]:
        """Return the last periods, the one under way too, by how many periods ago they began."""
        number = int(now // self._length)
        return {
            number - each: period
            for each, period in self._periods.items()
            if number - each < self._kept
        }


def _summary(periods: Iterable[_Period]) -> Summary:
    total = _Period()
    for period in periods:
        total.requests += period.requests
        total.failures += period.failures
        total.answered += period.answered
        total.response_times += period.response_times
        total.suspect_readings += period.suspect_readings
    return Summary(
        requests=total.requests,
        failures=dict(total.failures),
        response_time=total.response_times / total.answered if total.answered else None,
        suspect_readings=total.suspect_readings,
    )
