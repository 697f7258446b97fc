"""Add a meter, change how it is reached, and how often it is read."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict, replace
from itertools import product
from typing import Any, override

from homeassistant.config_entries import (
    SOURCE_INTEGRATION_DISCOVERY,
    SOURCE_RECONFIGURE,
    ConfigEntry,
    ConfigEntryState,
    ConfigFlow,
    ConfigFlowContext,
    ConfigFlowResult,
    OptionsFlowWithReload,
)
from homeassistant.const import (
    CONF_ADDRESS,
    CONF_HOST,
    CONF_NAME,
    CONF_PORT,
    CONF_PROTOCOL,
    UnitOfTime,
)
from homeassistant.core import callback
from homeassistant.data_entry_flow import section
from homeassistant.helpers.discovery_flow import async_create_flow
from homeassistant.helpers.selector import (
    BooleanSelector,
    NumberSelector,
    NumberSelectorConfig,
    NumberSelectorMode,
    SelectOptionDict,
    SelectSelector,
    SelectSelectorConfig,
    SelectSelectorMode,
    SerialPortSelector,
    TextSelector,
)
import voluptuous as vol

from .communication import async_change_communication, async_read_communication
from .const import (
    CONF_BAUD_RATE,
    CONF_PARITY,
    CONF_SECONDARY_ADDRESS,
    CONF_UPDATE_INTERVAL,
    DEFAULT_MBUS_ADDRESS,
    DEFAULT_MODBUS_ADDRESS,
    DEFAULT_TCP_PORT,
    DEFAULT_UPDATE_INTERVAL,
    DOMAIN,
    MAXIMUM_UPDATE_INTERVAL,
    MINIMUM_UPDATE_INTERVAL,
)
from .meter import (
    MODBUS_ADDRESSES,
    PRIMARY_ADDRESSES,
    AddressTakenError,
    BaudRate,
    Communication,
    Identity,
    InvalidAddressError,
    KlefrError,
    LinkError,
    Parity,
    Protocol,
    SerialLink,
    gateway_port,
    identify,
    is_gateway,
    is_secondary_address,
    parse_address,
    search,
    split_gateway_port,
)
from .shared_buses import (
    async_canonical_port,
    async_entries_on_port,
    async_find_bus,
    async_held_bus,
    async_port_users,
    link_from,
)
from .wording import async_translation, communication_name, listed, meter_name

SECTION_LINE_SETTINGS = "line_settings"
CONF_ALL_LINE_SETTINGS = "all_line_settings"
CONF_METER = "meter"


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


SERIAL = vol.Schema(
    {
        vol.Required(CONF_PORT): SerialPortSelector(),
        vol.Required(CONF_PROTOCOL, default=Protocol.MODBUS): _choice(
            CONF_PROTOCOL, [Protocol.MODBUS, Protocol.MBUS]
        ),
    }
)
GATEWAY = vol.Schema(
    {
        vol.Required(CONF_HOST): TextSelector(),
        vol.Required(CONF_PORT, default=DEFAULT_TCP_PORT): _number(1, 65535),
        vol.Required(CONF_PROTOCOL, default=Protocol.MODBUS_TCP): _choice(
            "gateway_protocol", [Protocol.MODBUS_TCP, Protocol.MODBUS, Protocol.MBUS]
        ),
    }
)

ADDRESS: Mapping[Protocol, Mapping[Any, Any]] = {
    Protocol.MODBUS: {
        vol.Required(CONF_ADDRESS, default=DEFAULT_MODBUS_ADDRESS): _number(
            MODBUS_ADDRESSES[0], MODBUS_ADDRESSES[-1]
        )
    },
    Protocol.MBUS: {vol.Required(CONF_ADDRESS, default=DEFAULT_MBUS_ADDRESS): TextSelector()},
}
BAUD_RATE = {
    vol.Required(CONF_BAUD_RATE, default=str(BaudRate.B9600)): _choice(
        CONF_BAUD_RATE, [str(rate) for rate in reversed(BaudRate)]
    )
}
PARITY = {vol.Required(CONF_PARITY, default=Parity.EVEN): _choice(CONF_PARITY, list(Parity))}


def line_settings_schema(protocol: Protocol, port: str) -> Mapping[Any, Any]:
    """Return the fields for how a line is set, as far as that is to be known here.

    On M-Bus parity is always even. A gateway has been set by itself, but it takes the time
    that its line takes.
    """
    if protocol is Protocol.MODBUS_TCP:
        return {}
    if protocol is Protocol.MBUS or is_gateway(port):
        return BAUD_RATE
    return {**BAUD_RATE, **PARITY}


def meter_schema(protocol: Protocol, port: str) -> vol.Schema:
    """Return the fields for a meter on a bus.

    Nearly every meter is at the factory's line settings, so those are tucked away.
    """
    fields = dict(ADDRESS[_step_for(protocol)])
    if line_settings := line_settings_schema(protocol, port):
        fields[vol.Required(SECTION_LINE_SETTINGS)] = section(
            vol.Schema(line_settings), {"collapsed": True}
        )
    return vol.Schema(fields)


def change_schema(protocol: Protocol, port: str) -> vol.Schema:
    """Return the fields for how a meter itself communicates.

    Behind a gateway its line settings stay: the gateway's would have to change with them.
    """
    on_mbus = protocol is Protocol.MBUS
    addresses = PRIMARY_ADDRESSES if on_mbus else MODBUS_ADDRESSES
    fields: dict[Any, Any] = {vol.Required(CONF_ADDRESS): _number(addresses[0], addresses[-1])}
    if on_mbus:
        fields[vol.Required(CONF_SECONDARY_ADDRESS)] = TextSelector()
    if not is_gateway(port):
        fields |= line_settings_schema(protocol, port)
    return vol.Schema(fields)


OPTIONS = vol.Schema(
    {
        vol.Required(CONF_UPDATE_INTERVAL, default=DEFAULT_UPDATE_INTERVAL): _number(
            MINIMUM_UPDATE_INTERVAL, MAXIMUM_UPDATE_INTERVAL, UnitOfTime.SECONDS
        ),
    }
)


def _step_for(protocol: Protocol) -> Protocol:
    """Return the protocol whose step asks for a meter's address."""
    return Protocol.MODBUS if protocol is Protocol.MODBUS_TCP else protocol


