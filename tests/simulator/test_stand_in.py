"""The simulator instead of a meter, read with mbpoll as electric vehicle chargers read theirs."""

from asyncio.subprocess import PIPE, create_subprocess_exec
from pathlib import Path
import re
import shutil

import pytest

from simulator.meter import VirtualMeter
from simulator.modbus import serve
from simulator.registers import load_image, put_image

from .test_main import REAL_METER, simulator, start

HOST = "127.0.0.1"

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.usefixtures("socket_enabled"),
    pytest.mark.skipif(
        shutil.which("mbpoll") is None, reason="needs mbpoll, a package of Debian and Ubuntu"
    ),
]


async def poll(where: list[str], address: int, count: int) -> list[float]:
    """Read floats with one request for `count` registers."""
    process = await create_subprocess_exec(
        *("mbpoll", "-a", "1", "-t", "4:float", "-B", "-0", "-1", "-o", "3"),
        *("-r", str(address), "-c", str(count // 2), *where),
        stdout=PIPE,
        stderr=PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, (output + errors).decode()
    return [
        float(value) for value in re.findall(r"^\[\d+\]:\s+(\S+)$", output.decode(), re.MULTILINE)
    ]


def port_of(ready: str) -> str:
    found = re.search(r":(\d+): address", ready)
    assert found
    return found[1]


REQUESTS = {
    (0x500C, 6): "03 500C 0006",
    (0x5012, 8): "03 5012 0008",
    (0x600C, 2): "03 600C 0002",
}


@pytest.mark.parametrize("over", ["tcp", "rtu"])
@pytest.mark.parametrize(("address", "count"), REQUESTS)
async def test_what_chargers_ask_is_answered(
    tmp_path: Path, address: int, count: int, over: str
) -> None:
    meter = VirtualMeter(clock=lambda: 0.0)
    link = tmp_path / "meter"
    tcp = over == "tcp"
    where: dict[str, object] = {"tcp": (HOST, 0), "framing": "socket"} if tcp else {"link": link}
    async with serve(meter, pacing=False, **where) as line:  # type: ignore[arg-type]
        values = await poll(
            ["-m", "tcp", "-p", line.port.rpartition(":")[2], HOST]
            if tcp
            else ["-m", "rtu", "-b", "9600", "-P", "even", str(link)],
            address,
            count,
        )
        [request] = line.requests
    pdu = request[7:] if tcp else request[1:-2]
    assert pdu == bytes.fromhex(REQUESTS[address, count])
    sample = meter.sample
    expected = {
        0x500C: [phase.current for phase in sample.phases],
        0x5012: [sample.active_power, *(phase.active_power for phase in sample.phases)],
        0x600C: [meter.forward_active_energy],
    }
    assert values == pytest.approx(expected[address], rel=1e-4, abs=0.006)


async def test_fixed_values_are_those_of_the_file() -> None:
    arguments = f"--tcp {HOST}:0 --framing socket --registers {REAL_METER}"
    image = VirtualMeter()
    put_image(image, load_image(REAL_METER))
    async with simulator(*arguments.split()) as ready:
        where = ["-m", "tcp", "-p", port_of(ready), HOST]
        [energy] = await poll(where, 0x6018, 2)
    assert energy == pytest.approx(20257.91, rel=1e-4)


async def test_live_values_are_those_of_standard_input() -> None:
    process = await start(
        *f"--tcp {HOST}:0 --framing socket --registers {REAL_METER} --live".split()
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
    try:
        where = [
            *("-m", "tcp", "-p"),
            port_of((await process.stdout.readline()).decode()),
            HOST,
        ]
        process.stdin.write(b'{"L1 current": 7.5, "L2 current": 8.25, "0x5010": -9}\n\nnonsense\n')
        # Lines are taken in turn: the ones before were taken when this one is complained of.
        assert b"nonsense" in await process.stderr.readline()
        assert await poll(where, 0x500C, 6) == [7.5, 8.25, -9]
        process.stdin.write_eof()
        assert await poll(where, 0x500C, 6) == [7.5, 8.25, -9]
    finally:
        process.terminate()
        await process.wait()
    assert process.returncode == 0
