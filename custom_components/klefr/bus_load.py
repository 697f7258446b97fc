"""Say how busy a bus is, and which update intervals work on it."""

from typing import Final

from homeassistant.core import HomeAssistant, callback

from .const import MAXIMUM_UPDATE_INTERVAL, MINIMUM_UPDATE_INTERVAL
from .meter.schedule import Load
from .wording import async_text

INTERVALS: Final = range(MINIMUM_UPDATE_INTERVAL, MAXIMUM_UPDATE_INTERVAL + 1)


def percent(share: float) -> str:
    """Return a share as a message says it."""
    return f"{100 * share:.0f}"


@callback
def async_load_text(hass: HomeAssistant, load: Load | None, meter: str) -> str:
    """Return what to know of the bus before choosing the interval of a meter on it."""

    def text(case: str) -> str:
        return async_text(hass, f"selector.bus_load.options.{case}")

    if load is None:
        return text("unknown")
    busy = text("busy").format(busy=percent(load.share()))
    shortest = load.shortest((meter,), INTERVALS)
    if shortest is None:
        return f"{busy} {text('overloaded')}"
    return f"{busy} {text('shortest').format(shortest=shortest)}"
