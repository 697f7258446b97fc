"""What the fields of an action may hold."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
import re
from typing import Any, Final

from homeassistant.core import HomeAssistant, callback
from homeassistant.exceptions import ServiceValidationError

from .coordinator import KlefrConfigEntry
from .meter import Counter, Setting, SettingValue
from .number import NUMBERS
from .select import SELECTS
from .service_errors import Problem, invalid
from .wording import async_text, quoted

ATTR_ADDRESS: Final = "address"
ATTR_COUNT: Final = "count"
ATTR_COUNTER: Final = "counter"
ATTR_SERIAL_NUMBER: Final = "serial_number"

# In digits that YAML has too: `str.isdecimal` and \d accept those of all scripts. A number with
# more digits than any that is right would be rounded to one that is.
HEX: Final = re.compile(r"0[xX][0-9a-fA-F]{1,4}")
NUMBER: Final = re.compile(r"[0-9]{1,5}(\.[0-9]{1,5})?")

SELECT_BY_SETTING: Final = {Setting(description.key): description for description in SELECTS}
NUMBER_BY_SETTING: Final = {Setting(description.key): description for description in NUMBERS}


class Action(StrEnum):
    """The names of the actions, in the order in which Home Assistant lists them."""

    CHANGE_SETTINGS = "change_settings"
    READ_REGISTERS = "read_registers"
    RESET_COUNTER = "reset_counter"
    SET_CALCULATION_CODE_10 = "set_calculation_code_10"


FIELDS: Final[Mapping[Action, tuple[str, ...]]] = {
    Action.CHANGE_SETTINGS: tuple(description.key for description in (*SELECTS, *NUMBERS)),
    Action.READ_REGISTERS: (ATTR_ADDRESS, ATTR_COUNT),
    Action.RESET_COUNTER: (ATTR_COUNTER,),
    Action.SET_CALCULATION_CODE_10: (ATTR_SERIAL_NUMBER,),
}


@dataclass(frozen=True, kw_only=True)
class Change:
    """A setting to write."""

    value: SettingValue
    option: str | int
    """The value as its entity has it, which is also how a response has it."""
    name: str
    """The setting and the value as the user sees them."""


@callback
def async_field_names(hass: HomeAssistant, action: Action, fields: Iterable[str]) -> str:
    """Return the names of fields of an action as the user sees them."""
    return ", ".join(async_text(hass, f"services.{action}.fields.{field}.name") for field in fields)


@callback
def async_changes(
    hass: HomeAssistant, entry: KlefrConfigEntry, fields: Mapping[str, Any]
) -> Mapping[Setting, Change]:
    """Return the settings to write to a meter. Raises ServiceValidationError."""
    if not fields:
        allowed = async_field_names(hass, Action.CHANGE_SETTINGS, FIELDS[Action.CHANGE_SETTINGS])
        raise invalid(Problem.NO_SETTINGS, meter=entry.title, allowed=allowed)
    return {
        Setting(field): _async_change(hass, entry, Setting(field), raw)
        for field, raw in fields.items()
    }


@callback
def _async_change(
    hass: HomeAssistant, entry: KlefrConfigEntry, setting: Setting, raw: object
) -> Change:
    data = entry.runtime_data
    field = async_field_names(hass, Action.CHANGE_SETTINGS, [setting])
    if setting not in data.meter.settings:
        raise invalid(Problem.SETTING_NOT_AVAILABLE, meter=entry.title, field=field)
    if (number := NUMBER_BY_SETTING.get(setting)) is not None:
        unit = number.native_unit_of_measurement
        amounts = data.meter.settings[setting]
        amount = _whole_number(raw)
        if amount is not None and amount in amounts:
            return Change(value=amount, option=amount, name=f"{field} {amount} {unit}")
        allowed = f"{min(amounts)} – {max(amounts)} {unit}"
        raise _out_of_range(entry, field, raw, allowed)
    select = SELECT_BY_SETTING[setting]
    names = {
        option: async_text(hass, f"entity.select.{setting}.state.{option}", option)
        for option in select.values
    }
    offered = select.offered(data.settings)
    if select.irreversible in offered.values():
        raise invalid(Problem.CALCULATION_CODE_LOCKED, meter=entry.title, field=field)
    chosen = next(
        (
            option
            for option, value in select.values.items()
            # A rate may be given as a number. A value with a name may not.
            if raw in (option, names[option])
            or (isinstance(value, float) and _number(raw) == value)
        ),
        None,
    )
    allowed = "; ".join(names[option] for option in offered)
    if chosen is None:
        raise _out_of_range(entry, field, raw, allowed)
    value, name = select.values[chosen], names[chosen]
    if chosen in offered:
        return Change(value=value, option=chosen, name=f"{field} {name}")
    if value == select.irreversible:
        raise invalid(
            Problem.CALCULATION_CODE_IRREVERSIBLE, meter=entry.title, field=field, value=name
        )
    # What was chosen from a list is named as the list has it.
    raise _out_of_range(entry, field, name, allowed)


@callback
def async_counter(
    hass: HomeAssistant, entry: KlefrConfigEntry, fields: Mapping[str, Any]
) -> Counter:
    """Return the counter to reset. Raises ServiceValidationError."""
    field = async_field_names(hass, Action.RESET_COUNTER, [ATTR_COUNTER])
    if ATTR_COUNTER not in fields:
        raise invalid(Problem.MISSING_FIELD, meter=entry.title, field=field)
    raw = fields[ATTR_COUNTER]
    names = {
        counter: async_text(hass, f"selector.counter.options.{counter}")
        for counter in Counter
        if counter in entry.runtime_data.meter.counters
    }
    for counter, name in names.items():
        if raw in (counter, name):
            return counter
    raise _out_of_range(entry, field, raw, "; ".join(names.values()))


@callback
def async_registers(
    hass: HomeAssistant, entry: KlefrConfigEntry, fields: Mapping[str, Any]
) -> range | None:
    """Return the registers to read, None for all. Raises ServiceValidationError."""
    if not fields:
        return None
    names = {
        field: async_field_names(hass, Action.READ_REGISTERS, [field])
        for field in FIELDS[Action.READ_REGISTERS]
    }
    blocks = entry.runtime_data.meter.registers
    if not blocks:
        given = ", ".join(name for field, name in names.items() if field in fields)
        raise invalid(Problem.NO_REGISTERS, meter=entry.title, field=given)
    if ATTR_ADDRESS not in fields:
        raise invalid(Problem.MISSING_FIELD, meter=entry.title, field=names[ATTR_ADDRESS])
    raw = fields[ATTR_ADDRESS]
    is_hex = isinstance(raw, str) and HEX.fullmatch(raw)
    address = int(raw, 16) if is_hex else _whole_number(raw)
    block = next((block for block in blocks if address in block), None)
    if address is None or block is None:
        allowed = ", ".join(f"0x{block[0]:04X} – 0x{block[-1]:04X}" for block in blocks)
        raise _out_of_range(entry, names[ATTR_ADDRESS], raw, allowed)
    raw = fields.get(ATTR_COUNT, 1)
    count = _whole_number(raw)
    most = block.stop - address
    if count is None or not 1 <= count <= most:
        raise _out_of_range(entry, names[ATTR_COUNT], raw, f"1 – {most}")
    return range(address, address + count)


@callback
def async_check_confirmation(
    hass: HomeAssistant, entry: KlefrConfigEntry, fields: Mapping[str, Any]
) -> None:
    """Raise ServiceValidationError unless the meter's serial number is given."""
    field = async_field_names(hass, Action.SET_CALCULATION_CODE_10, [ATTR_SERIAL_NUMBER])
    if ATTR_SERIAL_NUMBER not in fields:
        raise invalid(Problem.MISSING_FIELD, meter=entry.title, field=field)
    raw = fields[ATTR_SERIAL_NUMBER]
    serial_number = entry.runtime_data.meter.identity.serial_number
    # YAML makes a number of it unless it is quoted.
    if (quoted(raw) if type(raw) is int else raw) != serial_number:
        raise invalid(Problem.WRONG_CONFIRMATION, meter=entry.title, field=field, value=quoted(raw))


def _number(raw: object) -> float | None:
    """Return a number, also from the text that a template made of it."""
    if isinstance(raw, str) and NUMBER.fullmatch(raw):
        return float(raw)
    return raw if isinstance(raw, (int, float)) and not isinstance(raw, bool) else None


def _whole_number(raw: object) -> int | None:
    number = _number(raw)
    return int(number) if number is not None and number.is_integer() else None


def _out_of_range(
    entry: KlefrConfigEntry, field: str, raw: object, allowed: str
) -> ServiceValidationError:
    return invalid(
        Problem.VALUE_OUT_OF_RANGE,
        meter=entry.title,
        field=field,
        value=quoted(raw),
        allowed=allowed,
    )
