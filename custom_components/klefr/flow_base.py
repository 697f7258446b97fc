"""What all steps of the flow share: the chosen bus, and how they say what went wrong."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from homeassistant.config_entries import SOURCE_RECONFIGURE, ConfigFlow, ConfigFlowResult
from homeassistant.const import CONF_ADDRESS, CONF_NAME, CONF_PORT, CONF_PROTOCOL
import voluptuous as vol

from .meter import KlefrError, Protocol, SerialLink
from .shared_buses import async_held_bus, link_from
from .wording import async_translation, port_name


class KlefrFlow(ConfigFlow):
    """A flow for one meter, on the bus that was chosen first."""

    def __init__(self) -> None:
        self._bus: dict[str, Any] = {}
        """The bus as an entry stores it: its port, and the protocol spoken there."""

    @property
    def _protocol(self) -> Protocol:
        return Protocol(self._bus[CONF_PROTOCOL])

    @property
    def _address_step(self) -> Protocol:
        """The step that asks for a meter's address is called like a protocol."""
        protocol = self._protocol
        return Protocol.MODBUS if protocol is Protocol.MODBUS_TCP else protocol

    def _link_in_force(self) -> SerialLink:
        """Return the chosen port with its line settings, or the likeliest if it is not open."""
        link = SerialLink(port=self._bus[CONF_PORT])
        if (held := async_held_bus(self.hass, link)) is not None:
            return held.link
        if self.source == SOURCE_RECONFIGURE:
            return replace(link_from(self._get_reconfigure_entry().data), port=link.port)
        return link

    def _show_form(
        self,
        step_id: str,
        schema: vol.Schema,
        suggested: Mapping[str, Any],
        *,
        error: KlefrError | None = None,
        field: str = "base",
    ) -> ConfigFlowResult:
        """Show a form, with what went wrong at the field that caused it."""
        data = {**suggested, **self._bus}
        placeholders: dict[str, str] = {
            key: str(data[key]) for key in (CONF_PORT, CONF_ADDRESS, CONF_NAME) if key in data
        }
        if CONF_PORT in placeholders:
            placeholders[CONF_PORT] = port_name(placeholders[CONF_PORT])
        errors: dict[str, str] = {}
        if error is not None:
            translation = async_translation(self.hass, data, error)
            errors[field] = translation["translation_key"]
            placeholders |= translation["translation_placeholders"]
        return self.async_show_form(
            step_id=step_id,
            data_schema=self.add_suggested_values_to_schema(schema, suggested),
            errors=errors,
            description_placeholders=placeholders,
        )

    def _abort_with(self, error: KlefrError, data: Mapping[str, Any]) -> ConfigFlowResult:
        """End the flow and say what went wrong. `data` is what is known of the meter's entry."""
        translation = async_translation(self.hass, data, error)
        return self.async_abort(
            reason=translation["translation_key"],
            description_placeholders=translation["translation_placeholders"],
        )
