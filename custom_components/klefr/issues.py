"""Say in Home Assistant's repairs what is wrong with meters and ports, and what to do.

Once a minute all conditions of the table below are looked at. An issue is raised when its condition
has lasted for long enough, and goes when the condition does. While nothing is known, because a
meter cannot be read or Home Assistant has just started, an issue stays as it is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final

from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import CONF_PROTOCOL
from homeassistant.core import CoreState, HomeAssistant, callback
from homeassistant.helpers import issue_registry as ir
from homeassistant.helpers.event import async_track_time_interval
from homeassistant.util.hass_dict import HassKey

from .bus_load import INTERVALS, percent
from .const import DOMAIN, MAXIMUM_UPDATE_INTERVAL
from .coordinator import KlefrConfigEntry
from .health import MeterHealth, async_get_health, async_note_supplied
from .meter import KlefrError, LineSettingsError, LinkError, MeterLostError, Protocol, Quantity
from .meter.schedule import MOST
from .wording import async_error_text, failure_case, listed, port_name, wire_kind

CHECK_INTERVAL: Final = timedelta(minutes=1)

MINUTE: Final = 60
HOUR: Final = 60 * MINUTE

# How long after a suspect reading the next one counts as the same trouble, in seconds.
STILL_SUSPECT: Final = 10 * MINUTE
# Share of the requests to a meter.
OFTEN_FAILS: Final = 0.05

# When each condition that was found began, in the time of the event loop, by the issue's id.
DATA_SINCE: Final[HassKey[dict[str, float]]] = HassKey(f"{DOMAIN}_issues_since")

FAULTS: Final = {
    Quantity.PROGRAM_OK: "program",
    Quantity.EEPROM_OK: "data",
    Quantity.STATUS_OK: "meter",
}
PHASES: Final = {
    Quantity.SUPPLY_L1: "L1",
    Quantity.SUPPLY_L2: "L2",
    Quantity.SUPPLY_L3: "L3",
}

WATCHED: Final = (
    ConfigEntryState.LOADED,
    ConfigEntryState.SETUP_IN_PROGRESS,
    ConfigEntryState.SETUP_RETRY,
)


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A meter whose entry is loaded, or will be when the meter can be read."""

    hass: HomeAssistant
    entry: KlefrConfigEntry
    health: MeterHealth

    @property
    def protocol(self) -> Protocol:
        """What is spoken on its bus."""
        return Protocol(self.entry.data[CONF_PROTOCOL])

    @property
    def readings(self) -> Mapping[Quantity, object] | None:
        """What was last read, None if that failed."""
        if self.entry.state is not ConfigEntryState.LOADED:
            return None
        readings = self.entry.runtime_data.readings
        return readings.data if readings.last_update_success else None

    @property
    def failure(self) -> BaseException | None:
        """Why it cannot be read, None if it can or that is not known."""
        if self.entry.state is not ConfigEntryState.LOADED:
            return self.health.failure
        readings = self.entry.runtime_data.readings
        failure = readings.last_exception
        return None if readings.last_update_success or failure is None else failure.__cause__


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """A condition that was found at a meter."""

    case: str = ""
    """Which message it needs: what the key ends in."""
    part: str = ""
    """Where in the meter it is, if there can be several with one message."""
    details: Mapping[str, str] = field(default_factory=dict)
    """What only this message says."""


class Scope(Enum):
    """What has an issue of its own."""

    METER = auto()
    PORT = auto()
    """Each port: the issue names all meters on it that have the trouble."""
    WHOLE_PORT = auto()
    """The same, but a meter on the port that is well proves that the port is."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What an issue is raised for."""

    key: str
    """What the key of its message and the issue's id start with."""
    find: Callable[[Watched], Sequence[Trouble] | None]
    """Returns what is wrong with a meter, None if that is not known."""
    lasts: float
    """How long until the issue is raised, in seconds."""
    severity: ir.IssueSeverity
    scope: Scope = Scope.METER


