"""The meters of the demo, the lines they are on, and how their user adds them."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from simulator import mbus, modbus
from simulator.meter import VirtualMeter

from .clock import Clock

HOUSE = 1
AT_GRID, AT_ROOF = "22091039", "22091204"
"""The serial numbers of the two meters that are on the Energy dashboard."""


@dataclass(frozen=True, kw_only=True)
class DemoMeter:
    """A virtual meter, what its user chooses from menus and types into forms to add it."""

    virtual: VirtualMeter
    choices: tuple[str, ...] = ()
    """Nothing where a search has found it already, and it only has to be confirmed."""
    form: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class DemoLine:
    """Meters on one line, and what connects them."""

    name: str
    serve: Callable[..., AbstractAsyncContextManager[Any]]
    meters: tuple[DemoMeter, ...]


def demo_lines(clock: Clock) -> list[DemoLine]:
    """Make the meters. Two run by the clock: at the grid and at the roof of one house."""
    return [
        DemoLine(
            name="modbus",
            serve=modbus.serve,
            meters=(
                DemoMeter(
                    virtual=VirtualMeter(
                        serial_number=AT_GRID, model="6934", seed=HOUSE, clock=clock
                    ),
                    choices=("serial", "modbus"),
                    form={"protocol": "modbus", "address": 1, "line_settings": {}},
                ),
                DemoMeter(
                    virtual=VirtualMeter(serial_number="22091047", address=7, seed=3),
                    choices=("serial", "search"),
                    form={"protocol": "modbus", "meter": "22091047"},
                ),
                DemoMeter(
                    virtual=VirtualMeter(
                        serial_number="22091112", model="6944", address=112, seed=4
                    ),
                    form={},
                ),
                DemoMeter(
                    virtual=VirtualMeter(
                        serial_number=AT_ROOF,
                        model="pro1",
                        address=20,
                        seed=5,
                        roof_of=HOUSE,
                        clock=clock,
                    ),
                    form={},
                ),
            ),
        ),
        DemoLine(
            name="mbus",
            serve=mbus.serve,
            meters=(
                DemoMeter(
                    virtual=VirtualMeter(serial_number="22091040", model="6933", seed=2),
                    choices=("serial", "mbus"),
                    form={"protocol": "mbus", "address": "22091040", "line_settings": {}},
                ),
            ),
        ),
    ]
