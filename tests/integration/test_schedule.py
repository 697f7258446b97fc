"""What Home Assistant reads when, on a line in virtual time."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import (
    EVENT_STATE_CHANGED,
    EVENT_STATE_REPORTED,
    STATE_UNAVAILABLE,
    Platform,
)
from homeassistant.core import Event, EventStateReportedData, HomeAssistant, callback
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.helpers import issue_registry as ir
from pytest_homeassistant_custom_component.common import MockConfigEntry, async_capture_events

from custom_components.klefr.const import DOMAIN
from custom_components.klefr.issues import async_check
from custom_components.klefr.meter.schedule import Demand
from simulator.line import Line
from simulator.meter import VirtualMeter
from simulator.modbus import serve

from . import entity_id, state, wait

CHARACTER = 11 / 9600  # seconds


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request for registers, and when it was heard."""

    unit: int
    address: int
    count: int
    at: float

    @property
    def characters(self) -> int:
        """Of the request and its answer."""
        return 8 + 5 + 2 * self.count


def heard(line: Line) -> list[Request]:
    """Return a list that grows with what is asked from now on."""
    requests: list[Request] = []

    def hear(frame: bytes) -> None:
        requests.append(
            Request(
                unit=frame[0],
                address=int.from_bytes(frame[2:4]),
                count=int.from_bytes(frame[4:6]),
                at=asyncio.get_running_loop().time(),
            )
        )

    line.before_hearing = hear
    return requests


def polls(requests: Sequence[Request], unit: int) -> list[list[Request]]:
    """Return the requests to a meter, poll by poll."""
    own = [request for request in requests if request.unit == unit]
    found: list[list[Request]] = []
    for request in own:
        if found and request.at - found[-1][-1].at < 1:
            found[-1].append(request)
        else:
            found.append([request])
    return found


def virtual_meters(number: int) -> list[VirtualMeter]:
    return [
        VirtualMeter(serial_number=f"{22091000 + address}", address=address, clock=lambda: 0.0)
        for address in range(1, number + 1)
    ]


async def set_up(
    hass: HomeAssistant, line: Line, meters: Sequence[VirtualMeter], *, baud_rate: int = 9600
) -> list[MockConfigEntry]:
    entries = [
        MockConfigEntry(
            domain=DOMAIN,
            title=f"KLEFR 6934 {meter.serial_number}",
            unique_id=meter.serial_number,
            data={
                "port": line.port,
                "protocol": "modbus",
                "address": meter.address,
                "baud_rate": baud_rate,
                "parity": "even",
            },
        )
        for meter in meters
    ]
    for entry in entries:
        entry.add_to_hass(hass)
    await asyncio.gather(*(hass.config_entries.async_setup(entry.entry_id) for entry in entries))
    assert {entry.state for entry in entries} == {ConfigEntryState.LOADED}
    await hass.async_block_till_done()
    return entries


async def tear_down(hass: HomeAssistant, entries: Sequence[MockConfigEntry]) -> None:
    for entry in entries:
        await hass.config_entries.async_unload(entry.entry_id)


async def test_on_a_free_line_a_poll_takes_less_than_220_characters(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line
) -> None:
    line.delay_answer = 0.005
    requests = heard(line)
    await asyncio.sleep(300)
    each = polls(requests, 1)
    assert len(each) == 30
    usual = [(0x4000, 2), (0x5002, 24), (0x502A, 2), (0x600C, 24)]
    assert sum([(each.address, each.count) for each in poll] == usual for poll in each) == 25
    assert sum(request.characters for request in requests) / len(each) < 175
    # With the state.
    assert max(sum(request.characters for request in poll) for poll in each) < 260


