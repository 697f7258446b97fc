"""Setting and resetting a meter from Home Assistant."""

from typing import Any

from homeassistant.const import STATE_UNAVAILABLE, STATE_UNKNOWN, Platform
from homeassistant.core import HomeAssistant
from homeassistant.exceptions import HomeAssistantError, ServiceValidationError
from homeassistant.util.yaml import parse_yaml
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.klefr.const import DOMAIN
from simulator.line import Line
from simulator.meter import VirtualMeter
from simulator.modbus import serve

from . import SERIAL_NUMBER, entity_id, state, wait


async def select(hass: HomeAssistant, key: str, option: object) -> None:
    await hass.services.async_call(
        "select",
        "select_option",
        {"entity_id": entity_id(hass, Platform.SELECT, key), "option": option},
        blocking=True,
    )


async def set_number(hass: HomeAssistant, key: str, value: float) -> None:
    await hass.services.async_call(
        "number",
        "set_value",
        {"entity_id": entity_id(hass, Platform.NUMBER, key), "value": value},
        blocking=True,
    )


async def press(hass: HomeAssistant, key: str) -> None:
    await hass.services.async_call(
        "button", "press", {"entity_id": entity_id(hass, Platform.BUTTON, key)}, blocking=True
    )


def options(hass: HomeAssistant, key: str) -> Any:
    found = hass.states.get(entity_id(hass, Platform.SELECT, key))
    assert found is not None
    return found.attributes["options"]


@pytest.mark.parametrize(
    ("key", "option", "attribute", "value"),
    [
        ("tariff", "t2", "tariff", 2),
        ("tariff", "t2_until_restart", "tariff", 12),
        ("calculation_code", "forward_minus_reverse", "calculation_code", 9),
        ("calculation_code", "forward_minus_reverse_net_pulses", "calculation_code", 11),
        ("s0_rate", "10000", "s0_rate", 10000),
        ("s0_rate", "0.01", "s0_rate", 0.01),
    ],
)
async def test_an_option_is_written_and_shown_at_once(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    virtual_meter: VirtualMeter,
    key: str,
    option: str,
    attribute: str,
    value: float,
) -> None:
    await select(hass, key, option)
    assert getattr(virtual_meter, attribute) == pytest.approx(value)
    assert state(hass, Platform.SELECT, key) == option


async def test_a_rate_is_typed_as_it_is_shown(
    hass: HomeAssistant, loaded: MockConfigEntry, virtual_meter: VirtualMeter
) -> None:
    assert options(hass, "s0_rate") == ["10000", "2000", "1000", "100", "10", "1", "0.1", "0.01"]
    for rate in ("0.1", "100", "0.01", "10000"):
        # With and without quotes.
        for yaml in (f"'{rate}'", rate):
            await select(hass, "s0_rate", 1)
            await select(hass, "s0_rate", parse_yaml(yaml))
            assert virtual_meter.s0_rate == pytest.approx(float(rate))
            assert state(hass, Platform.SELECT, "s0_rate") == rate


async def test_the_lcd_cycle_time_is_written_and_shown_at_once(
    hass: HomeAssistant, loaded: MockConfigEntry, virtual_meter: VirtualMeter
) -> None:
    await set_number(hass, "lcd_cycle_time", 25)
    assert virtual_meter.lcd_cycle_time == 25
    assert state(hass, Platform.NUMBER, "lcd_cycle_time") == "25"


@pytest.mark.parametrize("seconds", [0, 31])
async def test_an_lcd_cycle_time_out_of_range_is_not_sent(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line, seconds: int
) -> None:
    line.requests.clear()
    with pytest.raises(ServiceValidationError):
        await set_number(hass, "lcd_cycle_time", seconds)
    assert not line.requests


async def test_a_fraction_of_a_second_is_not_sent(
    hass: HomeAssistant, loaded: MockConfigEntry, virtual_meter: VirtualMeter
) -> None:
    with pytest.raises(HomeAssistantError):
        await set_number(hass, "lcd_cycle_time", 12.5)
    assert virtual_meter.lcd_cycle_time == 10


