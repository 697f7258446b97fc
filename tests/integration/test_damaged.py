"""Entries and files that somebody has damaged."""

from collections.abc import Iterator
import json
from pathlib import Path
from typing import Any

from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import STATE_UNKNOWN, Platform
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.helpers.storage import Store
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.klefr.const import DOMAIN
from custom_components.klefr.diagnostics import async_get_config_entry_diagnostics
from simulator.meter import VirtualMeter

from . import SERIAL_NUMBER, state
from .test_communication import begin
from .test_config_flow import choose, choose_bus, configure, filled_in, start_reconfigure

MISSING = "missing"
"""Stands for a key that is not there."""

NONSENSE: list[Any] = [
    MISSING,
    None,
    "",
    "nonsense",
    -1,
    1.5,
    1e300,
    float("nan"),
    [],
    {},
    ["modbus"],
    "\0",
]


@pytest.fixture(params=["modbus", "mbus"])
def protocol(request: pytest.FixtureRequest) -> str:
    protocol: str = request.param
    return protocol


@pytest.fixture
def virtual_meter(protocol: str) -> VirtualMeter:
    """A meter as the factory sets it."""
    model = "6934" if protocol == "modbus" else "6933"
    return VirtualMeter(model=model, serial_number=SERIAL_NUMBER, clock=lambda: 0.0)


def damage(hass: HomeAssistant, entry: MockConfigEntry, key: str, value: Any) -> None:
    data = {each: stored for each, stored in entry.data.items() if each != key}
    if value is not MISSING:
        data[key] = value
    hass.config_entries.async_update_entry(entry, data=data)


@pytest.mark.parametrize("value", NONSENSE, ids=repr)
@pytest.mark.parametrize("key", ["address", "baud_rate", "parity"])
async def test_what_is_damaged_is_replaced_by_what_the_factory_sets(
    hass: HomeAssistant,
    entry: MockConfigEntry,
    key: str,
    value: Any,
    caplog: pytest.LogCaptureFixture,
    virtual_meter: VirtualMeter,
) -> None:
    damage(hass, entry, key, value)
    assert await hass.config_entries.async_setup(entry.entry_id)
    assert "Traceback" not in caplog.text
    assert f"were replaced: {key}" in caplog.text
    assert SERIAL_NUMBER not in [
        record.getMessage() for record in caplog.records if record.levelname == "WARNING"
    ]
    assert entry.data["baud_rate"] == 9600
    assert entry.data["parity"] == "even"
    assert entry.data["address"] in (virtual_meter.address, SERIAL_NUMBER)


@pytest.mark.parametrize("value", [MISSING, "nonsense", ["modbus"]], ids=repr)
async def test_the_likelier_protocol_replaces_one_that_is_damaged(
    hass: HomeAssistant, entry: MockConfigEntry, protocol: str, value: Any
) -> None:
    if protocol == "mbus":
        damage(hass, entry, "address", SERIAL_NUMBER)
    damage(hass, entry, "protocol", value)
    assert await hass.config_entries.async_setup(entry.entry_id)
    assert entry.data["protocol"] == protocol


@pytest.mark.parametrize(
    "value", [*NONSENSE[:3], 7, [], "socket://gateway", "socket://:x", "a\0b"], ids=repr
)
async def test_without_a_port_the_entry_says_that_it_is_damaged(
    hass: HomeAssistant, entry: MockConfigEntry, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    damage(hass, entry, "port", value)
    assert not await hass.config_entries.async_setup(entry.entry_id)
    assert entry.state is ConfigEntryState.SETUP_ERROR
    assert entry.error_reason_translation_key == "damaged_entry"
    for unexpected in ("KeyError", "ValueError", "TypeError", "AttributeError"):
        assert unexpected not in caplog.text


async def test_without_a_serial_number_the_entry_says_that_it_is_damaged(
    hass: HomeAssistant, entry_data: dict[str, Any]
) -> None:
    entry = MockConfigEntry(domain=DOMAIN, unique_id=None, data=entry_data)
    entry.add_to_hass(hass)
    assert not await hass.config_entries.async_setup(entry.entry_id)
    assert entry.error_reason_translation_key == "damaged_entry"


async def test_an_entry_that_lost_everything_is_reconfigured(
    hass: HomeAssistant, entry: MockConfigEntry, entry_data: dict[str, Any]
) -> None:
    hass.config_entries.async_update_entry(entry, data={})
    assert not await hass.config_entries.async_setup(entry.entry_id)
    diagnostics = await async_get_config_entry_diagnostics(hass, entry)
    assert diagnostics["reason"] == "damaged_entry"
    result = await start_reconfigure(hass, entry)
    result = await choose_bus(hass, result["flow_id"], entry_data)
    address: Any = entry_data["address"]
    if entry_data["protocol"] == "mbus":
        address = str(address)
    result = await configure(hass, result["flow_id"], {"address": address, "line_settings": {}})
    assert result["type"] is FlowResultType.ABORT
    assert result["reason"] == "reconfigure_successful"
    assert entry.data == entry_data
    assert entry.state is ConfigEntryState.LOADED


async def test_damaged_entries_do_not_disturb_others(
    hass: HomeAssistant, entry: MockConfigEntry
) -> None:
    damaged: list[dict[str, Any]] = [{}, {"port": 7}, {"port": "x", "baud_rate": "fast"}]
    for number, data in enumerate(damaged):
        MockConfigEntry(
            domain=DOMAIN, unique_id=f"3000000{number}", title="Damaged", data=data
        ).add_to_hass(hass)
    assert await hass.config_entries.async_setup(entry.entry_id)
    await hass.async_block_till_done()
    assert entry.state is ConfigEntryState.LOADED
    result = await begin(hass, entry)
    assert filled_in(result["data_schema"])["address"] == entry.data["address"]
    result = await start_reconfigure(hass, entry)
    assert result["type"] is FlowResultType.FORM
    result = await hass.config_entries.flow.async_init(DOMAIN, context={"source": "user"})
    result = await choose(hass, result, "gateway")
    assert result["type"] is FlowResultType.FORM


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *(("fast", 10), (None, 10), ([], 10), (True, 10)),
        *((float("nan"), 5), (-1, 5), (0, 5), (1, 5), (4.9, 5), (1e300, 3600)),
    ],
    ids=repr,
)
async def test_a_damaged_update_interval_is_replaced(
    hass: HomeAssistant, entry: MockConfigEntry, value: Any, seconds: int
) -> None:
    hass.config_entries.async_update_entry(entry, options={"update_interval": value})
    assert await hass.config_entries.async_setup(entry.entry_id)
    assert entry.options == {"update_interval": seconds}
    assert entry.runtime_data.readings.interval == seconds