def _line_settings(link: SerialLink) -> dict[str, str]:
    """Return how a line is set, as the form shows it."""
    return {CONF_BAUD_RATE: str(int(link.baud_rate)), CONF_PARITY: link.parity}


def _communication(now: Communication, user_input: Mapping[str, Any]) -> Communication:
    """Return how a meter is to communicate that communicates like this now."""
    secondary_address = user_input.get(CONF_SECONDARY_ADDRESS)
    return Communication(
        address=user_input[CONF_ADDRESS],
        secondary_address=secondary_address and secondary_address.strip(),
        baud_rate=BaudRate(int(user_input.get(CONF_BAUD_RATE, now.baud_rate))),
        parity=Parity(user_input.get(CONF_PARITY, now.parity)),
    )


def _line(settings: Communication | SerialLink) -> tuple[BaudRate, Parity]:
    return settings.baud_rate, settings.parity


def _stands_in_the_way(entry: ConfigEntry, protocol: Protocol, link: SerialLink) -> bool:
    """Tell whether the entry holds the port with another protocol or other line settings.

    One that waits to be tried again would take the port while the meter is looked for.
    """
    if entry.state not in (ConfigEntryState.LOADED, ConfigEntryState.SETUP_RETRY):
        return False
    used = link_from(entry.data)
    return used.port == link.port and (entry.data[CONF_PROTOCOL], used) != (protocol, link)


def _other_line_settings(protocol: Protocol, first: SerialLink) -> list[SerialLink]:
    """Return all other ways in which a line can be set, the likelier ones first."""
    parities = [Parity.EVEN] if protocol is Protocol.MBUS else list(Parity)
    links = [
        replace(first, baud_rate=baud_rate, parity=parity)
        for parity, baud_rate in product(parities, reversed(BaudRate))
    ]
    return [link for link in links if link != first]


