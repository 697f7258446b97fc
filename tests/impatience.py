"""Give up sooner than on a real line, where meters take their time."""

from collections.abc import Callable
from importlib import import_module
import inspect
from typing import Any

import pytest

from custom_components.klefr.meter import MBusBus, ModbusBus


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the defaults of a function's keyword-only parameters, to be patched."""
    return inspect.unwrap(function).__kwdefaults__  # type: ignore[no-any-return]


def lose_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait no longer than a meter without pacing can take on a busy machine."""
    monkeypatch.setattr(import_module("custom_components.klefr.meter.move"), "PAUSE", 0)
    for bus in ("modbus", "mbus"):
        monkeypatch.setattr(f"custom_components.klefr.meter.{bus}.bus.OVERDUE", 0.2)
    monkeypatch.setitem(defaults(ModbusBus._request), "delay", 0.2)
    monkeypatch.setitem(defaults(MBusBus._reached), "slack", 0.05)
