"""That CONTRIBUTING leads to what exists."""

import re
from typing import Final

import pytest

from publication.translations import FOLDER, read

from .test_integration import ROOT

TEXT: Final = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
LANGUAGES: Final = {
    "German": "de",
    "Dutch": "nl",
    "French": "fr",
    "Spanish": "es",
    "Italian": "it",
    "Polish": "pl",
    "Czech": "cs",
}


def paths() -> list[str]:
    """Return what the text names between backquotes and looks like a path."""
    named = re.findall(r"`([\w./*-]+)`", TEXT)
    return sorted({each for each in named if re.search(r"/|\.(py|json|csv|md|yaml)$", each)})


@pytest.mark.parametrize("path", [path for path in paths() if path != "klefr.zip"])
def test_every_path_exists(path: str) -> None:
    assert any(list(folder.glob(path.rstrip("/"))) for folder in (ROOT, FOLDER)), path


def test_every_script_exists() -> None:
    scripts = set(re.findall(r"scripts/[a-z]+", TEXT))
    assert "scripts/demo" in scripts
    assert {script for script in scripts if not (ROOT / script).exists()} == set()


def tables() -> list[list[list[str]]]:
    """Return the cells of all tables."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else None
        for line in TEXT.splitlines()
    ]
    found: list[list[list[str]]] = []
    for before, row in zip([None, *rows], rows, strict=False):
        if row is not None:
            if before is None:
                found.append([])
            found[-1].append(row)
    return found


def test_every_table_is_filled() -> None:
    for table in tables():
        assert len({len(row) for row in table}) == 1
        for row in table[2:]:
            assert row[0]
            if table[0][-1] == "Czech":
                assert all(row), row


def test_the_glossaries_have_every_language() -> None:
    glossaries = [table[0] for table in tables() if table[0][0] == "English"]
    assert glossaries == [["English", *LANGUAGES]] * 2
    translated = {file.stem for file in (FOLDER / "translations").glob("*.json")} - {"en"}
    assert translated <= set(LANGUAGES.values())


def test_the_example_of_a_reference_is_a_text() -> None:
    (example,) = re.findall(r"\[%key:component::klefr::(.+)%\]", TEXT)
    assert example in read(FOLDER / "strings.json")