def _memory_faults(watched: Watched) -> Sequence[Trouble] | None:
    readings = watched.readings
    if readings is None:
        return None
    return [
        Trouble(case=case) for quantity, case in FAULTS.items() if readings.get(quantity) is False
    ]


def _lost_supplies(watched: Watched) -> Sequence[Trouble] | None:
    readings = watched.readings
    if readings is None:
        return None
    async_note_supplied(
        watched.hass,
        watched.entry.entry_id,
        (phase for phase in PHASES if readings.get(phase) is True),
    )
    return [
        Trouble(part=name.lower(), details={"phase": name})
        for phase, name in PHASES.items()
        if phase in watched.health.supplied and readings.get(phase) is False
    ]


def _lost_during_change(watched: Watched) -> Sequence[Trouble] | None:
    return _failed_with(watched, MeterLostError)


def _suspect_readings(watched: Watched) -> Sequence[Trouble] | None:
    counts, now = watched.health.counts, watched.hass.loop.time()
    if counts.suspect_at is not None and now - counts.suspect_at < STILL_SUSPECT:
        return [Trouble(case=wire_kind(watched.protocol, watched.health.port))]
    if watched.readings is None or now - counts.since < STILL_SUSPECT:
        return None
    return []


def _unusable_port(watched: Watched) -> Sequence[Trouble] | None:
    if isinstance(watched.failure, LineSettingsError):
        return []
    return _failed_with(watched, LinkError)


def _different_line_settings(watched: Watched) -> Sequence[Trouble] | None:
    return _failed_with(watched, LineSettingsError)


def _failed_with(watched: Watched, kind: type[KlefrError]) -> Sequence[Trouble] | None:
    """Return whether a meter cannot be read because of a kind of error."""
    failure = watched.failure
    if failure is None:
        return None if watched.readings is None else []
    if not isinstance(failure, kind):
        return []
    # The text is in Home Assistant's language.
    error = async_error_text(watched.hass, watched.entry.data, failure)
    return [Trouble(details={"error": error})]


def _failing_requests(watched: Watched) -> Sequence[Trouble] | None:
    counts, now = watched.health.counts, watched.hass.loop.time()
    fails = counts.fails_lastingly(now, OFTEN_FAILS)
    if fails is None:
        return None
    if not fails:
        return []
    summary = counts.last_hour(now)
    return [Trouble(case=failure_case(summary, watched.protocol, watched.health.port))]


def _overloaded_bus(watched: Watched) -> Sequence[Trouble]:
    if watched.entry.state is not ConfigEntryState.LOADED:
        # It is not read regularly.
        return []
    load = watched.entry.runtime_data.bus.load
    if (busy := load.share()) <= MOST:
        return []
    shortest = load.shortest(load.demands, INTERVALS) or MAXIMUM_UPDATE_INTERVAL
    details = {"busy": percent(busy), "most": percent(MOST), "shortest": str(shortest)}
    return [Trouble(details=details)]


CONDITIONS: Final = (
    Condition(
        key="memory_fault",
        find=_memory_faults,
        # One damaged answer must not make anyone return a meter.
        lasts=2 * MINUTE,
        severity=ir.IssueSeverity.ERROR,
    ),
    Condition(
        key="supply_lost",
        find=_lost_supplies,
        lasts=10 * MINUTE,
        severity=ir.IssueSeverity.WARNING,
    ),
    Condition(
        key="lost_during_change",
        find=_lost_during_change,
        lasts=0,
        severity=ir.IssueSeverity.ERROR,
    ),
    Condition(
        key="readings_suspect",
        find=_suspect_readings,
        lasts=HOUR,
        severity=ir.IssueSeverity.WARNING,
    ),
    Condition(
        key="port_unusable",
        find=_unusable_port,
        lasts=5 * MINUTE,
        severity=ir.IssueSeverity.ERROR,
        scope=Scope.WHOLE_PORT,
    ),
    Condition(
        key="line_settings_differ",
        find=_different_line_settings,
        lasts=5 * MINUTE,
        severity=ir.IssueSeverity.ERROR,
        scope=Scope.PORT,
    ),
    Condition(
        key="requests_fail",
        find=_failing_requests,
        # It is found when it has lasted for an hour.
        lasts=0,
        severity=ir.IssueSeverity.WARNING,
        scope=Scope.PORT,
    ),
    Condition(
        key="bus_overloaded",
        find=_overloaded_bus,
        # It is known before a deadline is missed.
        lasts=0,
        severity=ir.IssueSeverity.WARNING,
        scope=Scope.PORT,
    ),
)


