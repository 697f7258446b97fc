"""Actions on meters: what they do, what they report, and what they refuse."""

from collections.abc import AsyncIterator
import math
import re
from typing import Any

from homeassistant.const import STATE_UNAVAILABLE, Platform
from homeassistant.core import Context, HomeAssistant
from homeassistant.exceptions import (
    HomeAssistantError,
    ServiceValidationError,
    Unauthorized,
    UnknownUser,
)
from homeassistant.helpers import (
    area_registry as ar,
    device_registry as dr,
    entity_registry as er,
    floor_registry as fr,
    label_registry as lr,
)
from homeassistant.helpers.json import json_bytes
from homeassistant.setup import async_setup_component
from homeassistant.util.yaml import parse_yaml
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry, MockUser

from custom_components.klefr.const import DOMAIN
from custom_components.klefr.meter import CalculationCode, Setting
from custom_components.klefr.service_errors import Problem
from simulator import mbus, modbus
from simulator.line import Line
from simulator.meter import VirtualMeter

from . import SERIAL_NUMBER, entity_id, state, wait
from .test_settings import options

OTHER = "22091040"
ON_MBUS = "22092001"
NET = "forward_minus_reverse_net"
# Keys that are not also words of a sentence.
KEYS = {
    *(str(key) for key in Setting if "_" in key),
    *("serial_number", "power_down", "t1_until_restart", "t2_until_restart"),
    *(code.name.lower() for code in CalculationCode if "_" in code.name),
    *(str(key) for key in Problem),
}
ACTIONS = ("change_settings", "read_registers", "reset_counter", "set_calculation_code_10")
CALLS = [
    ("change_settings", {"tariff": "t2"}),
    ("reset_counter", {"counter": "resettable"}),
    ("read_registers", {}),
]
CODE_NAMES = (
    "01: forward",
    "04: reverse",
    "05: forward + reverse",
    "06: reverse − forward",
    "09: forward − reverse",
    "11: forward − reverse, S0 outputs net over the phases",
)


@pytest.fixture
def other_meter() -> VirtualMeter:
    return VirtualMeter(serial_number=OTHER, address=2, clock=lambda: 0.0)


@pytest.fixture
def mbus_meter() -> VirtualMeter:
    return VirtualMeter(model="6933", serial_number=ON_MBUS, clock=lambda: 0.0)


@pytest.fixture
async def line(virtual_meter: VirtualMeter, other_meter: VirtualMeter) -> AsyncIterator[Line]:
    async with modbus.serve(virtual_meter, other_meter, virtual="virtual://modbus") as line:
        yield line


@pytest.fixture
async def mbus_line(mbus_meter: VirtualMeter) -> AsyncIterator[Line]:
    async with mbus.serve(mbus_meter, virtual="virtual://mbus") as line:
        yield line


def entry_for(meter: VirtualMeter, line: Line, protocol: str) -> MockConfigEntry:
    return MockConfigEntry(
        domain=DOMAIN,
        unique_id=meter.serial_number,
        title=f"Meter {meter.serial_number}",
        data={
            "port": line.port,
            "protocol": protocol,
            "address": meter.address,
            "baud_rate": 9600,
            "parity": "even",
        },
    )


@pytest.fixture(autouse=True)
async def meters(
    hass: HomeAssistant,
    virtual_meter: VirtualMeter,
    other_meter: VirtualMeter,
    mbus_meter: VirtualMeter,
    line: Line,
    mbus_line: Line,
) -> AsyncIterator[dict[str, MockConfigEntry]]:
    """Two meters on a Modbus line and one on M-Bus, all loaded."""
    entries = [
        entry_for(virtual_meter, line, "modbus"),
        entry_for(other_meter, line, "modbus"),
        entry_for(mbus_meter, mbus_line, "mbus"),
    ]
    for entry in entries:
        entry.add_to_hass(hass)
    assert await async_setup_component(hass, DOMAIN, {})
    await hass.async_block_till_done()
    line.requests.clear()
    mbus_line.requests.clear()
    yield {entry.unique_id or "": entry for entry in entries}
    for entry in hass.config_entries.async_entries(DOMAIN):
        if entry.state.recoverable:
            await hass.config_entries.async_unload(entry.entry_id)


def device(hass: HomeAssistant, serial_number: str) -> str:
    entry = hass.config_entries.async_entry_for_domain_unique_id(DOMAIN, serial_number)
    assert entry is not None
    [found] = dr.async_entries_for_config_entry(dr.async_get(hass), entry.entry_id)
    return found.id


def devices(hass: HomeAssistant, *serial_numbers: str) -> dict[str, list[str]]:
    return {"device_id": [device(hass, serial_number) for serial_number in serial_numbers]}


async def act(
    hass: HomeAssistant,
    action: str,
    data: dict[str, Any],
    target: dict[str, Any],
    *,
    context: Context | None = None,
) -> Any:
    response = await hass.services.async_call(
        DOMAIN,
        action,
        {**data, **target},
        blocking=True,
        context=context,
        return_response=True,
    )
    assert response is not None
    json_bytes(response)
    return response["meters"]


