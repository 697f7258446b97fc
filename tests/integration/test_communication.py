"""Changing how a meter itself communicates, from Home Assistant."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from homeassistant.config_entries import (
    SOURCE_RECONFIGURE,
    ConfigEntry,
    ConfigEntryState,
    OperationNotAllowed,
)
from homeassistant.const import Platform
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.helpers import device_registry as dr, entity_registry as er
from homeassistant.helpers.json import json_dumps
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.klefr.communication import (
    async_change_communication,
    async_read_communication,
)
from custom_components.klefr.const import DOMAIN
from custom_components.klefr.diagnostics import async_get_config_entry_diagnostics
from custom_components.klefr.wording import port_name
from simulator import mbus, modbus
from simulator.line import Line
from simulator.meter import VirtualMeter

from . import SERIAL_NUMBER, entity_id, state, wait
from .test_config_flow import choose, filled_in, start_reconfigure, submit as submit_all
from .test_sharing import OTHER, entry_for

LINE = {"baud_rate": "9600", "parity": "even"}


@pytest.fixture(params=["modbus"])
def protocol(request: pytest.FixtureRequest) -> str:
    protocol: str = request.param
    return protocol


@pytest.fixture
def virtual_meter(protocol: str) -> VirtualMeter:
    """A meter whose clock stands still."""
    model = "6934" if protocol == "modbus" else "6933"
    return VirtualMeter(serial_number=SERIAL_NUMBER, model=model, clock=lambda: 0.0)


@pytest.fixture
def other_meter(virtual_meter: VirtualMeter) -> VirtualMeter:
    """Another meter on the line."""
    return VirtualMeter(
        serial_number=OTHER, model=virtual_meter.model, address=9, clock=lambda: 0.0
    )


@pytest.fixture
def meters(virtual_meter: VirtualMeter, other_meter: VirtualMeter) -> Sequence[VirtualMeter]:
    return [virtual_meter, other_meter]


@pytest.fixture(autouse=True)
async def _unload(hass: HomeAssistant) -> AsyncIterator[None]:
    yield
    await hass.async_block_till_done(wait_background_tasks=True)
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


async def through(hass: HomeAssistant, result: Any) -> Any:
    """Wait while a flow shows progress, which it has to end by itself."""
    while result["type"] is FlowResultType.SHOW_PROGRESS:
        await hass.async_block_till_done()
        [step] = [
            flow.cur_step
            for flow in hass.config_entries.flow._progress.values()
            if flow.flow_id == result["flow_id"]
        ]
        assert step is not None
        assert step["type"] is FlowResultType.SHOW_PROGRESS_DONE
        result = await hass.config_entries.flow.async_configure(result["flow_id"])
    return result


async def begin(hass: HomeAssistant, entry: ConfigEntry) -> Any:
    """Say that the meter itself is to communicate otherwise."""
    result = await hass.config_entries.flow.async_init(
        DOMAIN, context={"source": SOURCE_RECONFIGURE, "entry_id": entry.entry_id}
    )
    assert result["menu_options"] == ["reach", "communication"]
    return await through(hass, await choose(hass, result, "communication"))


async def submit(hass: HomeAssistant, result: Any, user_input: dict[str, Any]) -> Any:
    assert result["step_id"] in ("change_modbus", "change_mbus")
    assert result["last_step"] is False
    return await through(
        hass, await hass.config_entries.flow.async_configure(result["flow_id"], user_input)
    )


async def change(hass: HomeAssistant, entry: ConfigEntry, **values: Any) -> Any:
    """Change what is named and leave the rest as the form shows it."""
    result = await begin(hass, entry)
    assert result["type"] is FlowResultType.FORM
    return await submit(hass, result, {**filled_in(result["data_schema"]), **values})


def sent_writes(line: Line, protocol: str) -> list[bytes]:
    if protocol == "modbus":
        return [frame for frame in line.requests if frame[1] in (6, 16)]
    return [frame for frame in line.requests if frame[0] == 0x68 and frame[6] != 0x52]


async def test_the_form_shows_how_the_meter_communicates(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line
) -> None:
    result = await begin(hass, loaded)
    assert filled_in(result["data_schema"]) == {"address": 1, **LINE}
    assert result["description_placeholders"]["port"] == port_name(line.port)
    assert not sent_writes(line, "modbus")
    assert loaded.state is ConfigEntryState.LOADED


@pytest.mark.parametrize(
    ("asked", "command"),
    [
        ({"address": 10}, "01064003000a"),
        ({"baud_rate": "2400"}, "010640040960"),
        ({"parity": "none"}, "010640110002"),
    ],
)
async def test_each_setting_of_a_modbus_meter_is_changed(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    line: Line,
    virtual_meter: VirtualMeter,
    entry_data: dict[str, Any],
    asked: dict[str, Any],
    command: str,
) -> None:
    entities = set(hass.states.async_entity_ids())
    result = await change(hass, loaded, **asked)
    assert result["type"] is FlowResultType.ABORT
    assert result["reason"] == "changed"
    assert [frame.hex()[:-4] for frame in sent_writes(line, "modbus")] == [command]
    [(key, value)] = asked.items()
    value = int(value) if key == "baud_rate" else value
    assert getattr(virtual_meter, key) == ("N" if value == "none" else value)
    assert loaded.data == {**entry_data, key: value}
    assert loaded.state is ConfigEntryState.LOADED
    assert set(hass.states.async_entity_ids()) == entities
    # As much as can flow until the next poll.
    await asyncio.sleep(5)
    virtual_meter.add_energy(l1=0.1)
    await wait(hass)
    energy = state(hass, Platform.SENSOR, "forward_active_energy")
    assert float(str(energy)) == pytest.approx(virtual_meter.forward_active_energy, abs=0.006)


async def test_everything_is_changed_at_once(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    virtual_meter: VirtualMeter,
    entry_data: dict[str, Any],
    hass_storage: dict[str, Any],
) -> None:
    result = await change(hass, loaded, address=247, baud_rate="1200", parity="odd")
    assert result["reason"] == "changed"
    assert (virtual_meter.address, virtual_meter.baud_rate, virtual_meter.parity) == (
        247,
        1200,
        "O",
    )
    assert loaded.data == {**entry_data, "address": 247, "baud_rate": 1200, "parity": "odd"}
    assert loaded.state is ConfigEntryState.LOADED
    # Nobody knows yet whether the entry has been saved.
    assert [key for key in hass_storage if key.endswith(".change")]
    await wait(hass, seconds=301)
    assert not [key for key in hass_storage if key.endswith(".change")]


@pytest.mark.parametrize("protocol", ["mbus"], indirect=True)
@pytest.mark.parametrize("address", [0, SERIAL_NUMBER], ids=["primary", "secondary"])
@pytest.mark.parametrize(
    ("asked", "command"),
    [
        ({"address": 10}, "51017a0a"),
        ({"secondary_address": "15012345"}, "510c7945230115"),
        ({"baud_rate": "2400"}, "bb"),
    ],
)
async def test_each_setting_of_an_mbus_meter_is_changed(
    hass: HomeAssistant,
    entry: MockConfigEntry,
    line: Line,
    virtual_meter: VirtualMeter,
    address: int | str,
    asked: dict[str, Any],
    command: str,
) -> None:
    hass.config_entries.async_update_entry(entry, data={**entry.data, "address": address})
    assert await hass.config_entries.async_setup(entry.entry_id)
    await hass.async_block_till_done()
    entities = set(hass.states.async_entity_ids())
    [device] = dr.async_entries_for_config_entry(dr.async_get(hass), entry.entry_id)

    result = await begin(hass, entry)
    assert filled_in(result["data_schema"]) == {
        "address": 0,
        "secondary_address": SERIAL_NUMBER,
        "baud_rate": "9600",
    }
    result = await submit(hass, result, {**filled_in(result["data_schema"]), **asked})
    assert result["reason"] == "changed"
    [frame] = sent_writes(line, "mbus")
    assert frame[6:-2].hex() == command
    [(key, value)] = asked.items()
    assert str(getattr(virtual_meter, key)) == str(value)

    assert entry.state is ConfigEntryState.LOADED
    assert set(hass.states.async_entity_ids()) == entities
    serial_number = value if key == "secondary_address" else SERIAL_NUMBER
    assert entry.unique_id == serial_number
    assert entry.title.endswith(serial_number)
    assert entry.data["baud_rate"] == virtual_meter.baud_rate
    assert entry.data["address"] == (
        serial_number if isinstance(address, str) else virtual_meter.address
    )
    [same_device] = dr.async_entries_for_config_entry(dr.async_get(hass), entry.entry_id)
    assert same_device.id == device.id
    assert same_device.identifiers == {(DOMAIN, serial_number)}
    assert same_device.serial_number == serial_number
    assert {
        each.unique_id.split("_")[0]
        for each in er.async_entries_for_config_entry(er.async_get(hass), entry.entry_id)
    } == {serial_number}


@pytest.mark.parametrize("protocol", ["modbus", "mbus"], indirect=True)
async def test_an_address_in_use_is_refused_and_nothing_is_lost(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    line: Line,
    protocol: str,
    virtual_meter: VirtualMeter,
) -> None:
    before = dict(loaded.data)
    result = await change(hass, loaded, address=9, baud_rate="9600")
    assert result["type"] is FlowResultType.FORM
    assert result["errors"] == {"address": "address_taken"}
    assert result["description_placeholders"]["address"] == "9"
    assert filled_in(result["data_schema"])["address"] == 9
    assert not sent_writes(line, protocol)
    assert loaded.data == before
    assert loaded.state is ConfigEntryState.LOADED
    result = await submit(hass, result, {**filled_in(result["data_schema"]), "address": 8})
    assert result["reason"] == "changed"
    assert loaded.data["address"] == virtual_meter.address == 8


@pytest.mark.parametrize("protocol", ["modbus", "mbus"], indirect=True)
async def test_the_address_of_an_entry_is_refused_also_while_its_meter_is_off(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    neighbour: MockConfigEntry,
    other_meter: VirtualMeter,
    line: Line,
    protocol: str,
) -> None:
    other_meter.power_down()
    result = await change(hass, loaded, address=9)
    assert result["errors"] == {"address": "address_taken_by"}
    assert result["description_placeholders"]["holder"] == neighbour.title
    if protocol == "mbus":
        result = await submit(
            hass, result, {"address": 0, "secondary_address": OTHER, "baud_rate": "9600"}
        )
        assert result["errors"] == {"secondary_address": "address_taken_by"}
    assert not sent_writes(line, protocol)


@pytest.mark.parametrize("protocol", ["mbus"], indirect=True)
@pytest.mark.parametrize("text", ["", "1234567", "123456789", "1234567F", "١٢٣٤٥٦٧٨"])
async def test_what_is_no_secondary_address_is_explained(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line, text: str
) -> None:
    result = await change(hass, loaded, secondary_address=text)
    error = "invalid_secondary_address" if text else "missing"
    assert result["errors"] == {"secondary_address": error}
    assert filled_in(result["data_schema"])["secondary_address"] == text
    assert not sent_writes(line, "mbus")


@pytest.mark.parametrize("address", [0, 248, 1.5, "5"])
async def test_an_address_that_no_meter_can_have_is_not_taken(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line, address: Any
) -> None:
    result = await change(hass, loaded, address=address)
    assert result["errors"] == {"address": "invalid_modbus_address"}
    assert not sent_writes(line, "modbus")


async def test_what_is_so_already_is_not_written(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line
) -> None:
    result = await change(hass, loaded)
    assert result["reason"] == "nothing_to_change"
    assert not sent_writes(line, "modbus")


async def test_who_would_lose_contact_is_named_first(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    neighbour: MockConfigEntry,
    line: Line,
    virtual_meter: VirtualMeter,
    other_meter: VirtualMeter,
) -> None:
    result = await change(hass, loaded, baud_rate="1200")
    assert result["step_id"] == "shared_bus"
    assert result["description_placeholders"]["others"] == neighbour.title
    assert not sent_writes(line, "modbus")
    result = await choose(hass, result, "change")
    assert filled_in(result["data_schema"])["baud_rate"] == "1200"
    result = await submit(hass, result, filled_in(result["data_schema"]))
    result = await through(hass, await choose(hass, result, "changing"))
    assert result["reason"] == "changed"
    assert loaded.state is ConfigEntryState.LOADED
    assert virtual_meter.baud_rate == 1200
    assert other_meter.baud_rate == 9600
    assert neighbour.state is ConfigEntryState.SETUP_RETRY
    assert neighbour.error_reason_translation_key == "line_settings_in_use"

    # It is the next one's turn. Who is set so already does not lose anything.
    result = await change(hass, neighbour, baud_rate="1200")
    assert result["reason"] == "changed"
    assert other_meter.baud_rate == 1200
    assert [loaded.state, neighbour.state] == [ConfigEntryState.LOADED] * 2


async def test_a_change_waits_for_an_entry_that_is_being_set_up(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line, virtual_meter: VirtualMeter
) -> None:
    # The first of its requests is lost, so it takes a while.
    await hass.config_entries.async_unload(loaded.entry_id)
    line.garble_next = 2
    setup = hass.async_create_task(hass.config_entries.async_setup(loaded.entry_id))
    await asyncio.sleep(0.1)
    assert loaded.state is ConfigEntryState.SETUP_IN_PROGRESS
    result = await change(hass, loaded, address=10)
    assert result["reason"] == "changed"
    await setup
    assert virtual_meter.address == loaded.data["address"] == 10
    assert loaded.state is ConfigEntryState.LOADED


async def test_an_entry_that_is_deleted_meanwhile_keeps_no_other_from_coming_back(
    hass: HomeAssistant, loaded: MockConfigEntry, neighbour: MockConfigEntry, line: Line
) -> None:
    def delete_neighbour(frame: bytes) -> None:
        if frame[1] == 6:
            line.before_hearing = None
            hass.async_create_task(hass.config_entries.async_remove(neighbour.entry_id))

    line.before_hearing = delete_neighbour
    result = await change(hass, loaded, baud_rate="1200")
    result = await through(hass, await choose(hass, result, "changing"))
    assert result["reason"] == "changed"
    assert line.before_hearing is None
    assert loaded.state is ConfigEntryState.LOADED


async def test_an_entry_that_cannot_be_unloaded_is_said_and_the_others_come_back(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    neighbour: MockConfigEntry,
    virtual_meter: VirtualMeter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unload = hass.config_entries.async_unload

    async def refuse(entry_id: str, _lock: bool = True) -> bool:
        return entry_id != neighbour.entry_id and await unload(entry_id, _lock)

    result = await change(hass, loaded, baud_rate="1200")
    with monkeypatch.context() as patch:
        patch.setattr(hass.config_entries, "async_unload", refuse)
        result = await through(hass, await choose(hass, result, "changing"))
    assert result["type"] is FlowResultType.ABORT
    assert result["reason"] == "not_set_aside"
    assert result["description_placeholders"]["meters"] == neighbour.title
    assert virtual_meter.baud_rate == 9600
    assert loaded.state is ConfigEntryState.LOADED
    assert neighbour.state is ConfigEntryState.LOADED


async def test_an_entry_that_does_not_come_back_is_said_and_the_others_come_back(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    neighbour: MockConfigEntry,
    virtual_meter: VirtualMeter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_up = hass.config_entries.async_setup
    third = entry_for(
        VirtualMeter(serial_number="22091041", model=virtual_meter.model, address=11),
        loaded.data["port"],
    )
    third.add_to_hass(hass)
    await hass.config_entries.async_setup(third.entry_id)
    assert third.state is ConfigEntryState.SETUP_RETRY

    async def refuse(entry_id: str, _lock: bool = True) -> bool:
        if entry_id == neighbour.entry_id:
            raise OperationNotAllowed
        return await set_up(entry_id, _lock)

    result = await change(hass, loaded, baud_rate="1200")
    with monkeypatch.context() as patch:
        patch.setattr(hass.config_entries, "async_setup", refuse)
        result = await through(hass, await choose(hass, result, "changing"))
    assert result["reason"] == "not_put_back"
    assert result["description_placeholders"]["meters"] == neighbour.title
    assert virtual_meter.baud_rate == loaded.data["baud_rate"] == 1200
    assert loaded.state is ConfigEntryState.LOADED
    assert neighbour.state is ConfigEntryState.NOT_LOADED
    assert third.state is ConfigEntryState.SETUP_RETRY


async def test_a_lost_meters_entry_is_changed_while_it_is_being_set_up(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line, virtual_meter: VirtualMeter
) -> None:
    """Its setup ends without the meter, and the change finds it."""
    await hass.config_entries.async_unload(loaded.entry_id)
    line.silent = True
    setup = hass.async_create_task(hass.config_entries.async_setup(loaded.entry_id))
    await asyncio.sleep(0.1)
    assert loaded.state is ConfigEntryState.SETUP_IN_PROGRESS

    def answer() -> None:
        line.silent = False

    loaded.async_on_state_change(answer)
    result = await begin(hass, loaded)
    await setup
    assert result["step_id"] in ("change_modbus", "change_mbus")
    assert loaded.state is ConfigEntryState.LOADED


async def test_an_entry_that_is_deleted_during_its_change_leaves_nothing(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    line: Line,
    virtual_meter: VirtualMeter,
    hass_storage: dict[str, Any],
) -> None:
    def delete(frame: bytes) -> None:
        if frame[1] == 6:
            line.before_hearing = None
            hass.async_create_task(hass.config_entries.async_remove(loaded.entry_id))

    current = await async_read_communication(hass, loaded)
    line.before_hearing = delete
    await async_change_communication(hass, loaded, current, replace(current, address=5))
    await hass.async_block_till_done()
    assert virtual_meter.address == 5
    assert not hass.config_entries.async_entries(DOMAIN)
    assert not [key for key in hass_storage if key.startswith("klefr.")]


async def test_another_address_disturbs_nobody(
    hass: HomeAssistant, loaded: MockConfigEntry, neighbour: MockConfigEntry
) -> None:
    data = neighbour.runtime_data
    result = await change(hass, loaded, address=5)
    assert result["reason"] == "changed"
    assert neighbour.runtime_data is data


async def test_a_meter_that_refuses_stays_where_it_is(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    virtual_meter: VirtualMeter,
    hass_storage: dict[str, Any],
) -> None:
    before = dict(loaded.data)
    virtual_meter.refuse_writes = True
    result = await change(hass, loaded, address=5, baud_rate="1200")
    assert result["reason"] == "not_moved_refused"
    assert result["description_placeholders"]["wanted"] == "address 5, 1200 baud"
    assert result["description_placeholders"]["found"] == "address 1, 9600 baud"
    assert result["description_placeholders"]["code"] == "3"
    assert loaded.data == before
    assert loaded.state is ConfigEntryState.LOADED
    await wait(hass, seconds=301)
    assert not [key for key in hass_storage if key.endswith(".change")]


async def test_the_entry_follows_a_meter_that_takes_only_some_changes(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line, virtual_meter: VirtualMeter
) -> None:
    def tire(_frame: bytes) -> None:
        virtual_meter.refuse_writes = len(sent_writes(line, "modbus")) > 1

    line.before_hearing = tire
    result = await change(hass, loaded, address=5, baud_rate="1200")
    assert result["reason"] == "not_moved_refused"
    assert result["description_placeholders"]["found"] == "address 5, 9600 baud"
    assert (loaded.data["address"], loaded.data["baud_rate"]) == (5, 9600)
    assert loaded.state is ConfigEntryState.LOADED


@pytest.mark.parametrize(
    ("protocol", "number", "done", "address", "baud_rate"),
    [
        ("modbus", 1, False, None, 9600),
        ("modbus", 1, True, 5, 9600),
        ("modbus", 2, False, 5, 9600),
        ("modbus", 2, True, 5, 1200),
        ("mbus", 1, False, None, 9600),
        ("mbus", 2, True, 5, 1200),
    ],
    indirect=["protocol"],
)
async def test_a_meter_whose_power_fails_is_found_when_it_is_back(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    line: Line,
    virtual_meter: VirtualMeter,
    protocol: str,
    hass_storage: dict[str, Any],
    number: int,
    done: bool,
    address: int | None,
    baud_rate: int,
) -> None:
    def fail(_frame: bytes) -> None:
        if len(sent_writes(line, protocol)) == number:
            virtual_meter.power_down()
            line.silent = True

    if done:
        line.before_answering = fail
    else:
        line.before_hearing = fail
    before = virtual_meter.address
    result = await change(hass, loaded, address=5, baud_rate="1200")
    assert result["reason"] == "meter_lost"
    tried = result["description_placeholders"]["tried"]
    for place in (5, before):
        for rate in (1200, 9600):
            assert f"address {place}, {rate} baud" in tried
    assert loaded.state is ConfigEntryState.SETUP_RETRY
    assert loaded.error_reason_translation_key == "meter_lost"
    assert hass_storage[f"klefr.{loaded.entry_id}.change"]
    diagnostics = await async_get_config_entry_diagnostics(hass, loaded)
    assert diagnostics["change"]["wanted"]["address"] == 5
    assert SERIAL_NUMBER not in json_dumps(diagnostics)

    line.before_hearing = line.before_answering = None
    line.silent = False
    virtual_meter.power_up()
    assert (virtual_meter.address, virtual_meter.baud_rate) == (address or before, baud_rate)
    await wait(hass, seconds=120)
    assert loaded.state is ConfigEntryState.LOADED
    assert loaded.data["address"] == virtual_meter.address
    assert loaded.data["baud_rate"] == virtual_meter.baud_rate
    await wait(hass, seconds=301)
    assert f"klefr.{loaded.entry_id}.change" not in hass_storage


@pytest.mark.parametrize("number", range(1, 21))
async def test_a_change_that_is_cut_off_leaves_the_entry_with_its_meter(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    line: Line,
    virtual_meter: VirtualMeter,
    number: int,
) -> None:
    """Home Assistant stops at any point of it."""
    result = await begin(hass, loaded)
    line.requests.clear()

    def stop(_frame: bytes) -> None:
        if len(line.requests) == number:
            flow: Any = hass.config_entries.flow._progress[result["flow_id"]]
            flow._action.cancel()

    line.before_answering = stop
    await hass.config_entries.flow.async_configure(
        result["flow_id"], {**LINE, "address": 5, "baud_rate": "1200"}
    )
    with suppress(asyncio.CancelledError):
        await hass.async_block_till_done()
    line.before_answering = None
    assert len(line.requests) >= number
    if loaded.state is not ConfigEntryState.LOADED:
        await wait(hass, seconds=120)
    assert loaded.state is ConfigEntryState.LOADED
    assert loaded.data["address"] == virtual_meter.address
    assert loaded.data["baud_rate"] == virtual_meter.baud_rate


@pytest.mark.parametrize("protocol", ["modbus", "mbus"], indirect=True)
@pytest.mark.parametrize("saved", ["nothing", "the entry", "all but the entry"])
async def test_a_change_is_followed_although_home_assistant_stops_before_it_has_saved_it(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    virtual_meter: VirtualMeter,
    protocol: str,
    saved: str,
) -> None:
    entities, devices = er.async_get(hass), dr.async_get(hass)
    before = dict(loaded.data), str(loaded.unique_id), loaded.title
    [device] = dr.async_entries_for_config_entry(devices, loaded.entry_id)
    energy = entities.async_get(entity_id(hass, Platform.SENSOR, "forward_active_energy"))
    assert energy is not None
    count = len(er.async_entries_for_config_entry(entities, loaded.entry_id))
    new: dict[str, Any] = {"address": 5, "baud_rate": "1200"}
    if protocol == "mbus":
        new["secondary_address"] = "12345678"
    result = await change(hass, loaded, **new)
    assert result["reason"] == "changed"
    after = dict(loaded.data), loaded.unique_id, loaded.title
    assert after != before

    await hass.config_entries.async_unload(loaded.entry_id)
    data, unique_id, title = before
    if saved != "the entry":
        hass.config_entries.async_update_entry(loaded, data=data, unique_id=unique_id, title=title)
    if saved != "all but the entry" and protocol == "mbus":
        devices.async_update_device(device.id, new_identifiers={(DOMAIN, unique_id)})
        for entity in er.async_entries_for_config_entry(entities, loaded.entry_id):
            entities.async_update_entity(
                entity.entity_id,
                new_unique_id=entity.unique_id.replace("12345678", SERIAL_NUMBER),
            )
    assert await hass.config_entries.async_setup(loaded.entry_id)
    await hass.async_block_till_done()
    assert (dict(loaded.data), loaded.unique_id, loaded.title) == after
    assert len(er.async_entries_for_config_entry(entities, loaded.entry_id)) == count
    moved = entities.async_get(energy.entity_id)
    assert moved is not None
    assert moved.unique_id == f"{loaded.unique_id}_forward_active_energy"
    assert moved.device_id == device.id
    shown = hass.states.get(energy.entity_id)
    assert shown is not None
    assert float(shown.state) > 0


async def test_an_entry_that_met_another_meter_finds_its_own_again(
    hass: HomeAssistant, loaded: MockConfigEntry, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.serial_number = "87654321"
    await hass.config_entries.async_reload(loaded.entry_id)
    assert loaded.state is ConfigEntryState.SETUP_RETRY
    result = await begin(hass, loaded)
    assert result["reason"] == "meter_lost"
    assert loaded.state is ConfigEntryState.SETUP_RETRY
    virtual_meter.serial_number = SERIAL_NUMBER
    result = await begin(hass, loaded)
    assert result["step_id"] in ("change_modbus", "change_mbus")
    assert loaded.state is ConfigEntryState.LOADED


async def test_a_lost_meter_is_looked_for_everywhere_from_the_same_form(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    neighbour: MockConfigEntry,
    line: Line,
    virtual_meter: VirtualMeter,
) -> None:
    def fail(_frame: bytes) -> None:
        if sent_writes(line, "modbus"):
            virtual_meter.power_down()
            line.silent = True

    line.before_answering = fail
    result = await change(hass, loaded, baud_rate="1200")
    result = await through(hass, await choose(hass, result, "changing"))
    assert result["reason"] == "meter_lost"
    line.before_answering = None
    line.silent = False
    await hass.config_entries.async_reload(neighbour.entry_id)
    assert neighbour.state is ConfigEntryState.LOADED

    # It is back where the others are not, and they hold the port.
    virtual_meter.power_up()
    assert virtual_meter.baud_rate == 1200
    await wait(hass, seconds=120)
    assert loaded.state is ConfigEntryState.SETUP_RETRY
    result = await begin(hass, loaded)
    assert filled_in(result["data_schema"])["baud_rate"] == "1200"
    assert loaded.data["baud_rate"] == 1200
    assert loaded.state is ConfigEntryState.LOADED


async def test_a_lost_meter_can_be_reached_differently(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    line: Line,
    virtual_meter: VirtualMeter,
    entry_data: dict[str, Any],
    hass_storage: dict[str, Any],
) -> None:
    def fail(_frame: bytes) -> None:
        if sent_writes(line, "modbus"):
            virtual_meter.power_down()

    line.before_hearing = fail
    result = await change(hass, loaded, address=5)
    assert result["reason"] == "meter_lost"
    virtual_meter.power_up()
    # Somebody set it on its buttons, and connected it elsewhere.
    virtual_meter.address = 77
    async with modbus.serve(virtual_meter, virtual="virtual://elsewhere") as elsewhere:
        data = {**entry_data, "port": elsewhere.port, "address": 77}
        result = await start_reconfigure(hass, loaded)
        result = await submit_all(hass, result["flow_id"], data)
        assert result["reason"] == "reconfigure_successful"
        assert loaded.state is ConfigEntryState.LOADED
        assert loaded.data == data
        await wait(hass, seconds=301)
        assert f"klefr.{loaded.entry_id}.change" not in hass_storage
        await hass.config_entries.async_unload(loaded.entry_id)


@pytest.mark.parametrize("kind", ["modbus_tcp", "modbus", "mbus"])
async def test_behind_a_gateway_only_addresses_are_changed(hass: HomeAssistant, kind: str) -> None:
    port = "socket://gateway:502"
    if kind == "mbus":
        meter = VirtualMeter(model="6933", serial_number=SERIAL_NUMBER, clock=lambda: 0.0)
        served = mbus.serve(meter, virtual=port)
    else:
        meter = VirtualMeter(serial_number=SERIAL_NUMBER, clock=lambda: 0.0)
        framing = "socket" if kind == "modbus_tcp" else "rtu"
        served = modbus.serve(meter, virtual=port, framing=framing)
    async with served:
        # What a gateway is set to is not to be known here.
        entry = entry_for(meter, port, protocol=kind, baud_rate=2400)
        entry.add_to_hass(hass)
        assert await hass.config_entries.async_setup(entry.entry_id)
        before = dict(entry.data)
        result = await begin(hass, entry)
        shown = filled_in(result["data_schema"])
        assert shown.keys() == {"address"} | ({"secondary_address"} if kind == "mbus" else set())
        result = await submit(hass, result, {**shown, "address": 33})
        assert result["reason"] == "changed"
        assert entry.data == {**before, "address": 33}
        assert meter.address == 33
        assert entry.state is ConfigEntryState.LOADED
        await hass.config_entries.async_unload(entry.entry_id)


async def test_a_meter_that_cannot_be_reached_is_not_asked_to_change(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line
) -> None:
    line.silent = True
    result = await begin(hass, loaded)
    assert result["type"] is FlowResultType.ABORT
    assert result["reason"] == "no_answer_modbus"
    assert loaded.state is ConfigEntryState.LOADED


async def test_what_was_to_change_is_forgotten_with_the_meter(
    hass: HomeAssistant, loaded: MockConfigEntry, hass_storage: dict[str, Any]
) -> None:
    result = await change(hass, loaded, address=5)
    assert result["reason"] == "changed"
    assert f"klefr.{loaded.entry_id}.change" in hass_storage
    await hass.config_entries.async_remove(loaded.entry_id)
    await hass.async_block_till_done()
    assert f"klefr.{loaded.entry_id}.change" not in hass_storage


async def test_a_change_comes_to_its_end_although_the_window_is_closed(
    hass: HomeAssistant, loaded: MockConfigEntry, virtual_meter: VirtualMeter
) -> None:
    result = await begin(hass, loaded)
    result = await hass.config_entries.flow.async_configure(
        result["flow_id"], {**filled_in(result["data_schema"]), "address": 5}
    )
    assert result["type"] is FlowResultType.SHOW_PROGRESS
    hass.config_entries.flow.async_abort(result["flow_id"])
    await hass.async_block_till_done()
    assert loaded.data["address"] == virtual_meter.address == 5
    assert loaded.state is ConfigEntryState.LOADED
