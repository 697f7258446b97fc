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

from . import mbus_client
from .client import as_float, connect

pytestmark = pytest.mark.real_time

ROOT = Path(__file__).parents[2]
REAL_METER = ROOT / "tests" / "data" / "real_meter_registers.json"


async def start(*arguments: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "simulator",
        *arguments,
        cwd=ROOT,
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
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
            # Whether the house takes or gives depends on the time of day.
            before = [await client.read(address, 2, unit=5) for address in (0x600C, 0x6018)]
            after = before
            while sum(map(as_float, after)) <= sum(map(as_float, before)):
                after = [await client.read(address, 2, unit=5) for address in (0x600C, 0x6018)]
    assert not link.is_symlink()


async def test_image_is_served_with_what_was_asked_for(tmp_path: Path) -> None:
    link = str(tmp_path / "meter")
    async with (
        simulator("--registers", str(REAL_METER), "--address", "9", "--link", link),
        connect(link) as client,
    ):
        assert await client.read(0x4000, 4, unit=9) == [0x2209, 0x1039, 0x0102, 9]
        assert as_float(await client.read(0x6018, 2, unit=9)) == pytest.approx(20257.91)


async def test_m_bus_meter_is_served_under_both_addresses(tmp_path: Path) -> None:
    link = tmp_path / "meter"
    arguments = "--protocol mbus --address 5 --secondary-address 12345678 --baud 2400"
    async with simulator(*arguments.split(), "--link", str(link)) as ready:
        assert "KLEFR 6933 22091039" in ready
        assert "primary address 5, secondary address 12345678, 2400 baud" in ready
        async with mbus_client.connect(str(link), baud_rate=2400) as client:
            telegram = await client.ask("7B 05")
            assert telegram[7:11] == bytes.fromhex("78563412")
            assert await client.ask(mbus_client.selection("12345678"))


async def test_m_bus_meter_is_as_the_factory_made_it(tmp_path: Path) -> None:
    link = tmp_path / "meter"
    arguments = "--protocol mbus --model 6943 --serial-number 22091041 --no-pacing"
    async with simulator(*arguments.split(), "--link", str(link)) as ready:
        assert "KLEFR 6943 22091041" in ready
        assert "primary address 0, secondary address 22091041, 9600 baud, 8E1" in ready
        async with mbus_client.connect(str(link)) as client:
            assert await client.ask("40 00") == mbus_client.ACKNOWLEDGEMENT


async def test_a_single_phase_meter_is_served() -> None:
    async with simulator("--model", "pro1", "--tcp", "127.0.0.1:0") as ready:
        assert "Inepro PRO1 22091039" in ready


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--serial-number 1234", "8 digits"),
        ("--address 248", "1 to 247"),
        ("--address x", "invalid int"),
        ("--protocol mbus --address 251", "0 to 250"),
        ("--protocol mbus --model 6934", "does not speak mbus"),
        ("--model 6943", "does not speak modbus"),
        ("--protocol mbus --parity N", "--parity is not for mbus"),
        ("--protocol mbus --framing rtu", "--framing is not for mbus"),
        (f"--protocol mbus --registers {REAL_METER}", "--registers is not for mbus"),
        ("--protocol mbus --live", "--live is not for mbus"),
        ("--protocol mbus --model pro1", "does not speak mbus"),
        ("--model pro2 --ct-primary 250", "no current transformers"),
        ("--secondary-address 12345678", "--secondary-address is not for modbus"),
        ("--protocol mbus --secondary-address 123", "8 digits"),
        ("--baud 19200", "invalid choice"),
        ("--speed 0", "above 0"),
        ("--tcp 5020", "HOST:PORT"),
        ("--framing socket", "needs --tcp"),
        ("--ct-primary 250", "no current transformers"),
        ("--protocol mbus --ct-primary 250", "no current transformers"),
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
