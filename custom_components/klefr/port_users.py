"""Say which entries of other integrations are set up to use a port."""

from collections.abc import Collection, Iterator, Mapping
import os
from typing import Final

from homeassistant.config_entries import ConfigEntryState
from homeassistant.core import CoreState, HomeAssistant, callback
from homeassistant.loader import Integration, async_get_integrations

from .const import DOMAIN

# The integration that shares Modbus connections. All that use them depend on it.
MODBUS: Final = "modbus"

DEVICES: Final = "/dev/"


@callback
def async_port_users(hass: HomeAssistant, port: str) -> list[str]:
    """Return the names of the entries of other integrations that are set up to use a port.

    They may know it under another name, such as the one by which its adapter is always found.
    """
    device = _device(port)
    return [
        f"{entry.title} ({entry.domain})"
        for entry in hass.config_entries.async_entries()
        if entry.domain != DOMAIN
        and device in map(_device, stored_strings({**entry.data, **entry.options}))
    ]


def _device(name: str) -> str:
    """Return what all names of a port have in common.

    Only names of devices are looked up: the system has them in memory, so nothing has to wait.
    """
    if name.startswith(DEVICES) and name.isprintable():
        return os.path.realpath(name)
    return name


async def async_expected_sharers(hass: HomeAssistant) -> Mapping[str, Collection[str]]:
    """Return the entries that are about to be set up and may use shared Modbus connections.

    These are their names, with all strings that they store. While Home Assistant starts, all that
    have not been set up yet are expected, and those that will be tried again then. Later only those
    are that are just being set up: one that fails must not keep a meter from being read.
    """
    states = {ConfigEntryState.SETUP_IN_PROGRESS}
    if hass.state is not CoreState.running:
        states |= {ConfigEntryState.NOT_LOADED, ConfigEntryState.SETUP_RETRY}
    expected = [
        entry
        for entry in hass.config_entries.async_entries(include_ignore=False, include_disabled=False)
        if entry.domain != DOMAIN and entry.state in states
    ]
    integrations = await async_get_integrations(hass, {entry.domain for entry in expected})
    return {
        f"{entry.title} ({entry.domain})": set(stored_strings({**entry.data, **entry.options}))
        for entry in expected
        if _shares_modbus(integrations[entry.domain])
    }


def _shares_modbus(integration: Integration | Exception) -> bool:
    return isinstance(integration, Integration) and MODBUS in (
        *integration.dependencies,
        *integration.after_dependencies,
    )


def stored_strings(data: object) -> Iterator[str]:
    """Yield all strings in nested data."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, Mapping):
        for value in data.values():
            yield from stored_strings(value)
    elif isinstance(data, (list, tuple)):
        for value in data:
            yield from stored_strings(value)
