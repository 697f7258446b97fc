"""How long a search takes, and what the texts say of it."""

import asyncio
from dataclasses import replace
import json
from pathlib import Path
import re
from typing import Any

import pytest

import custom_components.klefr as integration
from custom_components.klefr.meter import (
    BUSES,
    BaudRate,
    Bus,
    Protocol,
    SerialLink,
    is_bus_answered,
    search,
    with_all_line_settings,
)
from simulator import mbus, modbus
from simulator.meter import VirtualMeter

STRINGS: dict[str, Any] = json.loads(
    (Path(integration.__file__).parent / "translations" / "en.json").read_text()
)
CONFIG = STRINGS["config"]

SERIAL = "virtual://meter"
GATEWAY = "socket://gateway:502"
MINUTE = 60.0

pytestmark = pytest.mark.parametrize("adapter", ["USB", "network"])


@pytest.fixture(autouse=True)
def _adapter(monkeypatch: pytest.MonkeyPatch, adapter: str) -> None:
    """Let answers come as late as this kind of adapter lets them."""
    latency = SerialLink.latency
    port = {"USB": "/dev/ttyUSB0", "network": "socket://proxy:502"}[adapter]
    monkeypatch.setattr(
        SerialLink, "latency", lambda link, length: latency(replace(link, port=port), length)
    )


def minutes(text: str, before: str) -> tuple[float, float]:
    """The seconds that a text says behind certain words, from and to."""
    said = re.search(rf"{before}\D*?(\d+)(?: to (\d+))? minutes", text)
    assert said, text
    first, last = said.groups()
    return (int(first) if last else 0) * MINUTE, int(last or first) * MINUTE


async def seconds(bus: Bus, *, all_addresses: bool = True) -> float:
    """Measure a search that finds nothing."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    async with bus:
        if all_addresses:
            assert not [step async for step in search(bus) if step.found]
        else:
            assert not await is_bus_answered(bus)
    return loop.time() - start


def is_honest(measured: float, said: tuple[float, float]) -> bool:
    """Whether what was measured is what is said, to within half a minute."""
    return said[0] - MINUTE / 2 <= measured <= said[1]


def silent(protocol: Protocol, port: str = SERIAL) -> Any:
    """A line with a meter that does not answer."""
    if protocol is Protocol.MBUS:
        meter = VirtualMeter(model="6933", serial_number="22091039", clock=lambda: 0.0)
        return mbus.serve(meter, virtual=port)
    meter = VirtualMeter(serial_number="22091039", address=1, clock=lambda: 0.0)
    framing = "socket" if protocol is Protocol.MODBUS_TCP else "rtu"
    return modbus.serve(meter, virtual=port, framing=framing)


@pytest.mark.parametrize("protocol", [Protocol.MODBUS, Protocol.MBUS])
async def test_a_search_takes_as_long_as_it_says(protocol: Protocol) -> None:
    step = CONFIG["step"][f"search_{protocol}"]["description"]
    progress = CONFIG["progress"][f"addresses_{protocol}"]
    async with silent(protocol) as line:
        line.silent = True
        one = {
            rate: await seconds(BUSES[protocol](SerialLink(port=SERIAL, baud_rate=rate)))
            for rate in (BaudRate.B9600, BaudRate.B300)
        }
        quick = [
            await seconds(BUSES[protocol](link), all_addresses=False)
            for link in with_all_line_settings(SerialLink(port=SERIAL), protocol)
        ]
    for text in (step, progress):
        for measured in one.values():
            assert is_honest(measured, minutes(text, "This takes"))
    # If no meter answers, and if one does with the last and slowest line settings.
    for measured in (sum(quick) + one[BaudRate.B9600], sum(quick) + one[BaudRate.B300]):
        before = "With all line settings" if protocol is Protocol.MODBUS else "This takes"
        assert is_honest(measured, minutes(step, before))
    if protocol is Protocol.MODBUS:
        text = CONFIG["progress"]["line_settings_modbus"]
        assert is_honest(sum(quick), minutes(text, "With all line settings"))
    else:
        assert sum(quick) < MINUTE / 3
    # A meter with the factory's settings, or just another parity, is met within seconds.
    assert sum(quick[:2]) < MINUTE / 6


async def test_to_try_everything_takes_as_long_as_it_says() -> None:
    option = CONFIG["step"]["nothing_found_all_modbus"]["menu_option_descriptions"]["search_on"]
    async with silent(Protocol.MODBUS) as line:
        line.silent = True
        measured = [
            await seconds(BUSES[Protocol.MODBUS](link))
            for link in with_all_line_settings(SerialLink(port=SERIAL), Protocol.MODBUS)[1:]
        ]
    assert is_honest(sum(measured), minutes(option, "This takes"))


@pytest.mark.parametrize("protocol", Protocol)
async def test_a_search_behind_a_gateway_takes_as_long_as_it_says(
    protocol: Protocol, adapter: str
) -> None:
    kind = "mbus" if protocol is Protocol.MBUS else "modbus"
    said = minutes(CONFIG["progress"][f"gateway_{kind}"], "(?:may take|takes about)")
    async with silent(protocol, GATEWAY) as line:
        line.silent = True
        measured = await seconds(BUSES[protocol](SerialLink(port=GATEWAY)))
    assert measured <= said[1]
    if protocol is not Protocol.MODBUS and adapter == "network":
        assert measured > said[1] - MINUTE
