"""The blueprint that notes the readings at the turn of a month, as Home Assistant loads it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
import shutil
from typing import Any
from urllib.parse import quote

from freezegun.api import FrozenDateTimeFactory
from homeassistant.components.automation.helpers import async_get_blueprints
from homeassistant.components.blueprint.importer import fetch_blueprint_from_url
from homeassistant.components.persistent_notification import (
    Notification,
    UpdateType,
    async_register_callback,
)
from homeassistant.const import STATE_ON
from homeassistant.core import CoreState, HomeAssistant, State
from homeassistant.helpers import device_registry as dr
from homeassistant.setup import async_setup_component
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry, mock_restore_cache
from pytest_homeassistant_custom_component.test_util.aiohttp import AiohttpClientMocker

from custom_components.klefr.const import DOMAIN
from simulator import mbus, modbus
from simulator.line import Line
from simulator.meter import Tariff, VirtualMeter

from . import live
from .test_sharing import OTHER, entry_for

FILE = Path(__file__).parents[2] / "blueprints/automation/klefr/month_readings.yaml"
ROOT_URL = "github.com/klefr-home-assistant/klefr/blob/main"
URL = f"https://{ROOT_URL}/blueprints/automation/klefr/{FILE.name}"
RAW_URL = (
    f"https://raw.githubusercontent.com/klefr-home-assistant/klefr/main/"
    f"blueprints/automation/klefr/{FILE.name}"
)
BEFORE_MIDNIGHT = "2026-12-01 07:57:50"
"""In UTC. The tests' Home Assistant is on the American west coast."""
FORWARD, FORWARD_T1 = 0x600C, 0x600E
"""Registers of two energies that have to fit together."""


@pytest.fixture
def other_meter(protocol: str) -> VirtualMeter:
    model = "6933" if protocol == "mbus" else "6934"
    return VirtualMeter(model=model, serial_number=OTHER, address=2, seed=7, clock=lambda: 0.0)


@pytest.fixture
async def line(
    protocol: str, virtual_meter: VirtualMeter, other_meter: VirtualMeter
) -> AsyncIterator[Line]:
    serve = mbus.serve if protocol == "mbus" else modbus.serve
    async with serve(virtual_meter, other_meter, virtual="virtual://shared") as line:
        yield line


@pytest.fixture
async def devices(
    hass: HomeAssistant,
    freezer: FrozenDateTimeFactory,
    protocol: str,
    virtual_meter: VirtualMeter,
    other_meter: VirtualMeter,
    line: Line,
) -> AsyncIterator[list[str]]:
    """Two meters on one line, of which the second has a name of its owner's."""
    freezer.move_to(BEFORE_MIDNIGHT)
    for meter in (virtual_meter, other_meter):
        entry_for(meter, line.port, protocol=protocol).add_to_hass(hass)
    entries = hass.config_entries.async_entries(DOMAIN)
    await hass.config_entries.async_setup(entries[0].entry_id)
    await hass.async_block_till_done()
    registry = dr.async_get(hass)
    found = [dr.async_entries_for_config_entry(registry, each.entry_id)[0].id for each in entries]
    registry.async_update_device(found[1], name_by_user='Flat "2"')
    yield found
    await stop(hass)


async def stop(hass: HomeAssistant) -> None:
    """Stop what would outlive Home Assistant."""
    await hass.services.async_call(
        "automation", "turn_off", {"entity_id": "automation.readings"}, blocking=True
    )
    for entry in hass.config_entries.async_loaded_entries(DOMAIN):
        await hass.config_entries.async_unload(entry.entry_id)


@pytest.fixture
async def csv_file(hass: HomeAssistant, tmp_path: Path) -> Path:
    """A file that Home Assistant may write to, as notify.file."""
    hass.config.config_dir = str(tmp_path)
    file = tmp_path / "readings.csv"
    hass.config.allowlist_external_dirs = {str(tmp_path)}
    entry = MockConfigEntry(
        domain="file",
        version=2,
        data={"platform": "notify", "file_path": str(file)},
        options={"timestamp": False},
    )
    entry.add_to_hass(hass)
    assert await hass.config_entries.async_setup(entry.entry_id)
    folder = tmp_path / "blueprints/automation/klefr"
    folder.mkdir(parents=True)
    shutil.copy(FILE, folder)
    return file


@pytest.fixture
async def notified(hass: HomeAssistant) -> list[str]:
    """The messages of the notifications in Home Assistant."""
    assert await async_setup_component(hass, "persistent_notification", {})
    messages: list[str] = []

    def add(update: UpdateType, notifications: dict[str, Notification]) -> None:
        if update is UpdateType.ADDED:
            messages.extend(each["message"] for each in notifications.values())

    async_register_callback(hass, add)
    return messages


async def automate(
    hass: HomeAssistant, devices: list[str], path: str = f"klefr/{FILE.name}", **inputs: Any
) -> None:
    inputs = {"meters": devices, "files": ["notify.file"], **inputs}
    config = {
        "automation": [
            {
                "id": "readings",
                "alias": "Readings",
                "use_blueprint": {"path": path, "input": inputs},
            }
        ]
    }
    assert await async_setup_component(hass, "automation", config)
    await hass.async_block_till_done()
    found = hass.states.get("automation.readings")
    assert found is not None
    assert found.state == STATE_ON