async def refused(
    hass: HomeAssistant, action: str, data: dict[str, Any], target: dict[str, Any]
) -> ServiceValidationError:
    """Give the error of an action, once it is clear that its message is complete."""
    with pytest.raises(ServiceValidationError) as error:
        await act(hass, action, data, target)
    assert error.value.translation_key
    message = str(error.value)
    assert message != error.value.translation_key
    assert message.isprintable()
    assert len(message) < 600
    for placeholder in (error.value.translation_placeholders or {}).values():
        assert placeholder in message
    # Fields and options have names. Their keys are for YAML and templates.
    said = re.sub("“.*?”", "", message)
    assert not KEYS & set(re.findall(r"\w+", said)), message
    return error.value


@pytest.fixture
def quiet(line: Line, mbus_line: Line) -> Any:
    """Tell whether nothing was sent to any meter."""
    return lambda: not line.requests and not mbus_line.requests


# --- Settings -----------------------------------------------------------------------------


async def test_settings_are_written_to_several_meters_and_shown_at_once(
    hass: HomeAssistant,
    virtual_meter: VirtualMeter,
    other_meter: VirtualMeter,
    mbus_meter: VirtualMeter,
) -> None:
    written = {"tariff": "t2", "calculation_code": "forward_plus_reverse", "s0_rate": "0.1"}
    report = await act(
        hass, "change_settings", written, devices(hass, SERIAL_NUMBER, OTHER, ON_MBUS)
    )
    assert report == {
        number: {"name": f"Meter {number}", "changed": written, "not_changed": {}}
        for number in (SERIAL_NUMBER, OTHER, ON_MBUS)
    }
    for meter in (virtual_meter, other_meter, mbus_meter):
        assert meter.tariff == 2
        assert meter.calculation_code == 5
        assert meter.s0_rate == pytest.approx(0.1)
    for key, option in written.items():
        assert state(hass, Platform.SELECT, key) == option


async def test_values_are_taken_as_yaml_and_templates_give_them(
    hass: HomeAssistant, virtual_meter: VirtualMeter
) -> None:
    for yaml, written, value in (
        ("s0_rate: 1000", "1000", 1000),
        ("s0_rate: '100'", "100", 100),
        ("s0_rate: 1000.0", "1000", 1000),
        ("s0_rate: '100.0'", "100", 100),
        ("s0_rate: 0.1", "0.1", 0.1),
        ("s0_rate: '0.01'", "0.01", 0.01),
        ("s0_rate: 0.10", "0.1", 0.1),
        ("lcd_cycle_time: 25", 25, 25),
        ("lcd_cycle_time: '20'", 20, 20),
        ("lcd_cycle_time: 30.0", 30, 30),
        ("lcd_cycle_time: '1.0'", 1, 1),
        ("tariff: t2_until_restart", "t2_until_restart", 12),
    ):
        data: Any = parse_yaml(yaml)
        [field] = data
        report = await act(hass, "change_settings", data, devices(hass, SERIAL_NUMBER))
        assert report[SERIAL_NUMBER]["changed"] == {field: written}
        assert getattr(virtual_meter, field) == pytest.approx(value)


async def test_a_value_out_of_range_names_meter_and_field_and_nothing_is_sent(
    hass: HomeAssistant, quiet: Any
) -> None:
    for field, name, allowed, values in (
        (
            "tariff",
            "Tariff",
            "T1; T2; T1 until the meter restarts; T2 until the meter restarts",
            ("t3", 2, True, None, ["t2"], {"t2": 1}),
        ),
        (
            "calculation_code",
            "Calculation code",
            "; ".join(CODE_NAMES),
            (5, "5", 10, ""),
        ),
        (
            "s0_rate",
            "S0 pulses per kWh",
            "10000; 2000; 1000; 100; 10; 1; 0.1; 0.01",
            (50, "0-1", "0_1", True, "1e3", "1_0", 1000.00001, math.nan),
        ),
        (
            "lcd_cycle_time",
            "LCD cycle time",
            "1 – 30 s",
            (0, 31, -5, 12.5, "12.5", "0x10", "2_5", "soon", True, math.inf, math.nan, [5]),
        ),
    ):
        for value in values:
            data = {"tariff": "t2", "s0_rate": 100, field: value}
            error = await refused(
                hass, "change_settings", data, devices(hass, SERIAL_NUMBER, OTHER)
            )
            assert error.translation_key == "value_out_of_range"
            assert error.translation_placeholders == {
                "meter": f"Meter {SERIAL_NUMBER}",
                "field": name,
                "value": str(value),
                "allowed": allowed,
            }
    assert quiet()


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"tariff": "t1_until_restart"}, "value_out_of_range"),
        ({"tariff": "t2", "lcd_cycle_time": 10}, "setting_not_available"),
    ],
)
async def test_what_one_meter_cannot_do_is_done_by_none(
    hass: HomeAssistant, quiet: Any, data: dict[str, Any], key: str
) -> None:
    error = await refused(hass, "change_settings", data, devices(hass, SERIAL_NUMBER, ON_MBUS))
    assert error.translation_key == key
    # What was chosen from a list is named as the list has it.
    assert key == "setting_not_available" or "“T1 until the meter restarts”" in str(error)
    assert (error.translation_placeholders or {})["meter"] == f"Meter {ON_MBUS}"
    assert quiet()


async def test_writing_without_any_setting_is_refused(hass: HomeAssistant, quiet: Any) -> None:
    error = await refused(hass, "change_settings", {}, devices(hass, SERIAL_NUMBER))
    assert error.translation_key == "no_settings"
    assert quiet()