class KlefrConfigFlow(ConfigFlow, domain=DOMAIN):
    """Add a meter or change how it is reached."""

    VERSION = 1

    def __init__(self) -> None:
        self._bus: dict[str, Any] = {}
        self._untried: list[SerialLink] = []
        self._tried = 0
        self._action: asyncio.Task[None] | None = None
        self._waiting: asyncio.Task[Any] | None = None
        self._now: Communication | None = None
        self._wanted: Communication | None = None
        self._sharing: list[str] = []
        self._failure: KlefrError | None = None
        self._search: asyncio.Task[None] | None = None
        self._found: dict[str, dict[str, Any]] = {}
        self._names: dict[str, str] = {}
        self._several: list[int | str] = []

    @staticmethod
    @callback
    @override
    def async_get_options_flow(config_entry: ConfigEntry) -> KlefrOptionsFlow:
        return KlefrOptionsFlow()

    # Which bus

    @override
    async def async_step_user(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask how the bus of a new meter is connected."""
        return self.async_show_menu(step_id="user", menu_options=["serial", "gateway"])

    async def async_step_reconfigure(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask what is to be changed: this side, or the meter."""
        return self.async_show_menu(step_id="reconfigure", menu_options=["reach", "communication"])

    async def async_step_reach(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask how the bus that the meter is on now is connected."""
        return self.async_show_menu(step_id="reach", menu_options=["serial", "gateway"])

    async def async_step_serial(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask for a serial port and what is spoken there."""
        failure: LinkError | None = None
        if user_input is not None:
            port = await async_canonical_port(self.hass, user_input[CONF_PORT])
            failure = await self._async_choose_bus({**user_input, CONF_PORT: port})
            if failure is None:
                return await self.async_step_find()
        suggested = user_input or self._known_bus(gateway=False)
        return self._async_show("serial", SERIAL, suggested, CONF_PORT, failure)

    async def async_step_gateway(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask for a gateway and what is spoken to it."""
        failure: LinkError | None = None
        if user_input is not None:
            failure = await self._async_choose_bus(
                {
                    CONF_PORT: gateway_port(user_input[CONF_HOST], user_input[CONF_PORT]),
                    CONF_PROTOCOL: user_input[CONF_PROTOCOL],
                }
            )
            if failure is None:
                return await self.async_step_find()
        suggested = user_input or self._known_bus(gateway=True)
        if user_input is None and suggested:
            host, port = split_gateway_port(suggested[CONF_PORT])
            suggested = {**suggested, CONF_HOST: host, CONF_PORT: port}
        return self._async_show("gateway", GATEWAY, suggested, CONF_HOST, failure)

    async def _async_choose_bus(self, bus: dict[str, Any]) -> LinkError | None:
        """See whether a bus can be opened, and return why it cannot."""
        self._bus = bus
        protocol, link = Protocol(bus[CONF_PROTOCOL]), self._link_in_force()
        if self.source == SOURCE_RECONFIGURE and _stands_in_the_way(
            self._get_reconfigure_entry(), protocol, link
        ):
            # It has opened the port itself.
            return None
        try:
            async with async_find_bus(self.hass, protocol, link) as opened:
                await opened.open()
        except LinkError as err:
            return err
        return None

    def _known_bus(self, *, gateway: bool) -> Mapping[str, Any]:
        """Return the bus to suggest: the entry's own, or that of any other meter."""
        if self.source == SOURCE_RECONFIGURE:
            entries = [self._get_reconfigure_entry()]
        else:
            entries = self._async_current_entries()
        return next(
            (entry.data for entry in entries if is_gateway(entry.data[CONF_PORT]) is gateway), {}
        )

    async def async_step_find(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask how the meter on the bus is to be found."""
        step = _step_for(Protocol(self._bus[CONF_PROTOCOL]))
        if self.source == SOURCE_RECONFIGURE:
            return await self._async_step_meter()
        return self.async_show_menu(
            step_id="find",
            menu_options=["search", step],
            description_placeholders={CONF_PORT: self._bus[CONF_PORT]},
        )

    # By its address

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
            _step_for(protocol),
            meter_schema(protocol, self._bus[CONF_PORT]),
            user_input or self._suggested(protocol),
            field,
            failure,
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
            suggested[CONF_ADDRESS] = str(address) if protocol is Protocol.MBUS else address
        return suggested

    def _data(self, protocol: Protocol, user_input: Mapping[str, Any]) -> dict[str, Any]:
        """Return the data of an entry.

        Raises InvalidAddressError if the address is none.
        """
        address = user_input[CONF_ADDRESS]
        line_settings = user_input.get(SECTION_LINE_SETTINGS, {})
        return {
            **self._bus,
            CONF_ADDRESS: parse_address(address) if protocol is Protocol.MBUS else address,
            CONF_BAUD_RATE: int(line_settings.get(CONF_BAUD_RATE, BaudRate.B9600)),
            CONF_PARITY: line_settings.get(CONF_PARITY, Parity.EVEN),
        }

    async def _async_identify(self, data: Mapping[str, Any]) -> Identity:
        """Ask who answers there, if need be without the entry that stands in the way."""
        protocol, link = Protocol(data[CONF_PROTOCOL]), link_from(data)
        set_aside: ConfigEntry | None = None
        if self.source == SOURCE_RECONFIGURE:
            entry = self._get_reconfigure_entry()
            if _stands_in_the_way(entry, protocol, link) and (
                await self.hass.config_entries.async_unload(entry.entry_id)
            ):
                set_aside = entry
        identity: Identity | None = None
        try:
            async with async_find_bus(self.hass, protocol, link) as bus:
                identity = (await identify(bus, data[CONF_ADDRESS])).identity
        finally:
            if set_aside and (identity is None or identity.serial_number != set_aside.unique_id):
                await self.hass.config_entries.async_setup(set_aside.entry_id)
        return identity

    # How the meter itself communicates

    async def async_step_communication(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask the meter how it communicates now, wherever it may be."""
        if (progress := self._async_show_until_done("communication", self._async_read)) is not None:
            return progress
        return self.async_show_progress_done(
            next_step_id="not_changed" if self._failure else "change"
        )

    async def _async_read(self) -> None:
        try:
            self._now = await async_read_communication(self.hass, self._get_reconfigure_entry())
        except KlefrError as err:
            self._failure = err

    async def async_step_change(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask how the meter is to communicate from now on."""
        entry = self._get_reconfigure_entry()
        assert self._now is not None
        failure, self._failure = self._failure, None
        if user_input is not None:
            self._wanted = _communication(self._now, user_input)
            if self._wanted == self._now:
                return self.async_abort(reason="nothing_to_change")
            others = await async_entries_on_port(self.hass, entry)
            try:
                self._check_addresses(self._now, self._wanted, others)
            except (InvalidAddressError, AddressTakenError) as err:
                failure = err
            else:
                if _line(self._wanted) != (line := _line(self._now)):
                    self._sharing = [
                        other.title
                        for other in others
                        if not other.disabled_by and _line(link_from(other.data)) == line
                    ]
                    self._sharing += async_port_users(self.hass, entry.data[CONF_PORT])
                    if self._sharing:
                        return await self.async_step_shared_line()
                return await self.async_step_changing()
        shown = self._wanted or self._now
        primary = isinstance(failure, AddressTakenError) and isinstance(failure.address, int)
        return self._async_show(
            "change",
            change_schema(Protocol(entry.data[CONF_PROTOCOL]), entry.data[CONF_PORT]),
            {**entry.data, **asdict(shown), CONF_BAUD_RATE: str(shown.baud_rate)},
            CONF_ADDRESS if primary else CONF_SECONDARY_ADDRESS,
            failure,
        )

    def _check_addresses(
        self, now: Communication, wanted: Communication, others: list[ConfigEntry]
    ) -> None:
        """Raise an error for a new address that is none or is another entry's."""
        secondary_address = wanted.secondary_address
        if secondary_address is not None and not is_secondary_address(secondary_address):
            raise InvalidAddressError(f"{secondary_address!r} does not have 8 digits")
        for other in others:
            if other.data[CONF_ADDRESS] == wanted.address != now.address:
                raise AddressTakenError(wanted.address, other.title)
        for other in self._async_current_entries(include_ignore=False):
            if other.unique_id == secondary_address != now.secondary_address:
                raise AddressTakenError(str(secondary_address), other.title)

    async def async_step_shared_line(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Say who will lose contact."""
        return self.async_show_menu(
            step_id="shared_line",
            menu_options=["changing", "change"],
            description_placeholders={"others": listed(self._sharing)},
        )

    async def async_step_changing(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Change how the meter communicates."""
        if (progress := self._async_show_until_done("changing", self._async_change)) is not None:
            return progress
        if isinstance(self._failure, AddressTakenError):
            return self.async_show_progress_done(next_step_id="change")
        return self.async_show_progress_done(
            next_step_id="not_changed" if self._failure else "changed"
        )

    async def _async_change(self) -> None:
        assert self._now is not None
        assert self._wanted is not None
        try:
            await async_change_communication(
                self.hass, self._get_reconfigure_entry(), self._now, self._wanted
            )
        except KlefrError as err:
            self._failure = err

    @callback
    def _async_show_until_done(
        self, step_id: str, action: Callable[[], Coroutine[Any, Any, None]]
    ) -> ConfigFlowResult | None:
        """Show the progress of what has to come to its end, also if the window is closed."""
        if self._action is None:
            self._action = self.hass.async_create_task(action(), eager_start=False)
            self._waiting = self.hass.async_create_task(asyncio.wait([self._action]))
        if not self._action.done():
            return self.async_show_progress(
                step_id=step_id, progress_action=step_id, progress_task=self._waiting
            )
        self._action.result()
        self._action = None
        return None

    async def async_step_changed(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Say where the meter is now."""
        assert self._wanted is not None
        return self.async_abort(
            reason="changed", description_placeholders={"wanted": communication_name(self._wanted)}
        )

    async def async_step_not_changed(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Say what went wrong, and where the meter is."""
        assert self._failure is not None
        translation = async_translation(
            self.hass, self._get_reconfigure_entry().data, self._failure
        )
        return self.async_abort(
            reason=translation["translation_key"],
            description_placeholders=translation["translation_placeholders"],
        )

    # By searching

    async def async_step_search(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask which line settings to try, where that is not settled."""
        protocol, link = Protocol(self._bus[CONF_PROTOCOL]), self._link_in_force()
        settled = is_gateway(link.port) or async_held_bus(self.hass, link.port) is not None
        if user_input is None and not settled:
            schema = vol.Schema(
                {
                    **line_settings_schema(protocol, link.port),
                    vol.Required(CONF_ALL_LINE_SETTINGS, default=False): BooleanSelector(),
                }
            )
            return self._async_show("search", schema, _line_settings(link), "base", None)
        if user_input is not None:
            link = replace(
                link,
                baud_rate=BaudRate(int(user_input[CONF_BAUD_RATE])),
                parity=Parity(user_input.get(CONF_PARITY, Parity.EVEN)),
            )
        self._untried = [link]
        if user_input is not None and user_input[CONF_ALL_LINE_SETTINGS]:
            self._untried += _other_line_settings(protocol, link)
        self._tried = 0
        self._search = None
        self._found.clear()
        self._several.clear()
        return await self.async_step_searching()

    async def async_step_searching(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Search with one line setting after the other, and say which."""
        if self._search is not None and self._search.done():
            if isinstance(self._search.exception(), LinkError):
                return self.async_show_progress_done(next_step_id="search_failed")
            self._search.result()
            self._search = None
            self._tried += 1
            del self._untried[0]
        if not self._untried:
            return self.async_show_progress_done(
                next_step_id="found" if self._found else "nothing_found"
            )
        link = self._untried[0]
        step = _step_for(Protocol(self._bus[CONF_PROTOCOL]))
        if self._search is None:
            self._search = self.hass.async_create_task(self._async_search(link), eager_start=False)
        return self.async_show_progress(
            step_id="searching",
            progress_action=f"{step}_gateway" if is_gateway(link.port) else step,
            description_placeholders={
                CONF_PORT: link.port,
                CONF_BAUD_RATE: str(link.baud_rate),
                CONF_PARITY: link.parity,
            },
            progress_task=self._search,
        )

    async def _async_search(self, link: SerialLink) -> None:
        """Try all addresses with one line setting."""
        protocol = Protocol(self._bus[CONF_PROTOCOL])
        rounds = self._tried + len(self._untried)
        async with async_find_bus(self.hass, protocol, link) as bus:
            async for step in search(bus):
                self.async_update_progress((self._tried + step.share) / rounds)
                if step.several:
                    self._several.append(step.address)
                if step.found is not None:
                    identity = step.found.identity
                    self._names[identity.serial_number] = meter_name(identity)
                    self._found[identity.serial_number] = {
                        **self._bus,
                        CONF_ADDRESS: step.found.address,
                        CONF_BAUD_RATE: int(link.baud_rate),
                        CONF_PARITY: str(link.parity),
                    }

    async def async_step_search_failed(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Say why the bus cannot be searched any further."""
        error = self._search.exception() if self._search else None
        assert isinstance(error, LinkError)
        translation = async_translation(self.hass, self._bus, error)
        return self.async_abort(
            reason=translation["translation_key"],
            description_placeholders=translation["translation_placeholders"],
        )

    async def async_step_nothing_found(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Say what may be the reason, and offer another way."""
        return self.async_show_menu(
            step_id="nothing_found",
            menu_options=["search", _step_for(Protocol(self._bus[CONF_PROTOCOL]))],
            description_placeholders={
                CONF_PORT: self._bus[CONF_PORT],
                "several": listed(map(str, self._several)),
            },
        )

    async def async_step_found(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Add one of the meters found, and offer the others as discovered devices."""
        added = self._async_current_ids(include_ignore=False)
        new = {number: data for number, data in self._found.items() if number not in added}
        if user_input is not None:
            serial_number = user_input[CONF_METER]
            await self.async_set_unique_id(serial_number, raise_on_progress=False)
            self._abort_if_unique_id_configured()
            for number, data in new.items():
                if number != serial_number:
                    async_create_flow(
                        self.hass,
                        DOMAIN,
                        ConfigFlowContext(source=SOURCE_INTEGRATION_DISCOVERY),
                        {CONF_METER: number, CONF_NAME: self._names[number], **data},
                    )
            return self.async_create_entry(
                title=self._names[serial_number], data=new[serial_number]
            )
        placeholders = {
            "added": listed(self._names[number] for number in self._found if number in added),
            # M-Bus meters with the same primary address are found by the secondary one.
            "several": listed(
                str(address)
                for address in self._several
                if isinstance(address, str) or self._bus[CONF_PROTOCOL] != Protocol.MBUS
            ),
        }
        if not new:
            return self.async_abort(reason="all_added", description_placeholders=placeholders)
        options = [
            SelectOptionDict(
                value=number,
                label=f"{self._names[number]} ({data[CONF_ADDRESS]}, {data[CONF_BAUD_RATE]} Bd)",
            )
            for number, data in new.items()
        ]
        return self.async_show_form(
            step_id="found",
            data_schema=vol.Schema(
                {
                    vol.Required(CONF_METER, default=next(iter(new))): SelectSelector(
                        SelectSelectorConfig(options=options, mode=SelectSelectorMode.LIST)
                    )
                }
            ),
            description_placeholders=placeholders,
        )

    async def async_step_integration_discovery(
        self, discovery_info: dict[str, Any]
    ) -> ConfigFlowResult:
        """Offer a meter that a search has found."""
        self._bus = dict(discovery_info)
        await self.async_set_unique_id(self._bus.pop(CONF_METER))
        self._abort_if_unique_id_configured()
        self.context["title_placeholders"] = {CONF_NAME: self._bus.pop(CONF_NAME)}
        return await self.async_step_confirm()

    async def async_step_confirm(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Add the meter that was found, if it still is where it was."""
        failure: KlefrError | None = None
        name = self.context["title_placeholders"][CONF_NAME]
        if user_input is not None:
            try:
                identity = await self._async_identify(self._bus)
            except KlefrError as err:
                failure = err
            else:
                if identity.serial_number != self.unique_id:
                    return self.async_abort(reason="wrong_meter")
                return self.async_create_entry(title=name, data=self._bus)
        return self._async_show("confirm", vol.Schema({}), {CONF_NAME: name}, "base", failure)

    def _async_show(
        self,
        step_id: str,
        schema: vol.Schema,
        suggested: Mapping[str, Any],
        field: str,
        failure: KlefrError | None,
    ) -> ConfigFlowResult:
        """Show a form, with what went wrong at the field that may be to blame."""
        shown = {**suggested, **self._bus}
        placeholders = {
            key: str(shown.get(key, "")) for key in (CONF_PORT, CONF_ADDRESS, CONF_NAME)
        }
        errors: dict[str, str] = {}
        if failure is not None:
            translation = async_translation(self.hass, shown, failure)
            errors[field] = translation["translation_key"]
            placeholders |= translation["translation_placeholders"]
        return self.async_show_form(
            step_id=step_id,
            data_schema=self.add_suggested_values_to_schema(schema, suggested),
            errors=errors,
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
