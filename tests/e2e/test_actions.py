"""Actions are performed in the developer tools."""

from playwright.async_api import Page, expect

from . import user
from .home import Home


async def test_a_target_is_excluded(home: Home, page: Page) -> None:
    meters = [home.meters[address] for address in (20, 21)]
    changed, excluded = [await home.add(meter.address) for meter in meters]
    async with home.api() as client:
        area = await client.command("config/area_registry/create", name="Cellar")
        for device in (changed, excluded):
            entities = await client.command("config/entity_registry/list")
            device_id = next(
                entity["device_id"]
                for entity in entities
                if entity["config_entry_id"] == device.entry_id
            )
            await client.command(
                "config/device_registry/update", device_id=device_id, area_id=area["area_id"]
            )

    await user.choose_action(page, "Change settings")
    await user.target(page, "Add target", "Areas", "Cellar")
    await user.target(page, "Exclude target", "Devices", f"{excluded.title} Cellar {user.NAME}")
    await user.tick_field(page, "LCD cycle time")
    await user.fill_field(page, "LCD cycle time", "7")
    await page.get_by_role("button", name="Perform action").click()
    await expect(page.get_by_text(changed.title, exact=True)).to_be_visible()
    assert [meter.lcd_cycle_time for meter in meters] == [7, 10]
