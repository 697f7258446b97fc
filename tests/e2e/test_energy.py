"""The Energy dashboard shows what a meter counts."""

import re

from playwright.async_api import Page, expect

from demo.dashboard import give_past
from demo.device import add
from demo.meters import DemoMeter

from . import user
from .home import ENERGY, Home


async def test_the_dashboard_shows_the_consumption(home: Home, page: Page) -> None:
    meter = DemoMeter(
        virtual=home.energy,
        choices=("serial", "modbus"),
        form={"protocol": "modbus", "address": ENERGY},
    )
    async with home.api() as client:
        device = await add(client, meter, home.modbus_port)
        await give_past(device, "forward", home.history, lambda moment: moment.forward)
        await give_past(device, "reverse", home.history, lambda moment: moment.reverse)

    await page.goto("/config/energy")
    await page.get_by_role("button", name="Add grid connection").click()
    await user.select_statistic(
        page, "Energy imported from grid", "Forward active energy", device.title
    )
    await user.select_statistic(
        page, "Energy exported to grid", "Reverse active energy", device.title
    )
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("button", name="Add grid connection")).to_be_visible()

    await page.goto("/energy")
    await page.get_by_role("button", name="Previous").click()
    sources = page.get_by_role("table", name="Energy sources")
    for name, sign in (("Forward", ""), ("Reverse", "-")):
        energy = sources.get_by_role("row", name=f"{device.title} {name} active energy")
        await expect(energy).to_contain_text(re.compile(rf"{sign}[1-9]\d*(\.\d+)?\skWh"))
