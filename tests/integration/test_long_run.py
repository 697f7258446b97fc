"""Polls that take longer than their interval, and ten thousand polls."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
import gc
import logging
from pathlib import Path
import sys

from homeassistant.const import Platform
from homeassistant.core import HomeAssistant
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers.storage import Store
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.klefr.const import DOMAIN
from simulator import mbus, modbus
from simulator.line import Line
from simulator.meter import Tariff, VirtualMeter

from . import SERIAL_NUMBER, entity_id, state

BAUD_RATE = 300


@pytest.fixture(params=["modbus", "mbus"])
def protocol(request: pytest.FixtureRequest) -> str:
    protocol: str = request.param
    return protocol


@pytest.fixture
def baud_rate() -> int:
    return 9600


@pytest.fixture
async def meters(protocol: str, baud_rate: int) -> list[VirtualMeter]:
    """Two meters in houses that use energy."""
    return [
        VirtualMeter(
            model="6933" if protocol == "mbus" else "6934",
            serial_number=serial_number,
            address=address,
            baud_rate=baud_rate,
            clock=asyncio.get_running_loop().time,
        )
        for address, serial_number in ((1, SERIAL_NUMBER), (2, "22091040"))
    ]


@pytest.fixture
async def line(protocol: str, meters: list[VirtualMeter]) -> AsyncIterator[Line]:
    serve = mbus.serve if protocol == "mbus" else modbus.serve
    async with serve(*meters, virtual="virtual://meter") as line:
        yield line


@pytest.fixture
def entries(
    hass: HomeAssistant, protocol: str, baud_rate: int, meters: list[VirtualMeter], line: Line
) -> list[MockConfigEntry]:
    entries = [
        MockConfigEntry(
            domain=DOMAIN,
            unique_id=meter.serial_number,
            title=f"KLEFR {meter.serial_number}",
            data={
                "port": line.port,
                "protocol": protocol,
                "address": meter.address,
                "baud_rate": baud_rate,
                "parity": "even",
            },
            options={"update_interval": 5},
        )
        for meter in meters
    ]
    for entry in entries:
        entry.add_to_hass(hass)
    return entries


def address_of(frame: bytes) -> int:
    """Return the address that a request is for, on M-Bus that of a long or a short frame."""
    return frame[{0x68: 5, 0x10: 2}.get(frame[0], 0)]


@pytest.mark.parametrize("baud_rate", [BAUD_RATE])
async def test_polls_that_take_longer_than_the_interval(
    hass: HomeAssistant,
    entries: list[MockConfigEntry],
    meters: list[VirtualMeter],
    line: Line,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert await hass.config_entries.async_setup(entries[0].entry_id)
    await hass.async_block_till_done()
    loop = asyncio.get_running_loop()
    coordinators = [entry.runtime_data.readings for entry in entries]
    began = loop.time()
    await asyncio.gather(*(each.async_refresh() for each in coordinators))
    assert loop.time() - began > 5
    await asyncio.sleep(60)
    tasks = len(asyncio.all_tasks())
    caplog.clear()
    line.requests.clear()
    await asyncio.sleep(600)
    # They do not pile up, both meters get their turn, and the log has nothing to say.
    assert len(asyncio.all_tasks()) <= tasks + 1
    asked = Counter(map(address_of, line.requests))
    assert asked.keys() == {1, 2}
    assert asked[1] == pytest.approx(asked[2], rel=0.2)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [each.suspect_readings for each in coordinators] == [0, 0]
    # What a user wants to write does not wait behind polls for long.
    began = loop.time()
    await hass.services.async_call(
        "select",
        "select_option",
        {"entity_id": entity_id(hass, Platform.SELECT, "tariff"), "option": "t2"},
        blocking=True,
    )
    assert loop.time() - began < 60
    assert meters[0].tariff is Tariff.T2
    assert state(hass, Platform.SELECT, "tariff") == "t2"
    for entry in entries:
        assert await hass.config_entries.async_unload(entry.entry_id)


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What this process has at one moment."""

    objects: int
    blocks: int
    """How many pieces of memory Python has handed out."""
    pages: int
    """How much memory the process has, in pieces of 4096 bytes."""
    tasks: int
    files: int


def footprint() -> Footprint:
    # The test harness keeps what was written to the disk.
    vars(Store)["_async_write_data"].reset_mock()
    gc.collect()
    return Footprint(
        objects=len(gc.get_objects()),
        blocks=sys.getallocatedblocks(),
        pages=int(Path("/proc/self/statm").read_text().split()[1]),
        tasks=len(asyncio.all_tasks()),
        files=len(list(Path("/proc/self/fd").iterdir())),
    )


async def test_ten_thousand_polls_leave_nothing_behind(
    hass: HomeAssistant,
    entries: list[MockConfigEntry],
    line: Line,
    caplog: pytest.LogCaptureFixture,
) -> None:
    [entry, other] = entries
    await hass.config_entries.async_remove(other.entry_id)
    assert await hass.config_entries.async_setup(entry.entry_id)
    # Fewer entities make it quicker.
    entities = er.async_get(hass)
    for each in er.async_entries_for_config_entry(entities, entry.entry_id):
        if not each.unique_id.endswith("active_energy"):
            entities.async_update_entity(each.entity_id, disabled_by=er.RegistryEntryDisabler.USER)
    await hass.config_entries.async_reload(entry.entry_id)
    # What is logged for developers is not logged by default. The harness would keep it.
    caplog.set_level(logging.INFO)
    energy = entity_id(hass, Platform.SENSOR, "forward_active_energy")
    first = hass.states.get(energy)
    footprints: list[Footprint] = []
    for polls in (1000, 9000):
        caplog.clear()
        # The interval is 5 seconds. The settings are read every five minutes.
        await asyncio.sleep(polls * 5)
        assert not caplog.records
        line.requests.clear()
        footprints.append(footprint())
    before, after = footprints
    assert entry.runtime_data.meter.diagnostics["bus"]["requests"] > 10_000
    assert after.objects - before.objects < 50
    assert after.blocks - before.blocks < 1000
    assert after.pages - before.pages < 2000
    assert after.tasks <= before.tasks
    assert after.files <= before.files
    last = hass.states.get(energy)
    assert first is not None
    assert last is not None
    assert float(last.state) > float(first.state) + 1
