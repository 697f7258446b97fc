"""The command line plays a meter until it is stopped."""

import asyncio
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
import signal
import sys

import pytest

from simulator.__main__ import main

from .client import as_float, connect

ROOT = Path(__file__).parents[2]
REAL_METER = ROOT / "tests" / "data" / "real_meter_registers.json"


async def start(*arguments: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "simulator", *arguments, cwd=ROOT, stdout=PIPE, stderr=PIPE
    )


@asynccontextmanager
async def simulator(*arguments: str) -> AsyncIterator[str]:
    """Run it and give the line it prints when it is ready."""
    process = await start(*arguments)
    assert process.stdout
    try:
        yield (await process.stdout.readline()).decode()
    finally:
        process.send_signal(signal.SIGTERM)
        await process.communicate()
    assert process.returncode == 0


async def test_meter_is_served_on_the_link(tmp_path: Path) -> None:
    link = tmp_path / "meter"
    arguments = "--protocol modbus --address 5 --serial-number 12345678 --baud 4800 --parity N"
    async with simulator(*arguments.split(), "--speed", "600", "--link", str(link)) as ready:
        assert "12345678" in ready
        assert str(link) in ready
        async with connect(str(link), baud_rate=4800) as client:
            assert await client.read(0x4000, 2, unit=5) == [0x1234, 0x5678]
            before = as_float(await client.read(0x600C, 2, unit=5))
            await asyncio.sleep(0.5)
            assert as_float(await client.read(0x600C, 2, unit=5)) > before
    assert not link.is_symlink()


async def test_image_is_served_with_what_was_asked_for(tmp_path: Path) -> None:
    link = str(tmp_path / "meter")
    async with (
        simulator("--registers", str(REAL_METER), "--address", "9", "--link", link),
        connect(link) as client,
    ):
        assert await client.read(0x4000, 4, unit=9) == [0x2209, 0x1039, 0x0102, 9]
        assert as_float(await client.read(0x6018, 2, unit=9)) == pytest.approx(20257.91)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--serial-number 1234", "8 digits"),
        ("--address 248", "1 to 247"),
        ("--address x", "1 to 247"),
        ("--baud 19200", "invalid choice"),
        ("--speed 0", "above 0"),
        ("--tcp 5020", "HOST:PORT"),
        ("--framing socket", "needs --tcp"),
        ("--ct-primary 250", "no current transformers"),
        ("--registers /nowhere.json", "No such file"),
        ("--link /tmp/meter --tcp 127.0.0.1:5020", "not allowed with"),
    ],
)
def test_wrong_argument_is_explained(
    capsys: pytest.CaptureFixture[str], arguments: str, complaint: str
) -> None:
    with pytest.raises(SystemExit):
        main(arguments.split())
    assert complaint in capsys.readouterr().err


async def test_link_that_cannot_be_made_is_explained() -> None:
    process = await start("--link", "/nowhere/meter")
    _, errors = await process.communicate()
    assert process.returncode
    assert "No such file" in errors.decode()
    assert "Traceback" not in errors.decode()
