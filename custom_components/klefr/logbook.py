"""What Home Assistant's logbook says about a meter's events."""

from collections.abc import Callable
from functools import partial
from typing import Any

from homeassistant.components.logbook import LOGBOOK_ENTRY_MESSAGE, LOGBOOK_ENTRY_NAME
from homeassistant.const import ATTR_DEVICE_ID, ATTR_UNIT_OF_MEASUREMENT
from homeassistant.core import Event, HomeAssistant, callback
from homeassistant.helpers import device_registry as dr

from .const import DOMAIN, EVENT_STATISTICS_CORRECTED, NAME
from .wording import async_text

type Describe = Callable[[Event], dict[str, Any]]


@callback
def async_describe_events(
    hass: HomeAssistant, async_describe_event: Callable[[str, str, Describe], None]
) -> None:
    """Say how events are put into words."""
    async_describe_event(DOMAIN, EVENT_STATISTICS_CORRECTED, partial(_async_corrected, hass))


@callback
def _async_corrected(hass: HomeAssistant, event: Event) -> dict[str, str]:
    data = event.data
    device = dr.async_get(hass).async_get(data[ATTR_DEVICE_ID] or "")
    unit = data[ATTR_UNIT_OF_MEASUREMENT]
    return {
        LOGBOOK_ENTRY_NAME: (device and (device.name_by_user or device.name)) or NAME,
        LOGBOOK_ENTRY_MESSAGE: async_text(
            hass, f"common.statistics_corrected_{data['reason']}"
        ).format(
            quantity=async_text(hass, f"entity.sensor.{data['quantity']}.name"),
            correction=f"{data['correction']:+.2f} {unit}",
            before=f"{data['before']:.2f} {unit}",
            after=f"{data['after']:.2f} {unit}",
        ),
    }
