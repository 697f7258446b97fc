"""Add a meter, change how it is reached, and how often it is read."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, override

from homeassistant.config_entries import (
    SOURCE_RECONFIGURE,
    ConfigEntry,
    ConfigEntryState,
    ConfigFlow,
    ConfigFlowResult,
    OptionsFlowWithReload,
)
from homeassistant.const import CONF_ADDRESS, CONF_PORT, CONF_PROTOCOL, UnitOfTime
from homeassistant.core import callback
from homeassistant.data_entry_flow import section
from homeassistant.helpers.selector import (
    NumberSelector,
    NumberSelectorConfig,
    NumberSelectorMode,
    SelectSelector,
    SelectSelectorConfig,
    SelectSelectorMode,
    SerialPortSelector,
    TextSelector,
)
import voluptuous as vol

from .bus import async_find_bus, async_held_bus, link_from
from .const import (
    CONF_BAUD_RATE,
    CONF_PARITY,
    CONF_UPDATE_INTERVAL,
    DEFAULT_MBUS_ADDRESS,
    DEFAULT_MODBUS_ADDRESS,
    DEFAULT_UPDATE_INTERVAL,
    DOMAIN,
    MAXIMUM_UPDATE_INTERVAL,
    MINIMUM_UPDATE_INTERVAL,
)
from .coordinator import error_translation
from .entity import meter_name
from .meter import (
    MODBUS_ADDRESSES,
    BaudRate,
    Identity,
    InvalidAddressError,
    KlefrError,
    LinkError,
    Parity,
    Protocol,
    SerialLink,
    identify,
    parse_address,
)

SECTION_LINE_SETTINGS = "line_settings"


def _number(lowest: int, highest: int, unit: str | None = None) -> vol.All[Any]:
    config = NumberSelectorConfig(min=lowest, max=highest, step=1, mode=NumberSelectorMode.BOX)
    if unit is not None:
        config["unit_of_measurement"] = unit
    return vol.All(NumberSelector(config), vol.Coerce(int))


def _choice(name: str, options: list[str]) -> SelectSelector:
    return SelectSelector(
        SelectSelectorConfig(
            options=options, mode=SelectSelectorMode.DROPDOWN, translation_key=name
        )
    )


BUS = vol.Schema(
    {
        vol.Required(CONF_PORT): SerialPortSelector(),
        vol.Required(CONF_PROTOCOL, default=Protocol.MODBUS): _choice(
            CONF_PROTOCOL, list(Protocol)
        ),
    }
)

BAUD_RATE = _choice(CONF_BAUD_RATE, [str(rate) for rate in reversed(BaudRate)])
# Nearly every meter is at the factory's line settings, so they are tucked away. On M-Bus
# parity is always even.
LINE_SETTINGS = {
    Protocol.MODBUS: vol.Schema(
        {
            vol.Required(CONF_BAUD_RATE, default=str(BaudRate.B9600)): BAUD_RATE,
            vol.Required(CONF_PARITY, default=Parity.EVEN): _choice(CONF_PARITY, list(Parity)),
        }
    ),
    Protocol.MBUS: vol.Schema(
        {vol.Required(CONF_BAUD_RATE, default=str(BaudRate.B9600)): BAUD_RATE}
    ),
}
METER = {
    Protocol.MODBUS: vol.Schema(
        {
            vol.Required(CONF_ADDRESS, default=DEFAULT_MODBUS_ADDRESS): _number(
                MODBUS_ADDRESSES[0], MODBUS_ADDRESSES[-1]
            ),
            vol.Required(SECTION_LINE_SETTINGS): section(
                LINE_SETTINGS[Protocol.MODBUS], {"collapsed": True}
            ),
        }
    ),
    Protocol.MBUS: vol.Schema(
        {
            vol.Required(CONF_ADDRESS, default=DEFAULT_MBUS_ADDRESS): TextSelector(),
            vol.Required(SECTION_LINE_SETTINGS): section(
                LINE_SETTINGS[Protocol.MBUS], {"collapsed": True}
            ),
        }
    ),
}

OPTIONS = vol.Schema(
    {
        vol.Required(CONF_UPDATE_INTERVAL, default=DEFAULT_UPDATE_INTERVAL): _number(
            MINIMUM_UPDATE_INTERVAL, MAXIMUM_UPDATE_INTERVAL, UnitOfTime.SECONDS
        ),
    }
)


def _line_settings(link: SerialLink) -> dict[str, str]:
    """Return how a line is set, as the form shows it."""
    return {CONF_BAUD_RATE: str(int(link.baud_rate)), CONF_PARITY: link.parity}


def _stands_in_the_way(entry: ConfigEntry, data: Mapping[str, Any]) -> bool:
    """Tell whether the entry holds the port with another protocol or other line settings.

    One that waits to be tried again would take the port while the meter is looked for.
    """
    if entry.state not in (ConfigEntryState.LOADED, ConfigEntryState.SETUP_RETRY):
        return False
    old, new = link_from(entry.data), link_from(data)
    same_protocol = entry.data[CONF_PROTOCOL] == data[CONF_PROTOCOL]
    return old.port == new.port and not (old == new and same_protocol)


class KlefrConfigFlow(ConfigFlow, domain=DOMAIN):
    """Add a meter or change how it is reached."""

    VERSION = 1

    def __init__(self) -> None:
        self._bus: dict[str, Any] = {}

    @staticmethod
    @callback
    @override
    def async_get_options_flow(config_entry: ConfigEntry) -> KlefrOptionsFlow:
        return KlefrOptionsFlow()

    @override
    async def async_step_user(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask for the bus of a new meter."""
        return await self._async_step_bus("user", user_input, {})

    async def async_step_reconfigure(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask for the bus that the meter is on now."""
        suggested = self._get_reconfigure_entry().data
        return await self._async_step_bus("reconfigure", user_input, suggested)

    async def _async_step_bus(
        self, step_id: str, user_input: dict[str, Any] | None, suggested: Mapping[str, Any]
    ) -> ConfigFlowResult:
        """Ask for a port and what is spoken there, and see that it can be opened."""
        failure: LinkError | None = None
        if user_input is not None:
            self._bus = user_input
            try:
                bus = async_find_bus(
                    self.hass, Protocol(user_input[CONF_PROTOCOL]), self._link_in_force()
                )
                async with bus:
                    await bus.open()
            except LinkError as err:
                failure = err
            else:
                return await self._async_step_meter()
        return self._async_show(step_id, BUS, user_input or suggested, CONF_PORT, failure)

    async def async_step_modbus(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask for a meter on a Modbus line."""
        return await self._async_step_meter(user_input)

    async def async_step_mbus(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask for a meter on an M-Bus line."""
        return await self._async_step_meter(user_input)

    async def _async_step_meter(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask for a meter's address, and read it before anything is created or changed."""
        protocol = Protocol(self._bus[CONF_PROTOCOL])
        failure: KlefrError | None = None
        field = "base"
        if user_input is not None:
            try:
                data = self._data(protocol, user_input)
                identity = await self._async_identify(data)
            except InvalidAddressError as err:
                field, failure = CONF_ADDRESS, err
            except KlefrError as err:
                failure = err
            else:
                await self.async_set_unique_id(identity.serial_number)
                if self.source == SOURCE_RECONFIGURE:
                    self._abort_if_unique_id_mismatch(reason="wrong_meter")
                    return self.async_update_reload_and_abort(
                        self._get_reconfigure_entry(), data=data
                    )
                self._abort_if_unique_id_configured()
                return self.async_create_entry(title=meter_name(identity), data=data)
        return self._async_show(
            protocol, METER[protocol], user_input or self._suggested(protocol), field, failure
        )

    def _link_in_force(self) -> SerialLink:
        """Return how the chosen port is set, or else how it probably should be."""
        port = self._bus[CONF_PORT]
        if (held := async_held_bus(self.hass, port)) is not None:
            return held.link
        if self.source == SOURCE_RECONFIGURE:
            return replace(link_from(self._get_reconfigure_entry().data), port=port)
        return SerialLink(port=port)

    def _suggested(self, protocol: Protocol) -> Mapping[str, Any]:
        """Return what is filled into the form for a meter."""
        suggested: dict[str, Any] = {SECTION_LINE_SETTINGS: _line_settings(self._link_in_force())}
        if self.source == SOURCE_RECONFIGURE:
            address = self._get_reconfigure_entry().data[CONF_ADDRESS]
            suggested[CONF_ADDRESS] = address if protocol is Protocol.MODBUS else str(address)
        return suggested

    def _data(self, protocol: Protocol, user_input: Mapping[str, Any]) -> dict[str, Any]:
        """Return the data of an entry.

        Raises InvalidAddressError if the address is none.
        """
        address, line_settings = user_input[CONF_ADDRESS], user_input[SECTION_LINE_SETTINGS]
        return {
            **self._bus,
            CONF_ADDRESS: address if protocol is Protocol.MODBUS else parse_address(address),
            CONF_BAUD_RATE: int(line_settings[CONF_BAUD_RATE]),
            CONF_PARITY: line_settings.get(CONF_PARITY, Parity.EVEN),
        }

    async def _async_identify(self, data: Mapping[str, Any]) -> Identity:
        """Ask who answers there, if need be without the entry that stands in the way."""
        entry = self._get_reconfigure_entry() if self.source == SOURCE_RECONFIGURE else None
        set_aside = (
            entry is not None
            and _stands_in_the_way(entry, data)
            and await self.hass.config_entries.async_unload(entry.entry_id)
        )
        identity: Identity | None = None
        try:
            async with async_find_bus(
                self.hass, Protocol(data[CONF_PROTOCOL]), link_from(data)
            ) as bus:
                identity = (await identify(bus, data[CONF_ADDRESS])).identity
        finally:
            if (
                entry is not None
                and set_aside
                and (identity is None or identity.serial_number != entry.unique_id)
            ):
                await self.hass.config_entries.async_setup(entry.entry_id)
        return identity

    def _async_show(
        self,
        step_id: str,
        schema: vol.Schema,
        suggested: Mapping[str, Any],
        field: str,
        failure: KlefrError | None,
    ) -> ConfigFlowResult:
        """Show a form, with what went wrong at the field that may be to blame."""
        placeholders = {CONF_PORT: self._bus.get(CONF_PORT, "")}
        if failure is not None:
            placeholders = error_translation({**self._bus, **suggested}, failure)[
                "translation_placeholders"
            ]
        return self.async_show_form(
            step_id=step_id,
            data_schema=self.add_suggested_values_to_schema(schema, suggested),
            errors={field: failure.key} if failure else {},
            description_placeholders=placeholders,
        )


class KlefrOptionsFlow(OptionsFlowWithReload):
    """Change how often a meter is read."""

    async def async_step_init(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask for the update interval."""
        if user_input is not None:
            return self.async_create_entry(data=user_input)
        return self.async_show_form(
            step_id="init",
            data_schema=self.add_suggested_values_to_schema(OPTIONS, self.config_entry.options),
        )
