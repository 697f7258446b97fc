"""The repair for a meter that answers where another one should."""

from collections.abc import Mapping
from typing import Any, Final

from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers import issue_registry as ir

from .const import DOMAIN
from .meter import WrongMeterError
from .wording import async_translation

ISSUE_WRONG_METER: Final = "wrong_meter"

ISSUE_ENTRY_ID: Final = "entry_id"
ISSUE_EXPECTED: Final = "expected"
ISSUE_FOUND: Final = "found"


@callback
def async_report_wrong_meter(
    hass: HomeAssistant, entry_id: str, entry_data: Mapping[str, Any], error: WrongMeterError
) -> None:
    """Say in Home Assistant's repairs that a different meter answers.

    Home Assistant goes on asking: the entry's own meter may come back.
    """
    placeholders = {
        **async_translation(hass, entry_data, error)["translation_placeholders"],
        ISSUE_EXPECTED: error.expected,
        ISSUE_FOUND: error.found,
    }
    ir.async_create_issue(
        hass,
        DOMAIN,
        _issue_id(entry_id),
        data={ISSUE_ENTRY_ID: entry_id, **placeholders},
        is_fixable=True,
        severity=ir.IssueSeverity.ERROR,
        translation_key=ISSUE_WRONG_METER,
        translation_placeholders=placeholders,
    )


@callback
def async_forget_wrong_meter(hass: HomeAssistant, entry_id: str) -> None:
    """Take the repair back: the right meter answers, or it is not looked for any more."""
    ir.async_delete_issue(hass, DOMAIN, _issue_id(entry_id))


def _issue_id(entry_id: str) -> str:
    return f"{ISSUE_WRONG_METER}_{entry_id}"