async def test_a_change_at_the_meter_is_noticed(
    hass: HomeAssistant, loaded: MockConfigEntry, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.tariff = 2
    virtual_meter.lcd_cycle_time = 5
    await wait(hass, seconds=301)
    assert state(hass, Platform.SELECT, "tariff") == "t2"
    assert state(hass, Platform.NUMBER, "lcd_cycle_time") == "5"


async def test_a_failed_poll_of_the_settings_is_repeated_soon(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line
) -> None:
    def lose(frame: bytes) -> None:
        # The readings need nothing of this block, and the settings begin there.
        line.silent = frame[2:4] == b"\x60\x48"

    line.before_hearing = lose
    await wait(hass, seconds=301)
    assert state(hass, Platform.SELECT, "tariff") == STATE_UNAVAILABLE
    assert state(hass, Platform.SENSOR, "voltage_l1") != STATE_UNAVAILABLE
    line.before_hearing = None
    line.silent = False
    await wait(hass)
    assert state(hass, Platform.SELECT, "tariff") == "t1"


async def test_an_unknown_setting_is_unknown(
    hass: HomeAssistant, loaded: MockConfigEntry, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.overrides[0x6048] = 7
    virtual_meter.overrides[0x4010] = 0x0031
    await wait(hass, seconds=301)
    assert state(hass, Platform.SELECT, "tariff") == STATE_UNKNOWN
    assert state(hass, Platform.NUMBER, "lcd_cycle_time") == STATE_UNKNOWN


async def test_code_10_is_not_offered(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line
) -> None:
    assert options(hass, "calculation_code") == [
        "forward",
        "reverse",
        "forward_plus_reverse",
        "reverse_minus_forward",
        "forward_minus_reverse",
        "forward_minus_reverse_net_pulses",
    ]
    line.requests.clear()
    with pytest.raises(ServiceValidationError):
        await select(hass, "calculation_code", "forward_minus_reverse_net")
    assert not line.requests


async def test_code_10_is_shown_and_locked_where_the_meter_has_it(
    hass: HomeAssistant, loaded: MockConfigEntry, virtual_meter: VirtualMeter, line: Line
) -> None:
    virtual_meter.calculation_code = 10
    await wait(hass, seconds=301)
    assert state(hass, Platform.SELECT, "calculation_code") == "forward_minus_reverse_net"
    assert options(hass, "calculation_code") == ["forward_minus_reverse_net"]
    line.requests.clear()
    for option, error in (
        ("forward", ServiceValidationError),
        ("forward_minus_reverse_net", HomeAssistantError),
    ):
        with pytest.raises(error):
            await select(hass, "calculation_code", option)
    assert not [request for request in line.requests if request[1] != 3]


async def test_a_refusal_is_an_error_and_the_entity_shows_what_the_meter_holds(
    hass: HomeAssistant, loaded: MockConfigEntry, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.refuse_writes = True
    virtual_meter.lcd_cycle_time = 7
    with pytest.raises(HomeAssistantError) as error:
        await select(hass, "tariff", "t2")
    assert error.value.translation_key == "refused"
    assert state(hass, Platform.SELECT, "tariff") == "t1"
    assert state(hass, Platform.NUMBER, "lcd_cycle_time") == "7"


async def test_a_value_that_does_not_stick_is_an_error(
    hass: HomeAssistant, loaded: MockConfigEntry, virtual_meter: VirtualMeter
) -> None:
    virtual_meter.ignore_writes = True
    for action, written, found in (
        (select(hass, "tariff", "t2"), "T2", "T1"),
        (select(hass, "calculation_code", "reverse"), "04: reverse", "01: forward"),
        (select(hass, "s0_rate", "0.1"), "0.1", "1000"),
        (set_number(hass, "lcd_cycle_time", 3), "3 s", "10 s"),
    ):
        with pytest.raises(HomeAssistantError) as error:
            await action
        assert error.value.translation_key == "not_accepted"
        assert f"did not accept {written}. It still has {found}" in str(error.value)
    for action, found in (
        (press(hass, "reset_resettable_counter"), f"{virtual_meter.day_counter:.2f} kWh"),
        (press(hass, "reset_power_down_counter"), str(virtual_meter.power_down_counter)),
    ):
        with pytest.raises(HomeAssistantError) as error:
            await action
        assert error.value.translation_key == "not_reset"
        assert str(error.value).endswith(f"It shows {found}")
    assert state(hass, Platform.SELECT, "tariff") == "t1"


async def test_a_silent_meter_is_an_error(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line, virtual_meter: VirtualMeter
) -> None:
    line.silent = True
    with pytest.raises(HomeAssistantError) as error:
        await select(hass, "tariff", "t2")
    assert error.value.translation_key == "no_answer_modbus"
    assert virtual_meter.tariff == 1


async def test_the_resettable_counter_is_reset_and_shown_at_once(
    hass: HomeAssistant, loaded: MockConfigEntry, virtual_meter: VirtualMeter
) -> None:
    assert state(hass, Platform.SENSOR, "resettable_counter") != "0.0"
    energy = state(hass, Platform.SENSOR, "forward_active_energy")
    await press(hass, "reset_resettable_counter")
    assert virtual_meter.day_counter == 0
    assert state(hass, Platform.SENSOR, "resettable_counter") == "0.0"
    assert state(hass, Platform.SENSOR, "forward_active_energy") == energy


async def test_the_power_down_counter_is_reset(
    hass: HomeAssistant, loaded: MockConfigEntry, virtual_meter: VirtualMeter
) -> None:
    assert virtual_meter.power_down_counter
    await press(hass, "reset_power_down_counter")
    assert virtual_meter.power_down_counter == 0


async def test_no_setting_is_ever_written_unasked(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line
) -> None:
    for _ in range(3):
        await wait(hass, seconds=301)
    await hass.config_entries.async_reload(loaded.entry_id)
    await hass.async_block_till_done()
    assert {request[1] for request in line.requests} == {3}


async def test_readings_become_known_once_the_transformer_ratio_is_set(
    hass: HomeAssistant, entry_data: dict[str, Any]
) -> None:
    meter = VirtualMeter(serial_number=SERIAL_NUMBER, model="6944", ct_primary=0)
    meter.overrides |= {0x500C: 180.0, 0x5012: 60.0}
    async with serve(meter, virtual="virtual://transformers") as line:
        entry = MockConfigEntry(
            domain=DOMAIN, unique_id=SERIAL_NUMBER, data={**entry_data, "port": line.port}
        )
        entry.add_to_hass(hass)
        assert await hass.config_entries.async_setup(entry.entry_id)
        assert state(hass, Platform.SENSOR, "current_l1") == STATE_UNKNOWN
        meter.ct_primary = 250
        await wait(hass, seconds=301)
        await wait(hass)
        assert state(hass, Platform.SENSOR, "current_l1") == "180.0"
        assert state(hass, Platform.SENSOR, "active_power") == "60.0"
        await hass.config_entries.async_unload(entry.entry_id)
