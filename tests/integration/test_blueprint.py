"""The blueprint that switches the tariff, loaded as Home Assistant loads it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
import logging
from pathlib import Path
import shutil
from typing import Any
from unittest.mock import patch
from urllib.parse import quote

from homeassistant.components.automation import EVENT_AUTOMATION_TRIGGERED
from homeassistant.components.automation.helpers import async_get_blueprints
from homeassistant.components.blueprint.importer import fetch_blueprint_from_url
from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import STATE_ON, STATE_UNAVAILABLE, STATE_UNKNOWN, Platform
from homeassistant.core import CoreState, HomeAssistant
from homeassistant.helpers import entity_registry as er
from homeassistant.setup import async_setup_component
import pytest
from pytest_homeassistant_custom_component.common import async_capture_events
from pytest_homeassistant_custom_component.test_util.aiohttp import AiohttpClientMocker

from custom_components.klefr.const import DOMAIN
from simulator import mbus, modbus
from simulator.line import Line
from simulator.meter import VirtualMeter

from . import wait, wait_by_the_clock
from .test_sharing import OTHER, entry_for

FILE = Path(__file__).parents[2] / "blueprints/automation/klefr/tariff_schedule.yaml"
URL = (
    "https://github.com/klefr-home-assistant/klefr/blob/main/"
    "blueprints/automation/klefr/tariff_schedule.yaml"
)
RAW_URL = (
    "https://raw.githubusercontent.com/klefr-home-assistant/klefr/main/"
    "blueprints/automation/klefr/tariff_schedule.yaml"
)
SCHEDULE = "schedule.night"
PRICE = "sensor.price"
CHEAP = f"{{{{ states('{PRICE}') | float < 0.10 }}}}"
A_MINUTE = 61
"""Seconds; what is to happen in a test's second minute needs twice as many, and so on."""

type Serve = Callable[..., AbstractAsyncContextManager[Line]]


@pytest.fixture
def serve() -> Serve:
    return modbus.serve


@pytest.fixture
def other_meter() -> VirtualMeter:
    return VirtualMeter(serial_number=OTHER, address=2, clock=lambda: 0.0)


@pytest.fixture
async def line(
    serve: Serve, virtual_meter: VirtualMeter, other_meter: VirtualMeter
) -> AsyncIterator[Line]:
    async with serve(virtual_meter, other_meter, virtual="virtual://shared") as line:
        yield line


@pytest.fixture
async def meters(
    hass: HomeAssistant,
    virtual_meter: VirtualMeter,
    other_meter: VirtualMeter,
    line: Line,
    serve: Serve,
) -> AsyncIterator[list[str]]:
    """The tariffs of two meters on one line."""
    protocol = "modbus" if serve is modbus.serve else "mbus"
    for meter in (virtual_meter, other_meter):
        entry_for(meter, line.port, protocol=protocol).add_to_hass(hass)
    entries = hass.config_entries.async_entries(DOMAIN)
    await hass.config_entries.async_setup(entries[0].entry_id)
    await hass.async_block_till_done()
    assert [entry.state for entry in entries] == [ConfigEntryState.LOADED] * 2
    line.requests.clear()
    yield [select(hass, meter, "tariff") for meter in (virtual_meter, other_meter)]
    # Its clock would outlive Home Assistant.
    await hass.services.async_call(
        "automation", "turn_off", {"entity_id": "automation.tariff"}, blocking=True
    )
    for entry in entries:
        if entry.state.recoverable:
            await hass.config_entries.async_unload(entry.entry_id)


@pytest.fixture
def config_folder(hass: HomeAssistant, tmp_path: Path) -> Path:
    """A configuration folder that goes with the test."""
    hass.config.config_dir = str(tmp_path / "config")
    return tmp_path / "config"


@pytest.fixture(autouse=True)
def _blueprint(config_folder: Path) -> None:
    """Put the blueprint where a user would put it by hand."""
    folder = config_folder / "blueprints/automation/klefr"
    folder.mkdir(parents=True)
    shutil.copy(FILE, folder)


def select(hass: HomeAssistant, meter: VirtualMeter, key: str) -> str:
    found = er.async_get(hass).async_get_entity_id(
        Platform.SELECT, DOMAIN, f"{meter.serial_number}_{key}"
    )
    assert found is not None
    return found


def state_of(hass: HomeAssistant, entity_id: str) -> str:
    found = hass.states.get(entity_id)
    assert found is not None
    return found.state


