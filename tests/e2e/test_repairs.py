"""What is wrong is shown as a repair, and can be mended there."""

from playwright.async_api import Page, expect

from . import user
from .conftest import Log
from .home import Home


async def test_the_wrong_meter_is_connected(home: Home, page: Page, log: Log) -> None:
    log.expect("Error fetching readings of the meter at address 18")
    meter = home.meters[18]
    device = await home.add(18)
    meter.serial_number = "22095518"

    await user.open_repair(page, "Another meter answers instead of 22091118")
    await user.expect_text(page, "The meter 22095518 answers at address 18")
    await user.choose(page, "I connected the wrong meter")
    await user.expect_text(page, "Connect the meter 22091118 at address 18")
    await user.leave(page, "Close")

    meter.serial_number = "22091118"
    await expect(page.get_by_text("Another meter answers instead of 22091118")).to_be_hidden()
    await user.open_device(page, device.title)
    await expect(user.row(page, "Voltage L1")).to_contain_text(" V")


async def test_a_meter_is_replaced(home: Home, page: Page, log: Log) -> None:
    log.expect("Error fetching readings of the meter at address 19")
    meter = home.meters[19]
    device = await home.add(19)
    meter.serial_number = "22095519"

    await user.open_repair(page, "Another meter answers instead of 22091119")
    await user.choose(page, "22095519 is the new meter in place of 22091119")
    await user.expect_text(page, "The issue is repaired!")
    await user.leave(page, "Finish")
    await expect(page.get_by_text("Another meter answers instead of 22091119")).to_be_hidden()

    name = device.title.replace("22091119", "22095519")
    await user.open_device(page, name)
    await expect(page.get_by_text("Serial number: 22095519")).to_be_visible()
    await expect(user.row(page, "Voltage L1")).to_contain_text(" V")
