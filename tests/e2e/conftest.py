"""One Home Assistant and one browser for all stories, each with meters and a tab of its own."""

from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
import re
from typing import Final

from playwright.async_api import Browser, BrowserContext, Page
import pytest
import pytest_asyncio

from .browser import chromium, sign_in
from .home import Home, home

SESSION: Final = "session"

# What Home Assistant says where nothing is wrong: `logger: text`.
EXPECTED: Final = (
    "homeassistant.bootstrap: Skipping pip installation",
    "homeassistant.loader: We found a custom integration klefr",
    "aiohttp_fast_zlib: zlib_ng and isal are not available",
    # The demo shows no cameras.
    "haffmpeg",
    "homeassistant.components.camera.img_util: Error loading libturbojpeg",
)
TROUBLE: Final = re.compile(
    r"^\S+ \S+ (?:WARNING|ERROR|CRITICAL) \(\S+\) \[(\S+)\] (.*)$", re.MULTILINE
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.asyncio(loop_scope=SESSION), append=False)


@pytest_asyncio.fixture(scope=SESSION, loop_scope=SESSION, name="home")
async def running_home(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Home]:
    async with home(tmp_path_factory.mktemp("home") / "config") as running:
        yield running


@pytest_asyncio.fixture(scope=SESSION, loop_scope=SESSION)
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


@pytest_asyncio.fixture(scope=SESSION, loop_scope=SESSION)
async def signed_in(home: Home, browser: Browser) -> BrowserContext:
    return await sign_in(browser, home.url)


class Log:
    """What Home Assistant logs during a story."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._start = path.stat().st_size
        self._expected = list(EXPECTED)

    def expect(self, start: str) -> None:
        """Take it that a line of the integration that starts like this is logged."""
        self._expected.append(f"custom_components.klefr: {start}")

    @property
    def unexpected(self) -> list[str]:
        """Warnings and errors that nothing in the story explains."""
        with self._path.open(encoding="utf-8") as file:
            file.seek(self._start)
            lines = [f"{logger}: {text}" for logger, text in TROUBLE.findall(file.read())]
        return [line for line in lines if not line.startswith(tuple(self._expected))]


@pytest.fixture(autouse=True)
def log(home: Home) -> Iterator[Log]:
    story = Log(home.log)
    yield story
    assert story.unexpected == []


FAILED: Final = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


@pytest_asyncio.fixture(loop_scope=SESSION)
async def page(
    signed_in: BrowserContext, request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Page]:
    tab = await signed_in.new_page()
    yield tab
    if FAILED in request.node.stash:
        picture = tmp_path / "page.png"
        await tab.screenshot(path=picture)
        print(f"What the page showed: {picture}")
    await tab.close()
