"""Energy in Home Assistant's own statistics: what flowed, whatever the meter's values do."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from itertools import cycle
import json
import logging
from typing import Any
from unittest.mock import ANY, patch

from homeassistant.components.logbook.helpers import async_determine_event_types
from homeassistant.components.logbook.processor import EventProcessor
from homeassistant.components.recorder import get_instance
from homeassistant.core import CoreState, HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.helpers import entity_registry as er
from homeassistant.loader import DATA_CUSTOM_COMPONENTS
from homeassistant.setup import async_setup_component
from homeassistant.util import dt as dt_util
import pytest
from pytest_homeassistant_custom_component.common import (
    MockConfigEntry,
    async_test_home_assistant,
    mock_component,
)

from custom_components.klefr.const import DOMAIN
from custom_components.klefr.meter import Decision, Jump, Quantity
from custom_components.klefr.statistics import jumps_from_json, jumps_to_json, with_jumps
from custom_components.klefr.stores import energies_store
from simulator.meter import CalculationCode, VirtualMeter

from .. import SERIAL_NUMBER
from ..test_settings import press, select
from .house import START, House, MeterClock, RecorderSetup, energies, recorded, wall_clock

OBJECT_ID = f"klefr_6934_{SERIAL_NUMBER}"
SENSOR = f"sensor.{OBJECT_ID}"
CODES = (
    CalculationCode.FORWARD_PLUS_REVERSE,
    CalculationCode.REVERSE,
    CalculationCode.FORWARD_MINUS_REVERSE,
    CalculationCode.FORWARD,
)
CODE_DEPENDENT = [quantity for quantity in Quantity if "total" in quantity]


async def action(house: House, name: str, **values: Any) -> None:
    await house.hass.services.async_call(
        DOMAIN, name, {"device_id": house.device_id, **values}, blocking=True
    )


async def change_code(house: House, how: str, code: CalculationCode) -> None:
    """Change the calculation code, right after a poll so that it is known what has flowed."""
    await house.poll()
    with house.leap():
        if how == "meter":
            house.meter.calculation_code = code
        else:
            house.meter_clock.stop()
            option = code.name.lower()
            if how == "select":
                await select(house.hass, "calculation_code", option)
            else:
                await action(house, "change_settings", calculation_code=option)
            house.meter_clock.start()
    await house.poll()


async def reset(house: House, how: str) -> None:
    await house.poll()
    with house.leap():
        if how == "meter":
            house.meter.day_counter = 0
        else:
            house.meter_clock.stop()
            if how == "button":
                await press(house.hass, "reset_resettable_counter")
            else:
                await action(house, "reset_counter", counter="resettable")
            house.meter_clock.start()
    await house.poll()


async def test_an_hour_makes_the_meters_kwh(house: House) -> None:
    await house.until(50)
    assert house.flowed["forward_active_energy"] > 1
    assert house.flowed["reverse_active_energy"] > 1
    assert not await house.miscounted()
    assert not house.corrections


async def test_no_change_of_a_meter_counts_what_did_not_flow(house: House) -> None:
    await house.until(11)
    await change_code(house, "select", CalculationCode.FORWARD_PLUS_REVERSE)
    await house.until(17)
    await change_code(house, "action", CalculationCode.REVERSE)
    await house.until(22)
    await change_code(house, "meter", CalculationCode.FORWARD_MINUS_REVERSE)
    await house.until(27)
    await reset(house, "button")
    await house.until(34)
    await reset(house, "action")
    await house.until(41)
    await reset(house, "meter")
    await house.until(54)
    await house.poll()
    with house.leap():
        house.clear_meter()
    await house.poll()
    await house.until(63)
    assert not await house.miscounted()
    reasons = Counter(each["reason"] for each in house.corrections)
    assert reasons.keys() >= {Decision.CODE_EXPLAINED, Decision.PERSISTENT}
    # What a reset makes Home Assistant count is right, but for rounding.
    resets = [each for each in house.corrections if each["reason"] is Decision.RESET_EXPLAINED]
    assert all(abs(each["correction"]) < 0.05 for each in resets)


@pytest.mark.parametrize("protocol", ["modbus"])
async def test_a_jump_is_corrected_at_any_minute_and_among_others(house: House) -> None:
    codes = cycle(CODES)
    # Among the first statistics, in the last five minutes of an hour and around its end.
    for minute in (2, 55.1, 59.9, 60.05, 71, 71.5, 72, 73.5):
        await house.until(minute)
        await change_code(house, "select", next(codes))
    await house.until(80)
    assert not await house.miscounted()


@pytest.mark.parametrize("protocol", ["modbus"])
@pytest.mark.parametrize(
    "recorder_config", [{"exclude": {"entities": [f"{SENSOR}_total_active_energy_l3"]}}]
)
async def test_entities_may_be_changed_meanwhile(empty_house: House) -> None:
    house = empty_house
    registry = er.async_get(house.hass)

    def sensor(key: str) -> str:
        return registry.async_get_or_create(
            "sensor", DOMAIN, f"{SERIAL_NUMBER}_{key}", suggested_object_id=f"{OBJECT_ID}_{key}"
        ).entity_id

    def choose_unit(key: str, unit: str) -> None:
        registry.async_update_entity_options(sensor(key), "sensor", {"unit_of_measurement": unit})

    def disable(key: str, by: er.RegistryEntryDisabler | None) -> None:
        registry.async_update_entity(sensor(key), disabled_by=by)

    choose_unit("total_active_energy", "MWh")
    choose_unit("total_reactive_energy", "varh")
    disable("total_active_energy_l2", er.RegistryEntryDisabler.USER)
    await house.load()
    house.meter_clock.start()
    await house.until(12)
    await change_code(house, "select", CalculationCode.FORWARD_PLUS_REVERSE)
    choose_unit("total_active_energy_t1", "Wh")
    choose_unit("total_reactive_energy_t1", "varh")
    registry.async_update_entity(
        sensor("total_active_energy_t2"), new_entity_id="sensor.night_energy"
    )
    disable("total_active_energy_l1", er.RegistryEntryDisabler.USER)
    await house.until(32)
    disable("total_active_energy_l1", None)
    disable("total_active_energy_l2", None)
    await house.until(45)
    assert await house.miscounted(most=3) == {
        # Nothing was counted while it was disabled.
        "total_active_energy_l2": ANY
    }
    sums = await house.sums()
    assert max(map(abs, sums["total_active_energy_l2"].values())) < 3
    assert "total_active_energy_l3" not in sums
    assert len({each["quantity"] for each in house.corrections}) == 10
    assert len(house.corrections) == 10
    assert not await pending(house)


@pytest.mark.parametrize("most", [100, 90000])
async def test_a_new_meter_goes_on_where_the_old_one_ended(house: House, most: float) -> None:
    """Whether it has counted less or more."""
    hass, new = house.hass, "87654321"
    assert await async_setup_component(hass, "repairs", {})
    await house.until(11)
    await house.poll()
    ids = set(er.async_get(hass).entities)
    with house.leap():
        house.meter.serial_number = new
        house.clear_meter()
        house.meter.add_energy(l1=most, l2=most / 2, l3=-most / 3)
    house.meter_clock.stop()
    await house.poll()
    flows = hass.data["repairs"]["flow_manager"]
    issue = {"issue_id": f"wrong_meter_{house.entry.entry_id}"}
    menu = await flows.async_init(DOMAIN, data=issue)
    result = await flows.async_configure(menu["flow_id"], {"next_step_id": "replaced"})
    assert result["type"] is FlowResultType.CREATE_ENTRY
    house.meter_clock.start()
    await house.until(47)
    assert not await house.miscounted()
    assert set(er.async_get(hass).entities) == ids
    assert {each["reason"] for each in house.corrections} == {Decision.REPLACED}
    assert not await pending(house)


async def pending(house: House) -> list[str]:
    """Give what the integration goes on to look for."""
    await house.unload()
    stored = await energies_store(house.hass, house.entry.entry_id).async_load()
    await house.load()
    assert stored is not None
    return sorted(jump.quantity for jump in jumps_from_json(stored["jumps"]))


async def killed(house: House, files: dict[str, Any], file: Any = None) -> None:
    """Let Home Assistant end with what is on its disk, or with an older file there."""
    key = f"{DOMAIN}.{house.entry.entry_id}.energies"
    left = deepcopy(file or files[key])
    await house.unload()
    files[key] = left


@pytest.mark.parametrize("protocol", ["modbus"])
async def test_a_correction_is_made_once_whatever_happens_in_between(
    house: House, hass_storage: dict[str, Any]
) -> None:
    key = f"{DOMAIN}.{house.entry.entry_id}.energies"
    totals = {name for name in energies(house.meter) if name.startswith("total")}

    # Loaded again before the jump is compiled.
    await house.until(11)
    await change_code(house, "select", CalculationCode.FORWARD_PLUS_REVERSE)
    await house.unload()
    await house.load()
    await house.until(20)
    assert sorted(each["quantity"] for each in house.corrections) == sorted(totals)

    # Killed after the correction, and before that is on the disk.
    house.corrections.clear()
    await house.until(21)
    await change_code(house, "select", CalculationCode.REVERSE)
    early = deepcopy(hass_storage[key])
    assert {jump["quantity"] for jump in early["data"]["jumps"]["list"]} == totals
    await house.until(26)
    assert {each["quantity"] for each in house.corrections} == totals
    await killed(house, hass_storage, early)
    await house.load()
    await house.until(36)
    assert len(house.corrections) == len(totals)

    # Killed before the jump is published, so that it comes five minutes later.
    house.corrections.clear()
    readings = house.entry.runtime_data.readings
    with patch.object(readings, "async_update_listeners"):
        await change_code(house, "select", CalculationCode.FORWARD)
        await killed(house, hass_storage)
    await house.until(42)
    await house.load()
    await house.until(51)
    assert not await pending(house)
    assert not await house.miscounted()
    assert sorted(each["quantity"] for each in house.corrections) == sorted(totals)


@pytest.mark.parametrize("protocol", ["modbus"])
async def test_a_correction_outlives_home_assistant_and_its_recorder(
    hass: HomeAssistant,
    entry: MockConfigEntry,
    virtual_meter: VirtualMeter,
    meter_clock: MeterClock,
    async_test_recorder: RecorderSetup,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with wall_clock(START):
        async with recorded(hass, async_test_recorder):
            house = House(hass, entry, virtual_meter, meter_clock)
            await house.load()
            meter_clock.start()
            await house.until(57)
            await change_code(house, "select", CalculationCode.FORWARD_PLUS_REVERSE)
            await house.unload()
        # It is away at the full hour, and then its recorder does not start.
        await house.until(62, compile_=False)
        async with another_home_assistant(house):
            await house.load()
            await house.hass.async_start()
            await change_code(house, "select", CalculationCode.REVERSE)
            await house.until(68, compile_=False)
            await reset(house, "button")
            await change_code(house, "action", CalculationCode.FORWARD_MINUS_REVERSE)
            await house.until(70, compile_=False)
            waiting = Counter(await pending(house))
            assert waiting == {
                **dict.fromkeys(CODE_DEPENDENT, 3),
                Quantity.RESETTABLE_COUNTER: 1,
            }
            await house.unload()
        await house.until(76, compile_=False)
        async with (
            another_home_assistant(house) as third,
            recorded(third, async_test_recorder),
        ):
            await house.load()
            await third.async_start()
            await house.until(86)
            assert not await pending(house)
            # All that flowed while there was no recorder comes at once.
            assert not await house.miscounted(most=4, leaps=3)
            await house.unload()
    assert not [
        record
        for record in caplog.records
        if record.levelno >= logging.WARNING and "klefr" in record.name
    ]


@asynccontextmanager
async def another_home_assistant(house: House) -> AsyncIterator[HomeAssistant]:
    """Give the house another one that has the same entry."""
    async with async_test_home_assistant(initial_state=CoreState.not_running) as hass:
        hass.data.pop(DATA_CUSTOM_COMPONENTS)
        entry = MockConfigEntry(
            domain=DOMAIN,
            entry_id=house.entry.entry_id,
            unique_id=SERIAL_NUMBER,
            data=house.entry.data,
            options=house.entry.options,
        )
        entry.add_to_hass(hass)
        house.move(hass, entry)
        try:
            yield hass
        finally:
            await hass.async_stop(force=True)


@pytest.mark.parametrize("protocol", ["modbus"])
async def test_the_log_and_the_logbook_say_what_was_corrected_and_why(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    hass = house.hass
    mock_component(hass, "frontend")
    with patch("homeassistant.components.frontend.async_register_built_in_panel"):
        assert await async_setup_component(hass, "logbook", {})
    await hass.async_block_till_done()
    await house.until(8)
    before = house.meter.total_active_energy
    await change_code(house, "select", CalculationCode.FORWARD_PLUS_REVERSE)
    after = house.meter.total_active_energy
    await house.until(12)
    await house.compiled()
    logbook = EventProcessor(
        hass,
        async_determine_event_types(hass, None, [house.device_id]),
        device_ids=[house.device_id],
    )
    entries = await get_instance(hass).async_add_executor_job(
        logbook.get_events, START, dt_util.utcnow()
    )
    said = [entry["message"] for entry in entries if entry["domain"] == DOMAIN]
    assert {entry["name"] for entry in entries} == {f"KLEFR 6934 {SERIAL_NUMBER}"}
    assert len(said) == len(CODE_DEPENDENT)
    [message] = [each for each in said if "statistics of Total active energy by" in each]
    correction = next(
        each["correction"]
        for each in house.corrections
        if each["quantity"] == "total_active_energy"
    )
    assert correction == pytest.approx(before - after, abs=0.02)
    assert f" by {correction:+.2f} kWh" in message
    assert f" from {before:.2f} kWh to {after:.2f} kWh" in message
    assert "calculation code was changed" in message
    [line] = [
        record
        for record in caplog.records
        if "corrected the statistics of total_active_energy by" in record.getMessage()
    ]
    assert line.levelno == logging.INFO
    assert f"{correction:+.2f} kWh" in line.getMessage()
    assert "code_explained" in line.getMessage()
    assert SERIAL_NUMBER not in line.getMessage()


def jump(*, before: float, after: float, consumed: float, wall: float = 0.0) -> Jump:
    return Jump(
        quantity=Quantity.TOTAL_ACTIVE_ENERGY,
        before=before,
        after=after,
        consumed=consumed,
        wall=wall,
        reason=Decision.CODE_EXPLAINED,
    )


def test_jumps_that_are_never_compiled_become_one() -> None:
    pending: tuple[Jump, ...] = ()
    excess = 0.0
    for number in range(50):
        # What flows between two jumps is none of theirs.
        new = jump(
            before=number * 10 + 1, after=number * 7 + 3, consumed=number / 10, wall=number * 60.0
        )
        pending = with_jumps(pending, [new])
        excess += new.after - new.before - new.consumed
    assert len(pending) == 10
    assert sum(each.after - each.before - each.consumed for each in pending) == pytest.approx(
        excess
    )
    assert (pending[0].wall, pending[-1]) == (0.0, new)
    assert (pending[0].before, pending[0].after) == (1, 40 * 7 + 3)
    assert with_jumps((), [jump(before=1.0, after=3.0, consumed=2.0)]) == ()


def test_damaged_jumps_are_none() -> None:
    believed = jump(before=1.0, after=2.0, consumed=0.5, wall=3.0)
    stored = jumps_to_json([believed])
    assert jumps_from_json(json.loads(json.dumps(stored))) == (believed,)
    whole = stored["list"][0]
    damaged: tuple[Any, ...] = (
        None,
        1,
        "x",
        [1],
        {},
        {**stored, "checksum": None},
        *(
            {**stored, "list": [{**whole, key: value}]}
            for key in whole
            for value in (4.0, float("nan"), "x", None)
        ),
    )
    assert [jumps_from_json(each) for each in damaged] == [()] * len(damaged)