async def run(hass: HomeAssistant) -> None:
    """Run the automation as its user does by hand."""
    await hass.services.async_call(
        "automation", "trigger", {"entity_id": "automation.readings"}, blocking=True
    )
    await hass.async_block_till_done()


def rows(file: Path, title: str = "Meter readings") -> list[str]:
    """Return the lines of a file without the two that Home Assistant begins it with."""
    if not file.exists():
        return []
    first, second, *lines = file.read_text(encoding="utf-8").splitlines()
    assert first.startswith(f"{title} notifications (Log started: ")
    assert set(second) == {"-"}
    return lines


def energies(meter: VirtualMeter) -> list[float]:
    """Return what a meter shows, in the order of the columns."""
    energy = meter.active_energy
    return [
        round(value, 2)
        for count in (energy.forward, energy.reverse)
        for value in (count.total, *count.tariffs.values())
    ]


@pytest.mark.parametrize("protocol", ["modbus", "mbus"])
async def test_readings_are_noted_when_a_month_begins(
    hass: HomeAssistant,
    freezer: FrozenDateTimeFactory,
    devices: list[str],
    csv_file: Path,
    notified: list[str],
    virtual_meter: VirtualMeter,
    other_meter: VirtualMeter,
) -> None:
    await automate(hass, devices)
    await live(hass, freezer, minutes=1)
    assert not notified
    assert not rows(csv_file)
    await live(hass, freezer, minutes=2)
    model = "6933/6943" if virtual_meter.model.speaks_mbus else "6934"
    names = (f"KLEFR {model} {virtual_meter.serial_number}", 'Flat ""2""')
    for row, meter, name in zip(rows(csv_file), (virtual_meter, other_meter), names, strict=True):
        time, quoted, serial_number, *numbers = row.split(",")
        assert time.startswith("2026-12-01 00:00:")
        assert quoted == f'"{name}"'
        assert serial_number == meter.serial_number
        assert [float(number) for number in numbers] == energies(meter)
    [message] = notified
    assert len(message.splitlines()) == 2
    forward, forward_t1, forward_t2, reverse, *_ = energies(other_meter)
    assert f'- Flat "2": imported {forward:.2f} kWh (T1 {forward_t1:.2f} kWh, ' in message
    assert f"T2 {forward_t2:.2f} kWh), exported {reverse:.2f} kWh (T1 " in message


async def test_other_days_are_left_alone(
    hass: HomeAssistant,
    freezer: FrozenDateTimeFactory,
    devices: list[str],
    csv_file: Path,
    notified: list[str],
) -> None:
    freezer.move_to("2026-12-02 07:57:50")
    await automate(hass, devices)
    await live(hass, freezer, minutes=4)
    assert not notified
    assert not rows(csv_file)


async def test_numbers_may_have_a_comma(
    hass: HomeAssistant,
    devices: list[str],
    csv_file: Path,
    notified: list[str],
    virtual_meter: VirtualMeter,
) -> None:
    await automate(hass, devices[:1], decimal_comma=True)
    await run(hass)
    [row] = rows(csv_file)
    assert row.split(";")[3:] == [
        f"{energy:.2f}".replace(".", ",") for energy in energies(virtual_meter)
    ]


async def test_without_a_file_there_is_a_notification(
    hass: HomeAssistant, devices: list[str], csv_file: Path, notified: list[str]
) -> None:
    await automate(hass, devices, files=[])
    await run(hass)
    assert len(notified) == 1
    assert not rows(csv_file)


async def test_a_phone_gets_the_same_notification(
    hass: HomeAssistant, devices: list[str], csv_file: Path, notified: list[str]
) -> None:
    await automate(hass, devices, files=[], notifiers=["notify.file"], title="Bills")
    await run(hass)
    assert "\n".join(rows(csv_file, "Bills")) == notified[0]


async def test_a_meter_without_tariffs_has_no_columns_for_them(
    hass: HomeAssistant,
    freezer: FrozenDateTimeFactory,
    csv_file: Path,
    notified: list[str],
) -> None:
    freezer.move_to(BEFORE_MIDNIGHT)
    meter = VirtualMeter(model="pro1-mbus", address=1, clock=lambda: 0.0)
    async with mbus.serve(meter, virtual="virtual://meter") as line:
        entry = entry_for(meter, line.port, protocol="mbus")
        entry.add_to_hass(hass)
        assert await hass.config_entries.async_setup(entry.entry_id)
        [device] = dr.async_entries_for_config_entry(dr.async_get(hass), entry.entry_id)
        await automate(hass, [device.id])
        await run(hass)
        await stop(hass)
    forward, _, _, reverse, _, _ = energies(meter)
    [row] = rows(csv_file)
    assert row.split(",")[3:] == [f"{forward:.2f}", "", "", f"{reverse:.2f}", "", ""]
    assert notified[0].endswith(f": imported {forward:.2f} kWh, exported {reverse:.2f} kWh")


