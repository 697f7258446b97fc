"""The family of meters with this register map: which is which, and what each measures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .model import TRANSFORMER_METER_CURRENT, Model, Quantity

PRO2_CURRENT: Final = 100

SINGLE_PHASE_ONLY: Final = frozenset({Quantity.VOLTAGE, Quantity.CURRENT, Quantity.ERROR_CODE})
OF_ONE_OF_THREE_PHASES: Final = frozenset(
    quantity for quantity in Quantity if quantity.endswith(("_l1", "_l2", "_l3"))
)

QUANTITIES: Final[Mapping[int, frozenset[Quantity]]] = {
    1: frozenset(Quantity) - OF_ONE_OF_THREE_PHASES,
    3: frozenset(Quantity) - SINGLE_PHASE_ONLY,
}
"""What a meter for one phase can measure, and one for three phases, however it is wired."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """What a meter code stands for."""

    phases: int
    model: Model
    variant: Model
    """With transformers, where it is for three phases. For 100 A, where it is for one."""


MEMBERS: Final[Mapping[str, Member]] = {
    "0101": Member(phases=1, model=Model.PRO1, variant=Model.PRO2),
    "0102": Member(phases=3, model=Model.KLEFR_6934, variant=Model.KLEFR_6944),
    "0103": Member(phases=3, model=Model.KLEFR_6944, variant=Model.KLEFR_6944),
    "2007": Member(phases=3, model=Model.PRO380_SOLAR, variant=Model.PRO380_CT_SOLAR),
    "2008": Member(phases=3, model=Model.PRO380_CT_SOLAR, variant=Model.PRO380_CT_SOLAR),
    "2009": Member(phases=1, model=Model.PRO1_SOLAR, variant=Model.PRO2_SOLAR),
    "2010": Member(phases=1, model=Model.PRO1_SOLAR, variant=Model.PRO2_SOLAR),
}
"""By meter code."""


def model_of(meter_code: str, *, rated_current: int, transformer_primary_current: int) -> Model:
    """Return the model. Currents are in A; without a transformer ratio the primary one is 0."""
    if (member := MEMBERS.get(meter_code)) is None:
        return Model.UNKNOWN
    if member.phases == 1:
        is_variant = rated_current == PRO2_CURRENT
    else:
        is_variant = transformer_primary_current > 0 or rated_current <= TRANSFORMER_METER_CURRENT
    return member.variant if is_variant else member.model