def automation(meters: list[str], path: str = f"klefr/{FILE.name}", **inputs: Any) -> Any:
    return {
        "automation": [
            {
                "id": "tariff",
                "alias": "Tariff",
                "use_blueprint": {"path": path, "input": {"meters": meters, **inputs}},
            }
        ]
    }


async def automate(hass: HomeAssistant, meters: list[str], **inputs: Any) -> None:
    assert await async_setup_component(hass, "automation", automation(meters, **inputs))
    await hass.async_block_till_done()
    # It would be unavailable if the blueprint or what it makes were not valid.
    assert state_of(hass, "automation.tariff") == STATE_ON


async def show(hass: HomeAssistant, entity_id: str, state: str) -> None:
    hass.states.async_set(entity_id, state)
    await hass.async_block_till_done()


async def reload_automations(hass: HomeAssistant, config: Any) -> None:
    with patch("homeassistant.config.load_yaml_config_file", return_value=config):
        await hass.services.async_call("automation", "reload", blocking=True)
    await hass.async_block_till_done()


def written(line: Line) -> list[bytes]:
    """Return what the meters were told to change, or to do, over either protocol."""
    return [
        request
        for request in line.requests
        if (request[6] == 0x51 if request[0] == 0x68 else request[1] == 6)
    ]


async def test_a_schedule_helper_switches_the_tariff(
    hass: HomeAssistant, meters: list[str], virtual_meter: VirtualMeter, other_meter: VirtualMeter
) -> None:
    week = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    always = {day: [{"from": "00:00:00", "to": "24:00:00"}] for day in week}
    # These are off and on whatever the time is.
    off, on = ({"schedule": {"night": {"name": "Night", **days}}} for days in ({}, always))
    assert await async_setup_component(hass, "schedule", off)
    await automate(hass, meters, schedule=SCHEDULE)
    for config, tariff in ((on, 2), (off, 1)):
        with patch("homeassistant.config.load_yaml_config_file", return_value=config):
            await hass.services.async_call("schedule", "reload", blocking=True)
        await hass.async_block_till_done()
        assert [meter.tariff for meter in (virtual_meter, other_meter)] == [tariff] * 2
        assert [state_of(hass, meter) for meter in meters] == [f"t{tariff}"] * 2


async def test_a_template_switches_the_tariff(
    hass: HomeAssistant, meters: list[str], virtual_meter: VirtualMeter, other_meter: VirtualMeter
) -> None:
    await show(hass, PRICE, "0.25")
    await automate(hass, meters, template=CHEAP)
    await show(hass, PRICE, "0.05")
    assert [meter.tariff for meter in (virtual_meter, other_meter)] == [2, 2]
    await show(hass, PRICE, "0.25")
    await wait_by_the_clock(hass, seconds=A_MINUTE)
    assert [meter.tariff for meter in (virtual_meter, other_meter)] == [1, 1]


@pytest.mark.parametrize(
    ("schedule", "price", "tariff"),
    [("on", "0.25", 2), ("off", "0.05", 2), ("on", "0.05", 2), ("off", "0.25", 1)],
)
async def test_either_of_both_is_enough_for_the_second_tariff(
    hass: HomeAssistant,
    virtual_meter: VirtualMeter,
    meters: list[str],
    schedule: str,
    price: str,
    tariff: int,
) -> None:
    await show(hass, SCHEDULE, schedule)
    await show(hass, PRICE, price)
    virtual_meter.tariff = 3 - tariff
    await wait(hass, seconds=61)
    await automate(hass, meters, schedule=SCHEDULE, template=CHEAP)
    await wait_by_the_clock(hass, seconds=A_MINUTE)
    assert virtual_meter.tariff == tariff


async def test_with_neither_nothing_happens(
    hass: HomeAssistant, virtual_meter: VirtualMeter, meters: list[str], line: Line
) -> None:
    virtual_meter.tariff = 2
    await automate(hass, meters)
    # The change at the meter is noticed, and left alone.
    await wait(hass, seconds=61)
    assert state_of(hass, meters[0]) == "t2"
    await reload_automations(hass, automation(meters))
    await hass.services.async_call(
        "automation", "trigger", {"entity_id": "automation.tariff"}, blocking=True
    )
    assert not written(line)


