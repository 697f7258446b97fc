"""The page of a meter shows it, and sets it."""

import asyncio
import json
from pathlib import Path
import re

from playwright.async_api import Page, expect

from demo.waiting import settle
from simulator.meter import Tariff

from . import user
from .home import Home

MOMENT = 30
"""Seconds after which a meter has what it was set to."""


async def test_settings_and_counters_are_changed(home: Home, page: Page) -> None:
    meter = home.meters[11]
    device = await home.add(11)
    await user.open_device(page, device.title)
    await expect(user.row(page, "Active power")).to_contain_text("kW")

    await user.change(page, "Tariff", "T2")

    async def tariff_differs() -> str:
        return "" if meter.tariff == Tariff.T2 else f"the meter's tariff is {meter.tariff}"

    await settle(MOMENT, tariff_differs)

    counter = user.row(page, "Resettable counter")
    await expect(counter).to_contain_text(re.compile(r"[1-9]\d*\.\d+\skWh"))
    before = meter.day_counter
    await user.row(page, "Reset resettable counter").get_by_role("button", name="Press").click()
    await expect(counter).to_contain_text(re.compile(r"\b0\.0\d\skWh"))
    assert meter.day_counter < 0.1 < before


async def test_diagnostics_are_downloaded(home: Home, page: Page) -> None:
    device = await home.add(12)
    await user.open_device(page, device.title)

    async with page.expect_download() as download:
        await page.get_by_role("button", name="Download diagnostics").click()
    file = Path(await (await download.value).path())
    text = await asyncio.to_thread(file.read_text, encoding="utf-8")
    assert json.loads(text)["data"]["readings"]


async def test_a_meter_is_removed(home: Home, page: Page) -> None:
    device = await home.add(13)
    await user.open_menu(page, device.title, "Delete")
    await page.locator("dialog-box").get_by_role("button", name="Delete").click()
    await expect(user.meter_row(page, device.title)).to_be_hidden()
    async with home.api() as client:
        entries = await client.command("config_entries/get", domain="klefr")
    assert device.entry_id not in [entry["entry_id"] for entry in entries]
