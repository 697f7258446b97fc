"""What can be wrong with a call to an action."""

from enum import StrEnum

from homeassistant.exceptions import ServiceValidationError

from .const import DOMAIN


class Problem(StrEnum):
    """What can be wrong with a call, or can fail: the keys of the messages."""

    WRONG_TARGET = "wrong_target"
    WRONG_EXCLUSION = "wrong_exclusion"
    NO_METER_IN_TARGET = "no_meter_in_target"
    NO_METER_LEFT = "no_meter_left"
    SEVERAL_METERS = "several_meters"
    METER_NOT_LOADED = "meter_not_loaded"
    METER_UNAVAILABLE = "meter_unavailable"
    UNKNOWN_FIELD = "unknown_field"
    MISSING_FIELD = "missing_field"
    NO_SETTINGS = "no_settings"
    SETTING_NOT_AVAILABLE = "setting_not_available"
    VALUE_OUT_OF_RANGE = "value_out_of_range"
    CALCULATION_CODE_IRREVERSIBLE = "calculation_code_irreversible"
    CALCULATION_CODE_LOCKED = "calculation_code_locked"
    NO_REGISTERS = "no_registers"
    WRONG_CONFIRMATION = "wrong_confirmation"
    NOT_ALL_CHANGED = "not_all_changed"
    NOTHING_CHANGED = "nothing_changed"
    NOT_ALL_RESET = "not_all_reset"
    NOTHING_RESET = "nothing_reset"
    NOTHING_READ = "nothing_read"


def invalid(problem: Problem, **placeholders: str) -> ServiceValidationError:
    """Return the error for a call that is not carried out."""
    return ServiceValidationError(
        translation_domain=DOMAIN,
        translation_key=problem,
        translation_placeholders=placeholders,
    )