async def test_sixty_meters_on_one_line(hass: HomeAssistant) -> None:
    """Live values every 10 s, energies every 60 s, all else every 5 minutes."""
    meters = virtual_meters(60)
    async with serve(*meters, virtual="virtual://sixty") as line:
        line.delay_answer = 0.005
        entries = await set_up(hass, line, meters)
        await asyncio.sleep(10)
        requests = heard(line)
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(300)
        seconds = asyncio.get_running_loop().time() - began
        for meter in meters:
            each = polls(requests, meter.address)
            # Every poll is over before the next one is due.
            assert len(each) in (29, 30, 31)
            starts = [poll[0].at for poll in each]
            assert max(b - a for a, b in pairwise(starts)) < 2 * 10
            addresses = [request.address for poll in each for request in poll]
            assert addresses.count(0x5002) == len(each)
            assert addresses.count(0x600C) in (5, 6)
            # The state, and the resettable counter with the tariff.
            assert len([address for address in addresses if address == 0x6048]) in (1, 2)
            for poll in each:
                found = {request.address for request in poll}
                # Energies are never read without the serial number.
                assert 0x600C not in found or min(found) == 0x4000
                assert sum(request.characters for request in poll) < 180
        assert not [issue for issue in ir.async_get(hass).issues if "overloaded" in issue[1]]
        await tear_down(hass, entries)
    characters = sum(request.characters for request in requests)
    polled = seconds / 10 * len(meters)
    assert characters / polled < 85
    assert (characters * CHARACTER + len(requests) * line.delay_answer) / seconds < 0.6


async def test_what_is_not_due_keeps_its_value(
    hass: HomeAssistant, loaded: MockConfigEntry, virtual_meter: VirtualMeter
) -> None:
    loaded.runtime_data.bus.load.demands["another"] = Demand(interval=10, seconds=lambda _: 9.0)
    await wait(hass, seconds=61)
    energy = state(hass, Platform.SENSOR, "forward_active_energy")
    assert energy not in (None, STATE_UNAVAILABLE)
    virtual_meter.overrides[0x5002] = 231.5
    for _ in range(3):
        await wait(hass, seconds=10)
        assert state(hass, Platform.SENSOR, "voltage_l1") == "231.5"
        assert state(hass, Platform.SENSOR, "forward_active_energy") == energy


async def test_after_a_failed_poll_nothing_keeps_its_value(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line
) -> None:
    loaded.runtime_data.bus.load.demands["another"] = Demand(interval=10, seconds=lambda _: 9.0)
    line.silent = True
    await wait(hass)
    assert state(hass, Platform.SENSOR, "forward_active_energy") == STATE_UNAVAILABLE
    assert state(hass, Platform.BINARY_SENSOR, "supply_l1") == STATE_UNAVAILABLE
    line.silent = False
    requests = heard(line)
    await wait(hass, seconds=10)
    assert {0x4000, 0x5002, 0x600C} <= {request.address for request in requests}
    assert any(request.address <= 0x401E < request.address + request.count for request in requests)
    assert state(hass, Platform.SENSOR, "forward_active_energy") != STATE_UNAVAILABLE


async def test_a_surprise_is_read_again_in_time_on_a_busy_line(
    hass: HomeAssistant, loaded: MockConfigEntry, virtual_meter: VirtualMeter
) -> None:
    """Energies are due every minute, but a surprise is known to stay within three."""
    loaded.runtime_data.bus.load.demands["another"] = Demand(interval=10, seconds=lambda _: 9.0)
    await wait(hass, seconds=61)
    before = state(hass, Platform.SENSOR, "forward_active_energy")
    for address in (0x600C, 0x600E, 0x6010, 0x6012, 0x6014, 0x6016):
        virtual_meter.overrides[address] = 0.0
    await wait(hass, seconds=61)
    assert state(hass, Platform.SENSOR, "forward_active_energy") == before
    await wait(hass, seconds=180)
    assert state(hass, Platform.SENSOR, "forward_active_energy") == "0.0"


