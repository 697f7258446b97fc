"""What may import what, and what ships."""

import ast
from graphlib import TopologicalSorter
from importlib.util import find_spec
import json
from pathlib import Path
import sys
from typing import Any

import pytest

import custom_components.klefr as integration

FOLDER = Path(integration.__file__).parent
ROOT = FOLDER.parents[1]
INTEGRATION = "custom_components.klefr"
METER = f"{INTEGRATION}.meter"

# The modules of the integration. Each imports only from the rows above its own.
ROWS = (
    ("const", "meter"),
    ("entry_errors", "port_users"),
    ("statistics", "stores", "wording"),
    ("bus_load", "health", "logbook", "service_errors", "wrong_meter"),
    ("coordinator",),
    ("entity", "entry_data", "issues", "registry", "shared_modbus"),
    ("shared_buses",),
    ("communication",),
    ("replacement",),
    ("binary_sensor", "button", "diagnostics", "flow_schemas", "number", "select", "sensor"),
    ("flow_base", "repairs", "service_targets", "service_values"),
    ("flow_communication", "flow_search", "services"),
    ("config_flow",),
)


def imported_names(module: str, file: Path) -> set[str]:
    """Return the full names that a module imports, at its top, in functions and for typing."""
    package = module.split(".") if file.stem == "__init__" else module.split(".")[:-1]
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*parents, *filter(None, [node.module])])
            names |= {f"{source}.{alias.name}" for alias in node.names}
    return names


def imports(folder: str) -> dict[str, set[str]]:
    """Return what each module in a folder of the project imports, by full names."""
    return {
        module: imported_names(module, file)
        for file in (ROOT / folder).rglob("*.py")
        for path in [file.relative_to(ROOT).with_suffix("")]
        for module in [".".join(path.parts).removesuffix(".__init__")]
    }


def dependencies(folder: str) -> dict[str, set[str]]:
    """Return which modules of the folder each module there needs.

    Besides what it imports these are the packages around that, because they run first. Those
    that are around the module too run already.
    """
    graph = imports(folder)
    needed: dict[str, set[str]] = {}
    for module, names in graph.items():
        needed[module] = set()
        for name in names:
            around = [each for each in graph if f"{name}.".startswith(f"{each}.")]
            if around:
                imported = max(around, key=len)
                packages = {each for each in around if not f"{module}.".startswith(f"{each}.")}
                needed[module] |= {imported} | packages
    return needed


@pytest.mark.parametrize("folder", ["custom_components/klefr", "simulator", "demo"])
def test_there_are_no_import_circles(folder: str) -> None:
    needed = dependencies(folder)
    assert any(needed.values())
    # Raises CycleError, which names the modules of a circle.
    TopologicalSorter(needed).prepare()


def test_imports_in_functions_count() -> None:
    needed = dependencies("custom_components/klefr")
    assert f"{INTEGRATION}.shared_modbus" in needed[f"{INTEGRATION}.shared_buses"]


def test_imports_run_one_way() -> None:
    needed = {
        module.removeprefix(f"{INTEGRATION}."): {
            name.removeprefix(f"{INTEGRATION}.").split(".")[0] for name in names
        }
        for module, names in dependencies("custom_components/klefr").items()
        if module != INTEGRATION and not module.startswith(f"{METER}.")
    }
    needed["meter"] -= {"meter"}
    assert needed.keys() == {module for row in ROWS for module in row}
    above: set[str] = set()
    for row in ROWS:
        for module in row:
            assert needed[module] <= above, module
        above |= set(row)


def test_the_meter_knows_nothing_of_home_assistant() -> None:
    names = {name for names in imports("custom_components/klefr/meter").values() for name in names}
    assert any(name.startswith("serialx") for name in names)
    assert not [name for name in names if name.startswith("homeassistant")]
    assert not [
        name for name in names if name.startswith(INTEGRATION) and not name.startswith(METER)
    ]


def test_nothing_that_ships_needs_what_does_not() -> None:
    assert not [
        name
        for names in imports("custom_components/klefr").values()
        for name in names
        if name.split(".")[0] in ("simulator", "tests", "demo")
    ]


def test_the_simulator_is_independent() -> None:
    assert not [
        name for names in imports("simulator").values() for name in names if "klefr" in name
    ]


def test_entries_have_the_type_that_says_what_they_hold() -> None:
    plain = {
        module: names & {"homeassistant.config_entries.ConfigEntry"}
        for module, names in imports("custom_components/klefr").items()
    }
    assert [module for module, names in plain.items() if names] == [f"{INTEGRATION}.coordinator"]
    annotated = (FOLDER / "coordinator.py").read_text(encoding="utf-8")
    assert annotated.count("ConfigEntry[KlefrData]") == 1


def manifest() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
    return found


def test_the_manifest_names_every_logger() -> None:
    outside = {
        name.split(".")[0]
        for names in imports("custom_components/klefr").values()
        for name in names
    }
    # A shared Modbus connection is one of tmodbus.
    candidates = {*outside, "tmodbus"} - {"homeassistant", "voluptuous", "custom_components"}
    logging = {
        package
        for package in candidates - sys.stdlib_module_names
        for spec in [find_spec(package)]
        if spec is not None and spec.origin is not None
        if any(
            "getLogger(" in file.read_text(encoding="utf-8")
            for file in Path(spec.origin).parent.rglob("*.py")
        )
    }
    loggers = manifest()["loggers"]
    assert loggers == sorted(loggers)
    # Home Assistant before 2026.9 comes without shared Modbus connections.
    assert {logger for logger in loggers if find_spec(logger)} == logging
    assert candidates >= set(loggers)
