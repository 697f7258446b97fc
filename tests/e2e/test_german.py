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


async def test_menus_errors_and_entities_are_in_german(home: Home, page: Page) -> None:
    device = await home.add(22)
    await user.choose_language(page, "Deutsch")
    try:
        await page.goto("/config/integrations/integration/klefr")
        await page.get_by_role("button", name="Gerät hinzufügen").click()
        steps = ("config", "step")
        await user.choose(page, german(*steps, "user", "menu_options", "gateway"))
        await user.enter(page, german(*steps, "gateway", "data", "host"), "no host")
        await user.press(page, "Weiter")
        error = german("config", "error", "invalid_host").format(entered="no host")
        await user.expect_error(page, error)
        await user.close(page)

        meter = user.meter_row(page, device.title)
        await meter.get_by_role("button", name="Entitäten").click()
        name = german("entity", "sensor", "forward_active_energy", "name")
        await expect(user.row(page, name)).to_contain_text("kWh")
    finally:
        async with home.api() as client:
            await client.command(
                "frontend/set_user_data", key="language", value={"language": LANGUAGE}
            )
