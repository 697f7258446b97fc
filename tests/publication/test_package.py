"""A release: only what its tag says, with the integration and nothing else in it."""

import json
from pathlib import Path
import subprocess
from zipfile import ZipFile

import pytest

from publication.package import ARCHIVE, INTEGRATION, ROOT, main, notes, shipped

CHANGELOG = """# Changelog

## 0.2.0

- Second

## 0.1.0 (2026-11-24)

First, and ## not a heading.

- One
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / INTEGRATION
    (folder / "translations").mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"version": "0.2.0"}), encoding="utf-8")
    (folder / "translations" / "en.json").write_text("{}", encoding="utf-8")
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG, encoding="utf-8")
    for command in (["init", "--quiet"], ["add", "."]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    (folder / "left_over.py").write_text("", encoding="utf-8")
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, repository: Path, version: str) -> int:
    monkeypatch.setattr("sys.argv", ["package", version, str(repository / "notes.md")])
    return main(repository)


def test_a_release_has_the_integration_in_it(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, repository, "0.2.0") == 0
    with ZipFile(repository / ARCHIVE) as archive:
        assert archive.namelist() == ["manifest.json", "translations/en.json"]
        assert json.loads(archive.read("manifest.json")) == {"version": "0.2.0"}
    assert (repository / "notes.md").read_text(encoding="utf-8") == "- Second\n"
    first = (repository / ARCHIVE).read_bytes()
    assert run(monkeypatch, repository, "0.2.0") == 0
    assert (repository / ARCHIVE).read_bytes() == first


@pytest.mark.parametrize("tag", ["0.1.0", "v0.2.0", "0.2.1"])
def test_another_tag_than_the_version_is_not_released(
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tag: str,
) -> None:
    assert run(monkeypatch, repository, tag) == 1
    assert not (repository / ARCHIVE).exists()
    assert capsys.readouterr().out == f"The tag is {tag}, but manifest.json says 0.2.0.\n"


def test_a_version_without_notes_is_not_released(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "CHANGELOG.md").write_text("# Changelog\n\n## 0.2.0\n", encoding="utf-8")
    assert run(monkeypatch, repository, "0.2.0") == 1
    assert not (repository / ARCHIVE).exists()
    assert "0.2.0" in capsys.readouterr().out


def test_the_notes_are_the_section_of_the_version() -> None:
    assert notes(CHANGELOG, "0.1.0") == "First, and ## not a heading.\n\n- One"
    assert notes(CHANGELOG, "0.3.0") == ""


def test_what_this_repository_ships_is_what_home_assistant_needs() -> None:
    names = {file.relative_to(ROOT / INTEGRATION).as_posix() for file in shipped(ROOT)}
    assert {"manifest.json", "translations/en.json", "brand/icon.png", "meter/meter.py"} <= names
    suffixes = {Path(name).suffix for name in names}
    assert suffixes == {".json", ".png", ".py", ".yaml"}
