"""Home Assistant's process, and the folder that it runs in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
import json
import os
from pathlib import Path
import signal
import sys

from . import DemoError
from .clock import TIME_ZONE

ADDRESS = "127.0.0.1"
STOP_SECONDS = 30
# What Home Assistant exits with when it wants to be started again.
RESTART_EXIT_CODE = 100
OUTPUT = "output.log"

CHECKOUT = Path(__file__).parents[1]

CURRENCY = "EUR"

# Not default_config: half of that waits for a network that the demo does not need.
CONFIGURATION = f"""\
homeassistant:
  name: KLEFR demo
  language: {{language}}
  time_zone: {TIME_ZONE}
  country: NL
  currency: {CURRENCY}
  unit_system: metric

frontend:
history:
logbook:
energy:
"""


def prepare_folder(folder: Path, port: int, language: str) -> None:
    """Write what Home Assistant reads when it first starts."""
    storage = folder / ".storage"
    try:
        storage.mkdir(parents=True)
    except FileExistsError:
        raise DemoError(f"{folder} is in use already: name a folder that is new.") from None
    (folder / "configuration.yaml").write_text(CONFIGURATION.format(language=language))
    (folder / "custom_components").symlink_to(CHECKOUT / "custom_components")
    # A server set up in configuration.yaml is only on trial: after five minutes Home Assistant
    # would go back to its default, which listens to the whole network. The first version of
    # this file is the one without the trial's bookkeeping, and Home Assistant completes it.
    _write_storage(storage, "http", 1, {"server_host": [ADDRESS], "server_port": port})
    # The steps after the first would look for weather and radio stations on the internet.
    done = ["core_config", "analytics", "integration"]
    _write_storage(storage, "onboarding", 4, {"done": done})


def _write_storage(storage: Path, key: str, version: int, data: dict[str, object]) -> None:
    content = {"version": version, "minor_version": 1, "key": key, "data": data}
    (storage / key).write_text(json.dumps(content))


@asynccontextmanager
async def home_assistant(folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Home Assistant, started here and stopped on leaving."""
    with (folder / OUTPUT).open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "homeassistant", "--config", str(folder), "--skip-pip"),
            # Python looks for modules where it is started, and must not find the checkout's.
            cwd=folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            # Out of the terminal's reach: Ctrl-C is for the demo, which then stops this.
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            # With everything that it started: its session is its own.
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
