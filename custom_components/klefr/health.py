"""What is known of the health of meters, whether their entries are loaded or not."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from homeassistant.core import HomeAssistant, callback
from homeassistant.util.hass_dict import HassKey

from .const import DOMAIN
from .meter import Health, KlefrError, Quantity
from .stores import STORED_SUPPLIED, health_store

DATA_HEALTH: Final[HassKey[dict[str, MeterHealth]]] = HassKey(f"{DOMAIN}_health")

STORE_DELAY: Final = 1  # seconds


@dataclass(kw_only=True)
class MeterHealth:
    """What is known of the health of an entry's meter."""

    counts: Health
    """Since Home Assistant started."""
    port: str
    """The name under which the port of the entry is open, or will be."""
    failure: KlefrError | None = None
    """Why the entry could not be set up the last time."""
    supplied: frozenset[Quantity] = frozenset()
    """The phases that have had a supply, also before Home Assistant started."""


async def async_load_health(hass: HomeAssistant, entry_id: str, port: str) -> MeterHealth:
    """Return what is known of the meter of an entry that is set up."""
    known = hass.data.setdefault(DATA_HEALTH, {})
    if entry_id not in known:
        stored = await health_store(hass, entry_id).async_load() or {}
        known[entry_id] = MeterHealth(
            counts=Health(since=hass.loop.time()),
            port=port,
            supplied=frozenset(stored.get(STORED_SUPPLIED, ())),
        )
    known[entry_id].port = port
    return known[entry_id]


@callback
def async_get_health(hass: HomeAssistant, entry_id: str) -> MeterHealth | None:
    """Return what is known of an entry's meter, None if it was never set up."""
    return hass.data.get(DATA_HEALTH, {}).get(entry_id)


@callback
def async_forget_health(hass: HomeAssistant, entry_id: str) -> None:
    """Forget what is known of the meter of an entry that was removed."""
    hass.data.get(DATA_HEALTH, {}).pop(entry_id, None)


@callback
def async_note_supplied(hass: HomeAssistant, entry_id: str, phases: Iterable[Quantity]) -> None:
    """Remember that phases have a supply."""
    health = hass.data[DATA_HEALTH][entry_id]
    if not (phases := frozenset(phases)) <= health.supplied:
        health.supplied |= phases
        content = {STORED_SUPPLIED: sorted(health.supplied)}
        health_store(hass, entry_id).async_delay_save(lambda: content, STORE_DELAY)
