"""Add a meter, change how Home Assistant reaches it, and set how often it is read.

The steps stand in the order in which a user meets them.
"""

from collections.abc import Mapping
from typing import Any, override

from homeassistant.config_entries import (
    SOURCE_RECONFIGURE,
    ConfigEntryState,
    ConfigFlowResult,
    OptionsFlowWithReload,
)
from homeassistant.const import CONF_ADDRESS, CONF_HOST, CONF_NAME, CONF_PORT, CONF_PROTOCOL
from homeassistant.core import callback
import voluptuous as vol

from .const import DOMAIN
from .coordinator import KlefrConfigEntry
from .flow_communication import CommunicationSteps
from .flow_schemas import (
    CONF_METER,
    GATEWAY,
    OPTIONS,
    SECTION_LINE_SETTINGS,
    SERIAL,
    entered_meter,
    meter_schema,
    shown_line_settings,
)
from .flow_search import SearchSteps
from .meter import (
    Identity,
    InvalidAddressError,
    KlefrError,
    LinkError,
    Protocol,
    SerialLink,
    gateway_port,
    identify,
    is_gateway,
    split_gateway_port,
)
from .shared_buses import async_canonical_port, async_get_bus, link_from
from .wording import meter_name


class KlefrConfigFlow(SearchSteps, CommunicationSteps, domain=DOMAIN):
    """Add a meter or change how Home Assistant reaches it."""

    VERSION = 1

    @staticmethod
    @callback
    @override
    def async_get_options_flow(config_entry: KlefrConfigEntry) -> KlefrOptionsFlow:
        return KlefrOptionsFlow()

    # Which bus

    @override
    async def async_step_user(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask how the bus of a new meter is connected."""
        return self.async_show_menu(step_id="user", menu_options=["serial", "gateway"])

    async def async_step_reconfigure(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask what to change: how Home Assistant reaches the meter, or the meter itself."""
        return self.async_show_menu(step_id="reconfigure", menu_options=["reach", "communication"])

    async def async_step_reach(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask how the bus of the meter is connected now."""
        return self.async_show_menu(step_id="reach", menu_options=["serial", "gateway"])

    async def async_step_serial(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask for a serial port and the protocol spoken there."""
        error: LinkError | None = None
        if user_input is not None:
            port = await async_canonical_port(self.hass, user_input[CONF_PORT])
            error = await self._async_choose_bus({**user_input, CONF_PORT: port})
            if error is None:
                return await self.async_step_find()
        suggested = user_input or self._known_bus(gateway=False)
        return self._show_form("serial", SERIAL, suggested, error=error, field=CONF_PORT)

    async def async_step_gateway(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask for a gateway and the protocol that it speaks."""
        error: LinkError | None = None
        if user_input is not None:
            error = await self._async_choose_bus(
                {
                    CONF_PORT: gateway_port(user_input[CONF_HOST], user_input[CONF_PORT]),
                    CONF_PROTOCOL: user_input[CONF_PROTOCOL],
                }
            )
            if error is None:
                return await self.async_step_find()
        suggested = user_input or self._known_bus(gateway=True)
        if user_input is None and suggested:
            host, port = split_gateway_port(suggested[CONF_PORT])
            suggested = {**suggested, CONF_HOST: host, CONF_PORT: port}
        return self._show_form("gateway", GATEWAY, suggested, error=error, field=CONF_HOST)

    async def _async_choose_bus(self, bus: dict[str, Any]) -> LinkError | None:
        """Open a bus to see whether that works, and return why it does not."""
        self._bus = bus
        protocol, link = self._protocol, self._link_in_force()
        if self.source == SOURCE_RECONFIGURE and _holds_port_differently(
            self._get_reconfigure_entry(), protocol, link
        ):
            # The entry has opened the port, so that works.
            return None
        try:
            async with async_get_bus(self.hass, protocol, link) as opened:
                await opened.open()
        except LinkError as err:
            return err
        return None

    def _known_bus(self, *, gateway: bool) -> Mapping[str, Any]:
        """Return the bus to suggest: the entry's own, or for a new meter one that others are on."""
        if self.source == SOURCE_RECONFIGURE:
            entries = [self._get_reconfigure_entry()]
        else:
            entries = self._async_current_entries()
        return next(
            (entry.data for entry in entries if is_gateway(entry.data[CONF_PORT]) is gateway), {}
        )

    async def async_step_find(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask whether to search the bus for a new meter or to enter its address."""
        if self.source == SOURCE_RECONFIGURE:
            return await self._async_step_meter()
        return self.async_show_menu(
            step_id="find",
            menu_options=["search", self._address_step],
            description_placeholders={CONF_PORT: self._bus[CONF_PORT]},
        )

    # Which address

    async def async_step_modbus(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask for the address of a meter on Modbus."""
        return await self._async_step_meter(user_input)

    async def async_step_mbus(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask for the address of a meter on M-Bus."""
        return await self._async_step_meter(user_input)

    async def _async_step_meter(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask for a meter's address, and read the meter before anything is saved."""
        protocol = self._protocol
        error: KlefrError | None = None
        field = "base"
        if user_input is not None:
            try:
                data = {**self._bus, **entered_meter(protocol, user_input)}
                identity = await self._async_identify(data)
            except InvalidAddressError as err:
                field, error = CONF_ADDRESS, err
            except KlefrError as err:
                error = err
            else:
                await self.async_set_unique_id(identity.serial_number)
                if self.source == SOURCE_RECONFIGURE:
                    self._abort_if_unique_id_mismatch(reason="wrong_meter")
                    return self.async_update_reload_and_abort(
                        self._get_reconfigure_entry(), data=data
                    )
                self._abort_if_unique_id_configured()
                return self.async_create_entry(title=meter_name(identity), data=data)
        suggested = user_input
        if suggested is None:
            suggested = {SECTION_LINE_SETTINGS: shown_line_settings(self._link_in_force())}
            if self.source == SOURCE_RECONFIGURE:
                address = self._get_reconfigure_entry().data[CONF_ADDRESS]
                suggested[CONF_ADDRESS] = str(address) if protocol is Protocol.MBUS else address
        return self._show_form(
            self._address_step,
            meter_schema(protocol, self._bus[CONF_PORT]),
            suggested,
            error=error,
            field=field,
        )

    async def _async_identify(self, data: Mapping[str, Any]) -> Identity:
        """Ask which meter answers. An entry that holds the port differently is set aside.

        That entry stays set aside if its meter answers: the flow then loads it with new data.
        """
        protocol, link = Protocol(data[CONF_PROTOCOL]), link_from(data)
        set_aside: KlefrConfigEntry | None = None
        if self.source == SOURCE_RECONFIGURE:
            entry = self._get_reconfigure_entry()
            if _holds_port_differently(entry, protocol, link) and (
                await self.hass.config_entries.async_unload(entry.entry_id)
            ):
                set_aside = entry
        identity: Identity | None = None
        try:
            async with async_get_bus(self.hass, protocol, link) as bus:
                identity = (await identify(bus, data[CONF_ADDRESS])).identity
        finally:
            if set_aside and (identity is None or identity.serial_number != set_aside.unique_id):
                await self.hass.config_entries.async_setup(set_aside.entry_id)
        return identity

    # A meter that a search has found

    async def async_step_integration_discovery(
        self, discovery_info: dict[str, Any]
    ) -> ConfigFlowResult:
        """Offer a meter that was found along with the one that was added."""
        self._bus = dict(discovery_info)
        await self.async_set_unique_id(self._bus.pop(CONF_METER))
        self._abort_if_unique_id_configured()
        self.context["title_placeholders"] = {CONF_NAME: self._bus.pop(CONF_NAME)}
        return await self.async_step_confirm()

    async def async_step_confirm(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Add the meter if it still answers at the same address."""
        error: KlefrError | None = None
        name = self.context["title_placeholders"][CONF_NAME]
        if user_input is not None:
            try:
                identity = await self._async_identify(self._bus)
            except KlefrError as err:
                error = err
            else:
                if identity.serial_number != self.unique_id:
                    return self.async_abort(reason="wrong_meter")
                return self.async_create_entry(title=name, data=self._bus)
        return self._show_form("confirm", vol.Schema({}), {CONF_NAME: name}, error=error)


class KlefrOptionsFlow(OptionsFlowWithReload):
    """Set how often a meter is read."""

    async def async_step_init(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask for the update interval."""
        if user_input is not None:
            return self.async_create_entry(data=user_input)
        return self.async_show_form(
            step_id="init",
            data_schema=self.add_suggested_values_to_schema(OPTIONS, self.config_entry.options),
        )


def _holds_port_differently(entry: KlefrConfigEntry, protocol: Protocol, link: SerialLink) -> bool:
    """Return whether an entry holds the port with another protocol or other line settings.

    An entry that Home Assistant will set up again counts: it could take the port at any time.
    """
    if entry.state not in (ConfigEntryState.LOADED, ConfigEntryState.SETUP_RETRY):
        return False
    used = link_from(entry.data)
    return used.port == link.port and (entry.data[CONF_PROTOCOL], used) != (protocol, link)
