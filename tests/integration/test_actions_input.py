"""Whatever an action is given, it refuses what is wrong in words, and then it sends nothing."""

from collections.abc import Callable
import re
from typing import Any

from homeassistant.core import HomeAssistant
from hypothesis import HealthCheck, given, settings, strategies as st
import pytest

from custom_components.klefr.service_errors import Problem
from custom_components.klefr.wording import QUOTED_LENGTH, quoted

from . import SERIAL_NUMBER

# The meters and their lines are those of the other tests of the actions.
from .test_actions import (  # noqa: F401
    ACTIONS,
    OTHER,
    devices,
    line,
    mbus_line,
    mbus_meter,
    meters,
    other_meter,
    quiet,
    refused,
)

FIELDS = {
    ("change_settings", "tariff"): "Tariff",
    ("change_settings", "calculation_code"): "Calculation code",
    ("change_settings", "s0_rate"): "S0 pulses per kWh",
    ("change_settings", "lcd_cycle_time"): "LCD cycle time",
    ("read_registers", "address"): "First register",
    ("read_registers", "count"): "Number of registers",
    ("reset_counter", "counter"): "Counter",
    ("set_calculation_code_10", "serial_number"): "Serial number",
}
TARGETS = ("device_id", "entity_id", "area_id", "floor_id", "label_id")

RIGHT_TEXTS = ("t1", "T2", "forward", "resettable", "100", "0.1", "0x4000", SERIAL_NUMBER)
RIGHT_NUMBERS = {
    *range(1, 76),
    *range(0x4000, 0x7000),
    *(10000, 2000, 1000, 100, 0.1, 0.01, int(SERIAL_NUMBER)),
}

# `int` and `float` take most of these, `str.isdecimal` and `str.isdigit` the others.
DIGITS = ("٣", "１０", "१००", "²", "Ⅻ", "𝟏𝟎", "٠.١")
SPOILERS = ("\0", "\n", "\r\n", " ", "\u2028", "\u202e", "\ud800", "_", "-", "e5", *DIGITS)


def is_wrong(value: Any) -> bool:
    """Return whether a value is right in no field."""
    if isinstance(value, bool):
        return True
    if isinstance(value, str):
        number = re.fullmatch(r"0[xX][0-9a-fA-F]+|[0-9]+(\.[0-9]+)?", value)
        return number is None and value not in RIGHT_TEXTS
    return not isinstance(value, (int, float)) or value not in RIGHT_NUMBERS


spoilt_texts = st.builds(
    lambda text, at, spoiler: text[:at] + spoiler + text[at:],
    st.sampled_from(RIGHT_TEXTS),
    st.integers(0, 9),
    st.sampled_from(SPOILERS),
)
extremes = st.sampled_from(
    [
        *(10**1000, -(10**1000), 10**5000, float("nan"), float("inf"), -0.0),
        *("{tariff}", "{}", "x" * 10**5, "\0", "\n" * 100),
        *DIGITS,
    ]
)
far_too_long = st.sampled_from(
    [
        *("1" * 1000, "1" * 5000, "0" * 1000 + "1", "1." + "0" * 1000 + "1"),
        *("0x" + "F" * 5000, "0x" + "0" * 1000 + "4000"),
    ]
)
atoms = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | spoilt_texts
containers = st.recursive(
    atoms | st.sampled_from(RIGHT_TEXTS),
    lambda parts: st.lists(parts) | st.dictionaries(st.text() | st.integers(), parts),
    max_leaves=5,
).filter(lambda value: isinstance(value, (list, dict)))
wrong_values = (atoms | extremes | containers).filter(is_wrong) | far_too_long

many_calls = settings(
    deadline=None,
    max_examples=50,
    # No example changes anything that the next one finds: that is what is tested.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.parametrize(("action", "field"), FIELDS)
@many_calls
@given(value=wrong_values)
async def test_a_wrong_value_is_refused_with_its_field_named(
    hass: HomeAssistant,
    quiet: Callable[[], bool],  # noqa: F811
    action: str,
    field: str,
    value: object,
) -> None:
    data = {field: value}
    if field == "count":
        data["address"] = 0x4000
    if action == "change_settings" and field != "tariff":
        data["tariff"] = "t2"
    error = await refused(hass, action, data, devices(hass, SERIAL_NUMBER))
    assert error.translation_key in ("value_out_of_range", "wrong_confirmation")
    placeholders = error.translation_placeholders or {}
    assert placeholders["field"] == FIELDS[action, field]
    assert len(placeholders["value"]) <= QUOTED_LENGTH + 1
    assert quiet()


@pytest.mark.parametrize("action", ACTIONS)
@many_calls
@given(
    data=st.dictionaries(
        st.text() | spoilt_texts | st.sampled_from([field for _, field in FIELDS]),
        wrong_values,
        min_size=1,
    )
)
async def test_any_wrong_fields_are_refused(
    hass: HomeAssistant,
    quiet: Callable[[], bool],  # noqa: F811
    action: str,
    data: dict[str, Any],
) -> None:
    error = await refused(hass, action, data, devices(hass, SERIAL_NUMBER))
    assert error.translation_key in set(Problem)
    assert quiet()


@many_calls
@given(
    target=st.dictionaries(st.sampled_from(TARGETS), atoms | extremes | containers),
    exclude=st.dictionaries(st.sampled_from(TARGETS), atoms | extremes | containers)
    | atoms
    | containers,
)
async def test_any_target_is_refused_or_understood(
    hass: HomeAssistant,
    quiet: Callable[[], bool],  # noqa: F811
    target: dict[str, Any],
    exclude: object,
) -> None:
    error = await refused(hass, "change_settings", {"tariff": "t2"}, target)
    assert error.translation_key in ("wrong_target", "no_meter_in_target")
    # Some exclude nothing. Then the next thing that is wrong is named.
    both = {**devices(hass, SERIAL_NUMBER, OTHER), "exclude": exclude}
    error = await refused(hass, "change_settings", {"tariff": "t3"}, both)
    assert error.translation_key in ("wrong_exclusion", "value_out_of_range")
    assert quiet()


@given(value=atoms | extremes | far_too_long | containers)
def test_a_quote_is_one_line_of_bounded_length(value: object) -> None:
    assert quoted(value).isprintable()
    assert len(quoted(value)) <= QUOTED_LENGTH + 1
    if isinstance(value, str) and value.isprintable() and len(value) <= QUOTED_LENGTH:
        assert quoted(value) == value
