"""The steps that change how a meter itself communicates."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import asdict
from typing import Any

from homeassistant.config_entries import ConfigFlowResult
from homeassistant.const import CONF_ADDRESS, CONF_PORT, CONF_PROTOCOL
from homeassistant.core import callback
from homeassistant.data_entry_flow import AbortFlow

from .communication import async_change_communication, async_read_communication
from .const import CONF_BAUD_RATE, CONF_SECONDARY_ADDRESS
from .coordinator import KlefrConfigEntry
from .flow_base import METER_DELETED, KlefrFlow
from .flow_schemas import FormError, change_form, entered_communication
from .meter import (
    AddressTakenError,
    BaudRate,
    Communication,
    KlefrError,
    Parity,
    Protocol,
    SerialLink,
    is_gateway,
)
from .port_users import async_port_users
from .shared_buses import async_entries_on_port, link_from
from .wording import communication_names, listed, port_name


class CommunicationSteps(KlefrFlow):
    """Read how the meter communicates, ask what to change, and change it."""

    def __init__(self) -> None:
        super().__init__()
        self._current: Communication | None = None
        self._wanted: Communication | None = None
        self._others: list[str] = []
        """Who else uses the bus with the meter's current line settings."""
        self._error: KlefrError | None = None
        self._job: asyncio.Task[None] | None = None
        self._end_of_job: asyncio.Task[Any] | None = None

    async def async_step_communication(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask the meter how it communicates now, and look for it if it does not answer."""
        if (progress := self._async_show_until_done("communication", self._async_read)) is not None:
            return progress
        return self.async_show_progress_done(
            next_step_id="not_changed" if self._error else "change"
        )

    async def _async_read(self) -> None:
        try:
            self._current = await async_read_communication(self.hass, self._get_reconfigure_entry())
        except KlefrError as err:
            self._error = err

    async def async_step_change(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask how the meter shall communicate."""
        entry = self._get_reconfigure_entry()
        assert self._current is not None
        protocol = Protocol(entry.data[CONF_PROTOCOL])
        form = change_form(protocol, entry.data[CONF_PORT])
        error: FormError | None = None
        if isinstance(self._error, AddressTakenError):
            error, self._error = self._address_taken(self._error), None
        if user_input is not None:
            try:
                wanted = entered_communication(form, self._current, user_input)
                other_entries = await async_entries_on_port(self.hass, entry)
                self._check_addresses(self._current, wanted, other_entries)
            except FormError as err:
                error = err
            except AddressTakenError as err:
                error = self._address_taken(err)
            else:
                self._wanted = wanted
                if wanted == self._current:
                    return self.async_abort(
                        reason="nothing_to_change", description_placeholders=self._placeholders()
                    )
                line_settings = _line_settings(self._current)
                if _line_settings(self._wanted) != line_settings:
                    self._others = [
                        other.title
                        for other in other_entries
                        if not other.disabled_by
                        and _line_settings(link_from(other.data)) == line_settings
                    ]
                    self._others += async_port_users(self.hass, entry.data[CONF_PORT])
                    if self._others:
                        return await self.async_step_shared_bus()
                return await self.async_step_changing()
        shown = self._wanted or self._current
        return self._show_form(
            "change_mbus" if protocol is Protocol.MBUS else "change_modbus",
            form,
            user_input or {**asdict(shown), CONF_BAUD_RATE: str(shown.baud_rate)},
            error=error,
            last_step=False,
            placeholders={"port": port_name(entry.data[CONF_PORT])},
        )

    async_step_change_modbus = async_step_change_mbus = async_step_change

    def _address_taken(self, error: AddressTakenError) -> FormError:
        field = CONF_ADDRESS if isinstance(error.address, int) else CONF_SECONDARY_ADDRESS
        return self._translated(error, field, **self._get_reconfigure_entry().data)

    def _check_addresses(
        self,
        current: Communication,
        wanted: Communication,
        other_entries: Iterable[KlefrConfigEntry],
    ) -> None:
        """Raise AddressTakenError if a new address belongs to another entry."""
        secondary_address = wanted.secondary_address
        for other in other_entries:
            if other.data[CONF_ADDRESS] == wanted.address != current.address:
                raise AddressTakenError(wanted.address, other.title)
        for other in self._async_current_entries(include_ignore=False):
            if other.unique_id == secondary_address != current.secondary_address:
                raise AddressTakenError(str(secondary_address), other.title)

    async def async_step_shared_bus(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Say who else uses the bus and will lose contact."""
        return self.async_show_menu(
            step_id="shared_bus",
            menu_options=["changing", "change"],
            description_placeholders={**self._placeholders(), "others": listed(self._others)},
        )

    async def async_step_changing(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Change how the meter communicates."""
        if (progress := self._async_show_until_done("changing", self._async_change)) is not None:
            return progress
        if isinstance(self._error, AddressTakenError):
            return self.async_show_progress_done(next_step_id="change")
        return self.async_show_progress_done(
            next_step_id="not_changed" if self._error else "changed"
        )

    async def _async_change(self) -> None:
        assert self._current is not None
        assert self._wanted is not None
        try:
            await async_change_communication(
                self.hass, self._get_reconfigure_entry(), self._current, self._wanted
            )
        except KlefrError as err:
            self._error = err

    @callback
    def _async_show_until_done(
        self, step_id: str, job: Callable[[], Coroutine[Any, Any, None]]
    ) -> ConfigFlowResult | None:
        """Show the progress of a job, and return None once it is done.

        When the user closes the window, Home Assistant cancels the task that it shows. The job
        has to go on then, so what is shown is a task that only waits for it.
        """
        if self._job is None:
            self._job = self.hass.async_create_task(job(), eager_start=False)
            self._end_of_job = self.hass.async_create_task(asyncio.wait([self._job]))
        try:
            if not self._job.done():
                return self.async_show_progress(
                    step_id=step_id,
                    progress_action=step_id,
                    description_placeholders=self._placeholders(),
                    progress_task=self._end_of_job,
                )
            self._job.result()
        except AbortFlow:
            return self.async_show_progress_done(next_step_id=METER_DELETED)
        self._job = None
        return None

    async def async_step_changed(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Say how the meter communicates now."""
        assert self._current is not None
        assert self._wanted is not None
        port = self._get_reconfigure_entry().data[CONF_PORT]
        _, wanted = communication_names(
            self.hass, (self._current, self._wanted), gateway=is_gateway(port)
        )
        return self.async_abort(
            reason="changed",
            description_placeholders={**self._placeholders(), "wanted": wanted},
        )

    async def async_step_not_changed(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Say what went wrong, and where the meter answers if it does."""
        assert self._error is not None
        return self._abort_with(self._error, self._get_reconfigure_entry().data)


def _line_settings(settings: Communication | SerialLink) -> tuple[BaudRate, Parity]:
    return settings.baud_rate, settings.parity