async def test_code_10_is_not_written_as_a_setting(hass: HomeAssistant, quiet: Any) -> None:
    data = {"tariff": "t2", "calculation_code": NET}
    error = await refused(hass, "change_settings", data, devices(hass, SERIAL_NUMBER))
    assert error.translation_key == "calculation_code_irreversible"
    assert "irreversible" in str(error)
    assert "the action Set calculation code 10" in str(error)
    assert quiet()


@pytest.mark.parametrize("code", ["forward", NET])
async def test_a_locked_meter_takes_no_calculation_code_and_the_others_get_none(
    hass: HomeAssistant, other_meter: VirtualMeter, quiet: Any, line: Line, code: str
) -> None:
    other_meter.calculation_code = 10
    await wait(hass, seconds=301)
    line.requests.clear()
    target = devices(hass, SERIAL_NUMBER, OTHER)
    if code == NET:
        target = devices(hass, OTHER)
    error = await refused(hass, "change_settings", {"calculation_code": code}, target)
    assert error.translation_key == "calculation_code_locked"
    assert (error.translation_placeholders or {})["meter"] == f"Meter {OTHER}"
    assert not [request for request in line.requests if request[1] != 3]
    report = await act(hass, "change_settings", {"tariff": "t2"}, target)
    assert report[OTHER]["changed"] == {"tariff": "t2"}


@pytest.mark.parametrize(
    ("fault", "key"), [("refuse_writes", "refused"), ("ignore_writes", "not_accepted")]
)
async def test_what_was_not_written_is_reported_and_the_others_are_written(
    hass: HomeAssistant,
    virtual_meter: VirtualMeter,
    other_meter: VirtualMeter,
    fault: str,
    key: str,
) -> None:
    setattr(other_meter, fault, True)
    report = await act(
        hass,
        "change_settings",
        {"tariff": "t2", "lcd_cycle_time": 20},
        devices(hass, SERIAL_NUMBER, OTHER),
    )
    assert report[SERIAL_NUMBER]["changed"] == {"tariff": "t2", "lcd_cycle_time": 20}
    assert report[OTHER]["changed"] == {}
    failures = report[OTHER]["not_changed"]
    assert [(field, each["value"], each["error"]) for field, each in failures.items()] == [
        ("tariff", "t2", key),
        ("lcd_cycle_time", 20, key),
    ]
    assert all(len(each["message"].split()) > 4 for each in failures.values())
    assert (virtual_meter.tariff, virtual_meter.lcd_cycle_time) == (2, 20)
    assert (other_meter.tariff, other_meter.lcd_cycle_time) == (1, 10)


async def test_a_setting_that_fails_does_not_stop_those_after_it(
    hass: HomeAssistant, mbus_meter: VirtualMeter
) -> None:
    mbus_meter.calculation_code = 10  # which the meter does not tell
    report = await act(
        hass,
        "change_settings",
        {"tariff": "t2", "calculation_code": "forward", "s0_rate": 10},
        devices(hass, ON_MBUS),
    )
    assert report[ON_MBUS]["changed"] == {"tariff": "t2", "s0_rate": "10"}
    failures = report[ON_MBUS]["not_changed"]
    assert failures.keys() == {"calculation_code"}
    assert failures["calculation_code"]["value"] == "forward"
    assert failures["calculation_code"]["error"] == "code_not_acknowledged"
    assert (mbus_meter.tariff, mbus_meter.s0_rate) == (2, 10)


async def test_without_a_response_a_failure_is_an_error_that_says_all(
    hass: HomeAssistant, virtual_meter: VirtualMeter, other_meter: VirtualMeter
) -> None:
    other_meter.refuse_writes = True
    with pytest.raises(HomeAssistantError) as error:
        await hass.services.async_call(
            DOMAIN,
            "change_settings",
            {"tariff": "t2", "s0_rate": 0.1, **devices(hass, OTHER, SERIAL_NUMBER)},
            blocking=True,
        )
    assert error.value.translation_key == "not_all_changed"
    message = str(error.value)
    failed, done = message.split("Changed")
    for what in ("Tariff T2", "S0 pulses per kWh 0.1"):
        assert f"Meter {SERIAL_NUMBER}: {what}" in done
        assert f"Meter {OTHER}: {what} (The meter at address 2" in failed
    assert "{" not in message
    assert virtual_meter.tariff == 2


@pytest.mark.parametrize("return_response", [False, True])
async def test_if_nothing_was_changed_that_is_an_error(
    hass: HomeAssistant,
    virtual_meter: VirtualMeter,
    other_meter: VirtualMeter,
    return_response: bool,
) -> None:
    virtual_meter.refuse_writes = other_meter.ignore_writes = True

    async def change(*serial_numbers: str, **data: Any) -> HomeAssistantError:
        with pytest.raises(HomeAssistantError) as error:
            await hass.services.async_call(
                DOMAIN,
                "change_settings",
                {**data, **devices(hass, *serial_numbers)},
                blocking=True,
                return_response=return_response,
            )
        return error.value

    # A single failure says everything itself, in the language of the user.
    assert (await change(SERIAL_NUMBER, tariff="t2")).translation_key == "refused"
    error = await change(SERIAL_NUMBER, OTHER, tariff="t2", lcd_cycle_time=20)
    assert error.translation_key == "nothing_changed"
    for number, address in ((SERIAL_NUMBER, 1), (OTHER, 2)):
        for what in ("Tariff T2", "LCD cycle time 20 s"):
            assert f"Meter {number}: {what} (" in str(error)
        assert (f"(The meter at address {address}" in str(error)) is (number == SERIAL_NUMBER)


