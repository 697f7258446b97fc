"""A user whose browser is in German sees the integration in German."""

import json
from typing import Any, Final

from playwright.async_api import Browser, expect
import pytest

from demo.process import CHECKOUT

from . import user
from .browser import sign_in
from .home import Home

GERMAN: Final = CHECKOUT / "custom_components" / "klefr" / "translations" / "de.json"


def german(*keys: str) -> str:
    """Return one of the texts in German."""
    found: Any = json.loads(GERMAN.read_text(encoding="utf-8"))
    for key in keys:
        found = found[key]
    return str(found)


@pytest.mark.skipif(not GERMAN.exists(), reason="there is no German translation")
async def test_menus_errors_and_entities_are_in_german(home: Home, browser: Browser) -> None:
    device = await home.add(22)
    steps = ("config", "step")
    async with await sign_in(browser, home.url, language="de-DE") as context:
        page = await context.new_page()
        await page.goto(user.INTEGRATION)
        await page.get_by_role("button", name="Gerät hinzufügen").click()
        await user.choose(page, german(*steps, "user", "menu_options", "gateway"))
        await user.enter(page, german(*steps, "gateway", "data", "host"), "no host")
        await user.press(page, "Weiter")
        await user.expect_error(
            page, german("config", "error", "invalid_host").format(entered="no host")
        )
        await user.close(page)

        await user.meter_row(page, device.title).get_by_role("button", name="Entitäten").click()
        name = german("entity", "sensor", "forward_active_energy", "name")
        await expect(user.row(page, name)).to_contain_text("kWh")
