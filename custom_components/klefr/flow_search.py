"""The steps that search a bus for meters."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from homeassistant.config_entries import (
    SOURCE_INTEGRATION_DISCOVERY,
    SOURCE_RECONFIGURE,
    ConfigEntryState,
    ConfigFlowContext,
    ConfigFlowResult,
    UnknownEntry,
)
from homeassistant.const import CONF_ADDRESS, CONF_NAME, CONF_PORT, CONF_PROTOCOL
from homeassistant.core import callback
from homeassistant.data_entry_flow import AbortFlow
from homeassistant.helpers.discovery_flow import async_create_flow

from .const import CONF_BAUD_RATE, CONF_PARITY, DOMAIN
from .coordinator import KlefrConfigEntry
from .flow_base import ENTRY_DELETED, KlefrFlow
from .flow_schemas import (
    CONF_ALL_LINE_SETTINGS,
    CONF_METER,
    CONFIRM,
    SEARCH_ON,
    FieldError,
    FormError,
    entered,
    found_form,
    search_form,
    shown_line_settings,
)
from .meter import (
    LinkError,
    Parity,
    Protocol,
    SerialLink,
    Step,
    is_bus_answered,
    is_gateway,
    search,
    with_all_line_settings,
)
from .shared_buses import async_entries_on_port, async_find_bus, async_is_same_port
from .wording import async_parity_name, async_text, listed, meter_name


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a search: the chosen port with one pair of line settings."""

    link: SerialLink
    if_answered: bool = False
    """Whether to try all addresses only if something answers at once."""