async def test_without_a_response_success_is_silent(
    hass: HomeAssistant, virtual_meter: VirtualMeter
) -> None:
    assert not await hass.services.async_call(
        DOMAIN, "change_settings", {"tariff": "t2", **devices(hass, SERIAL_NUMBER)}, blocking=True
    )
    assert virtual_meter.tariff == 2


async def test_nothing_is_written_to_another_meter_in_its_place(
    hass: HomeAssistant,
    meters: dict[str, MockConfigEntry],
    virtual_meter: VirtualMeter,
    other_meter: VirtualMeter,
) -> None:
    other_meter.serial_number = "87654321"
    report = await act(
        hass,
        "change_settings",
        {"tariff": "t2", "lcd_cycle_time": 20},
        devices(hass, SERIAL_NUMBER, OTHER),
    )
    assert report[SERIAL_NUMBER]["not_changed"] == {}
    failures = report[OTHER]["not_changed"]
    assert {field: each["error"] for field, each in failures.items()} == {
        "tariff": "wrong_meter",
        "lcd_cycle_time": "wrong_meter",
    }
    assert other_meter.tariff == 1


# --- Counters -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "reset", "kept"),
    [
        ("resettable", "day_counter", "power_down_counter"),
        ("power_down", "power_down_counter", "day_counter"),
    ],
)
async def test_a_counter_is_reset_on_several_meters(
    hass: HomeAssistant,
    virtual_meter: VirtualMeter,
    mbus_meter: VirtualMeter,
    counter: str,
    reset: str,
    kept: str,
) -> None:
    report = await act(
        hass, "reset_counter", {"counter": counter}, devices(hass, SERIAL_NUMBER, ON_MBUS)
    )
    assert report == {
        number: {"name": f"Meter {number}", "reset": True} for number in (SERIAL_NUMBER, ON_MBUS)
    }
    for meter in (virtual_meter, mbus_meter):
        assert getattr(meter, reset) == 0
        assert getattr(meter, kept) > 0
    if counter == "resettable":
        assert state(hass, Platform.SENSOR, "resettable_counter") == "0.0"


async def test_a_counter_that_was_not_reset_is_reported(
    hass: HomeAssistant, virtual_meter: VirtualMeter, other_meter: VirtualMeter
) -> None:
    other_meter.ignore_writes = True
    target = devices(hass, SERIAL_NUMBER, OTHER)
    report = await act(hass, "reset_counter", {"counter": "resettable"}, target)
    assert report[SERIAL_NUMBER] == {"name": f"Meter {SERIAL_NUMBER}", "reset": True}
    assert report[OTHER]["reset"] is False
    assert report[OTHER]["error"] == "not_reset"
    assert report[OTHER]["message"].startswith("The meter did not reset the counter")

    with pytest.raises(HomeAssistantError) as error:
        await hass.services.async_call(
            DOMAIN, "reset_counter", {"counter": "resettable", **target}, blocking=True
        )
    assert error.value.translation_key == "not_all_reset"
    failed, done = str(error.value).split("Reset:")
    assert f"Meter {SERIAL_NUMBER}" in done
    assert f"Meter {OTHER} (The meter did not reset the counter" in failed

    virtual_meter.refuse_writes = True
    with pytest.raises(HomeAssistantError) as error:
        await act(hass, "reset_counter", {"counter": "resettable"}, target)
    assert error.value.translation_key == "nothing_reset"
    for number in (SERIAL_NUMBER, OTHER):
        assert f"Meter {number} (" in str(error.value)


async def test_what_is_no_counter_is_not_reset(hass: HomeAssistant, quiet: Any) -> None:
    wrong: tuple[object, ...] = ("week", "", 0, None, ["resettable"])
    for data, key in (
        ({}, "missing_field"),
        *(({"counter": each}, "value_out_of_range") for each in wrong),
    ):
        error = await refused(hass, "reset_counter", data, devices(hass, SERIAL_NUMBER, OTHER))
        assert error.translation_key == key
        assert (error.translation_placeholders or {})["meter"] == f"Meter {SERIAL_NUMBER}"
        assert (error.translation_placeholders or {})["field"] == "Counter"
    assert quiet()


# --- Registers ----------------------------------------------------------------------------


async def test_all_registers_of_several_meters_are_read(hass: HomeAssistant) -> None:
    report = await act(hass, "read_registers", {}, devices(hass, SERIAL_NUMBER, OTHER, ON_MBUS))
    for number in (SERIAL_NUMBER, OTHER):
        assert report[number]["name"] == f"Meter {number}"
        registers = report[number]["registers"]
        assert {block: len(words) for block, words in registers.items()} == {
            "0x4000": 32,
            "0x5000": 50,
            "0x6000": 75,
        }
        assert "".join(registers["0x4000"][:2]) == number
        assert report[number]["values"]["serial_number"] == number
        assert report[number]["values"]["tariff"] == "t1"
    assert "registers" not in report[ON_MBUS]
    [telegram] = report[ON_MBUS]["telegrams"]
    assert telegram["frame"].startswith("68 ")
    assert telegram["header"]["identification"] == ON_MBUS
    assert len(telegram["records"]) == 9
    assert "forward_active_energy" in report[ON_MBUS]["values"]