async def test_the_tariff_may_last_until_the_meter_restarts_only(
    hass: HomeAssistant, virtual_meter: VirtualMeter, meters: list[str]
) -> None:
    await show(hass, SCHEDULE, "off")
    await automate(hass, meters, schedule=SCHEDULE, until_restart=True)
    for shown, tariff in (("on", 12), ("off", 11), ("on", 12)):
        await show(hass, SCHEDULE, shown)
        assert virtual_meter.tariff == tariff
    # Its supply was gone for less than a poll.
    virtual_meter.tariff = 1
    await wait(hass, seconds=61)
    assert virtual_meter.tariff == 12


async def test_a_switch_by_hand_is_put_right(
    hass: HomeAssistant, virtual_meter: VirtualMeter, meters: list[str]
) -> None:
    await show(hass, SCHEDULE, "off")
    await automate(hass, meters, schedule=SCHEDULE)
    await hass.services.async_call(
        "select", "select_option", {"entity_id": meters[0], "option": "t2"}, blocking=True
    )
    await hass.async_block_till_done()
    assert virtual_meter.tariff == 1
    assert state_of(hass, meters[0]) == "t1"


async def test_an_unavailable_meter_is_skipped_and_switched_when_it_comes_back(
    hass: HomeAssistant,
    virtual_meter: VirtualMeter,
    other_meter: VirtualMeter,
    meters: list[str],
    line: Line,
) -> None:
    await show(hass, SCHEDULE, "off")
    await automate(hass, meters, schedule=SCHEDULE)
    virtual_meter.address = 99  # as good as switched off
    await wait_by_the_clock(hass, seconds=11)
    assert [state_of(hass, meter) for meter in meters] == [STATE_UNAVAILABLE, "t1"]
    line.requests.clear()
    await show(hass, SCHEDULE, "on")
    assert [meter.tariff for meter in (virtual_meter, other_meter)] == [1, 2]
    assert {request[0] for request in line.requests} == {2}
    # Nor does the log book fill with runs that do nothing.
    runs = async_capture_events(hass, EVENT_AUTOMATION_TRIGGERED)
    await wait_by_the_clock(hass, seconds=A_MINUTE)
    assert not runs
    virtual_meter.address = 1
    await wait_by_the_clock(hass, seconds=11)
    assert [meter.tariff for meter in (virtual_meter, other_meter)] == [2, 2]
    assert len(runs) == 1