class SearchSteps(KlefrFlow):
    """Search the chosen bus, and add one of the meters found or follow it to where it is now."""

    def __init__(self) -> None:
        super().__init__()
        self._link: SerialLink | None = None
        """The chosen port with the line settings that are tried."""
        self._parts: deque[Part] = deque()
        """What is left to search."""
        self._trying_addresses = False
        """Whether all addresses are tried, or only whether the line settings are answered."""
        self._tried = ""
        """What has been tried, as the step is called that says that no meter was found."""
        self._search: asyncio.Task[None] | None = None
        self._failure: LinkError | None = None
        self._found: dict[str, dict[str, Any]] = {}
        """The entry's data for each meter found, by serial number."""
        self._shown = 0
        """How many of them the user sees."""
        self._names: dict[str, str] = {}
        self._shared_addresses: list[int | str] = []
        """Addresses at which several meters answer at once."""

    # What to search

    async def async_step_search(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask which line settings to try, unless they are known."""
        in_force = await self._async_line_settings_in_force()
        if in_force is not None:
            kind = "gateway" if is_gateway(in_force.port) else self._meter_kind
            return await self._async_begin(in_force, [Part(link=in_force)], tried=kind)
        link = await self._async_link_in_force()
        form = search_form(self._protocol, link.port)
        error: FormError | None = None
        if user_input is not None:
            try:
                values = entered(form, user_input)
            except FormError as err:
                error = err
            else:
                link = replace(
                    link,
                    baud_rate=values[CONF_BAUD_RATE],
                    parity=values.get(CONF_PARITY, Parity.EVEN),
                )
                if values[CONF_ALL_LINE_SETTINGS]:
                    return await self._async_search_all_line_settings(link)
                return await self._async_begin(link, [Part(link=link)], tried=self._meter_kind)
        return self._show_form(
            self._step(f"search_{self._meter_kind}"),
            form,
            user_input or shown_line_settings(link),
            error=error,
            last_step=False,
        )

    async_step_search_modbus = async_step_search_mbus = async_step_search
    async_step_reach_search_modbus = async_step_reach_search_mbus = async_step_search

    async def async_step_search_all(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Go on with all line settings."""
        assert self._link is not None
        return await self._async_search_all_line_settings(self._link)

    async def async_step_search_on(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Go on with the line settings that are left, or with every address at all of them."""
        assert self._link is not None
        parts: Sequence[Part] = list(self._parts)
        tried = self._tried
        if not parts:
            parts = [
                Part(link=link) for link in with_all_line_settings(self._link, self._protocol)[1:]
            ]
            tried = "every_address"
        return await self._async_begin(self._link, parts, tried=tried)

    async def _async_search_all_line_settings(self, link: SerialLink) -> ConfigFlowResult:
        """Look quickly with all line settings, then try all addresses with those that are likely.

        One meter that answers tells the line settings of the whole bus.
        """
        parts = [
            Part(link=each, if_answered=True)
            for each in with_all_line_settings(link, self._protocol)
        ]
        return await self._async_begin(
            link, [*parts, Part(link=link)], tried=f"all_{self._meter_kind}"
        )

    async def _async_line_settings_in_force(self) -> SerialLink | None:
        """Return the chosen port with the only line settings that can be searched, if any.

        An entry that is reconfigured is set aside while its meter is searched.
        """
        held = await self._async_held_link()
        if held is not None and self.source == SOURCE_RECONFIGURE:
            entry = self._get_reconfigure_entry()
            if await async_is_same_port(self.hass, entry.data[CONF_PORT], held.port):
                others = await async_entries_on_port(self.hass, entry)
                if not any(other.state is ConfigEntryState.LOADED for other in others):
                    held = None
        if held is None and is_gateway(self._bus[CONF_PORT]):
            return await self._async_link_in_force()
        return held

    # Searching

    async def _async_begin(
        self, link: SerialLink, parts: Sequence[Part], *, tried: str
    ) -> ConfigFlowResult:
        self._link, self._tried = link, tried
        self._parts = deque(parts)
        self._failure = None
        self._shared_addresses.clear()
        self._trying_addresses = not parts[0].if_answered
        self._search = self.hass.async_create_task(self._async_search(), eager_start=False)
        return await self.async_step_searching()

    async def async_step_searching(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Show with what the bus is searched, and what has been found."""
        try:
            return self._show_search()
        except AbortFlow:
            return self.async_show_progress_done(next_step_id=ENTRY_DELETED)

    async_step_reach_searching = async_step_searching

    def _show_search(self) -> ConfigFlowResult:
        assert self._search is not None
        if self._search.done():
            self._search.result()
            return self.async_show_progress_done(next_step_id=self._after_search())
        link = self._parts[0].link if self._parts else self._link
        assert link is not None
        kind = "addresses" if self._trying_addresses else "line_settings"
        action = f"{'gateway' if is_gateway(link.port) else kind}_{self._meter_kind}"
        placeholders = {
            **self._placeholders(),
            CONF_BAUD_RATE: str(link.baud_rate),
            CONF_PARITY: async_parity_name(self.hass, link.parity),
        }
        self._shown = len(self._found)
        if self._found and self.source != SOURCE_RECONFIGURE:
            action += "_found"
            placeholders["found"] = listed(self._names[number] for number in self._found)
        return self.async_show_progress(
            step_id=self._step("searching"),
            progress_action=self._step(action),
            description_placeholders=placeholders,
            progress_task=self._search,
        )

    async def _async_search(self) -> None:
        """Search one part after the other until one has what is searched for."""
        async with self._own_entry_set_aside():
            try:
                while self._parts:
                    ended = await self._async_search_part(self._parts[0])
                    self._parts.popleft()
                    if ended:
                        return
            except LinkError as err:
                self._failure = err

    @asynccontextmanager
    async def _own_entry_set_aside(self) -> AsyncIterator[None]:
        """Unload the reconfigured entry if it keeps the search from using the port."""
        in_the_way = False
        if self.source == SOURCE_RECONFIGURE:
            entry = self._get_reconfigure_entry()
            for part in self._parts:
                in_the_way |= await self._async_holds_port_differently(
                    entry, self._protocol, part.link
                )
        if in_the_way:
            entry = self._get_reconfigure_entry()
            await self.hass.config_entries.async_unload(entry.entry_id)
        try:
            yield
        finally:
            if in_the_way:
                # In a task that goes on when the search is cancelled.
                with suppress(UnknownEntry):
                    self.hass.config_entries.async_schedule_reload(entry.entry_id)

    async def _async_search_part(self, part: Part) -> bool:
        """Search with one pair of line settings, and return whether that was enough."""
        self._trying_addresses = not part.if_answered
        self.async_notify_flow_changed()
        before = len(self._found)
        async with await async_find_bus(self.hass, self._protocol, part.link) as bus:
            if part.if_answered:
                if not await is_bus_answered(bus):
                    return False
                self._trying_addresses = True
                self.async_notify_flow_changed()
            async with aclosing(search(bus)) as steps:
                async for step in steps:
                    self.async_update_progress(step.share)
                    self._async_take(step, part.link)
                    if self._shown != len(self._found):
                        # The frontend misses what happens while it is still asking.
                        self.async_notify_flow_changed()
                    if self._own_meter_found:
                        return True
        return len(self._found) > before and self.source != SOURCE_RECONFIGURE

    @property
    def _own_meter_found(self) -> bool:
        """Whether the meter that is reconfigured has been found."""
        return (
            self.source == SOURCE_RECONFIGURE
            and self._get_reconfigure_entry().unique_id in self._found
        )

    @callback
    def _async_take(self, step: Step, link: SerialLink) -> None:
        """Keep what was found. A new meter is offered at once: the search may be stopped."""
        if step.several:
            self._shared_addresses.append(step.address)
        if step.found is None:
            return
        identity = step.found.identity
        number = identity.serial_number
        self._names[number] = meter_name(identity)
        self._found[number] = {
            **self._bus,
            CONF_ADDRESS: step.found.address,
            CONF_BAUD_RATE: int(link.baud_rate),
            CONF_PARITY: str(link.parity),
        }
        if number not in self._entries:
            self._async_offer({CONF_METER: number, CONF_NAME: self._names[number]}, number)

    @callback
    def _async_offer(self, names: Mapping[str, str], number: str) -> None:
        """Offer a meter as discovered, in place of an offer that an earlier search made."""
        data = {**names, **self._found[number]}
        flows = self.hass.config_entries.flow
        for flow in flows.async_progress_by_init_data_type(
            dict, lambda offered: offered.get(CONF_METER) == number and offered != data
        ):
            if flow["handler"] == DOMAIN:
                flows.async_abort(flow["flow_id"])
        async_create_flow(
            self.hass, DOMAIN, ConfigFlowContext(source=SOURCE_INTEGRATION_DISCOVERY), data
        )

    @property
    def _entries(self) -> dict[str | None, KlefrConfigEntry]:
        """The meters that have been added, by serial number."""
        return {
            entry.unique_id: entry for entry in self._async_current_entries(include_ignore=False)
        }

    # What was found

    def _after_search(self) -> str:
        """Return the step that says how a search ended."""
        if self.source == SOURCE_RECONFIGURE:
            if self._own_meter_found:
                kind = "gateway" if is_gateway(self._bus[CONF_PORT]) else self._meter_kind
                return f"reach_found_{kind}"
        elif self._found:
            return "found"
        if self._failure is not None:
            return "search_failed"
        if self._shared_addresses:
            return self._step("nothing_found_several")
        return self._step(f"nothing_found_{self._tried}")

    async def async_step_search_failed(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Say why the bus cannot be searched any further."""
        assert self._failure is not None
        return self._abort_with(self._failure, self._bus)

    async def async_step_nothing_found(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Say what was tried and what to check, and offer to search on or to enter an address."""
        assert self._link is not None
        options = ["search", self._step(self._meter_kind)]
        if not self._shared_addresses and not is_gateway(self._link.port):
            if self._tried == "all_modbus":
                options.insert(0, "search_on")
            elif (
                self._tried == self._meter_kind
                and await self._async_line_settings_in_force() is None
            ):
                options.insert(0, "search_all")
        ending = "several" if self._shared_addresses else self._tried
        placeholders = {
            **self._placeholders(),
            CONF_BAUD_RATE: str(self._link.baud_rate),
            CONF_PARITY: async_parity_name(self.hass, self._link.parity),
        }
        if self._shared_addresses:
            placeholders["several"] = listed(map(str, self._shared_addresses))
        return self.async_show_menu(
            step_id=self._step(f"nothing_found_{ending}"),
            menu_options=options,
            description_placeholders=placeholders,
        )

    async_step_nothing_found_modbus = async_step_nothing_found_mbus = async_step_nothing_found
    async_step_nothing_found_gateway = async_step_nothing_found
    async_step_nothing_found_all_modbus = async_step_nothing_found
    async_step_nothing_found_all_mbus = async_step_nothing_found
    async_step_nothing_found_every_address = async_step_nothing_found
    async_step_nothing_found_several = async_step_nothing_found
    async_step_reach_nothing_found_modbus = async_step_nothing_found
    async_step_reach_nothing_found_mbus = async_step_nothing_found
    async_step_reach_nothing_found_gateway = async_step_nothing_found
    async_step_reach_nothing_found_all_modbus = async_step_nothing_found
    async_step_reach_nothing_found_all_mbus = async_step_nothing_found
    async_step_reach_nothing_found_every_address = async_step_nothing_found
    async_step_reach_nothing_found_several = async_step_nothing_found

    async def async_step_found(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Add one of the meters found, or follow one that is not where its entry looks for it."""
        choices = await self._async_choices()
        known = [self._names[number] for number in self._found if number in self._entries]
        several = self._several_addresses()
        placeholders = {"known": listed(known)} if known else {}
        if several:
            placeholders["several"] = listed(several)
        if not choices:
            return self.async_abort(
                reason="all_added_several" if several else "all_added",
                description_placeholders=placeholders,
            )
        form = found_form(choices, search_on=bool(self._parts))
        error: FormError | None = None
        if user_input is not None:
            try:
                return await self._async_use(entered(form, user_input)[CONF_METER])
            except FormError as err:
                error = err
        elif self._failure is not None:
            error = self._translated(self._failure)
        elif several:
            error = FormError({"base": FieldError("several_answer")})
        if any(number in self._entries for number in choices):
            step = "found_moved"
        else:
            step = "found_known" if known else "found"
        return self._show_form(
            step,
            form,
            user_input or {},
            error=error,
            placeholders=placeholders,
        )

    async_step_found_known = async_step_found
    async_step_found_moved = async_step_found

    async def _async_choices(self) -> dict[str, str]:
        """Return the meters that can be added or followed: serial numbers, and how to show each."""
        choices: dict[str, str] = {}
        for number, data in self._found.items():
            address = str(data[CONF_ADDRESS])
            if (entry := self._entries.get(number)) is not None:
                if not await self._async_is_elsewhere(entry, data):
                    continue
                address = f"{entry.data[CONF_ADDRESS]} → {address}"
            # The line settings of a gateway are not known.
            kind = "address" if is_gateway(data[CONF_PORT]) else "address_baud_rate"
            place = async_text(self.hass, f"selector.communication.options.{kind}").format(
                address=address, baud_rate=data[CONF_BAUD_RATE]
            )
            choices[number] = f"{self._names[number]} ({place})"
        return choices

    async def _async_use(self, choice: str) -> ConfigFlowResult:
        """Add the meter that was chosen, or let its entry follow it, or search on."""
        if choice == SEARCH_ON:
            return await self.async_step_search_on()
        if (entry := self._entries.get(choice)) is not None:
            return self._follow_found(entry, self._found[choice])
        await self.async_set_unique_id(choice, raise_on_progress=False)
        return self.async_create_entry(title=self._names[choice], data=self._found[choice])

    async def async_step_reach_found(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Let the entry follow its meter to where it was found."""
        entry = self._get_reconfigure_entry()
        found = self._found[str(entry.unique_id)]
        if user_input is not None:
            return self._follow_found(entry, found)
        kind = "gateway" if is_gateway(self._bus[CONF_PORT]) else self._meter_kind
        return self._show_form(
            f"reach_found_{kind}",
            CONFIRM,
            {},
            placeholders={
                CONF_ADDRESS: str(found[CONF_ADDRESS]),
                CONF_BAUD_RATE: str(found[CONF_BAUD_RATE]),
                CONF_PARITY: async_parity_name(self.hass, found[CONF_PARITY]),
            },
        )

    async_step_reach_found_modbus = async_step_reach_found_mbus = async_step_reach_found
    async_step_reach_found_gateway = async_step_reach_found

    def _several_addresses(self) -> list[str]:
        """Return the addresses at which several meters answer, and cannot be told apart.

        M-Bus meters that share a primary address are found by their secondary addresses.
        """
        return [
            str(address)
            for address in self._shared_addresses
            if isinstance(address, str) or self._protocol is not Protocol.MBUS
        ]

    async def _async_is_elsewhere(self, entry: KlefrConfigEntry, found: Mapping[str, Any]) -> bool:
        """Return whether a meter was found elsewhere than where its entry looks for it."""
        keys = [CONF_PROTOCOL, CONF_ADDRESS]
        if not is_gateway(found[CONF_PORT]):
            keys += [CONF_BAUD_RATE, CONF_PARITY]
        if type(entry.data[CONF_ADDRESS]) is not type(found[CONF_ADDRESS]):
            # A meter on M-Bus has two addresses. The other one may be as good.
            keys.remove(CONF_ADDRESS)
            if not _is_read(entry):
                return True
        return any(entry.data[key] != found[key] for key in keys) or not await async_is_same_port(
            self.hass, entry.data[CONF_PORT], found[CONF_PORT]
        )

    def _follow_found(self, entry: KlefrConfigEntry, found: Mapping[str, Any]) -> ConfigFlowResult:
        data = {**entry.data, **found}
        if is_gateway(data[CONF_PORT]):
            # The search does not find out the line settings behind a gateway.
            data |= {key: entry.data[key] for key in (CONF_BAUD_RATE, CONF_PARITY)}
        return self._follow(entry, data)


def _is_read(entry: KlefrConfigEntry) -> bool:
    """Return whether the meter of an entry answers there."""
    return (
        entry.state is ConfigEntryState.LOADED and entry.runtime_data.readings.last_update_success
    )