async def test_some_registers_are_read(hass: HomeAssistant) -> None:
    target = devices(hass, SERIAL_NUMBER)
    for data, words in (
        ({"address": "0x4010"}, ["0010"]),
        ({"address": "0X4010", "count": 1}, ["0010"]),
        ({"address": 0x4010, "count": 2}, ["0010", "0001"]),
        ({"address": "16400", "count": "2"}, ["0010", "0001"]),
        ({"address": 16400.0, "count": 2.0}, ["0010", "0001"]),
    ):
        report = await act(hass, "read_registers", data, target)
        assert report[SERIAL_NUMBER]["registers"] == {"0x4010": words}
        assert report[SERIAL_NUMBER]["values"]["lcd_cycle_time"] == 10


async def test_registers_outside_of_the_map_are_not_asked_for(
    hass: HomeAssistant, quiet: Any
) -> None:
    names = {"address": "First register", "count": "Number of registers"}
    for data, field, key in (
        ({"address": 0x3FFF}, "address", "value_out_of_range"),
        ({"address": "0x4020"}, "address", "value_out_of_range"),
        ({"address": "4000h"}, "address", "value_out_of_range"),
        ({"address": -1}, "address", "value_out_of_range"),
        ({"address": True}, "address", "value_out_of_range"),
        ({"address": None}, "address", "value_out_of_range"),
        ({"address": "0x401F", "count": 2}, "count", "value_out_of_range"),
        ({"address": "0x4000", "count": 0}, "count", "value_out_of_range"),
        ({"address": "0x4000", "count": -1}, "count", "value_out_of_range"),
        ({"address": "0x4000", "count": 10**30}, "count", "value_out_of_range"),
        ({"address": "0x4000", "count": "many"}, "count", "value_out_of_range"),
        ({"count": 2}, "address", "missing_field"),
    ):
        error = await refused(hass, "read_registers", data, devices(hass, SERIAL_NUMBER))
        assert error.translation_key == key
        assert (error.translation_placeholders or {})["meter"] == f"Meter {SERIAL_NUMBER}"
        assert (error.translation_placeholders or {})["field"] == names[field]
    assert quiet()


async def test_a_meter_on_m_bus_has_no_registers(hass: HomeAssistant, quiet: Any) -> None:
    target = devices(hass, SERIAL_NUMBER, ON_MBUS)
    error = await refused(hass, "read_registers", {"address": 0x4000}, target)
    assert error.translation_key == "no_registers"
    assert error.translation_placeholders == {
        "meter": f"Meter {ON_MBUS}",
        "field": "First register",
    }
    assert quiet()


async def test_a_meter_that_cannot_be_read_is_reported_and_the_others_are_read(
    hass: HomeAssistant, other_meter: VirtualMeter
) -> None:
    other_meter.address = 99
    report = await act(hass, "read_registers", {}, devices(hass, SERIAL_NUMBER, OTHER))
    assert report[SERIAL_NUMBER]["registers"]
    assert report[OTHER].keys() == {"name", "error", "message"}
    assert report[OTHER]["error"] == "no_answer_modbus"
    assert "address 2" in report[OTHER]["message"]


async def test_if_no_meter_can_be_read_that_is_an_error(
    hass: HomeAssistant, line: Line, mbus_line: Line
) -> None:
    line.silent = mbus_line.silent = True
    for target, key in (
        (devices(hass, OTHER), "no_answer_modbus"),
        (devices(hass, SERIAL_NUMBER, OTHER, ON_MBUS), "nothing_read"),
    ):
        with pytest.raises(HomeAssistantError) as error:
            await act(hass, "read_registers", {}, target)
        assert error.value.translation_key == key
        assert "address 2" in str(error.value)
    for number in (SERIAL_NUMBER, OTHER, ON_MBUS):
        assert f"Meter {number} (" in str(error.value)


# --- Calculation code 10 ------------------------------------------------------------------


@pytest.mark.parametrize("confirmation", [SERIAL_NUMBER, int(SERIAL_NUMBER)])
async def test_code_10_is_locked_and_the_only_one_left(
    hass: HomeAssistant, virtual_meter: VirtualMeter, confirmation: object
) -> None:
    report = await act(
        hass,
        "set_calculation_code_10",
        {"serial_number": confirmation},
        devices(hass, SERIAL_NUMBER),
    )
    assert report == {SERIAL_NUMBER: {"name": f"Meter {SERIAL_NUMBER}", "set": True}}
    assert virtual_meter.calculation_code == 10
    assert state(hass, Platform.SELECT, "calculation_code") == NET
    assert options(hass, "calculation_code") == [NET]


