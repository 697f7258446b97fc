"""What a user does in Home Assistant, in the words of its pages."""

import re
from typing import Final

from playwright.async_api import Locator, Page, expect

NAME: Final = "KLEFR / Inepro PRO380"
INTEGRATION: Final = "/config/integrations/integration/klefr"


# Windows with menus and forms.


def window(page: Page) -> Locator:
    """The window that asks something and shows what came of it."""
    return page.locator("dialog-data-entry-flow")


async def choose(page: Page, option: str) -> None:
    """Choose from a menu."""
    await window(page).get_by_text(option, exact=True).click()


async def enter(page: Page, field: str, value: str) -> None:
    """Type a text or a number into a field."""
    await _field(page, field).fill(value)


async def expect_entered(page: Page, field: str, value: str) -> None:
    """See that a field still holds what was typed."""
    await expect(_field(page, field)).to_have_value(value)


def _field(page: Page, field: str) -> Locator:
    text = window(page).get_by_role("textbox", name=field)
    return text.or_(window(page).get_by_role("spinbutton", name=field))


async def enter_port(page: Page, port: str) -> None:
    """Type the name of a serial port that is not in the list."""
    await window(page).get_by_role("button", name="Serial port").click()
    await page.get_by_role("option", name="Enter manually").click()
    await enter(page, "Serial port", port)


async def select(page: Page, field: str, option: str) -> None:
    """Select from a list."""
    await window(page).get_by_role("button", name=field).click()
    await page.get_by_role("menuitem", name=option, exact=True).click()


async def pick(page: Page, option: str) -> None:
    """Pick one of several that are all shown."""
    await window(page).get_by_role("radio", name=option).click()


async def press(page: Page, button: str) -> None:
    """Press a button below a form or a text."""
    # The corner of the window comes first, and may have the same name.
    await window(page).get_by_role("button", name=button, exact=True).last.click()


async def leave(page: Page, button: str) -> None:
    """Press a button that closes the window."""
    await press(page, button)
    await expect(window(page).get_by_role("dialog")).to_be_hidden()


async def expect_text(page: Page, text: str) -> None:
    """Wait until the window says something."""
    await expect(window(page)).to_contain_text(text)


async def expect_error(page: Page, text: str) -> None:
    """Wait until the form says what is wrong."""
    await expect(window(page).locator("ha-alert")).to_contain_text(text)


async def expect_progress(page: Page) -> None:
    """See how far Home Assistant has come, in percent."""
    ring = window(page).get_by_role("progressbar", name="Progress")
    await expect(ring).to_have_attribute("aria-valuenow", re.compile(r"[1-9]\d?"))


async def close(page: Page) -> None:
    """Close the window by its corner."""
    await window(page).get_by_role("button").first.click()
    await expect(window(page).get_by_role("dialog")).to_be_hidden()


# The page of the integration.


async def begin_adding(page: Page) -> None:
    """Find the integration by its name."""
    await page.goto("/config/integrations/dashboard")
    await page.get_by_role("button", name="Add integration").click()
    await page.get_by_placeholder("Search for a brand name").fill("KLEFR")
    await page.locator("dialog-add-integration").get_by_text(NAME).click()
    # It asks about meters that were found but not added first.
    another = page.get_by_text("Set up another instance of")
    menu = window(page).get_by_text("How is the meter connected to Home Assistant?")
    await another.or_(menu).first.wait_for()
    if await another.is_visible():
        await another.click()


async def finish_adding(page: Page, name: str) -> None:
    """See how the meter that was added is called, and leave it at that."""
    await expect(window(page).get_by_role("textbox", name="Device name")).to_have_value(name)
    await leave(page, "Skip and finish")


async def choose_gateway(page: Page, host: str, port: str) -> None:
    """Say where the gateway is, and leave the protocol at Modbus TCP."""
    await choose(page, "Network gateway")
    await enter(page, "Host", host)
    await enter(page, "TCP port", port)
    await press(page, "Next")


