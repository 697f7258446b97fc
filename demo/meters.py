"""The meters of the demo, the lines they are on, and how their user adds them."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from simulator import mbus, modbus
from simulator.meter import VirtualMeter

from .clock import Clock


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
    """Make the meters. The first one runs by the clock, and is on the Energy dashboard."""
    return [
        DemoLine(
            name="modbus",
            serve=modbus.serve,
            meters=(
                DemoMeter(
                    virtual=VirtualMeter(serial_number="22091039", model="6934", clock=clock),
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
                        serial_number="22091204", model="pro1", address=20, seed=5
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
