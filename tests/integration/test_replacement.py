"""A new meter takes the place of an old one, and keeps its entities and history."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from http import HTTPStatus
import logging
from string import Formatter
from typing import Any
from unittest.mock import patch

from homeassistant.components.repairs.const import DOMAIN as REPAIRS
from homeassistant.config_entries import (
    SOURCE_IGNORE,
    SOURCE_INTEGRATION_DISCOVERY,
    ConfigEntryDisabler,
    ConfigEntryState,
    OperationNotAllowed,
)
from homeassistant.const import STATE_UNKNOWN, Platform
from homeassistant.core import Event, HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.helpers import device_registry as dr, entity_registry as er, issue_registry as ir
from homeassistant.helpers.translation import async_load_integrations
from homeassistant.setup import async_setup_component
from homeassistant.util import dt as dt_util
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry, async_capture_events
from pytest_homeassistant_custom_component.typing import ClientSessionGenerator

from custom_components.klefr.const import DOMAIN, EVENT_FIRST_READINGS, EVENT_METER_REPLACED
from custom_components.klefr.logbook import async_describe_events
from custom_components.klefr.sensor import SENSORS
from simulator import mbus, modbus
from simulator.line import Line
from simulator.meter import VirtualMeter

from . import HEALTH, SERIAL_NUMBER, wait
from .test_config_flow import STRINGS, choose_bus, configure, start_reconfigure
from .test_settings import select

NEW = "87654321"
THIRD = "30000040"
NAMES = {
    ("modbus", SERIAL_NUMBER): f"KLEFR 6934 {SERIAL_NUMBER}",
    ("modbus", NEW): f"KLEFR 6944 {NEW}",
    ("mbus", SERIAL_NUMBER): f"KLEFR 6933/6943 {SERIAL_NUMBER}",
    ("mbus", NEW): f"KLEFR 6933/6943 {NEW}",
}
ENERGY = "forward_active_energy"
FIX_FLOW = STRINGS["issues"]["wrong_meter"]["fix_flow"]


@pytest.fixture(params=["modbus", "mbus"])
def protocol(request: pytest.FixtureRequest) -> str:
    protocol: str = request.param
    return protocol


@pytest.fixture
def new_meter(protocol: str) -> VirtualMeter:
    """Another model that has counted otherwise. It is not connected yet."""
    model = "6944" if protocol == "modbus" else "6943"
    meter = VirtualMeter(model=model, serial_number=NEW, address=1, seed=7, clock=lambda: 0.0)
    meter.powered = False
    return meter


@pytest.fixture
def meters(virtual_meter: VirtualMeter, new_meter: VirtualMeter) -> Sequence[VirtualMeter]:
    return [virtual_meter, new_meter]


@pytest.fixture
async def entry(
    hass: HomeAssistant, entry_data: dict[str, Any], protocol: str
) -> AsyncIterator[MockConfigEntry]:
    assert await async_setup_component(hass, REPAIRS, {})
    entry = MockConfigEntry(
        domain=DOMAIN,
        unique_id=SERIAL_NUMBER,
        title=NAMES[protocol, SERIAL_NUMBER],
        data=entry_data,
    )
    entry.add_to_hass(hass)
    yield entry
    for each in hass.config_entries.async_entries(DOMAIN, include_ignore=False):
        if each.state.recoverable:
            await hass.config_entries.async_unload(each.entry_id)


@pytest.fixture
async def swapped(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    virtual_meter: VirtualMeter,
    new_meter: VirtualMeter,
) -> MockConfigEntry:
    """The entry when the new meter has been connected in place of the old one."""
    swap(virtual_meter, new_meter)
    await wait(hass)
    return loaded


def swap(old: VirtualMeter, new: VirtualMeter) -> None:
    old.powered, new.powered = False, True


def repair(hass: HomeAssistant, entry: MockConfigEntry) -> ir.IssueEntry | None:
    return ir.async_get(hass).async_get_issue(DOMAIN, f"wrong_meter_{entry.entry_id}")


def flows(hass: HomeAssistant) -> Any:
    return hass.data[REPAIRS]["flow_manager"]


def with_words(result: Any) -> Any:
    """Make sure that a step has all the words that it shows, and knows all that they name."""
    texts = []
    if result["type"] is FlowResultType.MENU:
        step = FIX_FLOW["step"][result["step_id"]]
        texts = [step["title"], step["description"]]
        texts += [step["menu_options"][option] for option in result["menu_options"]]
        texts += [step["menu_option_descriptions"][option] for option in result["menu_options"]]
    elif result["type"] is FlowResultType.ABORT:
        texts = [FIX_FLOW["abort"][result["reason"]]]
    named = {field for text in texts for _, field, _, _ in Formatter().parse(text) if field}
    assert named <= (result.get("description_placeholders") or {}).keys()
    return result


async def open_repair(hass: HomeAssistant, entry: MockConfigEntry) -> Any:
    issue = {"issue_id": f"wrong_meter_{entry.entry_id}"}
    return with_words(await flows(hass).async_init(DOMAIN, data=issue))


async def choose(hass: HomeAssistant, result: Any, option: str) -> Any:
    return with_words(
        await flows(hass).async_configure(result["flow_id"], {"next_step_id": option})
    )


async def replace(hass: HomeAssistant, entry: MockConfigEntry) -> Any:
    result = await choose(hass, await open_repair(hass, entry), "replaced")
    await hass.async_block_till_done()
    return result


def keys(hass: HomeAssistant, entry: MockConfigEntry) -> set[str]:
    """Give what the entities of an entry show, whose unique ids all have its serial number."""
    unique_ids = [
        entity.unique_id.split("_", 1)
        for entity in er.async_entries_for_config_entry(er.async_get(hass), entry.entry_id)
    ]
    assert {number for number, _ in unique_ids} == {entry.unique_id}
    return {key for _, key in unique_ids}


def shown(hass: HomeAssistant, serial_number: str, key: str = ENERGY) -> str:
    entity_id = er.async_get(hass).async_get_entity_id(
        Platform.SENSOR, DOMAIN, f"{serial_number}_{key}"
    )
    assert entity_id is not None
    state = hass.states.get(entity_id)
    assert state is not None
    return state.state


def device_of(hass: HomeAssistant, entry: MockConfigEntry) -> dr.DeviceEntry:
    [device] = dr.async_entries_for_config_entry(dr.async_get(hass), entry.entry_id)
    return device


def assert_unchanged(hass: HomeAssistant, entry: MockConfigEntry, protocol: str) -> None:
    assert entry.unique_id == SERIAL_NUMBER
    assert entry.title == NAMES[protocol, SERIAL_NUMBER]
    assert device_of(hass, entry).identifiers == {(DOMAIN, SERIAL_NUMBER)}
    assert ENERGY in keys(hass, entry)


async def test_a_new_meter_keeps_entry_device_and_entities(
    hass: HomeAssistant, swapped: MockConfigEntry, protocol: str, new_meter: VirtualMeter
) -> None:
    entities = er.async_get(hass)
    device = device_of(hass, swapped)
    ids = {
        entity.id: entity.entity_id
        for entity in er.async_entries_for_config_entry(entities, swapped.entry_id)
    }
    before = keys(hass, swapped)

    result = await open_repair(hass, swapped)
    assert result["type"] is FlowResultType.MENU
    assert result["menu_options"] == ["replaced", "connected_wrong"]
    placeholders = result["description_placeholders"]
    assert (placeholders["expected"], placeholders["found"]) == (SERIAL_NUMBER, NEW)
    result = await choose(hass, result, "replaced")
    await hass.async_block_till_done()
    assert result["type"] is FlowResultType.CREATE_ENTRY

    assert swapped.state is ConfigEntryState.LOADED
    assert swapped.unique_id == NEW
    assert swapped.title == NAMES[protocol, NEW]
    moved = device_of(hass, swapped)
    assert moved.id == device.id
    assert moved.identifiers == {(DOMAIN, NEW)}
    assert moved.name == NAMES[protocol, NEW]
    assert moved.serial_number == NEW
    assert moved.model == {"modbus": "6944 / PRO380-CT", "mbus": "6933/6943 / PRO380"}[protocol]
    assert keys(hass, swapped) == before
    assert ids == {
        entity.id: entity.entity_id
        for entity in er.async_entries_for_config_entry(entities, swapped.entry_id)
    }
    assert float(shown(hass, NEW)) == pytest.approx(new_meter.forward_active_energy)
    assert repair(hass, swapped) is None
    await wait(hass)
    assert repair(hass, swapped) is None


async def test_a_meter_replaced_while_home_assistant_was_off_is_asked_about(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    virtual_meter: VirtualMeter,
    new_meter: VirtualMeter,
) -> None:
    await hass.config_entries.async_unload(loaded.entry_id)
    swap(virtual_meter, new_meter)
    await hass.config_entries.async_setup(loaded.entry_id)
    assert loaded.state is ConfigEntryState.SETUP_RETRY
    assert (await replace(hass, loaded))["type"] is FlowResultType.CREATE_ENTRY
    assert loaded.state is ConfigEntryState.LOADED
    assert loaded.unique_id == NEW


async def test_names_that_the_user_chose_stay(
    hass: HomeAssistant, swapped: MockConfigEntry
) -> None:
    entities, devices = er.async_get(hass), dr.async_get(hass)
    devices.async_update_device(device_of(hass, swapped).id, name_by_user="Cellar")
    entity_id = entities.async_get_entity_id(Platform.SENSOR, DOMAIN, f"{SERIAL_NUMBER}_{ENERGY}")
    assert entity_id is not None
    entities.async_update_entity(entity_id, name="Grid", new_entity_id="sensor.grid")
    hass.config_entries.async_update_entry(swapped, title=f"Cellar ({SERIAL_NUMBER})")
    await replace(hass, swapped)
    assert device_of(hass, swapped).name_by_user == "Cellar"
    entity = entities.async_get("sensor.grid")
    assert entity is not None
    assert (entity.name, entity.unique_id) == ("Grid", f"{NEW}_{ENERGY}")
    assert swapped.title == f"Cellar ({NEW})"


async def test_a_meter_that_was_connected_by_mistake_changes_nothing(
    hass: HomeAssistant,
    swapped: MockConfigEntry,
    virtual_meter: VirtualMeter,
    new_meter: VirtualMeter,
    protocol: str,
) -> None:
    result = await choose(hass, await open_repair(hass, swapped), "connected_wrong")
    assert result["type"] is FlowResultType.ABORT
    assert result["reason"] == "connect_right_meter"
    assert result["description_placeholders"]["expected"] == SERIAL_NUMBER
    assert_unchanged(hass, swapped, protocol)
    # It is still so.
    assert repair(hass, swapped) is not None
    swap(new_meter, virtual_meter)
    await wait(hass)
    assert repair(hass, swapped) is None
    assert float(shown(hass, SERIAL_NUMBER)) > 0


@pytest.mark.parametrize("answers", [0, 1])
@pytest.mark.parametrize("who", ["old", "third", "none"])
async def test_a_meter_that_does_not_answer_any_more_replaces_nothing(
    hass: HomeAssistant,
    swapped: MockConfigEntry,
    virtual_meter: VirtualMeter,
    new_meter: VirtualMeter,
    line: Line,
    protocol: str,
    who: str,
    answers: int,
) -> None:
    """After the question, or after its first answer."""
    result = await open_repair(hass, swapped)
    left = answers

    def change(frame: bytes) -> None:
        nonlocal left
        # The serial number is in the first block over Modbus, and in each telegram over M-Bus.
        if frame[1:4] != b"\x03\x40\x00" and not (frame[0] == 0x10 and frame[1] & 0x0F == 0x0B):
            return
        left -= 1
        if left < 0:
            if who == "old":
                swap(new_meter, virtual_meter)
            elif who == "third":
                new_meter.serial_number = THIRD
            else:
                new_meter.powered = False

    if answers:
        # The whole block is what is asked for once.
        left = 2 if protocol == "modbus" else 1
    line.before_hearing = change
    result = await choose(hass, result, "replaced")
    await hass.async_block_till_done()
    assert left < 0
    assert result["type"] is FlowResultType.ABORT
    assert result["reason"] == "not_replaced"
    expected = {
        "old": f"{NAMES[protocol, SERIAL_NUMBER]} answers again",
        "third": "A third meter answers now",
        "none": "No meter answers",
    }[who]
    assert expected in result["description_placeholders"]["error"]
    assert_unchanged(hass, swapped, protocol)
    # What was asked still is, unless the old meter is back.
    assert (repair(hass, swapped) is None) is (who == "old")


@pytest.mark.parametrize("disabled_by", [None, ConfigEntryDisabler.USER])
async def test_a_meter_that_is_added_already_replaces_nothing(
    hass: HomeAssistant,
    swapped: MockConfigEntry,
    protocol: str,
    disabled_by: ConfigEntryDisabler | None,
) -> None:
    other = MockConfigEntry(
        domain=DOMAIN,
        unique_id=NEW,
        title="New house",
        data={**swapped.data},
        disabled_by=disabled_by,
    )
    other.add_to_hass(hass)
    result = await replace(hass, swapped)
    assert result["type"] is FlowResultType.ABORT
    assert result["reason"] == "not_replaced"
    assert "New house is already added" in result["description_placeholders"]["error"]
    assert_unchanged(hass, swapped, protocol)
    assert repair(hass, swapped) is not None

    await hass.config_entries.async_remove(other.entry_id)
    assert (await replace(hass, swapped))["type"] is FlowResultType.CREATE_ENTRY
    assert swapped.unique_id == NEW


async def test_a_meter_that_was_found_or_ignored_is_offered_no_longer(
    hass: HomeAssistant, swapped: MockConfigEntry
) -> None:
    ignored = MockConfigEntry(domain=DOMAIN, unique_id=NEW, source=SOURCE_IGNORE)
    ignored.add_to_hass(hass)
    for number in (NEW, THIRD):
        await hass.config_entries.flow.async_init(
            DOMAIN,
            context={"source": SOURCE_INTEGRATION_DISCOVERY},
            data={**swapped.data, "meter": number, "name": f"KLEFR 6944 {number}"},
        )
    await hass.config_entries.async_remove(ignored.entry_id)
    await hass.config_entries.flow.async_init(
        DOMAIN,
        context={"source": SOURCE_INTEGRATION_DISCOVERY},
        data={**swapped.data, "meter": NEW, "name": f"KLEFR 6944 {NEW}"},
    )
    ignored.add_to_hass(hass)
    assert len(hass.config_entries.flow.async_progress()) == 2
    await replace(hass, swapped)
    [offer] = hass.config_entries.flow.async_progress()
    assert offer["context"]["unique_id"] == THIRD
    assert hass.config_entries.async_entries(DOMAIN) == [swapped]


async def test_an_entry_may_be_deleted_while_the_repair_is_open(
    hass: HomeAssistant, swapped: MockConfigEntry
) -> None:
    result = await open_repair(hass, swapped)
    await hass.config_entries.async_remove(swapped.entry_id)
    result = await choose(hass, result, "replaced")
    assert result["type"] is FlowResultType.ABORT
    assert result["reason"] == "entry_deleted"


async def test_an_entry_may_be_deleted_while_its_meter_is_replaced(
    hass: HomeAssistant,
    swapped: MockConfigEntry,
    line: Line,
    hass_storage: dict[str, Any],
) -> None:
    result = await open_repair(hass, swapped)
    removal: list[asyncio.Task[Any]] = []

    def delete(_frame: bytes) -> None:
        if not removal:
            removal.append(
                hass.async_create_task(hass.config_entries.async_remove(swapped.entry_id))
            )

    line.before_answering = delete
    result = await choose(hass, result, "replaced")
    await hass.async_block_till_done()
    assert result["reason"] == "entry_deleted"
    assert not [key for key in hass_storage if swapped.entry_id in key]
    assert not hass.config_entries.async_entries(DOMAIN)


async def test_a_window_that_is_closed_leaves_nothing_half_done(
    hass: HomeAssistant, swapped: MockConfigEntry, line: Line
) -> None:
    result = await open_repair(hass, swapped)
    asked = asyncio.Event()
    line.before_hearing = lambda _: asked.set()
    window = hass.async_create_task(choose(hass, result, "replaced"))
    await asked.wait()
    window.cancel()
    with pytest.raises(asyncio.CancelledError):
        await window
    await hass.async_block_till_done()
    assert swapped.state is ConfigEntryState.LOADED
    assert swapped.unique_id == NEW
    assert keys(hass, swapped)


async def test_two_windows_replace_a_meter_once(
    hass: HomeAssistant, swapped: MockConfigEntry
) -> None:
    said = async_capture_events(hass, EVENT_METER_REPLACED)
    windows = [await open_repair(hass, swapped) for _ in range(2)]
    results = await asyncio.gather(*(choose(hass, window, "replaced") for window in windows))
    assert {result["type"] for result in results} == {FlowResultType.CREATE_ENTRY}
    await hass.async_block_till_done()
    assert len(said) == 1
    assert swapped.unique_id == NEW


async def test_an_entry_that_cannot_be_loaded_again_is_named(
    hass: HomeAssistant, swapped: MockConfigEntry
) -> None:
    with patch.object(hass.config_entries, "async_setup", side_effect=OperationNotAllowed):
        result = await replace(hass, swapped)
    assert result["reason"] == "not_put_back"
    assert result["description_placeholders"]["meters"] == swapped.title
    assert swapped.unique_id == NEW


async def test_what_was_learned_of_the_old_meter_is_forgotten(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    virtual_meter: VirtualMeter,
    new_meter: VirtualMeter,
    protocol: str,
    hass_storage: dict[str, Any],
) -> None:
    key = f"{DOMAIN}.{loaded.entry_id}"
    if protocol == "mbus":
        await select(hass, "tariff", "t2")
        assert key in hass_storage
    else:
        virtual_meter.silent_across = {0x500C}
        await wait(hass)
        assert hass_storage[f"{key}.memory"]["data"]["cuts"]
    swap(virtual_meter, new_meter)
    await wait(hass)
    await replace(hass, loaded)
    assert key not in hass_storage
    if protocol == "mbus":
        tariff = er.async_get(hass).async_get_entity_id(Platform.SELECT, DOMAIN, f"{NEW}_tariff")
        assert tariff is not None
        state = hass.states.get(tariff)
        assert state is not None
        assert state.state == STATE_UNKNOWN
    else:
        assert not hass_storage[f"{key}.memory"]["data"]["cuts"]


@pytest.mark.parametrize("saved", ["nothing", "entry", "device and entities"])
async def test_a_replacement_is_finished_after_a_kill(
    hass: HomeAssistant, swapped: MockConfigEntry, protocol: str, saved: str
) -> None:
    """Home Assistant saves entries and registries one after the other, seconds later."""
    entities = er.async_get(hass)
    said = async_capture_events(hass, EVENT_FIRST_READINGS)
    data = dict(swapped.data)
    await replace(hass, swapped)
    expected = keys(hass, swapped)
    await hass.config_entries.async_unload(swapped.entry_id)
    if saved != "entry":
        hass.config_entries.async_update_entry(
            swapped, unique_id=SERIAL_NUMBER, title=NAMES[protocol, SERIAL_NUMBER], data=data
        )
    if saved != "device and entities":
        dr.async_get(hass).async_update_device(
            device_of(hass, swapped).id, new_identifiers={(DOMAIN, SERIAL_NUMBER)}
        )
        for entity in er.async_entries_for_config_entry(entities, swapped.entry_id):
            key = entity.unique_id.partition("_")[2]
            entities.async_update_entity(entity.entity_id, new_unique_id=f"{SERIAL_NUMBER}_{key}")
    assert await hass.config_entries.async_setup(swapped.entry_id)
    await hass.async_block_till_done()
    assert swapped.unique_id == NEW
    assert swapped.title == NAMES[protocol, NEW]
    assert device_of(hass, swapped).identifiers == {(DOMAIN, NEW)}
    assert keys(hass, swapped) == expected
    assert len(said) == 1


async def test_what_is_changed_after_a_replacement_stays_changed(
    hass: HomeAssistant, swapped: MockConfigEntry, hass_storage: dict[str, Any]
) -> None:
    await replace(hass, swapped)
    store = f"{DOMAIN}.{swapped.entry_id}.replacement"
    assert store in hass_storage
    hass.config_entries.async_update_entry(swapped, title="Cellar")
    await hass.config_entries.async_reload(swapped.entry_id)
    assert swapped.title == "Cellar"
    await wait(hass, seconds=301)
    assert store not in hass_storage


async def test_the_old_meter_may_come_back_to_its_place(
    hass: HomeAssistant,
    swapped: MockConfigEntry,
    virtual_meter: VirtualMeter,
    new_meter: VirtualMeter,
    protocol: str,
) -> None:
    await replace(hass, swapped)
    swap(new_meter, virtual_meter)
    await wait(hass)
    assert (await replace(hass, swapped))["type"] is FlowResultType.CREATE_ENTRY
    assert swapped.state is ConfigEntryState.LOADED
    assert_unchanged(hass, swapped, protocol)
    assert float(shown(hass, SERIAL_NUMBER)) == pytest.approx(virtual_meter.forward_active_energy)


# The logbook


def in_words(hass: HomeAssistant, event: Event[Any]) -> str:
    described = {}
    async_describe_events(hass, lambda _, name, describe: described.update({name: describe}))
    return str(described[str(event.event_type)](event)["message"])


async def test_the_logbook_keeps_the_readings_of_both_meters(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    virtual_meter: VirtualMeter,
    new_meter: VirtualMeter,
    protocol: str,
) -> None:
    await async_load_integrations(hass, {DOMAIN})
    replaced = async_capture_events(hass, EVENT_METER_REPLACED)
    first = async_capture_events(hass, EVENT_FIRST_READINGS)
    now = dt_util.as_local(dt_util.utcnow())
    # It was read right before.
    minutes = [f"({now - timedelta(minutes=ago):%Y-%m-%d %H:%M})" for ago in (0, 1)]
    old_energy = virtual_meter.forward_active_energy
    swap(virtual_meter, new_meter)
    await wait(hass)
    await replace(hass, loaded)
    await wait(hass)

    [event] = replaced
    assert event.data["device_id"] == device_of(hass, loaded).id
    said = in_words(hass, event)
    assert said.startswith(
        f"The meter {NEW} replaced the meter {SERIAL_NUMBER}."
        f" The last readings of {SERIAL_NUMBER} were: Total active energy "
    )
    assert f"Forward active energy {old_energy:.2f} kWh" in said
    assert any(minute in said for minute in minutes)
    [event] = first
    assert event.data["device_id"] == device_of(hass, loaded).id
    begun = in_words(hass, event)
    assert begun.startswith(f"The first readings of the meter {NEW} are: ")
    assert f"Forward active energy {new_meter.forward_active_energy:.2f} kWh" in begun
    energies = [
        sensor.key
        for sensor in SENSORS
        if sensor.native_unit_of_measurement in ("kWh", "kvarh")
        and sensor.key in loaded.runtime_data.meter.quantities
    ]
    assert len(energies) == (37 if protocol == "modbus" else 9)
    for text in (said, begun):
        assert text.count("kWh") + text.count("kvarh") == len(energies)
        assert "component." not in text


async def test_an_old_meter_without_readings_has_none_in_the_logbook(
    hass: HomeAssistant,
    entry: MockConfigEntry,
    virtual_meter: VirtualMeter,
    new_meter: VirtualMeter,
) -> None:
    await async_load_integrations(hass, {DOMAIN})
    replaced = async_capture_events(hass, EVENT_METER_REPLACED)
    first = async_capture_events(hass, EVENT_FIRST_READINGS)
    swap(virtual_meter, new_meter)
    await hass.config_entries.async_setup(entry.entry_id)
    await replace(hass, entry)
    [event] = replaced
    assert in_words(hass, event) == (
        f"The meter {NEW} replaced the meter {SERIAL_NUMBER}."
        f" Home Assistant has no readings of {SERIAL_NUMBER}."
    )
    assert not first


async def test_no_serial_number_gets_into_the_log(
    hass: HomeAssistant, swapped: MockConfigEntry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "custom_components.klefr")
    await replace(hass, swapped)
    await wait(hass)
    said = [each for each in caplog.records if each.name.startswith("custom_components.klefr")]
    assert said
    for record in said:
        text = logging.Formatter().format(record)
        assert SERIAL_NUMBER not in text
        assert NEW not in text


# Another place or protocol


async def reconfigure(hass: HomeAssistant, entry: MockConfigEntry, **changed: Any) -> Any:
    """Enter where the meter is now."""
    data = {**entry.data, **changed}
    result = await start_reconfigure(hass, entry)
    result = await choose_bus(hass, result["flow_id"], data)
    line_settings = {"baud_rate": str(data["baud_rate"]), "parity": data["parity"]}
    if data["protocol"] == "mbus":
        del line_settings["parity"]
        data["address"] = str(data["address"])
    answers = {"address": data["address"], "line_settings": line_settings}
    return await configure(hass, result["flow_id"], answers)


@pytest.fixture
def elsewhere(protocol: str) -> VirtualMeter:
    """A new meter on another bus, with the other protocol."""
    model = "6933" if protocol == "modbus" else "6944"
    return VirtualMeter(model=model, serial_number=NEW, address=7, seed=7, clock=lambda: 0.0)


async def test_a_new_meter_may_have_another_protocol_and_other_quantities(
    hass: HomeAssistant, loaded: MockConfigEntry, protocol: str, elsewhere: VirtualMeter
) -> None:
    entities = er.async_get(hass)
    serve, other = (mbus.serve, "mbus") if protocol == "modbus" else (modbus.serve, "modbus")
    energy = entities.async_get_entity_id(Platform.SENSOR, DOMAIN, f"{SERIAL_NUMBER}_{ENERGY}")
    async with serve(elsewhere, virtual="virtual://elsewhere") as line:
        result = await reconfigure(hass, loaded, port=line.port, protocol=other, address=7)
        assert result["step_id"] == "reach_other"
        result = await configure(hass, result["flow_id"], {"next_step_id": "reach_replaced"})
        await hass.async_block_till_done()
        assert result["type"] is FlowResultType.ABORT
        assert result["reason"] == "replaced"
        assert result["description_placeholders"]["meter"] == NAMES[protocol, SERIAL_NUMBER]
        assert loaded.state is ConfigEntryState.LOADED
        assert loaded.unique_id == NEW
        assert loaded.title == NAMES[other, NEW]
        assert (loaded.data["port"], loaded.data["address"]) == (line.port, 7)
        assert energy == entities.async_get_entity_id(Platform.SENSOR, DOMAIN, f"{NEW}_{ENERGY}")
        assert float(shown(hass, NEW)) == pytest.approx(elsewhere.forward_active_energy)
        found = keys(hass, loaded)
        meter = loaded.runtime_data.meter
        assert {"voltage_l1", "lcd_cycle_time"} <= found or other == "mbus"
        only_mbus = {"access_number", "status_ok"}
        assert only_mbus <= found if other == "mbus" else found.isdisjoint(only_mbus)
        assert found - meter.quantities - meter.settings.keys() == {
            "reset_resettable_counter",
            "reset_power_down_counter",
            *HEALTH,
        }
        await hass.config_entries.async_unload(loaded.entry_id)


@pytest.mark.parametrize("protocol", ["mbus"])
async def test_a_secondary_address_is_that_of_the_new_meter(
    hass: HomeAssistant,
    entry: MockConfigEntry,
    virtual_meter: VirtualMeter,
    new_meter: VirtualMeter,
) -> None:
    hass.config_entries.async_update_entry(entry, data={**entry.data, "address": SERIAL_NUMBER})
    assert await hass.config_entries.async_setup(entry.entry_id)
    swap(virtual_meter, new_meter)
    await wait(hass)
    # No other meter answers at that address.
    assert repair(hass, entry) is None
    result = await reconfigure(hass, entry, address=NEW)
    assert result["step_id"] == "reach_other"
    assert result["menu_options"] == ["reach_replaced", "reach_mbus"]
    result = await configure(hass, result["flow_id"], {"next_step_id": "reach_replaced"})
    await hass.async_block_till_done()
    assert result["reason"] == "replaced"
    assert entry.data["address"] == NEW
    assert entry.unique_id == NEW
    assert entry.state is ConfigEntryState.LOADED
    assert float(shown(hass, NEW)) == pytest.approx(new_meter.forward_active_energy)


async def test_a_new_meter_that_is_gone_replaces_nothing_when_reconfigured(
    hass: HomeAssistant,
    swapped: MockConfigEntry,
    new_meter: VirtualMeter,
    protocol: str,
) -> None:
    result = await reconfigure(hass, swapped)
    assert result["step_id"] == "reach_other"
    new_meter.powered = False
    result = await configure(hass, result["flow_id"], {"next_step_id": "reach_replaced"})
    assert result["reason"] == "not_replaced"
    assert "No meter answers" in result["description_placeholders"]["error"]
    assert_unchanged(hass, swapped, protocol)


async def test_reconfiguring_takes_the_repair_back(
    hass: HomeAssistant, swapped: MockConfigEntry, virtual_meter: VirtualMeter
) -> None:
    assert repair(hass, swapped) is not None
    virtual_meter.address, virtual_meter.powered = 5, True
    result = await reconfigure(hass, swapped, address=5)
    assert result["reason"] == "reconfigure_successful"
    assert repair(hass, swapped) is None


# As a browser does it


async def test_the_repair_works_over_http_and_diagnostics_hide_both_meters(
    hass: HomeAssistant, hass_client: ClientSessionGenerator, swapped: MockConfigEntry
) -> None:
    assert await async_setup_component(hass, "diagnostics", {})
    client = await hass_client()
    answer = await client.get(f"/api/diagnostics/config_entry/{swapped.entry_id}")
    assert answer.status == HTTPStatus.OK
    diagnostics = await answer.text()
    # It lists the repair.
    assert f"wrong_meter_{swapped.entry_id}" in diagnostics
    assert SERIAL_NUMBER not in diagnostics
    assert NEW not in diagnostics

    url = "/api/repairs/issues/fix"
    issue = {"handler": DOMAIN, "issue_id": f"wrong_meter_{swapped.entry_id}"}
    menu = await (await client.post(url, json=issue)).json()
    assert menu["type"] == "menu"
    answer = await client.post(f"{url}/{menu['flow_id']}", json={"next_step_id": "replaced"})
    assert (await answer.json())["type"] == "create_entry"
    await hass.async_block_till_done()
    assert swapped.unique_id == NEW
    diagnostics = await (
        await client.get(f"/api/diagnostics/config_entry/{swapped.entry_id}")
    ).text()
    assert SERIAL_NUMBER not in diagnostics
    assert NEW not in diagnostics
