"""The examples of README, run as they are on the meters that they name."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
import csv
from datetime import datetime
from typing import Any, Final

from homeassistant.components.persistent_notification import (
    SIGNAL_PERSISTENT_NOTIFICATIONS_UPDATED,
    Notification,
    UpdateType,
)
from homeassistant.const import STATE_ON
from homeassistant.core import Event, HomeAssistant
from homeassistant.helpers import area_registry as ar, device_registry as dr, label_registry as lr
from homeassistant.helpers.dispatcher import async_dispatcher_connect
from homeassistant.helpers.template import Template
from homeassistant.setup import async_setup_component
from homeassistant.util.yaml import parse_yaml
import pytest
from pytest_homeassistant_custom_component.common import (
    MockConfigEntry,
    async_capture_events,
    async_mock_service,
)

from custom_components.klefr.const import DOMAIN
from simulator.line import Line
from simulator.meter import VirtualMeter
from tests.readme import blocks

from . import SERIAL_NUMBER, wait
from .test_sharing import OTHER, entry_for

DEVICE_ID: Final = "3f1c5e0a9b7d4e2f8a6b1c0d9e8f7a6b"
"""Of the meter in README's examples."""
REPORT: Final = "example_report"
A_MINUTE: Final = 61
"""Seconds. The status of a meter is read once a minute."""

# What only one example says.
SURPLUS: Final = "switch.water_heater"
CURRENT: Final = "Too much current"
SUPPLY: Final = "A phase has no supply"
TARIFF: Final = "select.select_option"
DAILY: Final = "button.press"
CHANGE: Final = "action: klefr.change_settings"
REPORTED: Final = "# report, if the second meter"
READ: Final = "klefr.read_registers"
RESET: Final = "klefr.reset_counter"
CODE_10: Final = "klefr.set_calculation_code_10"
EXAMPLES: Final = (
    *(SURPLUS, CURRENT, SUPPLY, TARIFF, DAILY),
    *(CHANGE, REPORTED, READ, RESET, CODE_10),
)

S0_RATE_OF_OTHER: Final = bytes.fromhex("02 10 400D")
CURRENT_L2: Final = 0x500E
ACTIVE_POWER: Final = 0x5012

type Automate = Callable[[str], Awaitable[None]]


def test_every_yaml_example_is_run_here() -> None:
    found = [[each for each in EXAMPLES if each in block] for block in blocks("yaml")]
    assert sorted(each for [each] in found) == sorted(EXAMPLES)


def example(words: str) -> str:
    [found] = [block for block in blocks("yaml") if words in block]
    return found


@pytest.fixture
def meters(virtual_meter: VirtualMeter) -> Sequence[VirtualMeter]:
    other = VirtualMeter(serial_number=OTHER, address=2, clock=lambda: 0.0)
    return [virtual_meter, other]


@pytest.fixture
async def device_id(
    hass: HomeAssistant, meters: Sequence[VirtualMeter], line: Line, loaded: MockConfigEntry
) -> AsyncIterator[str]:
    """The device of the first meter. Both are in the area and have the label of the examples."""
    other = entry_for(meters[1], line.port)
    other.add_to_hass(hass)
    hass.config_entries.async_update_entry(other, title=f"KLEFR 6934 {OTHER}")
    assert await hass.config_entries.async_setup(other.entry_id)
    await hass.async_block_till_done()
    area = ar.async_get(hass).async_create("cellar").id
    label = lr.async_get(hass).async_create("flats").label_id
    registry = dr.async_get(hass)
    for entry in (loaded, other):
        [device] = dr.async_entries_for_config_entry(registry, entry.entry_id)
        registry.async_update_device(device.id, area_id=area, labels={label})
    [device] = dr.async_entries_for_config_entry(registry, loaded.entry_id)
    yield device.id
    await hass.config_entries.async_unload(other.entry_id)


@pytest.fixture
async def automate(hass: HomeAssistant, device_id: str) -> AsyncIterator[Automate]:
    """Make an automation of an example, which also fires its report as an event."""

    async def made(words: str) -> None:
        config = parse_yaml(example(words).replace(DEVICE_ID, device_id))
        assert isinstance(config, dict)
        report = [{"event": REPORT, "event_data": {"report": "{{ report | default({}) }}"}}]
        automation = {
            "id": "example",
            "alias": "Example",
            "triggers": [],
            **config,
            "actions": config["actions"] + report,
        }
        assert await async_setup_component(hass, "automation", {"automation": [automation]})
        found = hass.states.get("automation.example")
        # Home Assistant makes an automation that it cannot use unavailable.
        assert found is not None
        assert found.state == STATE_ON

    yield made
    # Its clock would outlive Home Assistant.
    await hass.services.async_call(
        "automation", "turn_off", {"entity_id": "automation.example"}, blocking=True
    )


@pytest.fixture
async def notified(hass: HomeAssistant) -> list[Notification]:
    assert await async_setup_component(hass, "persistent_notification", {})
    found: list[Notification] = []

    def add(update: UpdateType, notifications: dict[str, Notification]) -> None:
        if update is UpdateType.ADDED:
            found.extend(notifications.values())

    async_dispatcher_connect(hass, SIGNAL_PERSISTENT_NOTIFICATIONS_UPDATED, add)
    return found


async def run(hass: HomeAssistant) -> dict[str, Any]:
    """Run the automation and return what its action reported for each meter."""
    reports: list[Event[Any]] = async_capture_events(hass, REPORT)
    await hass.services.async_call(
        "automation", "trigger", {"entity_id": "automation.example"}, blocking=True
    )
    await hass.async_block_till_done()
    [event] = reports
    meters: dict[str, Any] = event.data["report"].get("meters", {})
    return meters


