"""Another meter answers where the entry's own did, or one that is not ready."""

import asyncio
from typing import Any

from homeassistant.config_entries import ConfigEntryDisabler, ConfigEntryState
from homeassistant.const import STATE_UNAVAILABLE, Platform
from homeassistant.core import Event, EventStateChangedData, HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers import issue_registry as ir
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.klefr.const import DOMAIN
from simulator.line import Line
from simulator.meter import VirtualMeter

from . import SERIAL_NUMBER, entity_id, state, wait
from .test_config_flow import choose_bus, configure, start
from .test_settings import select

OTHER = "87654321"
STARTING = "00000000"


@pytest.fixture(params=["modbus", "mbus"])
def protocol(request: pytest.FixtureRequest) -> str:
    protocol: str = request.param
    return protocol


@pytest.fixture
def energies(hass: HomeAssistant) -> list[str]:
    """All states of the forward active energy from now on."""
    seen: list[str] = []

    def note(event: Event[EventStateChangedData]) -> None:
        new = event.data["new_state"]
        if new and event.data["entity_id"].endswith("_forward_active_energy"):
            seen.append(new.state)

    hass.bus.async_listen("state_changed", note)
    return seen


def answer_once_as(line: Line, meter: VirtualMeter, number: str) -> None:
    """Let the next answer that says whose it is give another serial number."""

    def begin(frame: bytes) -> None:
        asks = frame[1:4] == b"\x03\x40\x00" or (frame[0] == 0x10 and frame[1] & 0x0F == 0x0B)
        if asks:
            meter.serial_number = number
            line.before_hearing = None

    def end(_frame: bytes) -> None:
        meter.serial_number = SERIAL_NUMBER

    line.before_hearing, line.before_answering = begin, end


@pytest.mark.parametrize("number", [OTHER, STARTING])
async def test_one_odd_answer_changes_nothing(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    line: Line,
    virtual_meter: VirtualMeter,
    energies: list[str],
    number: str,
) -> None:
    data = loaded.runtime_data
    # So much cannot flow at once.
    await asyncio.sleep(5)
    answer_once_as(line, virtual_meter, number)
    virtual_meter.add_energy(l1=0.1)
    await wait(hass)
    assert line.before_hearing is None
    assert energies == [f"{virtual_meter.forward_active_energy:.2f}".rstrip("0")]
    assert loaded.runtime_data is data
    answer_once_as(line, virtual_meter, number)
    await select(hass, "tariff", "t2")
    assert line.before_hearing is None
    assert virtual_meter.tariff == 2


@pytest.mark.parametrize("number", [OTHER, STARTING])
async def test_one_odd_answer_at_start_changes_nothing(
    hass: HomeAssistant,
    entry: MockConfigEntry,
    line: Line,
    virtual_meter: VirtualMeter,
    number: str,
) -> None:
    answer_once_as(line, virtual_meter, number)
    assert await hass.config_entries.async_setup(entry.entry_id)
    assert line.before_hearing is None


async def test_nothing_of_another_meter_is_published_and_the_own_one_is_read_again_at_once(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    virtual_meter: VirtualMeter,
    energies: list[str],
) -> None:
    issues = ir.async_get(hass)
    virtual_meter.serial_number = OTHER
    virtual_meter.add_energy(l1=1000)
    for _ in range(3):
        await wait(hass)
    await wait(hass, seconds=3600)
    assert energies == [STATE_UNAVAILABLE]
    assert loaded.state is ConfigEntryState.LOADED
    issue = issues.async_get_issue(DOMAIN, f"wrong_meter_{loaded.entry_id}")
    assert issue is not None
    assert issue.translation_key == "wrong_meter"
    placeholders = issue.translation_placeholders or {}
    assert (placeholders["expected"], placeholders["found"]) == (SERIAL_NUMBER, OTHER)

    virtual_meter.serial_number = SERIAL_NUMBER
    await wait(hass)
    assert state(hass, Platform.SENSOR, "forward_active_energy") not in (None, STATE_UNAVAILABLE)
    assert not issues.issues


async def test_nothing_is_set_on_another_meter(
    hass: HomeAssistant, loaded: MockConfigEntry, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.serial_number = OTHER
    with pytest.raises(HomeAssistantError) as error:
        await select(hass, "tariff", "t2")
    assert error.value.translation_key == "wrong_meter"
    assert virtual_meter.tariff == 1


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("how", ["disabled", "deleted"])
async def test_the_repair_goes_with_the_entry(
    hass: HomeAssistant,
    entry: MockConfigEntry,
    virtual_meter: VirtualMeter,
    how: str,
    started: bool,
) -> None:
    if started:
        assert await hass.config_entries.async_setup(entry.entry_id)
    virtual_meter.serial_number = OTHER
    if started:
        await wait(hass)
    else:
        await hass.config_entries.async_setup(entry.entry_id)
    assert ir.async_get(hass).issues
    await hass.config_entries.async_reload(entry.entry_id)
    assert ir.async_get(hass).issues
    if how == "disabled":
        await hass.config_entries.async_set_disabled_by(entry.entry_id, ConfigEntryDisabler.USER)
    else:
        await hass.config_entries.async_remove(entry.entry_id)
    assert not ir.async_get(hass).issues


@pytest.mark.parametrize(("number", "reason"), [(OTHER, "wrong_meter"), (STARTING, "not_ready")])
async def test_an_entry_that_starts_with_another_meter_goes_on_trying(
    hass: HomeAssistant,
    entry: MockConfigEntry,
    virtual_meter: VirtualMeter,
    number: str,
    reason: str,
) -> None:
    virtual_meter.serial_number = number
    await hass.config_entries.async_setup(entry.entry_id)
    assert entry.state is ConfigEntryState.SETUP_RETRY
    assert entry.error_reason_translation_key == reason
    assert not hass.states.async_entity_ids()
    await wait(hass, seconds=60)
    assert entry.state is ConfigEntryState.SETUP_RETRY
    # A meter that was replaced while Home Assistant was off is reported too.
    assert bool(ir.async_get(hass).issues) is (number == OTHER)
    virtual_meter.serial_number = SERIAL_NUMBER
    await wait(hass, seconds=60)
    assert entry.state is ConfigEntryState.LOADED
    assert not ir.async_get(hass).issues


async def test_a_meter_that_starts_is_unavailable_until_it_says_who_it_is(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    virtual_meter: VirtualMeter,
    energies: list[str],
) -> None:
    virtual_meter.serial_number = STARTING
    for _ in range(3):
        await wait(hass)
    assert energies == [STATE_UNAVAILABLE]
    assert not ir.async_get(hass).issues
    virtual_meter.serial_number = SERIAL_NUMBER
    await wait(hass)
    assert float(state(hass, Platform.SENSOR, "forward_active_energy") or "") > 0
    assert entity_id(hass, Platform.SENSOR, "forward_active_energy")


async def test_a_meter_that_starts_cannot_be_added_yet(
    hass: HomeAssistant, entry_data: dict[str, Any], virtual_meter: VirtualMeter, protocol: str
) -> None:
    virtual_meter.serial_number = STARTING
    result = await choose_bus(hass, await start(hass), entry_data)
    address: Any = 1 if protocol == "modbus" else "1"
    user_input = {"address": address, "line_settings": {}}
    result = await configure(hass, result["flow_id"], user_input)
    assert result["errors"] == {"base": "not_ready"}
    virtual_meter.serial_number = SERIAL_NUMBER
    result = await configure(hass, result["flow_id"], user_input)
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert result["result"].unique_id == SERIAL_NUMBER
    await hass.config_entries.async_unload(result["result"].entry_id)
