"""Meters are added in the ways in which a user can."""

from playwright.async_api import Page, expect

from demo.process import ADDRESS

from . import user
from .home import BY_HAND, Home


async def test_by_address_on_a_serial_port(home: Home, page: Page) -> None:
    await user.begin_adding(page)
    await user.choose(page, "USB or serial adapter")

    await user.press(page, "Next")
    await user.expect_error(page, "Not all required fields are filled in.")
    await user.enter_port(page, "/dev/ttyUSB7")
    await user.press(page, "Next")
    await user.expect_error(page, "There is no serial port /dev/ttyUSB7.")
    await user.expect_text(page, "Modbus RTU")
    await user.enter_port(page, home.modbus_port)
    await user.press(page, "Next")

    await user.expect_text(page, f"{home.modbus_port} is working.")
    await user.choose(page, "Enter the meter's address")
    await user.enter(page, "Address", "248")
    await user.press(page, "Submit")
    await user.expect_error(page, "Enter a whole number from 1 to 247.")
    await user.expect_entered(page, "Address", "248")
    await user.enter(page, "Address", "5")
    await user.press(page, "Submit")
    await user.expect_error(page, f"No meter answers at address 5 on {home.modbus_port}.")
    # What may be the reason is opened.
    await user.expect_text(page, "The parity that the meter shows in program mode 1.")
    await user.expect_entered(page, "Address", "5")
    await user.enter(page, "Address", str(BY_HAND))
    await user.press(page, "Submit")

    await user.finish_adding(page, "KLEFR 6934 22091039")
    await user.open_device(page, "KLEFR 6934 22091039")
    await expect(user.row(page, "Voltage L1")).to_contain_text(" V")
    await expect(user.row(page, "Forward active energy")).to_contain_text("kWh")
    await expect(page.get_by_text("6934 / PRO380")).to_be_visible()


async def test_with_a_search_behind_a_gateway(home: Home, page: Page) -> None:
    await user.begin_adding(page)
    await user.choose_gateway(page, "no host", home.other_gateway)
    await user.expect_error(page, "host")
    await user.expect_entered(page, "Host", "no host")
    await user.enter(page, "Host", ADDRESS)
    await user.enter(page, "TCP port", "70000")
    await user.press(page, "Next")
    await user.expect_error(page, "from 1 to 65535")
    await user.expect_entered(page, "TCP port", "70000")
    await user.enter(page, "TCP port", home.other_gateway)
    await user.press(page, "Next")

    await user.choose(page, "Search the bus for meters")
    await user.expect_text(page, "Found so far: KLEFR 6944 22091203, KLEFR 6934 22091204.")
    await user.expect_progress(page)
    await user.expect_text(page, "Choose the meter to add now.")
    await user.pick(page, "KLEFR 6934 22091204 (address 20)")
    await user.press(page, "Submit")
    await user.finish_adding(page, "KLEFR 6934 22091204")

    # The other one is still offered.
    await page.goto(user.INTEGRATION)
    await expect(user.meter_row(page, "KLEFR 6934 22091204")).to_be_visible()
    await user.add_discovered(page, "KLEFR 6944 22091203")
    await user.press(page, "Submit")
    await user.finish_adding(page, "KLEFR 6944 22091203")


async def test_while_a_search_on_mbus_goes_on(home: Home, page: Page) -> None:
    await user.begin_adding(page)
    await user.choose(page, "USB or serial adapter")
    await user.enter_port(page, home.mbus_port)
    await user.select(page, "Protocol", "M-Bus")
    await user.press(page, "Next")
    await user.choose(page, "Search the bus for meters")
    await user.press(page, "Next")
    await user.expect_text(page, "KLEFR 6933/6943 22091056")
    await user.expect_progress(page)
    await user.close(page)

    await page.goto(user.INTEGRATION)
    await user.add_discovered(page, "KLEFR 6933/6943 22091056")
    await user.expect_text(page, f"A search found KLEFR 6933/6943 22091056 on {home.mbus_port}.")
    await user.press(page, "Submit")
    await user.finish_adding(page, "KLEFR 6933/6943 22091056")

    await user.begin_adding(page)
    await user.choose(page, "USB or serial adapter")
    await user.enter_port(page, home.mbus_port)
    await user.select(page, "Protocol", "M-Bus")
    await user.press(page, "Next")
    await user.choose(page, "Enter the meter's address")
    await user.enter(page, "Address", "1234")
    await user.press(page, "Submit")
    await user.expect_error(page, "from 0 to 250")
    await user.expect_entered(page, "Address", "1234")
    # It has been added.
    await user.enter(page, "Address", "2")
    await user.press(page, "Submit")
    await user.expect_text(page, "already")