async def test_a_meter_that_is_off_is_noted_when_it_is_back(
    hass: HomeAssistant,
    freezer: FrozenDateTimeFactory,
    devices: list[str],
    csv_file: Path,
    notified: list[str],
    virtual_meter: VirtualMeter,
    other_meter: VirtualMeter,
) -> None:
    virtual_meter.powered = False
    await automate(hass, devices)
    for _ in range(5):
        # Nothing here waits until the automation has ended.
        freezer.tick(60)
        await asyncio.sleep(60)
    [row] = rows(csv_file)
    assert other_meter.serial_number in row
    assert not notified
    virtual_meter.powered = True
    await live(hass, freezer, minutes=10)
    _, row = rows(csv_file)
    assert virtual_meter.serial_number in row
    assert len(notified[0].splitlines()) == 2


async def test_a_meter_that_stays_off_is_named(
    hass: HomeAssistant,
    freezer: FrozenDateTimeFactory,
    devices: list[str],
    csv_file: Path,
    notified: list[str],
    other_meter: VirtualMeter,
) -> None:
    other_meter.powered = False
    await automate(hass, devices)
    await live(hass, freezer, minutes=3)
    assert len(rows(csv_file)) == 1
    [message] = notified
    assert message.endswith('\n- Flat "2": could not be read. Read its display.')


async def test_tariffs_that_do_not_add_up_are_not_noted(
    hass: HomeAssistant,
    freezer: FrozenDateTimeFactory,
    devices: list[str],
    csv_file: Path,
    notified: list[str],
    virtual_meter: VirtualMeter,
) -> None:
    virtual_meter.overrides[FORWARD_T1] = virtual_meter.active_energy.forward.tariffs[Tariff.T1] + 1
    await automate(hass, devices)
    await live(hass, freezer, minutes=3)
    assert len(rows(csv_file)) == 1
    assert "could not be read" in notified[0]


@pytest.mark.parametrize("change", [-1.0, 100.0])
async def test_readings_that_jump_are_read_again(
    hass: HomeAssistant,
    freezer: FrozenDateTimeFactory,
    devices: list[str],
    csv_file: Path,
    line: Line,
    notified: list[str],
    virtual_meter: VirtualMeter,
    change: float,
) -> None:
    """The second of two readings is wrong, in the whole and in the tariff."""
    count = virtual_meter.active_energy.forward
    wrong = count.total + change, count.tariffs[Tariff.T1] + change
    await automate(hass, devices[:1])
    of_energies: list[bytes] = []

    def misread(request: bytes) -> None:
        if request[2] == 0x60:
            of_energies.append(request)
        overrides = zip((FORWARD, FORWARD_T1), wrong, strict=True) if len(of_energies) == 2 else ()
        virtual_meter.overrides = dict(overrides)

    line.before_hearing = misread
    await run(hass)
    await live(hass, freezer, minutes=2)
    [row] = rows(csv_file)
    assert float(row.split(",")[3]) == energies(virtual_meter)[0]


@pytest.fixture
def last_triggered(hass: HomeAssistant, request: pytest.FixtureRequest) -> None:
    """Let Home Assistant remember when the automation ran."""
    attributes = {"last_triggered": request.param}
    mock_restore_cache(hass, [State("automation.readings", STATE_ON, attributes)])


@pytest.mark.parametrize(
    ("last_triggered", "count"),
    [("2026-11-01T07:00:00+00:00", 1), ("2026-12-01T08:00:00+00:00", 0), (None, 0)],
    indirect=["last_triggered"],
)
@pytest.mark.usefixtures("last_triggered")
async def test_a_turn_that_was_missed_is_noted_at_the_start(
    hass: HomeAssistant,
    freezer: FrozenDateTimeFactory,
    devices: list[str],
    csv_file: Path,
    notified: list[str],
    count: int,
) -> None:
    freezer.move_to("2026-12-03 12:00:00")
    hass.set_state(CoreState.not_running)
    await automate(hass, devices[:1])
    await hass.async_start()
    await hass.async_block_till_done()
    assert len(rows(csv_file)) == count
    assert len(notified) == count


async def test_it_can_be_imported_by_its_address(
    hass: HomeAssistant,
    aioclient_mock: AiohttpClientMocker,
    devices: list[str],
    csv_file: Path,
    notified: list[str],
) -> None:
    aioclient_mock.get(RAW_URL, text=FILE.read_text(encoding="utf-8"))
    imported = await fetch_blueprint_from_url(hass, URL)
    assert imported.blueprint.metadata["source_url"] == URL
    assert imported.blueprint.validate() is None
    path = f"{imported.suggested_filename}.yaml"
    assert await async_setup_component(hass, "automation", {})
    await async_get_blueprints(hass).async_add_blueprint(imported.blueprint, path)
    assert (csv_file.parent / "blueprints/automation" / path).is_file()


def test_the_readme_links_to_it() -> None:
    readme = (FILE.parents[3] / "README.md").read_text(encoding="utf-8")
    assert URL in readme
    assert f"blueprint_url={quote(URL, safe='')}" in readme
