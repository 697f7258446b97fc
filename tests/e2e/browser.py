"""Headless Chromium, as Debian's package installs it, with a user who has signed in."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
import shutil
from typing import Final

from playwright.async_api import Browser, BrowserContext, async_playwright, expect

from demo.client import PASSWORD, USERNAME
from demo.clock import TIME_ZONE

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
# Without them Chromium looks for hosts on the internet at every start.
OPTIONS: Final = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)
PATIENCE: Final = 30_000
"""How long something on a page may take, in ms: a computer with other work to do is slow."""


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Start Chromium, and stop it on leaving."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    assert path is not None, "There is no Chromium: `scripts/test --browser` installs it."
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path, args=OPTIONS, chromium_sandbox=False
        )
        async with browser:
            yield browser


async def sign_in(browser: Browser, url: str, language: str = "en-GB") -> BrowserContext:
    """Return a window of a user who has signed in."""
    context = await browser.new_context(
        base_url=url,
        locale=language,
        timezone_id=TIME_ZONE,
        viewport={"width": 1100, "height": 900},
        reduced_motion="reduce",
    )
    context.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    page = await context.new_page()
    await page.goto("/")
    await page.locator("input[name=username]").fill(USERNAME)
    await page.locator("input[name=password]").fill(PASSWORD)
    await page.keyboard.press("Enter")
    await page.locator("ha-sidebar").wait_for()
    await page.close()
    return context
