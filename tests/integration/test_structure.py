"""What may import what, and what ships."""

import json
from pathlib import Path
import re

import custom_components.klefr as integration

FOLDER = Path(integration.__file__).parent
IMPORT = re.compile(r"^\s*(?:from|import)\s+([\w.]+)", re.MULTILINE)


def imports(folder: Path) -> set[str]:
    return {
        module
        for file in folder.rglob("*.py")
        for module in IMPORT.findall(file.read_text(encoding="utf-8"))
    }


def test_the_meter_knows_nothing_of_home_assistant() -> None:
    modules = imports(FOLDER / "meter")
    assert {"asyncio", "pymodbus.client"} <= modules
    assert not [module for module in modules if module.startswith(("homeassistant", "..."))]


def test_nothing_that_ships_needs_what_does_not() -> None:
    assert not [
        module
        for module in imports(FOLDER)
        if module.split(".")[0] in ("simulator", "tests", "demo")
    ]


def test_the_simulator_is_independent() -> None:
    simulator = FOLDER.parents[1] / "simulator"
    assert not [module for module in imports(simulator) if "klefr" in module]


def test_the_manifest_is_complete() -> None:
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    hacs = json.loads((FOLDER.parents[1] / "hacs.json").read_text())
    assert manifest["domain"] == FOLDER.name
    assert manifest["version"]
    assert manifest["requirements"] == ["pymodbus>=3.11.2,<4"]
    assert hacs["homeassistant"] == "2026.5.0"
