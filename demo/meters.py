"""The meters of the demo."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from simulator import mbus, modbus
from simulator.meter import VirtualMeter

from .clock import Clock


@dataclass(frozen=True, kw_only=True)
class DemoMeter:
    """A virtual meter, what connects it, and what its user types into the form."""

    virtual: VirtualMeter
    serve: Callable[..., AbstractAsyncContextManager[Any]]
    form: Mapping[str, object]


def demo_meters(clock: Clock) -> list[DemoMeter]:
    """Make the meters. The first one runs by the clock, and is on the Energy dashboard."""
    return [
        DemoMeter(
            virtual=VirtualMeter(serial_number="22091039", model="6934", clock=clock),
            serve=modbus.serve,
            form={
                "protocol": "modbus",
                "address": 1,
                "line_settings": {"baud_rate": "9600", "parity": "even"},
            },
        ),
        DemoMeter(
            virtual=VirtualMeter(serial_number="22091040", model="6933", seed=2),
            serve=mbus.serve,
            form={
                "protocol": "mbus",
                "address": "22091040",
                "line_settings": {"baud_rate": "9600"},
            },
        ),
    ]
