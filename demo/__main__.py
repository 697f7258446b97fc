"""Run the demo until it is stopped, or check that it works."""

import argparse
import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
import signal
import socket
import sys
from tempfile import TemporaryDirectory
from time import monotonic

from aiohttp import ClientError, ClientSession
from homeassistant.generated.languages import LANGUAGES

from . import DemoError
from .check import check, enable
from .client import PASSWORD, USERNAME, Client, first_user
from .clock import DAYS, Clock
from .dashboard import EXPORT_PRICE, IMPORT_PRICE, set_up_dashboard
from .device import add
from .history import live_through
from .meters import AT_GRID, AT_ROOF, demo_lines
from .process import ADDRESS, CURRENCY, OUTPUT, RESTART_EXIT_CODE, home_assistant, prepare_folder
from .waiting import settle

USUAL_PORT = 8123
START_SECONDS = 180
TAIL_LINES = 40


async def demo(folder: Path, port: int, language: str, *, checking: bool) -> None:
    """Start everything, then check it or leave it to the user."""
    started = monotonic()
    url = f"http://{ADDRESS}:{port}"
    prepare_folder(folder, port, language)
    async with AsyncExitStack() as stack:
        clock = Clock()
        lines = demo_lines(clock)
        for line in lines:
            virtuals = [meter.virtual for meter in line.meters]
            await stack.enter_async_context(line.serve(*virtuals, link=folder / line.name))
        virtual = {
            meter.virtual.serial_number: meter.virtual for line in lines for meter in line.meters
        }
        on_dashboard = [virtual[AT_GRID], virtual[AT_ROOF]]
        history = asyncio.create_task(asyncio.to_thread(live_through, on_dashboard, clock))
        print("Starting Home Assistant ...", flush=True)
        process = await stack.enter_async_context(home_assistant(folder))
        await settle(START_SECONDS, lambda: _not_answering(process, url))
        async with first_user(url, language) as client:
            await settle(START_SECONDS, lambda: _not_running(client))
            moments = await history
            device = {
                meter.virtual.serial_number: await add(client, meter, str(folder / line.name))
                for line in lines
                for meter in line.meters
            }
            at_grid, at_roof = device[AT_GRID], device[AT_ROOF]
            await set_up_dashboard(at_grid, at_roof, *moments)
            if checking:
                enabled = [await enable(each) for each in device.values()]
                # All at once: most of a check is waiting for the line.
                checks = map(check, device.values(), enabled, strict=True)
                print(*await asyncio.gather(*checks), sep="\n")
                print(f"Everything works, after {monotonic() - started:.0f} s.")
                return

        print(
            f"\n  {url}    user {USERNAME}, password {PASSWORD}\n\n"
            f"Meters: {', '.join(each.title for each in device.values())}.\n\n"
            f"The Energy dashboard at {url}/energy shows one house with its last {DAYS} days:\n"
            f"{at_grid.title} measures at the grid, {at_roof.title} at the solar panels.\n"
            f"A kWh costs {IMPORT_PRICE} {CURRENCY}, and {EXPORT_PRICE} {CURRENCY} is paid for one"
            " that is exported.\nYou may see energy exported at night: a small generator in the"
            f" cellar runs day and night.\n\nThe log is {folder / OUTPUT}. Ctrl-C stops the demo.",
            flush=True,
        )
        while await process.wait() == RESTART_EXIT_CODE:
            process = await stack.enter_async_context(home_assistant(folder))
        raise DemoError("Home Assistant has stopped.")


async def _not_answering(process: asyncio.subprocess.Process, url: str) -> str:
    if process.returncode is not None:
        raise DemoError(f"Home Assistant stopped while it was starting, with {process.returncode}.")
    try:
        async with ClientSession(url) as session, session.get("/api/onboarding") as response:
            if response.ok:
                return ""
            return f"Home Assistant answers with {response.status}"
    except ClientError as err:
        return f"Home Assistant does not answer: {err}"


async def _not_running(client: Client) -> str:
    config = await client.command("get_config")
    if config["recovery_mode"]:
        raise DemoError("Home Assistant could not start and went into recovery mode.")
    return "" if config["state"] == "RUNNING" else f"Home Assistant is {config['state']}"


def _free_port(wanted: int | None) -> int:
    for port in (wanted,) if wanted else (USUAL_PORT, 0):
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((ADDRESS, port))
            except OSError:
                continue
            free: int = listener.getsockname()[1]
            return free
    raise DemoError(
        f"Port {wanted} is in use. Choose another port, or leave it out to use a free one."
    )


async def _run(port: int | None, config: Path | None, language: str, *, checking: bool) -> int:
    task = asyncio.current_task()
    assert task is not None

    def stop() -> None:
        # Once: more impatience would interrupt the tidying up.
        if not task.cancelling():
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop)

    with TemporaryDirectory(prefix="home-assistant-") as temporary:
        folder = (config or Path(temporary)).resolve()
        try:
            await demo(folder, _free_port(port), language, checking=checking)
        except asyncio.CancelledError:
            print("Stopped.")
            return 1 if checking else 0
        except (DemoError, ClientError, TimeoutError) as err:
            output = folder / OUTPUT
            if output.exists():
                lines = output.read_text(errors="replace").splitlines()[-TAIL_LINES:]
                print("Home Assistant's last words:", *lines, sep="\n", file=sys.stderr)
            print(f"demo: {str(err) or type(err).__name__}", file=sys.stderr)
            return 1
    return 0


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--check", action="store_true", help="try everything, then stop")
    parser.add_argument("--port", type=int, help=f"of Home Assistant, {USUAL_PORT} if it is free")
    parser.add_argument(
        "--config", type=Path, metavar="DIR", help="a new folder for its configuration, which stays"
    )
    parser.add_argument(
        "--language",
        choices=sorted(LANGUAGES),
        default="en",
        metavar="CODE",
        help="of Home Assistant, such as de for German",
    )
    arguments = parser.parse_args()
    return asyncio.run(
        _run(arguments.port, arguments.config, arguments.language, checking=arguments.check)
    )


if __name__ == "__main__":
    sys.exit(main())
