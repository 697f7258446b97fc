"""Energy in Home Assistant's own statistics."""

from collections.abc import Iterator
from datetime import timedelta
from unittest.mock import patch

from homeassistant.components.recorder import CONF_COMMIT_INTERVAL, Recorder
from homeassistant.components.recorder.statistics import statistics_during_period
from homeassistant.const import Platform
from homeassistant.core import HomeAssistant
from homeassistant.helpers.entity import Entity
from homeassistant.util import dt as dt_util
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry
from pytest_homeassistant_custom_component.components.recorder.common import (
    async_wait_recording_done,
    do_adhoc_statistics,
)

from simulator.meter import VirtualMeter
from tests.simulator.clock import Clock

from . import entity_id

ENERGIES = ("forward_active_energy", "reverse_active_energy", "total_active_energy")
PERIOD = timedelta(minutes=5)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def _all_enabled() -> Iterator[None]:
    with patch.object(Entity, "entity_registry_enabled_default", True):
        yield


@pytest.fixture
def virtual_meter(clock: Clock) -> VirtualMeter:
    return VirtualMeter(clock=clock)


@pytest.mark.real_time
@pytest.mark.parametrize("recorder_config", [{CONF_COMMIT_INTERVAL: 5}])
async def test_an_hour_of_readings_makes_the_meters_kwh(
    recorder_mock: Recorder,
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    virtual_meter: VirtualMeter,
    clock: Clock,
) -> None:
    now = dt_util.utcnow()
    start = now - timedelta(
        minutes=now.minute % 5, seconds=now.second, microseconds=now.microsecond
    )
    before = {energy: getattr(virtual_meter, energy) for energy in ENERGIES}
    for _ in range(60):
        clock.advance(60)
        await loaded.runtime_data.readings.async_refresh()
    after = {energy: getattr(virtual_meter, energy) for energy in ENERGIES}
    await async_wait_recording_done(hass)

    # The hour passes in a few seconds, which may still be in two periods.
    period = start
    while period <= dt_util.utcnow():
        do_adhoc_statistics(hass, start=period)
        period += PERIOD
    await async_wait_recording_done(hass)
    ids = {energy: entity_id(hass, Platform.SENSOR, energy) for energy in ENERGIES}
    statistics = await hass.async_add_executor_job(
        lambda: statistics_during_period(
            hass, start, None, set(ids.values()), "5minute", {"energy": "kWh"}, {"sum", "state"}
        )
    )
    assert statistics.keys() == set(ids.values())
    for energy, statistic_id in ids.items():
        last = statistics[statistic_id][-1]
        assert last["state"] == pytest.approx(after[energy], abs=0.006)
        assert last["sum"] == pytest.approx(after[energy] - before[energy], abs=0.011)
    assert after["forward_active_energy"] - before["forward_active_energy"] > 0.1
    assert after["reverse_active_energy"] - before["reverse_active_energy"] > 0.1