async def test_code_10_over_m_bus_is_shown_also_after_a_restart(
    hass: HomeAssistant, meters: dict[str, MockConfigEntry], mbus_meter: VirtualMeter
) -> None:
    await act(hass, "set_calculation_code_10", {"serial_number": ON_MBUS}, devices(hass, ON_MBUS))
    assert mbus_meter.calculation_code == 10
    select = er.async_get(hass).async_get_entity_id(
        Platform.SELECT, DOMAIN, f"{ON_MBUS}_calculation_code"
    )
    assert select is not None
    for _ in range(2):
        shown = hass.states.get(select)
        assert shown is not None
        assert shown.state == NET
        assert shown.attributes["options"] == [NET]
        await hass.config_entries.async_reload(meters[ON_MBUS].entry_id)
        await hass.async_block_till_done()
    error = await refused(
        hass, "change_settings", {"calculation_code": "forward"}, devices(hass, ON_MBUS)
    )
    assert error.translation_key == "calculation_code_locked"


async def test_code_10_is_not_locked_without_the_serial_number(
    hass: HomeAssistant, quiet: Any
) -> None:
    confirmations: tuple[object, ...] = (
        OTHER,
        "",
        f"{SERIAL_NUMBER}.0",
        float(SERIAL_NUMBER),
        True,
        None,
        [SERIAL_NUMBER],
    )
    for data, key in (
        ({}, "missing_field"),
        *(({"serial_number": each}, "wrong_confirmation") for each in confirmations),
    ):
        error = await refused(hass, "set_calculation_code_10", data, devices(hass, SERIAL_NUMBER))
        assert error.translation_key == key
        assert f"Meter {SERIAL_NUMBER}" in str(error)
        assert "Serial number" in str(error)
        assert key == "missing_field" or "irreversible" in str(error)
    assert quiet()


async def test_code_10_is_locked_for_one_meter_at_a_time(hass: HomeAssistant, quiet: Any) -> None:
    target = devices(hass, SERIAL_NUMBER, OTHER)
    error = await refused(hass, "set_calculation_code_10", {"serial_number": SERIAL_NUMBER}, target)
    assert error.translation_key == "several_meters"
    assert "irreversible" in str(error)
    assert quiet()


async def test_code_10_that_did_not_stick_is_an_error(
    hass: HomeAssistant, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.ignore_writes = True
    data = {"serial_number": SERIAL_NUMBER}
    target = devices(hass, SERIAL_NUMBER)
    for return_response in (False, True):
        with pytest.raises(HomeAssistantError) as error:
            await hass.services.async_call(
                DOMAIN,
                "set_calculation_code_10",
                {**data, **target},
                blocking=True,
                return_response=return_response,
            )
        assert error.value.translation_key == "not_accepted"
    assert state(hass, Platform.SELECT, "calculation_code") == "forward"


# --- Who may ------------------------------------------------------------------------------


async def test_only_administrators_lock_code_10(
    hass: HomeAssistant, quiet: Any, hass_read_only_user: MockUser, virtual_meter: VirtualMeter
) -> None:
    user = MockUser(groups=[await hass.auth.async_get_group("system-users")]).add_to_hass(hass)
    data = {"serial_number": SERIAL_NUMBER}
    for each in (user, hass_read_only_user):
        context = Context(user_id=each.id)
        with pytest.raises(Unauthorized):
            await act(
                hass,
                "set_calculation_code_10",
                data,
                devices(hass, SERIAL_NUMBER),
                context=context,
            )
    assert quiet()
    assert virtual_meter.calculation_code == 1


async def test_who_may_only_read_does_not_set_anything(
    hass: HomeAssistant,
    quiet: Any,
    hass_read_only_user: MockUser,
    hass_admin_user: MockUser,
    virtual_meter: VirtualMeter,
) -> None:
    target = devices(hass, SERIAL_NUMBER)
    reader = Context(user_id=hass_read_only_user.id)
    for action, data in (
        ("change_settings", {"tariff": "t2"}),
        ("reset_counter", {"counter": "resettable"}),
    ):
        with pytest.raises(Unauthorized):
            await act(hass, action, data, target, context=reader)
        with pytest.raises(UnknownUser):
            await act(hass, action, data, target, context=Context(user_id="gone"))
    assert quiet()
    report = await act(hass, "read_registers", {"address": 0x6048}, target, context=reader)
    assert report[SERIAL_NUMBER]["values"] == {"tariff": "t1"}
    user = MockUser(groups=[await hass.auth.async_get_group("system-users")]).add_to_hass(hass)
    for each in (user, hass_admin_user):
        report = await act(
            hass, "change_settings", {"tariff": "t2"}, target, context=Context(user_id=each.id)
        )
        assert report[SERIAL_NUMBER]["changed"] == {"tariff": "t2"}


# --- Targets ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["entity", "config entity", "disabled entity", "area", "entity's area", "floor"]
)
async def test_a_meter_is_found_by_what_belongs_to_it(hass: HomeAssistant, kind: str) -> None:
    floor = fr.async_get(hass).async_create("Cellar")
    area = ar.async_get(hass).async_create("Meters", floor_id=floor.floor_id)
    tariff = entity_id(hass, Platform.SELECT, "tariff")
    # Something else is there as well.
    lamp = er.async_get(hass).async_get_or_create("light", "other", "lamp")
    er.async_get(hass).async_update_entity(lamp.entity_id, area_id=area.id)
    if kind == "entity's area":
        er.async_get(hass).async_update_entity(tariff, area_id=area.id)
    else:
        dr.async_get(hass).async_update_device(device(hass, SERIAL_NUMBER), area_id=area.id)
    targets: dict[str, dict[str, Any]] = {
        "entity": {"entity_id": entity_id(hass, Platform.SENSOR, "voltage_l1")},
        "config entity": {"entity_id": [tariff, entity_id(hass, Platform.SELECT, "s0_rate")]},
        "disabled entity": {"entity_id": entity_id(hass, Platform.SENSOR, "quadrant")},
        "area": {"area_id": area.id},
        "entity's area": {"area_id": [area.id]},
        "floor": {"floor_id": floor.floor_id},
    }
    report = await act(hass, "change_settings", {"tariff": "t2"}, targets[kind])
    assert report.keys() == {SERIAL_NUMBER}


