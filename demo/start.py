"""Wait until Home Assistant has started, and sign in."""

from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
import socket

from aiohttp import ClientError, ClientSession

from . import DemoError
from .client import Client, first_user
from .process import ADDRESS
from .waiting import settle

USUAL_PORT = 8123
START_SECONDS = 180


def free_port(wanted: int | None) -> int:
    """Return the port that is wanted, or the usual one if it is free, or any that is."""
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


@asynccontextmanager
async def first_session(process: Process, url: str, language: str) -> AsyncIterator[Client]:
    """Wait until Home Assistant answers, make its first user, and wait until it is running."""
    await settle(START_SECONDS, lambda: _not_answering(process, url))
    async with first_user(url, language) as client:
        await settle(START_SECONDS, lambda: _not_running(client))
        yield client


async def _not_answering(process: Process, url: str) -> str:
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
