"""Repairs that ask the user what to do."""

from typing import TYPE_CHECKING

from homeassistant.components.repairs import RepairsFlow
from homeassistant.config_entries import UnknownEntry
from homeassistant.core import HomeAssistant

from .coordinator import KlefrConfigEntry
from .meter import KlefrError
from .replacement import async_not_replaced, async_replace_meter
from .wrong_meter import ISSUE_ENTRY_ID, ISSUE_FOUND

if TYPE_CHECKING:
    # Home Assistant 2026.5 does not have it.
    from homeassistant.components.repairs import RepairsFlowResult


class WrongMeterFlow(RepairsFlow):
    """Ask whether the meter that answers is the new one in the place of another."""

    data: dict[str, str | int | float | None]

    async def async_step_init(self, user_input: dict[str, str] | None = None) -> RepairsFlowResult:
        """Ask what happened."""
        return self.async_show_menu(
            step_id="init",
            menu_options=["replaced", "connected_wrong"],
            description_placeholders=self._placeholders(),
        )

    async def async_step_replaced(
        self, user_input: dict[str, str] | None = None
    ) -> RepairsFlowResult:
        """Let the new meter take the place of the old one, if it still answers there."""
        entry: KlefrConfigEntry | None = self.hass.config_entries.async_get_entry(
            str(self.data[ISSUE_ENTRY_ID])
        )
        if entry is None:
            return self._abort("entry_deleted")
        try:
            await async_replace_meter(
                self.hass, entry, entry.data, found=str(self.data[ISSUE_FOUND])
            )
        except UnknownEntry:
            return self._abort("entry_deleted")
        except KlefrError as err:
            reason, placeholders = async_not_replaced(self.hass, entry.data, err)
            return self._abort(reason, **placeholders)
        return self.async_create_entry(data={})

    async def async_step_connected_wrong(
        self, user_input: dict[str, str] | None = None
    ) -> RepairsFlowResult:
        """Say what to do. The repair stays until the right meter answers."""
        return self._abort("connect_right_meter")

    def _abort(self, reason: str, **placeholders: str) -> RepairsFlowResult:
        return self.async_abort(
            reason=reason, description_placeholders={**self._placeholders(), **placeholders}
        )

    def _placeholders(self) -> dict[str, str]:
        return {key: str(value) for key, value in self.data.items()}


async def async_create_fix_flow(
    hass: HomeAssistant, issue_id: str, data: dict[str, str | int | float | None] | None
) -> RepairsFlow:
    """Return the flow of the only repair that asks something."""
    return WrongMeterFlow()
