"""Each write of the manual's two tables, done from Home Assistant, byte by byte."""

from collections.abc import AsyncIterator
from typing import Any

from homeassistant.core import HomeAssistant
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.klefr.const import DOMAIN
from simulator import mbus, modbus
from simulator.line import Line
from simulator.meter import VirtualMeter

from . import SERIAL_NUMBER
from .test_actions import devices
from .test_communication import change, sent_writes

ADDRESS = 1
FRAME_COUNT_BIT = 0x20

type Writes = dict[str, tuple[Any, str, tuple[str, object]]]

# What is asked for (a change in the form, or an action with its fields), what the manual's
# appendix 3.2 has for it, and what the meter then is.
MODBUS_WRITES: Writes = {
    "Modbus ID": ({"address": 10}, "01 06 4003 000A", ("address", 10)),
    "Baud rate": ({"baud_rate": "9600"}, "01 06 4004 2580", ("baud_rate", 9600)),
    "S0 output rate": (
        ("change_settings", {"s0_rate": 10}),
        "01 10 400D 0002 04 41200000",
        ("s0_rate", 10.0),
    ),
    "Calculation code": (
        ("set_calculation_code_10", {"serial_number": SERIAL_NUMBER}),
        "01 06 400F 000A",
        ("calculation_code", 10),
    ),
    "LCD cycle time": (
        ("change_settings", {"lcd_cycle_time": 25}),
        "01 06 4010 0025",
        ("lcd_cycle_time", 25),
    ),
    "Parity setting": ({"parity": "none"}, "01 06 4011 0002", ("parity", "N")),
    "Power down counter": (
        ("reset_counter", {"counter": "power_down"}),
        "01 06 4016 0000",
        ("power_down_counter", 0),
    ),
    "Tariff": (("change_settings", {"tariff": "t2"}), "01 06 6048 0002", ("tariff", 2)),
    "Resettable day counter": (
        ("reset_counter", {"counter": "resettable"}),
        "01 10 6049 0002 04 00000000",
        ("day_counter", 0.0),
    ),
}

# The same of appendix 2.2.
MBUS_WRITES: Writes = {
    "Baudrate": ({"baud_rate": "2400"}, "68 03 03 68 53 01 BB", ("baud_rate", 2400)),
    "Primary address": ({"address": 5}, "68 06 06 68 53 01 51 01 7A 05", ("address", 5)),
    "Secondary address": (
        {"secondary_address": "45230115"},
        "68 09 09 68 53 01 51 0C 79 15 01 23 45",
        ("secondary_address", "45230115"),
    ),
    "Tariff mode": (
        ("change_settings", {"tariff": "t2"}),
        "68 08 08 68 53 01 51 09 7C 01 54 02",
        ("tariff", 2),
    ),
    "Combined code": (
        ("change_settings", {"calculation_code": "forward_plus_reverse"}),
        "68 07 07 68 53 01 51 09 FD 3A 05",
        ("calculation_code", 5),
    ),
    "S0 rate": (
        ("change_settings", {"s0_rate": 100}),
        "68 0A 0A 68 53 01 51 0C FD 3A 00 00 01 00",
        ("s0_rate", 100.0),
    ),
    "Resettable kWh": (
        ("reset_counter", {"counter": "resettable"}),
        "68 09 09 68 53 01 51 0C 04 00 00 00 00",
        ("day_counter", 0.0),
    ),
    "Reset power down counter": (
        ("reset_counter", {"counter": "power_down"}),
        "68 08 08 68 53 01 51 0A FD 60 00 00",
        ("power_down_counter", 0),
    ),
}

WRITES = {"modbus": MODBUS_WRITES, "mbus": MBUS_WRITES}


@pytest.fixture
def protocol(request: pytest.FixtureRequest) -> str:
    protocol: str = request.param
    return protocol


@pytest.fixture
def virtual_meter(protocol: str, baud_rate: int) -> VirtualMeter:
    """A meter whose clock stands still."""
    return VirtualMeter(
        serial_number=SERIAL_NUMBER,
        address=ADDRESS,
        model="6934" if protocol == "modbus" else "6933",
        baud_rate=baud_rate,
        clock=lambda: 0.0,
    )


@pytest.fixture
async def line(protocol: str, virtual_meter: VirtualMeter) -> AsyncIterator[Line]:
    serve = modbus.serve if protocol == "modbus" else mbus.serve
    async with serve(virtual_meter, virtual="virtual://meter") as line:
        yield line


@pytest.fixture
def entry_data(line: Line, protocol: str, baud_rate: int) -> dict[str, Any]:
    return {
        "port": line.port,
        "protocol": protocol,
        "address": ADDRESS,
        "baud_rate": baud_rate,
        "parity": "even",
    }


async def ask(hass: HomeAssistant, entry: MockConfigEntry, asked: Any) -> None:
    if isinstance(asked, dict):
        result = await change(hass, entry, **asked)
        assert result["reason"] == "changed"
    else:
        action, fields = asked
        await hass.services.async_call(
            DOMAIN, action, {**fields, **devices(hass, SERIAL_NUMBER)}, blocking=True
        )


def command_in(frame: bytes, protocol: str) -> bytes:
    """Leave out of a frame what the manual's tables leave out."""
    if protocol == "modbus":
        return frame[:-2]
    return bytes((*frame[:4], frame[4] & ~FRAME_COUNT_BIT, *frame[5:-2]))


@pytest.mark.parametrize(
    ("protocol", "baud_rate", "content"),
    [
        (protocol, 4800 if content == "Baud rate" else 9600, content)
        for protocol, writes in WRITES.items()
        for content in writes
    ],
    indirect=["protocol"],
)
async def test_each_write_of_the_manuals_tables(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    line: Line,
    virtual_meter: VirtualMeter,
    protocol: str,
    content: str,
) -> None:
    asked, command, (attribute, value) = WRITES[protocol][content]
    assert getattr(virtual_meter, attribute) != value
    await ask(hass, loaded, asked)
    sent = [command_in(frame, protocol) for frame in sent_writes(line, protocol)]
    assert sent == [bytes.fromhex(command)]
    assert getattr(virtual_meter, attribute) == value


def test_the_tables_are_complete() -> None:
    assert {protocol: len(writes) for protocol, writes in WRITES.items()} == {
        "modbus": 9,
        "mbus": 8,
    }
