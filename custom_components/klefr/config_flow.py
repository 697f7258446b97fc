"""Add a meter, change how Home Assistant reaches it, and set how often it is read.

The steps stand in the order in which a user meets them.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, override

from homeassistant.config_entries import (
    SOURCE_RECONFIGURE,
    ConfigEntryState,
    ConfigFlowResult,
    OptionsFlowWithReload,
    UnknownEntry,
)
from homeassistant.const import CONF_ADDRESS, CONF_HOST, CONF_NAME, CONF_PORT, CONF_PROTOCOL
from homeassistant.core import callback
from homeassistant.helpers.translation import async_load_integrations

from .bus_load import INTERVALS, async_load_text
from .const import CONF_UPDATE_INTERVAL, DOMAIN
from .coordinator import KlefrConfigEntry
from .flow_base import ENTRY_DELETED
from .flow_communication import CommunicationSteps
from .flow_schemas import (
    CONF_METER,
    CONFIRM,
    GATEWAY,
    OPTIONS,
    SECTION_LINE_SETTINGS,
    SERIAL,
    FieldError,
    FormError,
    entered,
    entered_meter,
    form_schema,
    meter_form,
    shown_line_settings,
    to_show_again,
    unchecked,
)
from .flow_search import SearchSteps
from .meter import (
    CommunicationError,
    Identity,
    KlefrError,
    LineSettingsError,
    LinkError,
    Protocol,
    gateway_port,
    identify,
    is_gateway,
    split_gateway_port,
)
from .meter.schedule import Load
from .replacement import async_not_replaced, async_replace_meter
from .shared_buses import async_find_bus, link_from
from .wording import meter_name


class KlefrConfigFlow(SearchSteps, CommunicationSteps, domain=DOMAIN):
    """Add a meter or change how Home Assistant reaches it."""

    VERSION = 1

    def __init__(self) -> None:
        super().__init__()
        self._other_meter = ""
        """The name of a meter that answers instead of the one that is reconfigured."""
        self._other_data: Mapping[str, Any] = {}
        """Where it answers, as an entry stores it."""

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
        return self.async_show_menu(
            step_id="reconfigure",
            menu_options=["reach", "communication"],
            description_placeholders=self._placeholders(),
        )

    async def async_step_reach(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask how the bus of the meter is connected now."""
        return self.async_show_menu(
            step_id="reach",
            menu_options=["reach_serial", "reach_gateway"],
            description_placeholders=self._placeholders(),
        )

    async def async_step_serial(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask for a serial port and the protocol spoken there."""
        error: FormError | None = None
        if user_input is not None:
            try:
                await self._async_choose_bus(entered(SERIAL, user_input))
            except FormError as err:
                error = err
            except LinkError as err:
                error = self._translated(err, CONF_PORT)
            else:
                return await self.async_step_find()
        suggested = user_input or self._known_bus(gateway=False)
        return self._show_form(
            self._step("serial"), SERIAL, suggested, error=error, last_step=False
        )

    async_step_reach_serial = async_step_serial

    async def async_step_gateway(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask for a gateway and the protocol that it speaks."""
        error: FormError | None = None
        if user_input is not None:
            try:
                gateway = entered(GATEWAY, user_input)
                await self._async_choose_bus(
                    {
                        CONF_PORT: gateway_port(gateway[CONF_HOST], gateway[CONF_PORT]),
                        CONF_PROTOCOL: gateway[CONF_PROTOCOL],
                    }
                )
            except FormError as err:
                error = err
            except LinkError as err:
                error = self._translated(err, CONF_HOST)
            else:
                return await self.async_step_find()
        suggested = user_input or self._known_bus(gateway=True)
        if user_input is None and suggested:
            host, port = split_gateway_port(suggested[CONF_PORT])
            suggested = {**suggested, CONF_HOST: host, CONF_PORT: port}
        return self._show_form(
            self._step("gateway"), GATEWAY, suggested, error=error, last_step=False
        )

    async_step_reach_gateway = async_step_gateway

    async def _async_choose_bus(self, bus: dict[str, Any]) -> None:
        """Open a bus to see whether that works. Raises LinkError."""
        # Parts of messages are looked up before the integration is set up for the first time.
        await async_load_integrations(self.hass, {DOMAIN})
        self._bus = bus
        protocol, link = self._protocol, await self._async_link_in_force()
        if self.source == SOURCE_RECONFIGURE and await self._async_holds_port_differently(
            self._get_reconfigure_entry(), protocol, link
        ):
            # The entry has opened the port, so that works.
            return
        async with await async_find_bus(self.hass, protocol, link) as opened:
            await opened.open()

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
        """Ask whether to search the bus for the meter or to enter its address."""
        return self.async_show_menu(
            step_id=self._step("find"),
            menu_options=["search", self._step(self._meter_kind)],
            description_placeholders=self._placeholders(),
        )

    async_step_reach_find = async_step_find

    # Which address

    async def async_step_modbus(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask for a meter's address, and read the meter before anything is saved."""
        protocol = self._protocol
        form = meter_form(protocol, self._bus[CONF_PORT])
        error: FormError | None = None
        if user_input is not None:
            data = dict(self._bus)
            try:
                data |= entered_meter(form, user_input)
                return await self._async_use_meter(data, await self._async_identify(data))
            except FormError as err:
                error = err
                line_settings_wrong = SECTION_LINE_SETTINGS in err.errors
            except KlefrError as err:
                error = self._translated(err, **data)
                line_settings_wrong = isinstance(err, CommunicationError | LineSettingsError)
            form = meter_form(
                protocol, self._bus[CONF_PORT], line_settings_open=line_settings_wrong
            )
        suggested = user_input
        if suggested is None:
            link = await self._async_link_in_force()
            suggested = {SECTION_LINE_SETTINGS: shown_line_settings(link)}
            if self.source == SOURCE_RECONFIGURE:
                known = self._get_reconfigure_entry().data
                on_mbus = protocol is Protocol.MBUS
                if on_mbus is (known[CONF_PROTOCOL] == Protocol.MBUS):
                    address = known[CONF_ADDRESS]
                    suggested[CONF_ADDRESS] = str(address) if on_mbus else address
        return self._show_form(self._step(self._meter_kind), form, suggested, error=error)

    async_step_mbus = async_step_reach_modbus = async_step_reach_mbus = async_step_modbus

    async def _async_use_meter(
        self, data: Mapping[str, Any], identity: Identity
    ) -> ConfigFlowResult:
        """Add the meter that answers, or let its entry reach it, and end the flow."""
        found = meter_name(identity)
        # A search may have offered it already. That offer ends when the meter is added.
        await self.async_set_unique_id(identity.serial_number, raise_on_progress=False)
        if self.source == SOURCE_RECONFIGURE:
            entry = self._get_reconfigure_entry()
            if identity.serial_number == entry.unique_id:
                return self._follow(entry, data)
            self._other_meter, self._other_data = found, data
            return await self.async_step_reach_other()
        self._abort_if_unique_id_configured(description_placeholders={"meter": found})
        return self.async_create_entry(title=found, data=data)

    async def async_step_reach_other(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask whether the meter that answers is a new one in the place of the entry's meter."""
        return self.async_show_menu(
            step_id="reach_other",
            menu_options=["reach_replaced", self._step(self._meter_kind)],
            description_placeholders={**self._placeholders(), "found": self._other_meter},
        )

    async def async_step_reach_replaced(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Let the new meter take the place of the entry's meter, if it still answers."""
        entry = self._get_reconfigure_entry()
        before = entry.title
        try:
            await async_replace_meter(self.hass, entry, self._other_data, str(self.unique_id))
        except UnknownEntry:
            return await self.async_step_entry_deleted()
        except KlefrError as err:
            reason, placeholders = async_not_replaced(self.hass, self._other_data, err)
        else:
            reason, placeholders = "replaced", {"found": self._other_meter}
        return self.async_abort(
            reason=reason, description_placeholders={"meter": before, **placeholders}
        )

    async def _async_identify(self, data: Mapping[str, Any]) -> Identity:
        """Ask which meter answers. An entry that holds the port differently is set aside.

        That entry stays set aside if its meter answers: the flow then loads it with new data.
        """
        protocol, link = Protocol(data[CONF_PROTOCOL]), link_from(data)
        set_aside: KlefrConfigEntry | None = None
        if self.source == SOURCE_RECONFIGURE:
            entry = self._get_reconfigure_entry()
            if await self._async_holds_port_differently(entry, protocol, link):
                entry = self._get_reconfigure_entry()
                if await self.hass.config_entries.async_unload(entry.entry_id):
                    set_aside = entry
        identity: Identity | None = None
        try:
            async with await async_find_bus(self.hass, protocol, link) as bus:
                identity = (await identify(bus, data[CONF_ADDRESS])).identity
        finally:
            if set_aside and (identity is None or identity.serial_number != set_aside.unique_id):
                with suppress(UnknownEntry):
                    await self.hass.config_entries.async_setup(set_aside.entry_id)
        return identity

    # A meter that a search has found

    async def async_step_integration_discovery(
        self, discovery_info: dict[str, Any]
    ) -> ConfigFlowResult:
        """Offer a meter that a search has found."""
        self._bus = dict(discovery_info)
        name = self._bus.pop(CONF_NAME)
        await self.async_set_unique_id(self._bus.pop(CONF_METER))
        self._abort_if_unique_id_configured(description_placeholders={"meter": name})
        self.context["title_placeholders"] = {CONF_NAME: name}
        return await self.async_step_confirm()

    async def async_step_confirm(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Add the meter if it still answers at the same address."""
        error: FormError | None = None
        name = self.context["title_placeholders"][CONF_NAME]
        if user_input is not None:
            try:
                entered(CONFIRM, user_input)
                identity = await self._async_identify(self._bus)
            except FormError as err:
                error = err
            except KlefrError as err:
                error = self._translated(err)
            else:
                if identity.serial_number != self.unique_id:
                    return self.async_abort(
                        reason="wrong_meter",
                        description_placeholders={"meter": name, "found": meter_name(identity)},
                    )
                return self.async_create_entry(title=name, data=self._bus)
        return self._show_form("confirm", CONFIRM, {}, error=error, placeholders={"name": name})


class KlefrOptionsFlow(OptionsFlowWithReload):
    """Set how often a meter is read."""

    async def async_step_init(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask for the update interval, and say how busy the bus is."""
        try:
            entry = self.config_entry
        except UnknownEntry:
            return self.async_abort(reason=ENTRY_DELETED)
        error: FormError | None = None
        if user_input is not None:
            try:
                options = entered(OPTIONS, user_input)
                self._async_check_interval(options[CONF_UPDATE_INTERVAL])
                return self.async_create_entry(data=options)
            except FormError as err:
                error = err
        suggested = to_show_again(OPTIONS, user_input or entry.options)
        schema = self.add_suggested_values_to_schema(form_schema(OPTIONS), suggested)
        return self.async_show_form(
            step_id="init",
            data_schema=unchecked(schema),
            errors=error.errors if error else {},
            description_placeholders={
                "meter": entry.title,
                "load": async_load_text(self.hass, self._async_load(), entry.entry_id),
                **(error.placeholders if error else {}),
            },
        )

    @callback
    def _async_load(self) -> Load | None:
        """Return what the bus is busy with; None if Home Assistant does not read the meter."""
        entry: KlefrConfigEntry = self.config_entry
        return entry.runtime_data.bus.load if entry.state is ConfigEntryState.LOADED else None

    @callback
    def _async_check_interval(self, interval: float) -> None:
        """Make sure that the bus has time for an interval, if it is shorter than before.

        A longer one helps, even if it is still too short. Raises FormError.
        """
        load, meter = self._async_load(), self.config_entry.entry_id
        if load is None or interval >= load.demands[meter].interval:
            return
        if not load.works(meter, interval):
            shortest = load.shortest((meter,), INTERVALS)
            error = (
                FieldError("interval_too_short", shortest=str(shortest))
                if shortest
                else FieldError("bus_full")
            )
            raise FormError({CONF_UPDATE_INTERVAL: error})