async def test_a_state_is_written_only_if_it_is_another_one(
    hass: HomeAssistant, loaded: MockConfigEntry, virtual_meter: VirtualMeter
) -> None:
    reported: list[Event[EventStateReportedData]] = []

    @callback
    def note(event: Event[EventStateReportedData]) -> None:
        reported.append(event)

    hass.bus.async_listen(EVENT_STATE_REPORTED, note, event_filter=callback(lambda _: True))
    changed = async_capture_events(hass, EVENT_STATE_CHANGED)
    virtual_meter.overrides[0x5002] = 231.5
    await wait(hass, seconds=10)
    assert [event.data["entity_id"] for event in changed] == [
        entity_id(hass, Platform.SENSOR, "voltage_l1")
    ]
    assert not reported


async def options_form(hass: HomeAssistant, entry: MockConfigEntry) -> Any:
    return await hass.config_entries.options.async_init(entry.entry_id)


async def test_the_options_say_which_interval_works(
    hass: HomeAssistant, loaded: MockConfigEntry
) -> None:
    load = loaded.runtime_data.bus.load
    load.demands["others"] = Demand(interval=10, seconds=lambda _: 8.87)
    form = await options_form(hass, loaded)
    assert form["description_placeholders"]["load"] == (
        "The bus is busy for 90 % of the time. The shortest interval that works for this meter"
        " is 8 s."
    )
    flow = form["flow_id"]
    form = await hass.config_entries.options.async_configure(flow, {"update_interval": 7})
    assert form["errors"] == {"update_interval": "interval_too_short"}
    assert form["description_placeholders"]
    assert form["description_placeholders"]["shortest"] == "8"
    form = await hass.config_entries.options.async_configure(flow, {"update_interval": 8})
    assert form["type"] is FlowResultType.CREATE_ENTRY


async def test_a_longer_interval_is_taken_even_if_the_bus_is_overloaded(
    hass: HomeAssistant, loaded: MockConfigEntry
) -> None:
    load = loaded.runtime_data.bus.load
    load.demands["others"] = Demand(interval=10, seconds=lambda _: 9.5)
    form = await options_form(hass, loaded)
    assert "First choose longer intervals" in form["description_placeholders"]["load"]
    form = await hass.config_entries.options.async_configure(
        form["flow_id"], {"update_interval": 5}
    )
    assert form["errors"] == {"update_interval": "bus_full"}
    form = await hass.config_entries.options.async_configure(
        form["flow_id"], {"update_interval": 20}
    )
    assert form["type"] is FlowResultType.CREATE_ENTRY


async def test_the_options_of_a_meter_that_is_not_read_say_so(
    hass: HomeAssistant, entry: MockConfigEntry
) -> None:
    form = await options_form(hass, entry)
    assert "only knows how busy" in form["description_placeholders"]["load"]


async def test_a_bus_that_gets_too_many_meters_is_a_repair_until_it_is_mended(
    hass: HomeAssistant,
) -> None:
    def issues() -> list[ir.IssueEntry]:
        async_check(hass)
        found = ir.async_get(hass).issues.values()
        return [issue for issue in found if issue.translation_key == "bus_overloaded"]

    meters = virtual_meters(12)
    for meter in meters:
        meter.baud_rate = 1200
    async with serve(*meters, virtual="virtual://slow") as line:
        few = await set_up(hass, line, meters[:10], baud_rate=1200)
        assert not issues()
        more = await set_up(hass, line, meters[10:], baud_rate=1200)
        [issue] = issues()
        assert issue.translation_placeholders == {
            "meter": "KLEFR 6934 22091001",
            "meters": ", ".join(f"KLEFR 6934 {meter.serial_number}" for meter in meters),
            "port": "slow",
            "busy": "100",
            "most": "90",
            "shortest": "12",
        }
        # A longer interval for some of them.
        for entry in more:
            hass.config_entries.async_update_entry(entry, options={"update_interval": 60})
            await hass.config_entries.async_reload(entry.entry_id)
        assert not issues()
        for entry in more:
            hass.config_entries.async_update_entry(entry, options={"update_interval": 10})
            await hass.config_entries.async_reload(entry.entry_id)
        assert issues()
        for entry in more:
            await hass.config_entries.async_remove(entry.entry_id)
        assert not issues()
        await tear_down(hass, few)
