"""A user who has chosen German sees the integration in German."""

import json
from typing import Any, Final

from playwright.async_api import Page, expect

from demo.process import CHECKOUT

from . import user
from .home import LANGUAGE, Home

GERMAN: Final = CHECKOUT / "custom_components" / "klefr" / "translations" / "de.json"


def german(*keys: str) -> str:
    """Return one of the texts in German."""
    found: Any = json.loads(GERMAN.read_text(encoding="utf-8"))
    for key in keys:
        found = found[key]
    return str(found)


async def test_forms_errors_and_values_are_in_german(home: Home, page: Page) -> None:
    device = await home.add(22)
    await user.choose_language(page, "Deutsch")
    try:
        await page.goto(user.INTEGRATION)
        meter = user.meter_row(page, device.title)
        await meter.get_by_role("button", name="Konfigurieren").click()
        steps = ("options", "step", "init")
        await user.expect_text(page, german(*steps, "title"))
        await user.enter(page, german(*steps, "data", "update_interval"), "1")
        await user.press(page, "OK")
        await user.expect_error(page, german("options", "error", "invalid_interval"))
        await user.close(page)

        await meter.get_by_role("button", name="Entitäten").click()
        # Names of entities are in the language of the whole Home Assistant, not in the user's.
        await user.row(page, "Tariff").get_by_role("button").click()
        option = german("entity", "select", "tariff", "state", "t1_until_restart")
        await expect(page.get_by_role("menuitem", name=option)).to_be_visible()
    finally:
        async with home.api() as client:
            await client.command(
                "frontend/set_user_data", key="language", value={"language": LANGUAGE}
            )