async def test_meters_are_found_by_a_label_among_other_devices(
    hass: HomeAssistant, other_meter: VirtualMeter
) -> None:
    label = lr.async_get(hass).async_create("Billing").label_id
    dr.async_get(hass).async_update_device(device(hass, OTHER), labels={label})
    er.async_get(hass).async_update_entity(
        entity_id(hass, Platform.SENSOR, "voltage_l1"), labels={label}
    )
    lamp = er.async_get(hass).async_get_or_create("light", "other", "lamp")
    er.async_get(hass).async_update_entity(lamp.entity_id, labels={label})
    report = await act(
        hass,
        "change_settings",
        {"tariff": "t2"},
        {"label_id": label, **devices(hass, OTHER, SERIAL_NUMBER)},
    )
    assert report.keys() == {SERIAL_NUMBER, OTHER}
    assert other_meter.tariff == 2


async def test_a_wrong_target_is_named_and_nothing_is_sent(hass: HomeAssistant, quiet: Any) -> None:
    entry = MockConfigEntry(domain="other")
    entry.add_to_hass(hass)
    lamp = dr.async_get(hass).async_get_or_create(
        config_entry_id=entry.entry_id, identifiers={("other", "lamp")}
    )
    light = er.async_get(hass).async_get_or_create("light", "other", "lamp")
    # A helper on a meter's device is not the meter.
    helper = er.async_get(hass).async_get_or_create(
        "sensor", "other", "helper", device_id=device(hass, SERIAL_NUMBER)
    )
    for kind, name in (
        ("device_id", lamp.id),
        ("device_id", "no_such_device"),
        ("entity_id", light.entity_id),
        ("entity_id", helper.entity_id),
        ("entity_id", "sensor.no_such_entity"),
        ("entity_id", "all"),
        ("area_id", "no_such_area"),
        ("floor_id", "no_such_floor"),
        ("label_id", "no_such_label"),
    ):
        target = devices(hass, SERIAL_NUMBER)
        target[kind] = [*target.get(kind, []), name]
        error = await refused(hass, "change_settings", {"tariff": "t2"}, target)
        assert error.translation_key == "wrong_target"
        assert error.translation_placeholders == {"target": name}
    assert quiet()


@pytest.mark.parametrize(
    "kind", ["device_id", "entity_id", "area_id", "entity's area", "floor_id", "label_id"]
)
async def test_a_meter_is_left_out_by_what_belongs_to_it(
    hass: HomeAssistant, other_meter: VirtualMeter, line: Line, kind: str
) -> None:
    floor = fr.async_get(hass).async_create("Cellar")
    area = ar.async_get(hass).async_create("Flat", floor_id=floor.floor_id)
    label = lr.async_get(hass).async_create("Landlord").label_id
    everywhere = lr.async_get(hass).async_create("Billing").label_id
    for number in (SERIAL_NUMBER, OTHER, ON_MBUS):
        dr.async_get(hass).async_update_device(device(hass, number), labels={everywhere})
    lamp = er.async_get(hass).async_get_or_create("light", "other", "lamp")
    er.async_get(hass).async_update_entity(lamp.entity_id, area_id=area.id, labels={label})
    tariff = er.async_get(hass).async_get_entity_id(Platform.SELECT, DOMAIN, f"{OTHER}_tariff")
    assert tariff is not None
    if kind == "entity's area":
        er.async_get(hass).async_update_entity(tariff, area_id=area.id)
    elif kind in ("area_id", "floor_id"):
        dr.async_get(hass).async_update_device(device(hass, OTHER), area_id=area.id)
    elif kind == "label_id":
        er.async_get(hass).async_update_entity(tariff, labels={label})
    excluded: dict[str, Any] = {
        "device_id": [device(hass, OTHER)],
        "entity_id": [lamp.entity_id, tariff],
        "area_id": area.id,
        "entity's area": [area.id],
        "floor_id": [floor.floor_id],
        "label_id": label,
    }
    exclude = {kind.replace("entity's area", "area_id"): excluded[kind]}
    for target, left in (
        ({"label_id": everywhere}, {SERIAL_NUMBER, ON_MBUS}),
        (devices(hass, SERIAL_NUMBER, OTHER), {SERIAL_NUMBER}),
    ):
        line.requests.clear()
        for action, data in CALLS:
            report = await act(hass, action, data, {**target, "exclude": exclude})
            assert report.keys() == left
        assert {request[0] for request in line.requests} == {1}
    error = await refused(
        hass, "change_settings", {"tariff": "t2"}, {**devices(hass, OTHER), "exclude": exclude}
    )
    assert error.translation_key == "no_meter_left"
    assert other_meter.tariff == 1


