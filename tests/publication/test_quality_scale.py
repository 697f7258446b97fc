"""That quality_scale.yaml claims nothing that is not so."""

import ast
from collections.abc import Callable
import re
import tomllib
from typing import Any, Final

import pytest

from .test_integration import CORE, ENGLISH, FOLDER, ICONS, MANIFEST, ROOT, SERVICES, read_yaml

RULES: Final[dict[str, Any]] = read_yaml(FOLDER / "quality_scale.yaml")["rules"]
PLATFORMS: Final = ("binary_sensor", "button", "number", "select", "sensor")


def code(module: str) -> str:
    return (FOLDER / f"{module}.py").read_text(encoding="utf-8")


def all_code() -> str:
    return "".join(file.read_text(encoding="utf-8") for file in FOLDER.rglob("*.py"))


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def functions(*modules: str) -> dict[str, ast.AST]:
    """Return all functions and methods of some modules by name."""
    return {
        node.name: node
        for module in modules
        for node in ast.walk(ast.parse(code(module)))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def flow_steps() -> set[str]:
    modules = [file.stem for file in FOLDER.glob("*flow*.py")]
    return {
        name.removeprefix("async_step_")
        for name in functions(*modules)
        if name.startswith("async_step_")
    }


def imports(*packages: str) -> bool:
    """Return whether any of some packages is imported."""
    pattern = rf"^\s*(import|from) ({'|'.join(packages)})\b"
    return re.search(pattern, all_code(), re.MULTILINE) is not None


def errors_are_translated() -> bool:
    """Return whether no error that a user may see is raised with words in the code."""
    shown = (
        r"(HomeAssistantError|ServiceValidationError|UpdateFailed|ConfigEntry\w*(Error|NotReady))"
    )
    raised = [
        node.exc
        for file in FOLDER.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
        if re.fullmatch(shown, ast.unparse(node.exc.func))
    ]
    return bool(raised) and all(
        not error.args
        and any(keyword.arg in ("translation_key", None) for keyword in error.keywords)
        for error in raised
    )


def reads(*words: str) -> Callable[[], bool]:
    """Return whether README has all of some words or patterns."""
    return lambda: all(re.search(word, readme(), re.IGNORECASE | re.MULTILINE) for word in words)


# What can be seen of each rule that is done.
DONE: Final[dict[str, Callable[[], bool]]] = {
    "action-setup": lambda: (
        "async_setup_services(hass)" in ast.unparse(functions("__init__")["async_setup"])
    ),
    "appropriate-polling": lambda: "update_interval=" in code("coordinator"),
    "brands": (FOLDER / "brand" / "icon.png").exists,
    "common-modules": lambda: (
        "(DataUpdateCoordinator[" in code("coordinator") and "CoordinatorEntity" in code("entity")
    ),
    "config-flow": lambda: (
        MANIFEST["config_flow"]
        and all(
            step.get("data", {}).keys() == step.get("data_description", {}).keys()
            for step in ENGLISH["config"]["step"].values()
        )
    ),
    "config-flow-test-coverage": (ROOT / "tests/integration/test_config_flow.py").exists,
    "dependency-transparency": lambda: all(
        re.match(r"[a-z]+[>=]", requirement) for requirement in MANIFEST["requirements"]
    ),
    "docs-actions": lambda: all(
        f"`{MANIFEST['domain']}.{action}`" in readme() for action in SERVICES
    ),
    "docs-high-level-description": reads(r"^## What this is", "Inepro"),
    "docs-installation-instructions": reads(r"^## Installation", "HACS"),
    "docs-removal-instructions": reads(r"^#+ .*\bremov", r"\*\*Delete\*\*|remove the integration"),
    "entity-unique-id": lambda: "self._attr_unique_id = " in code("entity"),
    "has-entity-name": lambda: "_attr_has_entity_name = True" in code("entity"),
    "runtime-data": lambda: (
        "entry.runtime_data = " in code("__init__")
        and "ConfigEntry[KlefrData]" in code("coordinator")
    ),
    "test-before-configure": lambda: "identify(" in code("flow_base") + code("config_flow"),
    "test-before-setup": lambda: (
        "raise ConfigEntryNotReady(" in ast.unparse(functions("__init__")["async_setup_entry"])
    ),
    "unique-config-entry": lambda: (
        "async_set_unique_id(" in code("config_flow")
        and "_abort_if_unique_id_configured(" in code("config_flow")
    ),
    "action-exceptions": errors_are_translated,
    "config-entry-unloading": lambda: "async_unload_entry" in functions("__init__"),
    "docs-configuration-parameters": reads("how often Home Assistant reads the meter"),
    "docs-installation-parameters": reads("line settings", "TCP port", "secondary"),
    "entity-unavailable": lambda: "UpdateFailed" in code("coordinator"),
    "integration-owner": lambda: bool(MANIFEST["codeowners"]),
    # The coordinator of Home Assistant logs it once, and once when it ends.
    "log-when-unavailable": lambda: (
        "UpdateFailed" in code("coordinator")
        and not re.search(r"LOGGER\.(warning|error)\(", code("coordinator"))
    ),
    "parallel-updates": lambda: all(
        re.search(r"^PARALLEL_UPDATES = [01]$", code(platform), re.MULTILINE)
        for platform in PLATFORMS
    ),
    "test-coverage": lambda: (
        int(re.findall(r"--cov-fail-under=(\d+)", (ROOT / "scripts/test").read_text())[0]) >= 95
    ),
    "devices": lambda: "DeviceInfo(" in code("entity"),
    "diagnostics": lambda: "async_get_config_entry_diagnostics" in functions("diagnostics"),
    "docs-data-update": reads("every 10 seconds"),
    "docs-examples": reads("^## Examples", "blueprint"),
    "docs-known-limitations": reads("Known limit"),
    "docs-supported-devices": lambda: all(
        model in readme() for model in ("6933", "6934", "6943", "6944")
    ),
    "docs-supported-functions": reads("^### Sensors", "^### Binary sensors", "^### Controls"),
    "docs-troubleshooting": reads("does not work|Troubleshooting"),
    "docs-use-cases": reads("Energy dashboard", "tariff"),
    "entity-category": lambda: all("entity_category=" in code(platform) for platform in PLATFORMS),
    "entity-device-class": lambda: all(
        "device_class" in code(platform) for platform in ("binary_sensor", "sensor")
    ),
    "entity-disabled-by-default": lambda: "entity_registry_enabled_default" in code("sensor"),
    "entity-translations": lambda: ENGLISH["entity"].keys() == set(PLATFORMS),
    "exception-translations": errors_are_translated,
    "icon-translations": lambda: bool(ICONS["entity"]) and "icon=" not in all_code(),
    "reconfiguration-flow": lambda: "reconfigure" in flow_steps(),
    "repair-issues": lambda: "async_create_issue(" in all_code() and bool(ENGLISH["issues"]),
    # An asyncio.Protocol moves the bytes.
    "async-dependency": lambda: (
        "(asyncio.Protocol)" in code("meter/bus")
        and not imports("serial", "requests")
        and "time.sleep(" not in all_code()
    ),
    "strict-typing": lambda: (
        project()["tool"]["mypy"]["strict"] is True
        and "custom_components" in project()["tool"]["mypy"]["files"]
        and "# type: ignore" not in all_code()
    ),
}

# What can be seen of each rule that does not apply: it would have this.
EXEMPT: Final[dict[str, Callable[[], bool]]] = {
    "docs-conditions": (FOLDER / "conditions.yaml").exists,
    "docs-triggers": (FOLDER / "triggers.yaml").exists,
    "entity-event-setup": lambda: any(
        re.search(r"async_added_to_hass|async_listen|async_track|async_dispatcher", code(module))
        for module in (*PLATFORMS, "entity")
    ),
    "reauthentication-flow": lambda: "reauth" in flow_steps() or "AuthFailed" in all_code(),
    "discovery": lambda: (
        not MANIFEST.keys().isdisjoint(
            {"bluetooth", "dhcp", "homekit", "mqtt", "ssdp", "usb", "zeroconf"}
        )
    ),
    "discovery-update-info": lambda: not flow_steps().isdisjoint({"dhcp", "ssdp", "zeroconf"}),
    "dynamic-devices": lambda: "async_get_or_create(" in all_code(),
    "stale-devices": lambda: "async_remove_device(" in all_code(),
    "inject-websession": lambda: imports("aiohttp", "httpx", "requests"),
}


def test_every_rule_of_home_assistant_is_answered() -> None:
    # A complete file of a platinum integration of the installed Home Assistant has them all.
    model = read_yaml(CORE / "components" / "solaredge_modbus" / "quality_scale.yaml")["rules"]
    assert len(model) == 54
    assert RULES.keys() == model.keys()


def test_every_rule_is_done_or_exempt_for_a_reason() -> None:
    for rule, answer in RULES.items():
        if answer != "done":
            assert answer.keys() == {"status", "comment"}, rule
            assert answer["status"] == "exempt", rule
            assert answer["comment"].strip().endswith("."), rule


def test_every_answer_is_checked() -> None:
    assert DONE.keys() == {rule for rule, answer in RULES.items() if answer == "done"}
    assert EXEMPT.keys() == RULES.keys() - DONE.keys()


@pytest.mark.parametrize("rule", DONE)
def test_what_is_done_can_be_seen(rule: str) -> None:
    assert DONE[rule]()


@pytest.mark.parametrize("rule", EXEMPT)
def test_what_is_exempt_does_not_exist(rule: str) -> None:
    assert not EXEMPT[rule]()
