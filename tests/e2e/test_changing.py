"""A meter that was added is changed: its options, how it is reached, and its own address."""

from playwright.async_api import Page, expect

from . import user
from .conftest import Log
from .home import Home


async def test_how_often_it_is_read(home: Home, page: Page) -> None:
    device = await home.add(14)
    await user.open_options(page, device.title)
    await user.enter(page, "Update interval", "1")
    await user.press(page, "Submit")
    await user.expect_error(page, "Enter a whole number of seconds from 5 to 3600.")
    await user.expect_entered(page, "Update interval", "1")
    await user.enter(page, "Update interval", "5")
    await user.press(page, "Submit")
    await user.expect_text(page, "Options successfully saved.")
    await user.close(page)

    await user.open_options(page, device.title)
    await user.expect_entered(page, "Update interval", "5")


async def test_how_it_is_reached(home: Home, page: Page, log: Log) -> None:
    log.expect("Error fetching readings of the meter at address 15")
    meter = home.meters[15]
    device = await home.add(15)
    await home.add(16)
    # Its user changes the address with the buttons on the meter.
    meter.address = 115

    await user.open_menu(page, device.title, "Reconfigure")
    await user.choose(page, "Update how Home Assistant reaches the meter")
    await user.choose(page, "Network gateway")
    await user.enter(page, "TCP port", "0")
    await user.press(page, "Next")
    await user.expect_error(page, "from 1 to 65535")
    await user.enter(page, "TCP port", home.gateway)
    await user.press(page, "Next")
    await user.choose(page, "Enter the meter's address")
    await user.expect_entered(page, "Address", "15")
    await user.press(page, "Submit")
    await user.expect_error(page, "No meter answers at address 15")
    await user.enter(page, "Address", "115")
    await user.press(page, "Submit")
    await user.expect_text(page, f"Home Assistant now reads {device.title} with these settings.")
    await user.leave(page, "Close")

    await user.open_device(page, device.title)
    await expect(user.row(page, "Voltage L1")).to_contain_text(" V")


async def test_the_address_of_the_meter(home: Home, page: Page) -> None:
    meter = home.meters[17]
    device = await home.add(17)
    await user.open_menu(page, device.title, "Reconfigure")
    await user.choose(page, "Change the meter's communication settings")
    await user.expect_text(page, f"{device.title} on")
    await user.enter(page, "Address", "300")
    await user.press(page, "Next")
    await user.expect_error(page, "Enter a whole number from 1 to 247.")
    await user.expect_entered(page, "Address", "300")
    # A meter that was not added is at this address.
    await user.enter(page, "Address", "29")
    await user.press(page, "Next")
    await user.expect_text(page, "Closing this window does not stop the change.")
    await user.expect_error(page, "Another device on this bus already has the address 29.")
    await user.expect_entered(page, "Address", "29")
    await user.enter(page, "Address", "117")
    await user.press(page, "Next")
    await user.expect_text(page, f"{device.title} now answers at address 117")
    await user.leave(page, "Close")
    assert meter.address == 117

    await user.open_device(page, device.title)
    await expect(user.row(page, "Voltage L1")).to_contain_text(" V")