async def test_code_10_is_set_on_the_one_meter_that_is_not_excluded(
    hass: HomeAssistant, virtual_meter: VirtualMeter, other_meter: VirtualMeter
) -> None:
    target = {**devices(hass, SERIAL_NUMBER, OTHER), "exclude": devices(hass, OTHER)}
    await act(hass, "set_calculation_code_10", {"serial_number": SERIAL_NUMBER}, target)
    assert (virtual_meter.calculation_code, other_meter.calculation_code) == (10, 1)


@pytest.mark.parametrize(
    "nothing", [None, {}, {"device_id": []}, {"entity_id": "none"}, {"area_id": None}]
)
async def test_a_target_may_exclude_nothing(hass: HomeAssistant, nothing: object) -> None:
    target = {**devices(hass, SERIAL_NUMBER), "exclude": nothing}
    assert (await act(hass, "read_registers", {}, target)).keys() == {SERIAL_NUMBER}


async def test_what_cannot_be_excluded_is_named_and_nothing_is_sent(
    hass: HomeAssistant, quiet: Any
) -> None:
    exclusions: list[tuple[object, str]] = [
        ({"device_id": ["no_such_device"]}, "no_such_device"),
        ({"entity_id": ["sensor.no_such_entity"]}, "sensor.no_such_entity"),
        ({"entity_id": "all"}, "all"),
        ({"area_id": "no_such_area"}, "no_such_area"),
        ({"floor_id": ["no_such_floor"]}, "no_such_floor"),
        ({"label_id": ["no_such_label"]}, "no_such_label"),
        ({"label_id": [["x"]]}, "['x']"),
        ({"exclude": {}}, "exclude"),
        ({"meter": "x"}, "meter"),
        ("sensor.x", "sensor.x"),
        (["sensor.x"], "['sensor.x']"),
    ]
    for exclude, name in exclusions:
        for action, data in CALLS:
            target = {**devices(hass, SERIAL_NUMBER, OTHER), "exclude": exclude}
            error = await refused(hass, action, data, target)
            assert error.translation_key == "wrong_exclusion"
            assert error.translation_placeholders == {"target": name}
    assert quiet()


async def test_a_target_without_any_meter_is_refused(hass: HomeAssistant, quiet: Any) -> None:
    area = ar.async_get(hass).async_create("Garden")
    targets: list[dict[str, Any]] = [
        {},
        {"device_id": []},
        {"entity_id": "none"},
        {"area_id": area.id},
        {"exclude": devices(hass, OTHER)},
    ]
    for action in ACTIONS:
        for target in targets:
            error = await refused(hass, action, {}, target)
            assert error.translation_key == "no_meter_in_target"
    assert quiet()


async def test_an_unknown_field_is_named(hass: HomeAssistant, quiet: Any) -> None:
    for action in ACTIONS:
        error = await refused(hass, action, {"colour": "red"}, devices(hass, SERIAL_NUMBER, OTHER))
        assert error.translation_key == "unknown_field"
        assert "“colour”" in str(error)
    assert quiet()


# --- Meters that are not there ------------------------------------------------------------


@pytest.mark.parametrize(("action", "data"), CALLS)
async def test_while_a_meter_is_unavailable_nothing_is_sent_to_the_others(
    hass: HomeAssistant,
    other_meter: VirtualMeter,
    virtual_meter: VirtualMeter,
    line: Line,
    action: str,
    data: dict[str, Any],
) -> None:
    other_meter.address = 99
    await wait(hass)
    assert state(hass, Platform.SELECT, "tariff") != STATE_UNAVAILABLE
    line.requests.clear()
    error = await refused(hass, action, data, devices(hass, SERIAL_NUMBER, OTHER))
    assert error.translation_key == "meter_unavailable"
    assert f"Meter {OTHER}" in str(error)
    assert "address 2" in str(error)
    assert not line.requests
    assert await act(hass, action, data, devices(hass, SERIAL_NUMBER))


@pytest.mark.parametrize(("action", "data"), CALLS)
async def test_while_no_entry_is_loaded_the_actions_say_so(
    hass: HomeAssistant,
    meters: dict[str, MockConfigEntry],
    quiet: Any,
    action: str,
    data: dict[str, Any],
) -> None:
    for entry in meters.values():
        await hass.config_entries.async_unload(entry.entry_id)
    error = await refused(hass, action, data, devices(hass, OTHER))
    assert error.translation_key == "meter_not_loaded"
    assert error.translation_placeholders == {"meter": f"Meter {OTHER}"}
    assert quiet()


async def test_why_an_entry_is_not_loaded_is_told(
    hass: HomeAssistant,
    meters: dict[str, MockConfigEntry],
    virtual_meter: VirtualMeter,
    line: Line,
) -> None:
    virtual_meter.address = 99
    await hass.config_entries.async_reload(meters[SERIAL_NUMBER].entry_id)
    line.requests.clear()
    target = devices(hass, SERIAL_NUMBER, OTHER)
    error = await refused(hass, "change_settings", {"tariff": "t2"}, target)
    assert error.translation_key == "meter_unavailable"
    assert f"Meter {SERIAL_NUMBER}" in str(error)
    assert "address 1" in str(error)
    assert not line.requests
