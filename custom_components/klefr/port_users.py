"""Say which entries of other integrations are set up to use a port."""

from collections.abc import Iterator, Mapping

from homeassistant.core import HomeAssistant, callback

from .const import DOMAIN


@callback
def async_port_users(hass: HomeAssistant, port: str) -> list[str]:
    """Return the names of the entries of other integrations that are set up to use a port."""
    return [
        f"{entry.title} ({entry.domain})"
        for entry in hass.config_entries.async_entries()
        if entry.domain != DOMAIN and port in _strings({**entry.data, **entry.options})
    ]


def _strings(data: object) -> Iterator[str]:
    """Yield all strings in nested data."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, Mapping):
        for value in data.values():
            yield from _strings(value)
    elif isinstance(data, (list, tuple)):
        for value in data:
            yield from _strings(value)