async def test_a_meter_that_fails_does_not_hold_up_the_others_and_is_tried_again(
    hass: HomeAssistant,
    virtual_meter: VirtualMeter,
    other_meter: VirtualMeter,
    meters: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    await show(hass, SCHEDULE, "off")
    await automate(hass, meters, schedule=SCHEDULE)
    virtual_meter.refuse_writes = True
    await show(hass, SCHEDULE, "on")
    assert [meter.tariff for meter in (virtual_meter, other_meter)] == [1, 2]
    assert "refused" in caplog.text
    virtual_meter.refuse_writes = False
    await wait_by_the_clock(hass, seconds=A_MINUTE)
    assert [meter.tariff for meter in (virtual_meter, other_meter)] == [2, 2]


async def set_unlike(
    hass: HomeAssistant, meters: list[str], other_meter: VirtualMeter, line: Line
) -> None:
    """Leave one meter in each tariff, so that either tariff would be written to one of them."""
    other_meter.tariff = 2
    await wait(hass, seconds=61)
    assert [state_of(hass, meter) for meter in meters] == ["t1", "t2"]
    line.requests.clear()


@pytest.mark.parametrize("schedule", [None, "on", "off"])
@pytest.mark.parametrize(
    ("template", "price"),
    [
        (CHEAP, STATE_UNAVAILABLE),
        (CHEAP, "n/a"),
        (f"{{{{ states('{PRICE}') }}}}", "n/a"),
        (CHEAP.replace(" }}", f" if has_value('{PRICE}') else none }}}}"), STATE_UNKNOWN),
    ],
    ids=["unavailable", "no number", "no answer", "none"],
)
async def test_a_template_that_cannot_be_evaluated_changes_nothing(
    hass: HomeAssistant,
    meters: list[str],
    virtual_meter: VirtualMeter,
    other_meter: VirtualMeter,
    line: Line,
    template: str,
    price: str,
    schedule: str | None,
) -> None:
    await set_unlike(hass, meters, other_meter, line)
    await show(hass, PRICE, price)
    config = automation(meters, template=template, **({"schedule": SCHEDULE} if schedule else {}))
    await automate(hass, [])
    await reload_automations(hass, config)
    if schedule:
        await show(hass, SCHEDULE, schedule)
    await wait_by_the_clock(hass, seconds=A_MINUTE)
    assert not written(line)
    await show(hass, PRICE, "0" if template == CHEAP else "1")
    await wait_by_the_clock(hass, seconds=2 * A_MINUTE)
    assert written(line)


@pytest.mark.parametrize("price", [None, "0.05", "0.25"])
@pytest.mark.parametrize("schedule", [None, STATE_UNAVAILABLE, STATE_UNKNOWN])
async def test_a_schedule_that_is_not_known_changes_nothing(
    hass: HomeAssistant,
    meters: list[str],
    virtual_meter: VirtualMeter,
    other_meter: VirtualMeter,
    line: Line,
    schedule: str | None,
    price: str | None,
) -> None:
    await set_unlike(hass, meters, other_meter, line)
    await automate(hass, [])
    config = automation(meters, schedule=SCHEDULE, **({"template": CHEAP} if price else {}))
    if schedule:
        await show(hass, SCHEDULE, schedule)
    if price:
        await show(hass, PRICE, price)
    await reload_automations(hass, config)
    await wait_by_the_clock(hass, seconds=A_MINUTE)
    assert not written(line)
    await show(hass, SCHEDULE, "on")
    assert [meter.tariff for meter in (virtual_meter, other_meter)] == [2, 2]


@pytest.mark.parametrize("until_restart", [False, True])
@pytest.mark.parametrize("tariff", [2, 12])
async def test_a_meter_in_the_right_tariff_is_not_written_to(
    hass: HomeAssistant,
    meters: list[str],
    virtual_meter: VirtualMeter,
    other_meter: VirtualMeter,
    line: Line,
    tariff: int,
    until_restart: bool,
) -> None:
    virtual_meter.tariff = tariff
    await wait(hass, seconds=61)
    await show(hass, SCHEDULE, "off")
    await automate(hass, meters, schedule=SCHEDULE, until_restart=until_restart)
    await show(hass, SCHEDULE, "on")
    await wait_by_the_clock(hass, seconds=A_MINUTE)
    await hass.services.async_call(
        "automation", "trigger", {"entity_id": "automation.tariff"}, blocking=True
    )
    assert virtual_meter.tariff == tariff
    assert other_meter.tariff == (12 if until_restart else 2)
    assert [request[0] for request in written(line)] == [2]


async def test_other_settings_are_left_alone(
    hass: HomeAssistant,
    meters: list[str],
    virtual_meter: VirtualMeter,
    other_meter: VirtualMeter,
    line: Line,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wrong = [select(hass, virtual_meter, key) for key in ("calculation_code", "s0_rate")]
    before = [state_of(hass, setting) for setting in wrong]
    await show(hass, SCHEDULE, "off")
    await automate(hass, ["select.gone", *wrong, meters[1]], schedule=SCHEDULE, until_restart=True)
    for minutes, shown in enumerate(("on", "off"), 1):
        await show(hass, SCHEDULE, shown)
        await wait_by_the_clock(hass, seconds=minutes * A_MINUTE)
    await hass.services.async_call(
        "automation", "trigger", {"entity_id": "automation.tariff"}, blocking=True
    )
    assert other_meter.tariff == 11
    assert {request[0] for request in written(line)} == {2}
    assert [state_of(hass, setting) for setting in wrong] == before
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_the_tariff_is_put_right_after_a_start(
    hass: HomeAssistant, meters: list[str], virtual_meter: VirtualMeter
) -> None:
    await show(hass, SCHEDULE, "on")
    hass.set_state(CoreState.not_running)
    await automate(hass, meters, schedule=SCHEDULE)
    assert virtual_meter.tariff == 1
    await hass.async_start()
    await hass.async_block_till_done()
    assert virtual_meter.tariff == 2


async def test_the_tariff_is_put_right_when_the_automation_is_saved(
    hass: HomeAssistant, meters: list[str], virtual_meter: VirtualMeter
) -> None:
    await show(hass, SCHEDULE, "on")
    await automate(hass, [])
    assert virtual_meter.tariff == 1
    await reload_automations(hass, automation(meters, schedule=SCHEDULE))
    assert virtual_meter.tariff == 2


@pytest.mark.parametrize("last", ["on", "off"])
async def test_the_last_of_many_changes_counts(
    hass: HomeAssistant,
    meters: list[str],
    virtual_meter: VirtualMeter,
    other_meter: VirtualMeter,
    line: Line,
    last: str,
) -> None:
    await show(hass, SCHEDULE, "off" if last == "on" else "on")
    await automate(hass, meters, schedule=SCHEDULE)
    # A run takes longer than there is between two changes.
    line.delay_answer = 0.05
    for shown in (*["on", "off"] * 10, last):
        hass.states.async_set(SCHEDULE, shown)
        await asyncio.sleep(0.02)
    await hass.async_block_till_done()
    tariff = 2 if last == "on" else 1
    assert [meter.tariff for meter in (virtual_meter, other_meter)] == [tariff] * 2
    assert [state_of(hass, meter) for meter in meters] == [f"t{tariff}"] * 2


@pytest.mark.parametrize("serve", [mbus.serve])
async def test_over_m_bus_the_tariff_is_always_saved(
    hass: HomeAssistant, meters: list[str], virtual_meter: VirtualMeter, line: Line
) -> None:
    code = select(hass, virtual_meter, "calculation_code")
    await show(hass, SCHEDULE, "off")
    await automate(hass, [*meters, code], schedule=SCHEDULE, until_restart=True)
    assert state_of(hass, meters[0]) == STATE_UNKNOWN
    for shown, tariff in (("on", 2), ("off", 1), ("on", 2)):
        await show(hass, SCHEDULE, shown)
        assert virtual_meter.tariff == tariff
        assert [state_of(hass, meter) for meter in meters] == [f"t{tariff}"] * 2
    assert state_of(hass, code) == STATE_UNKNOWN
    count = len(written(line))
    await wait_by_the_clock(hass, seconds=A_MINUTE)
    assert len(written(line)) == count


@pytest.mark.parametrize("serve", [mbus.serve])
@pytest.mark.parametrize("shown", ["on", "off"])
async def test_a_tariff_over_m_bus_that_is_not_known_is_written_once(
    hass: HomeAssistant, meters: list[str], line: Line, shown: str
) -> None:
    await show(hass, SCHEDULE, shown)
    await automate(hass, [])
    await reload_automations(hass, automation(meters, schedule=SCHEDULE))
    assert {state_of(hass, meter) for meter in meters} == {"t2" if shown == "on" else "t1"}
    assert len(written(line)) == 2


@pytest.mark.parametrize("serve", [mbus.serve])
async def test_a_meter_that_never_acknowledges_is_not_written_to_all_the_time(
    hass: HomeAssistant, meters: list[str], virtual_meter: VirtualMeter, line: Line
) -> None:
    virtual_meter.refuse_writes = True
    await show(hass, SCHEDULE, "off")
    await automate(hass, meters, schedule=SCHEDULE)
    await show(hass, SCHEDULE, "on")
    assert [state_of(hass, meter) for meter in meters] == [STATE_UNKNOWN, "t2"]
    line.requests.clear()
    for minutes in (1, 2, 3):
        await wait_by_the_clock(hass, seconds=minutes * A_MINUTE)
    assert not written(line)
    virtual_meter.refuse_writes = False
    await show(hass, SCHEDULE, "off")
    assert [state_of(hass, meter) for meter in meters] == ["t1", "t1"]


async def test_it_can_be_imported_by_its_address(
    hass: HomeAssistant,
    aioclient_mock: AiohttpClientMocker,
    config_folder: Path,
    meters: list[str],
    virtual_meter: VirtualMeter,
) -> None:
    aioclient_mock.get(RAW_URL, text=FILE.read_text(encoding="utf-8"))
    imported = await fetch_blueprint_from_url(hass, URL)
    assert imported.blueprint.metadata["source_url"] == URL
    assert imported.blueprint.validate() is None
    await show(hass, SCHEDULE, "off")
    await automate(hass, [])
    path = f"{imported.suggested_filename}.yaml"
    blueprints = async_get_blueprints(hass)
    await blueprints.async_add_blueprint(imported.blueprint, path)
    # What Home Assistant made of it is read, as after a restart.
    await blueprints.async_reset_cache()
    assert (config_folder / "blueprints/automation" / path).is_file()
    await reload_automations(hass, automation(meters, path, schedule=SCHEDULE))
    await show(hass, SCHEDULE, "on")
    assert virtual_meter.tariff == 2


def test_the_readme_links_to_it() -> None:
    readme = (FILE.parents[3] / "README.md").read_text(encoding="utf-8")
    assert URL in readme
    assert f"blueprint_url={quote(URL, safe='')}" in readme