# What a file of a meter may hold: no JSON, no file of Home Assistant's, and no meaning.
DATA: list[Any] = [
    None,
    [],
    "text",
    7,
    {"current": None, "wanted": 3, "firmware_version": [], "cuts": "all", "tariff": []},
    {"current": {}, "wanted": {}, "cuts": [None, {}, "0x4002"], "supplied": ["supply_l9", 7]},
    {
        each: {"address": "first", "secondary_address": 7, "baud_rate": 9601, "parity": "some"}
        for each in ("current", "wanted")
    },
]
FILES = [
    b"",
    b"{",
    b"\xff\xfe\x00",
    b"[]",
    b"null",
    b"7",
    b'"text"',
    b'{"version": 1}',
    b'{"version": "x", "data": {}}',
    b'{"version": 99, "minor_version": 1, "data": {}}',
    b'{"version": 0, "minor_version": 1, "data": {}}',
    *(
        json.dumps({"version": 1, "minor_version": 1, "key": "x", "data": data}).encode()
        for data in DATA
    ),
]


REAL = {name: vars(Store)[name] for name in ("_async_load", "_async_write_data", "async_remove")}
"""What Home Assistant's test harness replaces, to keep files in memory."""


@pytest.fixture
def storage(hass: HomeAssistant, tmp_path: Path) -> Iterator[Path]:
    """The real folder of Home Assistant's files."""
    hass.config.config_dir = str(tmp_path)
    folder = tmp_path / ".storage"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, real in REAL.items():
            monkeypatch.setattr(Store, name, real)
        yield folder


def files(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.name.startswith("klefr."))


@pytest.mark.parametrize("content", FILES, ids=lambda content: content.decode(errors="replace"))
@pytest.mark.parametrize("suffix", ["", ".change", ".energies", ".health", ".memory"])
async def test_a_damaged_file_is_set_aside(
    hass: HomeAssistant, entry: MockConfigEntry, suffix: str, content: bytes, storage: Path
) -> None:
    file = storage / f"klefr.{entry.entry_id}{suffix}"
    file.write_bytes(content)
    assert await hass.config_entries.async_setup(entry.entry_id)
    await hass.async_block_till_done()
    assert float(state(hass, Platform.SENSOR, "forward_active_energy") or "") > 0
    assert await async_get_config_entry_diagnostics(hass, entry)
    if suffix == "" and entry.data["protocol"] == "mbus":
        assert state(hass, Platform.SELECT, "tariff") == STATE_UNKNOWN
    # All of it goes with the entry, but for what was set aside.
    await hass.config_entries.async_remove(entry.entry_id)
    await hass.async_block_till_done()
    assert [each for each in files(storage) if ".corrupt." not in each.name] == []


async def test_what_was_set_aside_is_said_in_the_log(
    hass: HomeAssistant,
    entry: MockConfigEntry,
    storage: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = storage / f"klefr.{entry.entry_id}.change"
    file.write_bytes(b'{"version": 1, "data": {"current": 7}}')
    assert await hass.config_entries.async_setup(entry.entry_id)
    [aside] = [each for each in files(storage) if ".change.corrupt." in each.name]
    assert aside.read_bytes() == b'{"version": 1, "data": {"current": 7}}'
    assert f"{file} is damaged" in caplog.text
    assert "Traceback" not in caplog.text