def meter_row(page: Page, name: str) -> Locator:
    """What the page of the integration shows of a meter."""
    return page.locator("ha-config-entry-row").filter(has_text=name)


async def add_discovered(page: Page, name: str) -> None:
    """Accept the offer of a meter that a search has found."""
    offer = page.get_by_role("listitem").filter(has_text=name)
    await offer.get_by_role("button", name="Add", exact=True).click()


async def open_menu(page: Page, name: str, item: str) -> None:
    """Choose from the menu of a meter."""
    await page.goto(INTEGRATION)
    await meter_row(page, name).get_by_role("button", name="Menu").first.click()
    await page.get_by_role("menuitem", name=item).click()


async def open_options(page: Page, name: str) -> None:
    """Press the gear of a meter."""
    await page.goto(INTEGRATION)
    await meter_row(page, name).get_by_role("button", name="Configure").click()


async def open_device(page: Page, name: str) -> None:
    """Open the page of a meter."""
    await page.goto(INTEGRATION)
    await meter_row(page, name).get_by_role("button", name="entities").click()
    await expect(page.get_by_role("heading", name="Sensors")).to_be_visible()


# The page of a device.

ROWS: Final = ("sensor", "select", "button", "number")


def row(page: Page, name: str) -> Locator:
    """The row of one entity."""
    rows = ", ".join(f"hui-{kind}-entity-row" for kind in ROWS)
    card = page.locator("ha-device-entities-card")
    return card.locator(rows).filter(has=page.get_by_text(name, exact=True))


async def change(page: Page, name: str, option: str) -> None:
    """Select another value of an entity, and wait until it is shown."""
    await row(page, name).get_by_role("button", name=name).click()
    await page.get_by_role("menuitem", name=option, exact=True).click()
    await expect(row(page, name)).to_contain_text(option)


# Repairs.


async def open_repair(page: Page, title: str) -> None:
    """Open one of the repairs in the settings."""
    await page.goto("/config/repairs")
    await page.get_by_text(title).click()


# Actions in the developer tools.


async def choose_action(page: Page, action: str) -> None:
    """Find an action of the integration."""
    await page.goto("/config/tools/action")
    await page.get_by_role("button", name="Action", exact=True).click()
    await page.get_by_placeholder("Search").fill("klefr")
    await page.get_by_role("option", name=action).click()


async def target(page: Page, button: str, kind: str, name: str) -> None:
    """Add an area or a device to the target of an action, or exclude it from that."""
    await page.locator("ha-target-picker").get_by_role("button", name=button).click()
    await page.get_by_role("button", name=f"Filter: {kind}").click()
    await page.get_by_role("option", name=name, exact=True).click()


async def tick_field(page: Page, field: str) -> None:
    """Say that an action shall set one of its fields."""
    await _action_field(page, field).locator("ha-checkbox").click()


async def fill_field(page: Page, field: str, value: str) -> None:
    """Type what an action shall set."""
    await _action_field(page, field).get_by_role("spinbutton").fill(value)


def _action_field(page: Page, field: str) -> Locator:
    return page.locator("ha-settings-row").filter(has_text=field)


# The Energy dashboard.


async def select_statistic(page: Page, field: str, name: str, meter: str) -> None:
    """Select what one of a meter's sensors has counted."""
    await page.get_by_role("button", name=field).click()
    await page.get_by_placeholder("Search").fill(f"{meter} {name}")
    await page.get_by_role("option", name=name).first.click()


# The profile.


async def choose_language(page: Page, language: str) -> None:
    """Choose the language of Home Assistant for this user."""
    await page.goto("/profile/localization")
    await page.get_by_role("button", name="Language English").click()
    await page.get_by_placeholder("Search").fill(language)
    await page.get_by_role("option", name=language).click()
    await expect(page.get_by_text("Sprache").first).to_be_visible()
