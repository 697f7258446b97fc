"""What all steps of the flow share: the chosen bus, and how they say what went wrong."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, override

from homeassistant.config_entries import (
    SOURCE_RECONFIGURE,
    ConfigEntryState,
    ConfigFlow,
    ConfigFlowResult,
    UnknownEntry,
)
from homeassistant.const import CONF_PORT, CONF_PROTOCOL
from homeassistant.core import callback
from homeassistant.data_entry_flow import AbortFlow

from .coordinator import KlefrConfigEntry
from .flow_schemas import FieldError, Form, FormError, form_schema, to_show_again, unchecked
from .meter import KlefrError, Protocol, SerialLink
from .shared_buses import async_canonical_port, async_held_bus, async_is_same_port, link_from
from .wording import async_translation, port_name
from .wrong_meter import async_forget_wrong_meter

METER_DELETED: Final = "meter_deleted"


class KlefrFlow(ConfigFlow):
    """A flow for one meter, on the bus that was chosen first.

    The steps that reconfigure a meter name it, so they have their own texts: a step there has
    `reach_` in front of the name that it has while a meter is added.
    """

    def __init__(self) -> None:
        self._bus: dict[str, Any] = {}
        """The bus as an entry stores it: its port, and the protocol spoken there."""

    @property
    def _protocol(self) -> Protocol:
        return Protocol(self._bus[CONF_PROTOCOL])

    @property
    def _meter_kind(self) -> Protocol:
        """What the meters speak, whatever a gateway makes of it."""
        protocol = self._protocol
        return Protocol.MODBUS if protocol is Protocol.MODBUS_TCP else protocol

    def _step(self, name: str) -> str:
        return f"reach_{name}" if self.source == SOURCE_RECONFIGURE else name

    @callback
    @override
    def _get_reconfigure_entry(self) -> KlefrConfigEntry:
        """Return the entry of the meter.

        Raises AbortFlow if the meter was deleted meanwhile, which ends the flow. A step that shows
        progress must not end it, so it goes on to the next step.
        """
        try:
            return super()._get_reconfigure_entry()
        except UnknownEntry as err:
            raise AbortFlow(METER_DELETED) from err

    async def async_step_meter_deleted(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Say that the meter was deleted meanwhile."""
        return self.async_abort(reason=METER_DELETED)

    def _placeholders(self) -> dict[str, str]:
        """Return what every text may name: the meter that is reconfigured, and the chosen port."""
        placeholders: dict[str, str] = {}
        if self.source == SOURCE_RECONFIGURE:
            placeholders["meter"] = self._get_reconfigure_entry().title
        if self._bus:
            placeholders["port"] = port_name(self._bus[CONF_PORT])
        return placeholders

    async def _async_held_link(self) -> SerialLink | None:
        """Return the chosen port with the line settings that it is held with, if it is held."""
        port = await async_canonical_port(self.hass, self._bus[CONF_PORT])
        held = async_held_bus(self.hass, SerialLink(port=port))
        return None if held is None else replace(held.link, port=self._bus[CONF_PORT])

    async def _async_link_in_force(self) -> SerialLink:
        """Return the chosen port with its line settings, or the likeliest if it is not open."""
        if (held := await self._async_held_link()) is not None:
            return held
        link = SerialLink(port=self._bus[CONF_PORT])
        if self.source == SOURCE_RECONFIGURE:
            return replace(link_from(self._get_reconfigure_entry().data), port=link.port)
        return link

    async def _async_holds_port_differently(
        self, entry: KlefrConfigEntry, protocol: Protocol, link: SerialLink
    ) -> bool:
        """Return whether an entry holds the port with another protocol or other line settings.

        An entry that Home Assistant will set up again counts: it could take the port at any time.
        """
        if entry.state is ConfigEntryState.SETUP_IN_PROGRESS:
            async with entry.setup_lock:
                pass
        if entry.state not in (ConfigEntryState.LOADED, ConfigEntryState.SETUP_RETRY):
            return False
        used = link_from(entry.data)
        if (entry.data[CONF_PROTOCOL], replace(used, port=link.port)) == (protocol, link):
            return False
        return await async_is_same_port(self.hass, used.port, link.port)

    def _translated(self, error: KlefrError, field: str = "base", **tried: Any) -> FormError:
        """Return what went wrong on the chosen bus, to be shown at a field.

        `tried` is what else is known of the meter's entry.
        """
        translation = async_translation(self.hass, {**self._bus, **tried}, error)
        return FormError(
            {
                field: FieldError(
                    translation["translation_key"], **translation["translation_placeholders"]
                )
            }
        )

    def _show_form(
        self,
        step_id: str,
        form: Form,
        suggested: Mapping[str, Any],
        *,
        error: FormError | None = None,
        last_step: bool | None = None,
        placeholders: Mapping[str, str] | None = None,
    ) -> ConfigFlowResult:
        """Show a form, with what is wrong at the fields that caused it."""
        schema = self.add_suggested_values_to_schema(
            form_schema(form), to_show_again(form, suggested)
        )
        return self.async_show_form(
            step_id=step_id,
            data_schema=unchecked(schema),
            errors=error.errors if error else {},
            description_placeholders={
                **self._placeholders(),
                **(placeholders or {}),
                **(error.placeholders if error else {}),
            },
            last_step=last_step,
        )

    def _abort_with(self, error: KlefrError, data: Mapping[str, Any]) -> ConfigFlowResult:
        """End the flow and say what went wrong. `data` is what is known of the meter's entry."""
        translation = async_translation(self.hass, data, error)
        return self.async_abort(
            reason=translation["translation_key"],
            description_placeholders={
                **self._placeholders(),
                **translation["translation_placeholders"],
            },
        )

    def _follow(self, entry: KlefrConfigEntry, data: Mapping[str, Any]) -> ConfigFlowResult:
        """Let an entry reach its meter as the data says, and end the flow."""
        self.hass.config_entries.async_update_entry(entry, data=data)
        # Who answers there is found out anew.
        async_forget_wrong_meter(self.hass, entry.entry_id)
        self.hass.config_entries.async_schedule_reload(entry.entry_id)
        return self.async_abort(
            reason="reconfigure_successful", description_placeholders={"meter": entry.title}
        )
