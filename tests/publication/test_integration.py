"""What hassfest and the HACS validation ask of the integration's files."""

import ast
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
import json
from pathlib import Path
import re
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "custom_components" / "klefr"
CORE: Final = Path(find_spec("homeassistant").submodule_search_locations[0])  # type: ignore[union-attr, index]


def read_json(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def read_yaml(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return found


MANIFEST: Final = read_json(FOLDER / "manifest.json")
HACS: Final = read_json(ROOT / "hacs.json")
ICONS: Final = read_json(FOLDER / "icons.json")
ENGLISH: Final = read_json(FOLDER / "translations" / "en.json")
SERVICES: Final = read_yaml(FOLDER / "services.yaml")

MANIFEST_KEYS: Final = {
    *("domain", "name", "after_dependencies", "categories", "codeowners", "config_flow"),
    *("connectivity", "dependencies", "documentation", "integration_type", "iot_class"),
    *("issue_tracker", "loggers", "requirements", "version"),
}


# The manifest.


def test_the_manifest_has_its_keys_in_order() -> None:
    keys = list(MANIFEST)
    assert keys[:2] == ["domain", "name"]
    assert keys[2:] == sorted(keys[2:])
    assert set(keys) == MANIFEST_KEYS


def test_the_manifest_says_what_the_integration_is() -> None:
    assert MANIFEST["domain"] == FOLDER.name
    assert MANIFEST["integration_type"] == "device"
    assert MANIFEST["iot_class"] == "local_polling"
    assert MANIFEST["config_flow"] is (FOLDER / "config_flow.py").exists()
    # Home Assistant before 2026.11 does not read these two.
    assert MANIFEST["categories"] == ["energy.meters_monitoring"]
    assert MANIFEST["connectivity"] == ["modbus", "network", "serial"]
    assert MANIFEST["codeowners"]
    assert all(owner.startswith("@") for owner in MANIFEST["codeowners"])
    for key in ("after_dependencies", "connectivity", "dependencies", "loggers"):
        assert MANIFEST[key] == sorted(MANIFEST[key]), key


def test_the_manifest_links_to_the_repository_of_its_owner() -> None:
    repository = f"https://github.com/{MANIFEST['codeowners'][0].removeprefix('@')}/klefr"
    assert MANIFEST["documentation"] == repository
    assert MANIFEST["issue_tracker"] == f"{repository}/issues"


def test_the_requirement_is_a_range_that_tests_run_at_both_ends_of() -> None:
    assert MANIFEST["requirements"] == ["pymodbus>=3.11.2,<4"]
    assert "pymodbus==3.11.2\n" in (ROOT / "requirements/ha-oldest.txt").read_text()
    assert re.match(r"pymodbus==3\.", (ROOT / "requirements/pymodbus-newest.txt").read_text())


def components(file: Path) -> Iterator[str]:
    """Return which of Home Assistant's components a file imports."""
    prefix = "homeassistant.components."
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.startswith(prefix):
                yield name.removeprefix(prefix).split(".")[0]


def test_every_component_that_is_imported_is_declared() -> None:
    imported = {name for file in FOLDER.rglob("*.py") for name in components(file)}
    assert "sensor" in imported
    # A component for which the integration has a platform need not be declared.
    imported = {name for name in imported if not (FOLDER / f"{name}.py").exists()}
    declared = {*MANIFEST["after_dependencies"], *MANIFEST["dependencies"]}
    # The list of serial ports in the form comes from usb.
    assert imported == declared - {"usb"}
    assert "usb" in MANIFEST["dependencies"]
    # Home Assistant without shared Modbus connections has to load the integration too.
    assert "modbus" in MANIFEST["after_dependencies"]


def test_the_version_is_written_in_one_place() -> None:
    number = MANIFEST["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", number)
    assert "version" not in re.findall(r"^\w+", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    for file in FOLDER.rglob("*.py"):
        assert number not in file.read_text(encoding="utf-8"), file
    newest = re.search(
        r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert newest
    assert newest[1] == number


def test_an_integration_that_is_only_set_up_in_forms_says_so() -> None:
    assert "CONFIG_SCHEMA = cv.config_entry_only_config_schema(DOMAIN)" in (
        FOLDER / "__init__.py"
    ).read_text(encoding="utf-8")


# HACS and the Marketplace.


def test_hacs_finds_one_integration_with_its_name_and_oldest_home_assistant() -> None:
    assert {"name": MANIFEST["name"], "homeassistant": "2026.5.0"} == HACS
    assert [each for each in FOLDER.parent.iterdir() if each.is_dir()] == [FOLDER]
    assert (ROOT / "README.md").exists()
    # The same Home Assistant that the tests run on.
    release = HACS["homeassistant"].removesuffix(".0")
    pinned = (ROOT / "requirements/ha-oldest.txt").read_text(encoding="utf-8")
    assert re.search(rf"^homeassistant=={re.escape(release)}\.\d+$", pinned, re.MULTILINE)
    assert f"Home Assistant {release} " in (ROOT / "README.md").read_text(encoding="utf-8")


# Icons and actions.


def leaves(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    else:
        for branch in tree.values():
            yield from leaves(branch)


def test_every_icon_is_known() -> None:
    """The frontend's list of icons is not installed here: what Home Assistant uses is in it."""
    known = {
        icon
        for file in CORE.glob("components/*/icons.json")
        for icon in re.findall(r'"(mdi:[^"]+)"', file.read_text(encoding="utf-8"))
    }
    assert len(known) > 1000
    icons = set(leaves(ICONS))
    assert icons
    assert icons - known == set()


def test_icons_belong_to_what_exists() -> None:
    assert ICONS.keys() <= {"entity", "services"}
    assert ICONS["services"].keys() == SERVICES.keys()
    for platform, entities in ICONS["entity"].items():
        for key, icons in entities.items():
            strings = ENGLISH["entity"][platform][key]
            assert icons.keys() <= {"default", "state"}
            assert icons.get("state", {}).keys() <= strings.get("state", {}).keys()


def test_every_action_is_described() -> None:
    assert SERVICES.keys() == ENGLISH["services"].keys()
    for action, service in SERVICES.items():
        strings = ENGLISH["services"][action]
        assert strings.keys() == {"name", "description", "fields"}
        assert all(leaves(strings))
        assert service.keys() == {"target", "fields"}
        assert service["fields"].keys() == strings["fields"].keys()
        for name, field in service["fields"].items():
            assert strings["fields"][name].keys() == {"name", "description"}
            assert field.keys() <= {"required", "example", "selector"}
            assert len(field["selector"]) == 1
            select = field["selector"].get("select", {})
            if "translation_key" in select:
                options = ENGLISH["selector"][select["translation_key"]]["options"]
                assert options.keys() >= set(select["options"])


def test_no_word_for_users_is_left_in_the_code() -> None:
    for file in FOLDER.glob("*.py"):
        assert not re.search(r"_attr_(name|icon)\b", file.read_text(encoding="utf-8")), file


def test_json_files_are_formatted_alike() -> None:
    files = [*FOLDER.rglob("*.json"), ROOT / "hacs.json"]
    assert len(files) >= 5
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert text.endswith("}\n"), file
        if file.name != "manifest.json":
            assert text == json.dumps(read_json(file), indent=2, ensure_ascii=False) + "\n", file


@pytest.mark.parametrize("environment", ["test", "demo", "ha-oldest"])
def test_three_releases_of_home_assistant_are_installed(environment: str) -> None:
    pinned = (ROOT / f"requirements/{environment}.txt").read_text(encoding="utf-8")
    release = re.search(r"^homeassistant==(\d+\.\d+)", pinned, re.MULTILINE)
    assert release
    assert release[1] == {"test": "2026.10", "demo": "2026.11", "ha-oldest": "2026.5"}[environment]
    if environment == "test":
        assert version("homeassistant").startswith(release[1])
