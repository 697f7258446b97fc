"""Take README's pictures: of adding a meter, of its page and of the Energy dashboard.

They show the demo, in the light theme that Home Assistant has at first.
"""

import asyncio
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
import re
from tempfile import TemporaryDirectory
from typing import Final

from playwright.async_api import expect

from demo.process import ADDRESS, CHECKOUT
from demo.start import free_port

from . import user
from .browser import chromium, sign_in

FOLDER: Final = CHECKOUT / "images"
STARTED: Final = "Ctrl-C stops the demo."


@asynccontextmanager
async def demo(folder: Path) -> AsyncIterator[str]:
    """Run the demo, and return the address of its Home Assistant."""
    port = free_port(None)
    process = await asyncio.create_subprocess_exec(
        *("scripts/demo", "--port", str(port), "--config", str(folder)), cwd=CHECKOUT, stdout=PIPE
    )
    try:
        assert process.stdout is not None
        async for line in process.stdout:
            if STARTED in line.decode():
                break
        yield f"http://{ADDRESS}:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def take(url: str) -> None:
    """Take all pictures."""
    async with chromium() as browser:
        context = await sign_in(browser, url)
        page = await context.new_page()

        await user.open_device(page, "KLEFR 6934 22091039")
        await expect(user.row(page, "Voltage L1")).to_contain_text(re.compile(r"\d"))
        await page.set_viewport_size({"width": 1100, "height": 1130})
        await page.screenshot(path=FOLDER / "device.png")

        await page.set_viewport_size({"width": 1100, "height": 900})
        await page.goto("/energy")
        await page.get_by_role("button", name="Previous").click()
        await expect(page.get_by_role("table", name="Energy sources")).to_contain_text("kWh")
        await page.set_viewport_size({"width": 1280, "height": 900})
        await page.screenshot(path=FOLDER / "energy.png")

        await user.begin_adding(page)
        await user.choose(page, "Network gateway")
        await user.enter(page, "Host", "192.168.1.20")
        await page.set_viewport_size({"width": 640, "height": 660})
        await page.screenshot(path=FOLDER / "add.png")


async def main() -> None:
    """Start the demo, take the pictures and stop it."""
    FOLDER.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="home-") as temporary:
        async with demo(Path(temporary) / "config") as url:
            await take(url)


if __name__ == "__main__":
    asyncio.run(main())