async def test_a_water_heater_uses_what_would_be_exported(
    hass: HomeAssistant, automate: Automate, virtual_meter: VirtualMeter
) -> None:
    calls = async_mock_service(hass, "switch", "turn_on")
    virtual_meter.overrides[ACTIVE_POWER] = -1.9
    await automate(SURPLUS)
    await wait(hass, seconds=320)
    assert not calls
    virtual_meter.overrides[ACTIVE_POWER] = -2.1
    await wait(hass, seconds=290)
    assert not calls
    await wait(hass, seconds=30)
    [call] = calls
    assert call.data["entity_id"] == ["switch.water_heater"]


async def test_too_much_current_is_noticed(
    hass: HomeAssistant,
    automate: Automate,
    notified: list[Notification],
    virtual_meter: VirtualMeter,
) -> None:
    await automate(CURRENT)
    await wait(hass, seconds=90)
    assert not notified
    virtual_meter.overrides[CURRENT_L2] = 33.5
    await wait(hass, seconds=90)
    [notification] = notified
    assert notification["message"] == f"KLEFR 6934 {SERIAL_NUMBER} Current L2: 33.5 A"


async def test_a_phase_without_supply_is_noticed(
    hass: HomeAssistant,
    automate: Automate,
    notified: list[Notification],
    virtual_meter: VirtualMeter,
) -> None:
    await automate(SUPPLY)
    virtual_meter.supplied = (True, True, False)
    await wait(hass, seconds=2 * A_MINUTE)
    [notification] = notified
    assert notification["message"] == (
        f"KLEFR 6934 {SERIAL_NUMBER} Supply L3 is off. Check its fuse."
    )


async def test_the_tariff_is_switched(
    hass: HomeAssistant, automate: Automate, virtual_meter: VirtualMeter
) -> None:
    assert virtual_meter.tariff == 1
    await automate(TARIFF)
    await run(hass)
    assert virtual_meter.tariff == 2


@pytest.mark.parametrize("words", [DAILY, RESET])
async def test_a_counter_starts_again(
    hass: HomeAssistant, automate: Automate, virtual_meter: VirtualMeter, words: str
) -> None:
    assert virtual_meter.day_counter > 0
    await automate(words)
    report = await run(hass)
    assert virtual_meter.day_counter == 0
    if words == RESET:
        assert {serial_number: each["reset"] for serial_number, each in report.items()} == {
            SERIAL_NUMBER: True,
            OTHER: True,
        }


async def test_settings_of_an_area_are_changed(
    hass: HomeAssistant, automate: Automate, meters: Sequence[VirtualMeter]
) -> None:
    await automate(CHANGE)
    report = await run(hass)
    assert report.keys() == {SERIAL_NUMBER, OTHER}
    assert [(meter.tariff, meter.s0_rate) for meter in meters] == [(2, pytest.approx(0.1))] * 2


async def test_a_report_is_as_it_is_shown(
    hass: HomeAssistant, automate: Automate, line: Line, meters: Sequence[VirtualMeter]
) -> None:
    """The second meter accepts everything but the S0 pulses per kWh."""

    def ignore(request: bytes) -> None:
        meters[1].ignore_writes = request.startswith(S0_RATE_OF_OTHER)

    line.before_hearing = ignore
    await automate(CHANGE)
    report = await run(hass)
    shown = parse_yaml(example(REPORTED))
    assert isinstance(shown, dict)
    message = report[OTHER]["not_changed"]["s0_rate"].pop("message")
    begin = shown["meters"][OTHER]["not_changed"]["s0_rate"].pop("message").removesuffix("…")
    assert message.startswith(begin)
    assert report == shown["meters"]


async def test_registers_are_read(
    hass: HomeAssistant, automate: Automate, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.overrides[0x5002] = 230.4
    await automate(READ)
    report = await run(hass)
    registers = report[SERIAL_NUMBER]["registers"]["0x5002"]
    assert len(registers) == 6
    shown = example(READ)
    assert f'{{"0x5002": ["{registers[0]}", …]}}' in shown
    assert f"voltage_l1: {report[SERIAL_NUMBER]['values']['voltage_l1']}," in shown


async def test_calculation_code_10_is_set(
    hass: HomeAssistant, automate: Automate, meters: Sequence[VirtualMeter]
) -> None:
    before = meters[1].calculation_code
    await automate(CODE_10)
    report = await run(hass)
    assert report[SERIAL_NUMBER]["set"] is True
    assert [meter.calculation_code for meter in meters] == [10, before]


@pytest.mark.parametrize(
    ("price", "is_cheap"), [("0.08", True), ("0.12", False), ("unavailable", None)]
)
async def test_a_template_says_whether_the_price_is_low(
    hass: HomeAssistant, price: str, is_cheap: bool | None
) -> None:
    [template] = blocks("jinja")
    hass.states.async_set("sensor.electricity_price", price)
    assert Template(template, hass).async_render() is is_cheap


def test_a_line_of_the_csv_file_adds_up() -> None:
    [block] = blocks("csv")
    [row] = csv.reader(block.splitlines())
    assert datetime.fromisoformat(row[0]).day == 1
    numbers = [float(cell) for cell in row[3:]]
    assert len(numbers) == 6
    for whole, t1, t2 in (numbers[:3], numbers[3:]):
        assert t1 + t2 == pytest.approx(whole)


def test_every_action_has_an_example() -> None:
    for action in ("change_settings", "read_registers", "reset_counter", "set_calculation_code_10"):
        assert f"action: {DOMAIN}.{action}" in "".join(blocks("yaml"))
