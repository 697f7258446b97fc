"""What had to be learned about a meter is remembered over restarts."""

from typing import Any

from homeassistant.core import HomeAssistant
from pytest_homeassistant_custom_component.common import MockConfigEntry

from simulator.line import Line
from simulator.meter import VirtualMeter

from . import SERIAL_NUMBER, wait

# No read may reach across this address, whatever its length.
CUT = 0x500C
FIRMWARE = 0x4007


def stored(hass_storage: dict[str, Any], entry: MockConfigEntry) -> Any:
    return hass_storage[f"klefr.{entry.entry_id}.memory"]["data"]


async def reload(hass: HomeAssistant, entry: MockConfigEntry, line: Line) -> int:
    """Load an entry again, and return how many requests that and a poll take."""
    await hass.config_entries.async_unload(entry.entry_id)
    line.requests.clear()
    assert await hass.config_entries.async_setup(entry.entry_id)
    await hass.async_block_till_done()
    await wait(hass)
    return len(line.requests)


async def test_where_reads_must_be_cut_is_remembered_over_a_reload(
    hass: HomeAssistant,
    entry: MockConfigEntry,
    virtual_meter: VirtualMeter,
    line: Line,
    hass_storage: dict[str, Any],
) -> None:
    virtual_meter.silent_across = {CUT}
    assert await hass.config_entries.async_setup(entry.entry_id)
    await hass.async_block_till_done()
    learning = len(line.requests)
    assert stored(hass_storage, entry) == {"firmware_version": "2.18", "cuts": [CUT]}
    in_vain = entry.runtime_data.meter.diagnostics["bus"]["no_answer"]
    knowing = await reload(hass, entry, line)
    assert knowing < learning
    assert entry.runtime_data.meter.diagnostics["bus"]["no_answer"] == in_vain


async def test_what_is_learned_later_is_stored_then(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    virtual_meter: VirtualMeter,
    hass_storage: dict[str, Any],
) -> None:
    assert stored(hass_storage, loaded)["cuts"] == []
    virtual_meter.silent_across = {CUT}
    await wait(hass)
    assert stored(hass_storage, loaded)["cuts"] == [CUT]


async def test_another_firmware_is_tried_without_cuts(
    hass: HomeAssistant,
    entry: MockConfigEntry,
    virtual_meter: VirtualMeter,
    line: Line,
    hass_storage: dict[str, Any],
) -> None:
    virtual_meter.silent_across = {CUT}
    assert await hass.config_entries.async_setup(entry.entry_id)
    virtual_meter.silent_across = set()
    assert stored(hass_storage, entry)["cuts"] == [CUT]
    cut = await reload(hass, entry, line)
    assert stored(hass_storage, entry)["cuts"] == [CUT]
    virtual_meter.overrides[FIRMWARE] = 2.19
    whole = await reload(hass, entry, line)
    assert stored(hass_storage, entry) == {"firmware_version": "2.19", "cuts": []}
    assert whole < cut


async def test_what_is_stored_is_used(
    hass: HomeAssistant,
    entry: MockConfigEntry,
    virtual_meter: VirtualMeter,
    hass_storage: dict[str, Any],
) -> None:
    key = f"klefr.{entry.entry_id}.memory"
    hass_storage[key] = {
        "version": 1,
        "minor_version": 1,
        "key": key,
        "data": {"firmware_version": "2.18", "cuts": [CUT]},
    }
    virtual_meter.silent_across = {CUT}
    assert await hass.config_entries.async_setup(entry.entry_id)
    assert entry.runtime_data.meter.diagnostics["bus"].get("no_answer", 0) == 0
    assert entry.unique_id == SERIAL_NUMBER


async def test_it_goes_with_the_entry(
    hass: HomeAssistant, loaded: MockConfigEntry, hass_storage: dict[str, Any]
) -> None:
    assert stored(hass_storage, loaded)
    await hass.config_entries.async_remove(loaded.entry_id)
    await hass.async_block_till_done()
    assert not [key for key in hass_storage if key.startswith("klefr.")]
