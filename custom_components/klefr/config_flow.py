"""Add a meter, change how it is reached, and how often it is read."""

from collections.abc import Mapping
from typing import Any, override

from homeassistant.config_entries import (
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
)
import voluptuous as vol

from .bus import async_find_bus, link_from
from .const import (
    CONF_BAUD_RATE,
    CONF_PARITY,
    CONF_UPDATE_INTERVAL,
    DEFAULT_ADDRESS,
    DEFAULT_UPDATE_INTERVAL,
    DOMAIN,
    MAXIMUM_UPDATE_INTERVAL,
    MINIMUM_UPDATE_INTERVAL,
)
from .coordinator import error_translation
from .entity import meter_name
from .meter import (
    ADDRESSES,
    BaudRate,
    Identity,
    KlefrError,
    LinkError,
    ModbusMeter,
    Parity,
    Protocol,
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


# Nearly every meter is at the factory's line settings, so they are tucked away.
LINE_SETTINGS = vol.Schema(
    {
        vol.Required(CONF_BAUD_RATE, default=str(BaudRate.B9600)): vol.All(
            _choice(CONF_BAUD_RATE, [str(rate) for rate in reversed(BaudRate)]), vol.Coerce(int)
        ),
        vol.Required(CONF_PARITY, default=Parity.EVEN): _choice(CONF_PARITY, list(Parity)),
    }
)

METER = vol.Schema(
    {
        vol.Required(CONF_PORT): SerialPortSelector(),
        vol.Required(CONF_PROTOCOL, default=Protocol.MODBUS): _choice(
            CONF_PROTOCOL, list(Protocol)
        ),
        vol.Required(CONF_ADDRESS, default=DEFAULT_ADDRESS): _number(ADDRESSES[0], ADDRESSES[-1]),
        vol.Required(SECTION_LINE_SETTINGS): section(LINE_SETTINGS, {"collapsed": True}),
    }
)

OPTIONS = vol.Schema(
    {
        vol.Required(CONF_UPDATE_INTERVAL, default=DEFAULT_UPDATE_INTERVAL): _number(
            MINIMUM_UPDATE_INTERVAL, MAXIMUM_UPDATE_INTERVAL, UnitOfTime.SECONDS
        ),
    }
)


def _flatten(user_input: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the form's answers into the data of an entry."""
    data = dict(user_input)
    data.update(data.pop(SECTION_LINE_SETTINGS))
    return data


def _sectioned(data: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the data of an entry into the form's answers."""
    return {
        **data,
        SECTION_LINE_SETTINGS: {
            CONF_BAUD_RATE: str(data[CONF_BAUD_RATE]),
            CONF_PARITY: data[CONF_PARITY],
        },
    }


def _stands_in_the_way(entry: ConfigEntry, data: Mapping[str, Any]) -> bool:
    """Tell whether the entry holds the port with other line settings than these.

    One that waits to be tried again would take the port while the meter is looked for.
    """
    if entry.state not in (ConfigEntryState.LOADED, ConfigEntryState.SETUP_RETRY):
        return False
    old, new = link_from(entry.data), link_from(data)
    return old.port == new.port and old != new


class KlefrConfigFlow(ConfigFlow, domain=DOMAIN):
    """Add a meter or change how it is reached."""

    VERSION = 1

    @staticmethod
    @callback
    @override
    def async_get_options_flow(config_entry: ConfigEntry) -> KlefrOptionsFlow:
        return KlefrOptionsFlow()

    @override
    async def async_step_user(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask for a meter, and read it before anything is created."""
        failure: KlefrError | None = None
        if user_input is not None:
            data = _flatten(user_input)
            try:
                identity = await self._async_identify(data)
            except KlefrError as err:
                failure = err
            else:
                await self.async_set_unique_id(identity.serial_number)
                self._abort_if_unique_id_configured()
                return self.async_create_entry(title=meter_name(identity), data=data)
        return self._async_show_meter_form("user", user_input or {}, failure)

    async def async_step_reconfigure(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask where the meter is now; it has to be the same one."""
        entry = self._get_reconfigure_entry()
        failure: KlefrError | None = None
        if user_input is not None:
            data = _flatten(user_input)
            set_aside = _stands_in_the_way(entry, data) and (
                await self.hass.config_entries.async_unload(entry.entry_id)
            )
            try:
                identity = await self._async_identify(data)
            except KlefrError as err:
                failure = err
            else:
                await self.async_set_unique_id(identity.serial_number)
            if set_aside and self.unique_id != entry.unique_id:
                await self.hass.config_entries.async_setup(entry.entry_id)
            if failure is None:
                self._abort_if_unique_id_mismatch(reason="wrong_meter")
                return self.async_update_reload_and_abort(entry, data=data)
        return self._async_show_meter_form(
            "reconfigure", user_input or _sectioned(entry.data), failure
        )

    def _async_show_meter_form(
        self, step_id: str, suggested: Mapping[str, Any], failure: KlefrError | None
    ) -> ConfigFlowResult:
        """Show the form, with what went wrong at the field that may be to blame."""
        errors: dict[str, str] = {}
        placeholders: dict[str, str] = {}
        if failure is not None:
            field = CONF_PORT if isinstance(failure, LinkError) else "base"
            errors[field] = failure.key
            placeholders = error_translation(suggested, failure)["translation_placeholders"]
        return self.async_show_form(
            step_id=step_id,
            data_schema=self.add_suggested_values_to_schema(METER, suggested),
            errors=errors,
            description_placeholders=placeholders,
        )

    async def _async_identify(self, data: Mapping[str, Any]) -> Identity:
        """Ask who answers there."""
        async with async_find_bus(self.hass, link_from(data)) as bus:
            return (await ModbusMeter.identify(bus, data[CONF_ADDRESS])).identity


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