@callback
def async_setup_issues(hass: HomeAssistant) -> None:
    """Look at all conditions once a minute from now on."""
    hass.data[DATA_SINCE] = {}

    @callback
    def check(_: datetime) -> None:
        async_check(hass)

    async_track_time_interval(hass, check, CHECK_INTERVAL, cancel_on_shutdown=True)


@callback
def async_check(hass: HomeAssistant) -> None:
    """Raise and delete issues."""
    if hass.state is not CoreState.running:
        # Entries are not set up yet. Their issues from before are still there.
        return
    watched = [
        Watched(hass=hass, entry=entry, health=health)
        for entry in hass.config_entries.async_entries(DOMAIN)
        if entry.state in WATCHED
        if (health := async_get_health(hass, entry.entry_id)) is not None
    ]
    kept: set[str] = set()
    for condition in CONDITIONS:
        groups: dict[str, list[Watched]] = {}
        for each in watched:
            meter_alone = condition.scope is Scope.METER
            place = each.entry.entry_id if meter_alone else each.health.port
            groups.setdefault(place, []).append(each)
        for group in groups.values():
            kept |= _async_check_group(hass, condition, group)
    starts = tuple(f"{condition.key}_" for condition in CONDITIONS)
    for domain, issue_id in list(ir.async_get(hass).issues):
        if domain == DOMAIN and issue_id.startswith(starts) and issue_id not in kept:
            ir.async_delete_issue(hass, DOMAIN, issue_id)
    since = hass.data[DATA_SINCE]
    for issue_id in since.keys() - kept:
        del since[issue_id]


def _async_check_group(
    hass: HomeAssistant, condition: Condition, group: Sequence[Watched]
) -> set[str]:
    """Raise the issues of a condition, and return the ids of those that must not be deleted."""
    results = [(each, condition.find(each)) for each in group]
    if condition.scope is Scope.WHOLE_PORT and any(troubles == [] for _, troubles in results):
        return set()
    owner = group[0].entry.entry_id
    since = hass.data[DATA_SINCE]
    kept: set[str] = set()
    if any(troubles is None for _, troubles in results):
        start = f"{condition.key}_"
        known = [*since, *(issue_id for _, issue_id in ir.async_get(hass).issues)]
        kept |= {each for each in known if each.startswith(start) and each.endswith(owner)}
    found: dict[str, Trouble] = {}
    meters: dict[str, list[str]] = {}
    for each, troubles in results:
        for trouble in troubles or ():
            issue_id = "_".join(filter(None, (condition.key, trouble.case, trouble.part, owner)))
            found.setdefault(issue_id, trouble)
            meters.setdefault(issue_id, []).append(each.entry.title)
    now = hass.loop.time()
    for issue_id, trouble in found.items():
        if now - since.setdefault(issue_id, now) >= condition.lasts:
            ir.async_create_issue(
                hass,
                DOMAIN,
                issue_id,
                is_fixable=False,
                # While it takes time to find out again, it is there after a restart.
                is_persistent=True,
                severity=condition.severity,
                translation_key="_".join(filter(None, (condition.key, trouble.case))),
                translation_placeholders={
                    "meter": meters[issue_id][0],
                    "meters": listed(meters[issue_id]),
                    "port": port_name(group[0].health.port),
                    **trouble.details,
                },
            )
    return kept | found.keys()
