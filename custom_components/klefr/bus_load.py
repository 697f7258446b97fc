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
    if load is None:
        return async_text(hass, "selector.bus_load.options.unknown")
    shortest = load.shortest((meter,), INTERVALS)
    case = "shortest" if shortest else "overloaded"
    text = async_text(hass, f"selector.bus_load.options.{case}")
    return text.format(busy=percent(load.share()), shortest=shortest)
