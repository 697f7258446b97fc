"""The steps that search a bus for meters."""

import asyncio
from dataclasses import replace
from itertools import product
from typing import Any

from homeassistant.config_entries import (
    SOURCE_INTEGRATION_DISCOVERY,
    ConfigFlowContext,
    ConfigFlowResult,
)
from homeassistant.const import CONF_ADDRESS, CONF_NAME, CONF_PORT
from homeassistant.helpers.discovery_flow import async_create_flow

from .const import CONF_BAUD_RATE, CONF_PARITY, DOMAIN
from .flow_base import KlefrFlow
from .flow_schemas import (
    CONF_ALL_LINE_SETTINGS,
    CONF_METER,
    found_schema,
    search_schema,
    shown_line_settings,
)
from .meter import BaudRate, LinkError, Parity, Protocol, SerialLink, is_gateway, search
from .shared_buses import async_find_bus
from .wording import listed, meter_name


class SearchSteps(KlefrFlow):
    """Search the chosen bus, and add one of the meters found."""

    def __init__(self) -> None:
        super().__init__()
        self._links: list[SerialLink] = []
        """The port with all line settings to search with."""
        self._searched = 0
        """How many of these links have been searched."""
        self._search: asyncio.Task[None] | None = None
        self._found: dict[str, dict[str, Any]] = {}
        """The entry's data for each meter found, by serial number."""
        self._names: dict[str, str] = {}
        self._shared_addresses: list[int | str] = []
        """Addresses at which several meters answer at once."""

    async def async_step_search(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask which line settings to try, unless they are known."""
        link = await self._async_link_in_force()
        if is_gateway(link.port) or await self._async_held_link() is not None:
            self._links = [link]
        elif user_input is None:
            schema = search_schema(self._protocol, link.port)
            return self._show_form("search", schema, shown_line_settings(link))
        else:
            link = replace(
                link,
                baud_rate=BaudRate(int(user_input[CONF_BAUD_RATE])),
                parity=Parity(user_input.get(CONF_PARITY, Parity.EVEN)),
            )
            self._links = [link]
            if user_input[CONF_ALL_LINE_SETTINGS]:
                self._links += _with_other_line_settings(link, self._protocol)
        self._searched = 0
        self._search = None
        self._found.clear()
        self._shared_addresses.clear()
        return await self.async_step_searching()

    async def async_step_searching(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Search with one pair of line settings after the other, and show which."""
        if self._search is not None and self._search.done():
            if isinstance(self._search.exception(), LinkError):
                return self.async_show_progress_done(next_step_id="search_failed")
            self._search.result()
            self._search = None
            self._searched += 1
        if self._searched == len(self._links):
            return self.async_show_progress_done(
                next_step_id="found" if self._found else "nothing_found"
            )
        link = self._links[self._searched]
        if self._search is None:
            self._search = self.hass.async_create_task(self._async_search(link), eager_start=False)
        step = self._address_step
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
        """Try all addresses of a link, and keep what was found. Raises LinkError."""
        async with await async_find_bus(self.hass, self._protocol, link) as bus:
            async for step in search(bus):
                self.async_update_progress((self._searched + step.share) / len(self._links))
                if step.several:
                    self._shared_addresses.append(step.address)
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
        return self._abort_with(error, self._bus)

    async def async_step_nothing_found(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Say what to check, and offer to search again or to enter an address."""
        return self.async_show_menu(
            step_id="nothing_found",
            menu_options=["search", self._address_step],
            description_placeholders={
                CONF_PORT: self._bus[CONF_PORT],
                "several": listed(map(str, self._shared_addresses)),
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
            # M-Bus meters that share a primary address are found by their secondary addresses.
            "several": listed(
                str(address)
                for address in self._shared_addresses
                if isinstance(address, str) or self._protocol is not Protocol.MBUS
            ),
        }
        if not new:
            return self.async_abort(reason="all_added", description_placeholders=placeholders)
        labels = {
            number: f"{self._names[number]} ({data[CONF_ADDRESS]}, {data[CONF_BAUD_RATE]} Bd)"
            for number, data in new.items()
        }
        return self.async_show_form(
            step_id="found",
            data_schema=found_schema(labels),
            description_placeholders=placeholders,
        )


def _with_other_line_settings(link: SerialLink, protocol: Protocol) -> list[SerialLink]:
    """Return a link with all other line settings of the protocol, the likelier ones first."""
    parities = [Parity.EVEN] if protocol is Protocol.MBUS else list(Parity)
    links = [
        replace(link, baud_rate=baud_rate, parity=parity)
        for parity, baud_rate in product(parities, reversed(BaudRate))
    ]
    return [each for each in links if each != link]
