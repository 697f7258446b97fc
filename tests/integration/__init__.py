"""What the tests of the integration share."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

from freezegun.api import FrozenDateTimeFactory
from homeassistant.const import Platform
from homeassistant.core import HomeAssistant
from homeassistant.helpers import entity_registry as er
from homeassistant.util import dt as dt_util
from pytest_homeassistant_custom_component.common import async_fire_time_changed

from custom_components.klefr.const import DOMAIN
from simulator.virtual_time import VirtualTimeLoop

SERIAL_NUMBER = "22091039"
HEALTH = ("response_time", "failed_requests", "suspect_readings")
"""The keys of the sensors that every meter has, whatever it measures."""


@dataclass
class WallClock:
    """A clock on the wall, which goes as the running loop's clock does until it is set."""

    offset: float = 1_800_000_000.0
    """What it shows when the loop's clock is at zero, in seconds since 1970."""

    def time(self) -> float:
        return self.offset + asyncio.get_running_loop().time()

    def utcnow(self) -> datetime:
        return datetime.fromtimestamp(self.time(), tz=UTC)


async def wait(hass: HomeAssistant, *, seconds: float = 11) -> None:
    """Let time pass in Home Assistant, which polls the readings every 10 seconds."""
    if isinstance(hass.loop, VirtualTimeLoop):
        await asyncio.sleep(seconds)
        await hass.async_block_till_done(wait_background_tasks=True)
    else:
        await wait_by_the_clock(hass, seconds=seconds)


async def wait_by_the_clock(hass: HomeAssistant, *, seconds: float) -> None:
    """Let what looks at the wall clock believe that time has passed, and poll once."""
    now = dt_util.utcnow()
    # The harness looks at the clock before each timer. Seconds that a busy machine takes in
    # between would keep the next ones from being due, for the loop's time stands still.
    with patch("time.time", return_value=now.timestamp()):
        async_fire_time_changed(hass, now + timedelta(seconds=seconds))
    await hass.async_block_till_done(wait_background_tasks=True)


async def live(hass: HomeAssistant, freezer: FrozenDateTimeFactory, *, minutes: int) -> None:
    """Let Home Assistant live: also the time of the event loop passes, with all that is due."""
    for _ in range(minutes):
        freezer.tick(60)
        await asyncio.sleep(60)
    await hass.async_block_till_done()


async def enable(hass: HomeAssistant, *found: str) -> None:
    """Enable entities that start disabled."""
    entities = er.async_get(hass)
    for each in found:
        entities.async_update_entity(each, disabled_by=None)
    for entry in hass.config_entries.async_loaded_entries(DOMAIN):
        await hass.config_entries.async_reload(entry.entry_id)
    await hass.async_block_till_done()


def entity_id(hass: HomeAssistant, platform: Platform, key: str) -> str:
    """Find an entity by what it is."""
    found = er.async_get(hass).async_get_entity_id(platform, DOMAIN, f"{SERIAL_NUMBER}_{key}")
    assert found is not None
    return found


def state(hass: HomeAssistant, platform: Platform, key: str) -> str | None:
    """Give the state of an entity, None if it has none because it is disabled."""
    found = hass.states.get(entity_id(hass, platform, key))
    return found.state if found else None
