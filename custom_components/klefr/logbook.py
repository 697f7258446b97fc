"""What Home Assistant's logbook says about a meter's events."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from homeassistant.components.logbook import LOGBOOK_ENTRY_MESSAGE, LOGBOOK_ENTRY_NAME
from homeassistant.const import (
    ATTR_DEVICE_ID,
    ATTR_UNIT_OF_MEASUREMENT,
    UnitOfEnergy,
    UnitOfReactiveEnergy,
)
from homeassistant.core import Event, HomeAssistant, callback
from homeassistant.helpers import device_registry as dr
from homeassistant.util import dt as dt_util

from .const import (
    DOMAIN,
    EVENT_FIRST_READINGS,
    EVENT_METER_REPLACED,
    EVENT_STATISTICS_CORRECTED,
    NAME,
)
from .meter import Quantity
from .wording import async_text, listed

type Describe = Callable[[Event], dict[str, Any]]


@callback
def async_describe_events(
    hass: HomeAssistant, async_describe_event: Callable[[str, str, Describe], None]
) -> None:
    """Say how events are put into words."""
    for event, describe in (
        (EVENT_STATISTICS_CORRECTED, _async_corrected),
        (EVENT_METER_REPLACED, _async_replaced),
        (EVENT_FIRST_READINGS, _async_first_readings),
    ):
        async_describe_event(DOMAIN, event, partial(describe, hass))


@callback
def _async_corrected(hass: HomeAssistant, event: Event) -> dict[str, str]:
    data = event.data
    unit = data[ATTR_UNIT_OF_MEASUREMENT]
    return _async_entry(
        hass,
        event,
        f"statistics_corrected_{data['reason']}",
        quantity=_async_name(hass, data["quantity"]),
        correction=f"{data['correction']:+.2f} {unit}",
        before=f"{data['before']:.2f} {unit}",
        after=f"{data['after']:.2f} {unit}",
    )


@callback
def _async_replaced(hass: HomeAssistant, event: Event) -> dict[str, str]:
    data = event.data
    together: dict[str, dict[str, float]] = defaultdict(dict)
    for quantity, reading in data["readings"].items():
        read = dt_util.as_local(dt_util.utc_from_timestamp(reading["read"]))
        together[f"{read:%Y-%m-%d %H:%M}"][quantity] = reading["value"]
    readings = listed(
        f"{_async_readings(hass, together[read])} ({read})" for read in sorted(together)
    )
    text = "meter_replaced" if readings else "meter_replaced_unread"
    return _async_entry(
        hass, event, text, before=data["before"], after=data["after"], readings=readings
    )


@callback
def _async_first_readings(hass: HomeAssistant, event: Event) -> dict[str, str]:
    readings = _async_readings(hass, event.data["readings"])
    return _async_entry(hass, event, "first_readings", meter=event.data["meter"], readings=readings)


@callback
def _async_entry(hass: HomeAssistant, event: Event, text: str, **what: str) -> dict[str, str]:
    """Return a text of the logbook, under the name of the meter's device."""
    device = dr.async_get(hass).async_get(event.data[ATTR_DEVICE_ID] or "")
    return {
        LOGBOOK_ENTRY_NAME: (device and (device.name_by_user or device.name)) or NAME,
        LOGBOOK_ENTRY_MESSAGE: async_text(hass, f"common.{text}").format(**what),
    }


@callback
def _async_name(hass: HomeAssistant, quantity: str) -> str:
    return async_text(hass, f"entity.sensor.{quantity}.name")


@callback
def _async_readings(hass: HomeAssistant, readings: Mapping[str, float]) -> str:
    """Return energies with their names and units."""
    return listed(
        f"{_async_name(hass, quantity)} {readings[quantity]:.2f} "
        + (
            UnitOfReactiveEnergy.KILO_VOLT_AMPERE_REACTIVE_HOUR
            if "reactive" in quantity
            else UnitOfEnergy.KILO_WATT_HOUR
        )
        for quantity in Quantity
        if quantity in readings
    )
