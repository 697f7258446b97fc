"""What Home Assistant's repairs say of meters and ports, and when it goes."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
import json
from pathlib import Path
from random import Random
import re
from string import Formatter
from typing import Any, Final

from freezegun.api import FrozenDateTimeFactory
from homeassistant.config_entries import ConfigEntryDisabler, ConfigEntryState
from homeassistant.core import CoreState, HomeAssistant
from homeassistant.helpers import issue_registry as ir
from homeassistant.setup import async_setup_component
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

import custom_components.klefr as integration
from custom_components.klefr.communication import (
    async_change_communication,
    async_read_communication,
)
from custom_components.klefr.const import DOMAIN
from custom_components.klefr.health import DATA_HEALTH
from custom_components.klefr.issues import CONDITIONS, DATA_SINCE, FAULTS
from custom_components.klefr.meter import MeterLostError, Outcome, Protocol, Summary
from custom_components.klefr.wording import ALWAYS, FAILURE_KINDS, failure_case, wire_kind
from custom_components.klefr.wrong_meter import ISSUE_WRONG_METER
from simulator.line import Line
from simulator.meter import VirtualMeter

from . import live
from .test_sharing import OTHER, entry_for
from .test_translations import texts

FOLDER: Final = Path(integration.__file__).parent
ISSUES: Final[dict[str, Any]] = json.loads((FOLDER / "translations" / "en.json").read_text())[
    "issues"
]
SERIAL: Final = "/dev/ttyUSB0"
PROXY: Final = "esphome-hass://esphome/0123456789?port_name=RS485"
GATEWAY: Final = "socket://192.168.1.20:502"
FORWARD_ACTIVE_ENERGY: Final = 0x600C
PLACES: Final = [
    (Protocol.MODBUS, SERIAL),
    (Protocol.MODBUS, PROXY),
    (Protocol.MODBUS, GATEWAY),
    (Protocol.MODBUS_TCP, GATEWAY),
    (Protocol.MBUS, SERIAL),
    (Protocol.MBUS, PROXY),
    (Protocol.MBUS, GATEWAY),
]


@pytest.fixture
def other_meter(virtual_meter: VirtualMeter) -> VirtualMeter:
    """Another meter on the line."""
    return VirtualMeter(
        serial_number=OTHER, model=virtual_meter.model, address=9, clock=lambda: 0.0
    )


@pytest.fixture
def meters(virtual_meter: VirtualMeter, other_meter: VirtualMeter) -> Sequence[VirtualMeter]:
    return [virtual_meter, other_meter]


@pytest.fixture
def entry(entry: MockConfigEntry, hass: HomeAssistant) -> MockConfigEntry:
    """An entry that is polled seldom, so that an hour is over sooner."""
    hass.config_entries.async_update_entry(entry, options={"update_interval": 30})
    return entry


@pytest.fixture(autouse=True)
async def _unload(hass: HomeAssistant, line: Line) -> AsyncIterator[None]:
    yield
    for entry in hass.config_entries.async_entries(DOMAIN):
        if entry.state.recoverable:
            await hass.config_entries.async_unload(entry.entry_id)


@pytest.fixture
async def neighbour(
    hass: HomeAssistant, loaded: MockConfigEntry, other_meter: VirtualMeter, protocol: str
) -> MockConfigEntry:
    """The entry of the other meter, loaded."""
    entry = entry_for(other_meter, loaded.data["port"], protocol=protocol)
    entry.add_to_hass(hass)
    assert await hass.config_entries.async_setup(entry.entry_id)
    return entry


def issues(hass: HomeAssistant) -> dict[str, dict[str, str]]:
    """Return what is in the repairs: what each says, by the key of its message."""
    return {
        str(issue.translation_key): issue.translation_placeholders or {}
        for issue in ir.async_get(hass).issues.values()
        if issue.active
    }


async def restart(hass: HomeAssistant, *entries: MockConfigEntry) -> None:
    """Let Home Assistant forget what it only has in memory, and set the entries up again."""
    registry = ir.async_get(hass)
    before = dict(registry.issues)
    for entry in entries:
        await hass.config_entries.async_unload(entry.entry_id)
    # Stopping unloads nothing, and what is persistent is there again.
    registry.issues.update({key: issue for key, issue in before.items() if issue.is_persistent})
    hass.data[DATA_SINCE].clear()
    hass.data[DATA_HEALTH].clear()
    for entry in entries:
        await hass.config_entries.async_setup(entry.entry_id)


# What the meter reports.


def break_program(meter: VirtualMeter) -> None:
    meter.program_ok = False


def break_data(meter: VirtualMeter) -> None:
    meter.eeprom_ok = False


@pytest.mark.parametrize(
    ("protocol", "fail", "key"),
    [
        ("modbus", break_program, "memory_fault_program"),
        ("modbus", break_data, "memory_fault_data"),
        ("mbus", break_program, "memory_fault_meter"),
    ],
)
async def test_a_meter_with_a_memory_fault_has_to_be_returned(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    virtual_meter: VirtualMeter,
    freezer: FrozenDateTimeFactory,
    fail: Callable[[VirtualMeter], None],
    key: str,
) -> None:
    fail(virtual_meter)
    await live(hass, freezer, minutes=1)
    assert not issues(hass)
    await live(hass, freezer, minutes=4)
    assert issues(hass).keys() == {key}
    assert issues(hass)[key]["meter"] == loaded.title
    # While it does not answer, nothing says that it is well.
    virtual_meter.program_ok = virtual_meter.eeprom_ok = True
    await live(hass, freezer, minutes=2)
    assert not issues(hass)


async def test_a_fault_stays_while_the_meter_does_not_answer(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    virtual_meter: VirtualMeter,
    line: Line,
    freezer: FrozenDateTimeFactory,
) -> None:
    break_program(virtual_meter)
    await live(hass, freezer, minutes=5)
    line.silent = True
    virtual_meter.program_ok = True
    await live(hass, freezer, minutes=5)
    assert issues(hass).keys() == {"memory_fault_program"}
    line.silent = False
    await live(hass, freezer, minutes=2)
    assert not issues(hass)


async def test_a_phase_that_lost_its_supply(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    virtual_meter: VirtualMeter,
    freezer: FrozenDateTimeFactory,
) -> None:
    await live(hass, freezer, minutes=2)
    virtual_meter.supplied = (True, False, False)
    await live(hass, freezer, minutes=9)
    assert not issues(hass)
    await live(hass, freezer, minutes=3)
    registry = ir.async_get(hass)
    lost = [issue.translation_placeholders or {} for issue in registry.issues.values()]
    assert sorted(each["phase"] for each in lost) == ["L2", "L3"]
    assert issues(hass).keys() == {"supply_lost"}
    virtual_meter.supplied = (True, True, False)
    await live(hass, freezer, minutes=2)
    assert issues(hass)["supply_lost"]["phase"] == "L3"
    virtual_meter.supplied = (True, True, True)
    await live(hass, freezer, minutes=2)
    assert not issues(hass)


async def test_a_phase_that_never_had_a_supply_is_no_trouble(
    hass: HomeAssistant,
    entry: MockConfigEntry,
    virtual_meter: VirtualMeter,
    freezer: FrozenDateTimeFactory,
) -> None:
    virtual_meter.supplied = (True, False, False)
    await hass.config_entries.async_setup(entry.entry_id)
    await live(hass, freezer, minutes=20)
    assert not issues(hass)


@pytest.mark.parametrize("before", [3, 20])
async def test_a_lost_supply_is_known_after_a_restart(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    virtual_meter: VirtualMeter,
    freezer: FrozenDateTimeFactory,
    before: int,
) -> None:
    await live(hass, freezer, minutes=2)
    virtual_meter.supplied = (True, True, False)
    await live(hass, freezer, minutes=before)
    reported = before > 10
    assert bool(issues(hass)) is reported
    await restart(hass, loaded)
    await live(hass, freezer, minutes=2)
    assert bool(issues(hass)) is reported
    await live(hass, freezer, minutes=11)
    assert issues(hass).keys() == {"supply_lost"}
    virtual_meter.supplied = (True, True, True)
    await live(hass, freezer, minutes=2)
    assert not issues(hass)


# The port.


async def test_an_unplugged_adapter_is_one_issue_for_all_its_meters(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    neighbour: MockConfigEntry,
    line: Line,
    freezer: FrozenDateTimeFactory,
) -> None:
    await live(hass, freezer, minutes=2)
    await line.unplug()
    await live(hass, freezer, minutes=4)
    assert not issues(hass)
    await live(hass, freezer, minutes=4)
    assert issues(hass).keys() == {"port_unusable"}
    assert len(ir.async_get(hass).issues) == 1
    said = issues(hass)["port_unusable"]
    assert said["meters"] == f"{loaded.title}, {neighbour.title}"
    assert said["error"].startswith("There is no serial proxy")
    # One of them is disabled: the other one's port is still gone.
    await hass.config_entries.async_set_disabled_by(loaded.entry_id, ConfigEntryDisabler.USER)
    await live(hass, freezer, minutes=6)
    assert issues(hass)["port_unusable"]["meters"] == neighbour.title
    await line.plug()
    await live(hass, freezer, minutes=2)
    assert not issues(hass)


async def test_a_port_that_is_missing_after_a_restart(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line, freezer: FrozenDateTimeFactory
) -> None:
    await line.unplug()
    await live(hass, freezer, minutes=8)
    assert issues(hass).keys() == {"port_unusable"}
    await restart(hass, loaded)
    assert loaded.state is ConfigEntryState.SETUP_RETRY
    # It stays, and after five minutes it would be raised.
    await live(hass, freezer, minutes=2)
    assert issues(hass).keys() == {"port_unusable"}
    ir.async_get(hass).issues.clear()
    await live(hass, freezer, minutes=6)
    assert issues(hass).keys() == {"port_unusable"}
    await line.plug()
    await live(hass, freezer, minutes=3)
    assert loaded.state is ConfigEntryState.LOADED
    assert not issues(hass)


async def test_a_silent_meter_is_no_unusable_port(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line, freezer: FrozenDateTimeFactory
) -> None:
    line.silent = True
    await live(hass, freezer, minutes=20)
    assert not issues(hass)
    assert not hass.data[DATA_SINCE]


async def test_meters_with_different_line_settings_on_one_port(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    other_meter: VirtualMeter,
    freezer: FrozenDateTimeFactory,
) -> None:
    others = [
        entry_for(other_meter, loaded.data["port"], baud_rate=4800),
        entry_for(
            VirtualMeter(serial_number="22091050", address=10, clock=lambda: 0.0),
            loaded.data["port"],
            parity="none",
        ),
    ]
    for entry in others:
        entry.add_to_hass(hass)
        await hass.config_entries.async_setup(entry.entry_id)
    await live(hass, freezer, minutes=4)
    assert not issues(hass)
    await live(hass, freezer, minutes=3)
    assert issues(hass).keys() == {"line_settings_differ"}
    said = issues(hass)["line_settings_differ"]
    assert said["meters"] == listed(others)
    assert "9600 baud" in said["error"]
    await hass.config_entries.async_remove(others[1].entry_id)
    assert issues(hass)["line_settings_differ"]["meters"] == others[0].title
    hass.config_entries.async_update_entry(
        others[0], data={**others[0].data, "baud_rate": 9600, "parity": "even"}
    )
    await hass.config_entries.async_reload(others[0].entry_id)
    await live(hass, freezer, minutes=2)
    assert not issues(hass)


def listed(entries: list[MockConfigEntry]) -> str:
    return ", ".join(entry.title for entry in entries)


# A change of how a meter communicates.


async def test_a_meter_that_is_lost_during_a_change(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    virtual_meter: VirtualMeter,
    line: Line,
    freezer: FrozenDateTimeFactory,
) -> None:
    current = await async_read_communication(hass, loaded)

    def lose(frame: bytes) -> None:
        line.silent = line.silent or frame[1] == 6

    line.before_hearing = lose
    with pytest.raises(MeterLostError):
        await async_change_communication(hass, loaded, current, replace(current, address=17))
    await live(hass, freezer, minutes=2)
    assert issues(hass).keys() == {"lost_during_change"}
    assert "address 17" in issues(hass)["lost_during_change"]["error"]
    await restart(hass, loaded)
    await live(hass, freezer, minutes=2)
    assert issues(hass).keys() == {"lost_during_change"}
    line.before_hearing, line.silent = None, False
    await live(hass, freezer, minutes=5)
    assert loaded.state is ConfigEntryState.LOADED
    assert loaded.data["address"] == virtual_meter.address == 17
    assert not issues(hass)


# What goes with the entry.


@pytest.fixture
async def reported(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    virtual_meter: VirtualMeter,
    freezer: FrozenDateTimeFactory,
) -> MockConfigEntry:
    """An entry with an issue."""
    break_program(virtual_meter)
    await live(hass, freezer, minutes=5)
    assert issues(hass)
    return loaded


async def test_issues_go_when_the_entry_is_unloaded_and_come_back_with_it(
    hass: HomeAssistant, reported: MockConfigEntry, freezer: FrozenDateTimeFactory
) -> None:
    await hass.config_entries.async_unload(reported.entry_id)
    assert not issues(hass)
    await hass.config_entries.async_setup(reported.entry_id)
    await live(hass, freezer, minutes=4)
    assert issues(hass)


async def test_issues_go_when_the_entry_is_removed(
    hass: HomeAssistant, reported: MockConfigEntry
) -> None:
    await hass.config_entries.async_remove(reported.entry_id)
    assert not ir.async_get(hass).issues
    assert reported.entry_id not in hass.data[DATA_HEALTH]


async def test_issues_of_an_entry_that_cannot_be_set_up_go_when_it_is_disabled(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line, freezer: FrozenDateTimeFactory
) -> None:
    await line.unplug()
    await hass.config_entries.async_reload(loaded.entry_id)
    await live(hass, freezer, minutes=8)
    assert issues(hass)
    await hass.config_entries.async_set_disabled_by(loaded.entry_id, ConfigEntryDisabler.USER)
    await live(hass, freezer, minutes=2)
    assert not issues(hass)


async def test_issues_of_entries_that_are_gone_are_deleted(
    hass: HomeAssistant, loaded: MockConfigEntry, freezer: FrozenDateTimeFactory
) -> None:
    """Home Assistant deletes an entry without asking while the integration is not installed."""
    for issue_id in ("port_unusable_gone", f"{ISSUE_WRONG_METER}_other"):
        ir.async_create_issue(
            hass,
            DOMAIN,
            issue_id,
            is_fixable=False,
            is_persistent=True,
            severity=ir.IssueSeverity.ERROR,
            translation_key="port_unusable",
        )
    await live(hass, freezer, minutes=2)
    assert [issue_id for _, issue_id in ir.async_get(hass).issues] == ["wrong_meter_other"]


async def test_issues_wait_until_home_assistant_has_started(
    hass: HomeAssistant, reported: MockConfigEntry, freezer: FrozenDateTimeFactory
) -> None:
    hass.set_state(CoreState.starting)
    await hass.config_entries.async_unload(reported.entry_id)
    await live(hass, freezer, minutes=3)
    assert issues(hass)
    hass.set_state(CoreState.running)
    await live(hass, freezer, minutes=2)
    assert not issues(hass)


async def test_repairs_are_looked_at_without_an_entry(
    hass: HomeAssistant, freezer: FrozenDateTimeFactory, line: Line
) -> None:
    assert await async_setup_component(hass, DOMAIN, {})
    await live(hass, freezer, minutes=2)
    assert not issues(hass)


# Requests that fail for an hour.


def let_fail(line: Line, fault: str, share: float) -> None:
    """Let a share of the requests fail."""
    random = Random(1)
    fails = False

    def hear(_: bytes) -> None:
        nonlocal fails
        fails = random.random() < share
        line.silent = fails and fault == "silence"
        line.delay_answer = 1.5 if fails and fault == "delay" else 0.0

    async def damage(_: bytes, answer: bytes) -> list[tuple[float, bytes]]:
        garbled = answer[:-1] + bytes((answer[-1] ^ 0x10,))
        return [(0.0, garbled if fails and fault == "garbage" else answer)]

    line.before_hearing, line.change_answer = hear, damage


def mend(line: Line) -> None:
    line.before_hearing = line.change_answer = None
    line.silent, line.delay_answer = False, 0.0


@pytest.mark.parametrize("protocol", ["modbus", "mbus"])
@pytest.mark.parametrize(
    ("fault", "share", "expected"),
    [
        ("silence", 0.15, "no_answer_{protocol}"),
        ("silence", 1, "silent_{protocol}"),
        ("garbage", 0.15, "garbled_answer_{protocol}"),
        ("garbage", 1, "always_garbled_{protocol}"),
        ("delay", 0.15, "late_answer_proxy"),
    ],
)
async def test_requests_that_fail_for_an_hour(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    line: Line,
    protocol: str,
    freezer: FrozenDateTimeFactory,
    fault: str,
    share: float,
    expected: str,
) -> None:
    let_fail(line, fault, share)
    await live(hass, freezer, minutes=50)
    assert not issues(hass)
    await live(hass, freezer, minutes=20)
    key = f"requests_fail_{expected.format(protocol=protocol)}"
    assert issues(hass).keys() == {key}
    assert issues(hass)[key]["meters"] == loaded.title
    mend(line)
    await live(hass, freezer, minutes=17)
    assert not issues(hass)


async def test_a_bad_bus_is_one_issue_for_all_its_meters(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    neighbour: MockConfigEntry,
    line: Line,
    freezer: FrozenDateTimeFactory,
) -> None:
    let_fail(line, "garbage", 0.2)
    await live(hass, freezer, minutes=65)
    assert len(ir.async_get(hass).issues) == 1
    said = issues(hass)["requests_fail_garbled_answer_modbus"]
    assert said["meters"] == f"{loaded.title}, {neighbour.title}"


async def test_a_meter_that_was_off_for_ten_minutes_is_no_trouble(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line, freezer: FrozenDateTimeFactory
) -> None:
    await live(hass, freezer, minutes=30)
    line.silent = True
    await live(hass, freezer, minutes=10)
    line.silent = False
    await live(hass, freezer, minutes=60)
    assert not issues(hass)


async def test_failing_requests_are_still_reported_after_a_restart(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line, freezer: FrozenDateTimeFactory
) -> None:
    let_fail(line, "silence", 0.15)
    await live(hass, freezer, minutes=65)
    assert issues(hass).keys() == {"requests_fail_no_answer_modbus"}
    await restart(hass, loaded)
    await live(hass, freezer, minutes=30)
    assert issues(hass).keys() == {"requests_fail_no_answer_modbus"}
    mend(line)
    await live(hass, freezer, minutes=20)
    assert not issues(hass)


async def test_readings_that_are_suspect_for_an_hour(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    virtual_meter: VirtualMeter,
    line: Line,
    freezer: FrozenDateTimeFactory,
) -> None:
    numbers = iter(range(10**9))

    def hear(_: bytes) -> None:
        # It never says the same for two minutes.
        virtual_meter.overrides = {FORWARD_ACTIVE_ENERGY: 5000.0 * (next(numbers) % 7 + 1)}

    line.before_hearing = hear
    await live(hass, freezer, minutes=55)
    assert not issues(hass)
    await live(hass, freezer, minutes=10)
    assert issues(hass).keys() == {"readings_suspect_modbus"}
    await restart(hass, loaded)
    await live(hass, freezer, minutes=5)
    assert issues(hass).keys() == {"readings_suspect_modbus"}
    line.before_hearing = None
    virtual_meter.overrides = {}
    await live(hass, freezer, minutes=12)
    assert not issues(hass)


# Words.


def keys() -> Iterator[tuple[Protocol, str, str]]:
    """Every issue wherever it can be raised."""
    for protocol, port in PLACES:
        yield from ((protocol, port, condition.key) for condition in CONDITIONS)
        yield from ((protocol, port, f"memory_fault_{case}") for case in FAULTS.values())
        yield protocol, port, f"readings_suspect_{wire_kind(protocol, port)}"
        for outcome in Outcome:
            for requests in (1, 20):
                summary = Summary(requests=requests, failures={outcome: 1})
                if outcome is not Outcome.ANSWERED:
                    case = failure_case(summary, protocol, port)
                    yield protocol, port, f"requests_fail_{case}"


CASES: Final = [case for case in keys() if case[2] in ISSUES]


def test_every_case_has_its_message_and_every_message_its_case() -> None:
    in_cases = {"memory_fault", "readings_suspect", "requests_fail"}
    assert {key for _, _, key in keys()} - in_cases == ISSUES.keys() - {ISSUE_WRONG_METER}
    assert set(FAILURE_KINDS) >= {*ALWAYS.values(), *Outcome} - {Outcome.ANSWERED}


@pytest.mark.parametrize("key", ISSUES)
def test_an_issue_says_only_what_is_known(key: str) -> None:
    known = {"meter", "meters", "port", "error", "phase"}
    if key == ISSUE_WRONG_METER:
        known = {"address", "port", "expected", "found", "error", "meters"}
    if key == "bus_overloaded":
        known = {"meters", "port", "busy", "most", "shortest"}
    for text in texts(ISSUES[key]):
        assert {field for _, field, _, _ in Formatter().parse(text)} - {None} <= known


@pytest.mark.parametrize(("protocol", "port", "key"), CASES)
def test_what_cannot_be_wrong_is_not_mentioned(protocol: Protocol, port: str, key: str) -> None:
    text = " ".join(ISSUES[key].values()).replace("{error}", "")
    if protocol is Protocol.MBUS:
        assert not re.search(r"parity|Ω|\bA and B\b|\badapter", text)
    else:
        assert "level converter" not in text
        assert "unit load" not in text
    if port == GATEWAY:
        assert not re.search(r"Ω|\bA and B\b|cable|adapter|terminal|serial p|USB", text)
    else:
        assert "gateway" not in text.lower()
        assert "other program" not in text or "proxy" in text or "refuse" in text
    if port == PROXY:
        assert not re.search(r"cable|USB", text)
