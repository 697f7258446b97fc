"""Texts in several languages: written once, complete, and in a form that Home Assistant takes."""

import json
from pathlib import Path
import re
from string import Formatter
from typing import Final
import unicodedata

import pytest

from publication import translations
from publication.translations import FOLDER, flat, nested, read, translation, without_repetition

STRINGS = {
    "config::step::user::title": "Add a meter",
    "config::step::bus::title": "Serial port",
    "config::step::bus::data::port": "Serial port",
    "config::error::lost": "No meter at {port}.",
    "entity::sensor::tariff::name": "Tariff",
    "exceptions::lost::message": "No meter at {port}.",
    "services::change::fields::tariff::name": "Tariff",
}
REFERRING = STRINGS | {
    "config::step::bus::data::port": "[%key:component::klefr::config::step::bus::title%]",
    "config::error::lost": "[%key:component::klefr::exceptions::lost::message%]",
    "services::change::fields::tariff::name": (
        "[%key:component::klefr::entity::sensor::tariff::name%]"
    ),
}
CONTRIBUTING: Final = Path(__file__).parents[2] / "CONTRIBUTING.md"
FILES = sorted((FOLDER / "translations").glob("*.json"))


def test_a_text_is_written_where_it_names_something_and_referred_to_elsewhere() -> None:
    assert without_repetition(STRINGS) == REFERRING
    assert without_repetition(REFERRING) == REFERRING


def test_english_is_the_strings_with_references_replaced() -> None:
    assert translation(REFERRING, REFERRING) == STRINGS
    assert list(translation(REFERRING, REFERRING)) == list(STRINGS)


def test_another_language_is_translated_once_and_copied_to_where_it_is_referred_to() -> None:
    written = {
        "gone::title": "Weg",
        "config::step::bus::data::port": "Port",
        "config::step::bus::title": "Serieller Anschluss",
        "entity::sensor::tariff::name": "Tarif",
    }
    assert translation(REFERRING, written) == {
        "config::step::bus::title": "Serieller Anschluss",
        "config::step::bus::data::port": "Serieller Anschluss",
        "entity::sensor::tariff::name": "Tarif",
        "services::change::fields::tariff::name": "Tarif",
    }


@pytest.mark.parametrize(
    "wrong",
    [
        "[%key:component::klefr::config::step::nowhere%]",
        "[%key:component::klefr::config::error::lost%]",  # a reference itself
        "More than [%key:component::klefr::config::step::bus::title%]",
        "[%key:common::config_flow::data::port%]",
    ],
)
def test_a_wrong_reference_is_named(wrong: str) -> None:
    with pytest.raises(ValueError, match="config::step::user::title"):
        translation(REFERRING | {"config::step::user::title": wrong}, REFERRING)


def test_a_file_by_paths_is_the_file() -> None:
    assert nested(flat(nested(STRINGS))) == nested(STRINGS)
    assert nested({"a::b": "1", "c": "2"}) == {"a": {"b": "1"}, "c": "2"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "strings.json").write_text(json.dumps(nested(STRINGS)), encoding="utf-8")
    (tmp_path / "translations").mkdir()
    (tmp_path / "translations" / "de.json").write_text(
        '{"exceptions": {"lost": {"message": "Kein Zähler an {port}."}}}', encoding="utf-8"
    )
    monkeypatch.setattr(translations, "FOLDER", tmp_path)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["translations", *arguments])
    return translations.main()


def test_the_script_writes_every_language(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "--check") == 1
    assert not (folder / "translations" / "en.json").exists()
    assert run(monkeypatch, "--refer") == 0
    assert read(folder / "strings.json") == REFERRING
    assert read(folder / "translations" / "en.json") == STRINGS
    assert read(folder / "translations" / "de.json") == {
        "config::error::lost": "Kein Zähler an {port}.",
        "exceptions::lost::message": "Kein Zähler an {port}.",
    }
    assert "ä" in (folder / "translations" / "de.json").read_text(encoding="utf-8")
    assert run(monkeypatch, "--check") == 0


# The files of this repository.


def test_the_script_was_run() -> None:
    for file, content in translations.wanted(FOLDER).items():
        assert file.read_text(encoding="utf-8") == content, "run scripts/translations"


def test_no_text_is_written_twice() -> None:
    strings = read(FOLDER / "strings.json")
    assert strings == without_repetition(strings), "run scripts/translations --refer"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_language_is_complete(file: Path) -> None:
    assert list(read(file)) == list(read(FOLDER / "strings.json"))


def fields(text: str) -> set[str]:
    return {field for _, field, _, _ in Formatter().parse(text) if field is not None}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_language_has_the_placeholders_of_english(file: Path) -> None:
    english = read(FOLDER / "translations" / "en.json")
    for path, text in read(file).items():
        assert fields(text) == fields(english[path]), path


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_language_has_the_numbers_and_the_paragraphs_of_english(file: Path) -> None:
    english = read(FOLDER / "translations" / "en.json")
    for path, text in read(file).items():
        for pattern in (r"\d+", r"\n", r"\*+"):
            expected = sorted(re.findall(pattern, english[path]))
            assert sorted(re.findall(pattern, text)) == expected, path


# How many characters a text may have in its place: what English needs, and half of it more.
LIMITS: Final = {
    r"entity::\w+::\w+::name": 42,
    r"entity::\w+::\w+::state::\w+": 65,
    r"entity::.*::state_attributes::\w+::name": 12,
    r".*::data::\w+": 40,
    r".*::menu_options::\w+": 60,
    r".*::title": 60,
    r"services::.*::name": 48,
    r"selector::(?!bus_load::).*": 85,
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_text_fits_in_its_place(file: Path) -> None:
    for path, text in read(file).items():
        for place, limit in LIMITS.items():
            if re.fullmatch(place, path):
                assert len(text) <= limit, path


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_name_in_a_text_is_the_name_that_a_user_sees(file: Path) -> None:
    texts = read(file)
    names = {*texts.values(), *(row[file.stem] for row in glossaries())}
    for path, text in texts.items():
        for name in re.findall(r"(?<!\*)\*(?!\*)([^*]+)\*", text):
            assert name in names, path
    action = texts["services::set_calculation_code_10::name"].partition(" (")[0]
    assert action in texts["exceptions::calculation_code_irreversible::message"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_text_is_one_that_hassfest_takes(file: Path) -> None:
    for path, text in read(file).items():
        assert text, path
        assert text == text.strip(), path
        assert not re.search(r"<[a-zA-Z/]", text), path
        assert not re.search(r"'\{\w+\}'", text), path
        assert not re.search(r"(https?|ftps?|mqtts?|socket)://|www\.", text, re.IGNORECASE), path
        assert "[%" not in text, path
        assert all(field.isidentifier() for field in fields(text)), path
        if re.search(r"^entity::.*::(state|state_attributes|unit_of_measurement)\b", path):
            assert not fields(text), path


SECTIONS = {"common", "config", "entity", "exceptions", "issues", "options", "selector", "services"}
FORM = {"step", "error", "abort", "progress", "create_entry", "flow_title"}
STEP = {
    *("title", "description", "data", "data_description", "submit", "sections"),
    *("menu_options", "menu_option_descriptions"),
}
SECTION = {"name", "description", "data", "data_description"}


def test_every_text_is_in_a_place_that_hassfest_knows() -> None:
    for path in read(FOLDER / "strings.json"):
        section, *rest = path.split("::")
        assert section in SECTIONS, path
        if section in ("config", "options"):
            assert rest[0] in FORM, path
            if rest[0] == "step":
                assert rest[2] in STEP, path
                assert rest[2] != "sections" or rest[4] in SECTION, path
        elif section == "entity":
            assert rest[2] in {"name", "state", "state_attributes"}, path
        elif section == "exceptions":
            assert rest[1:] == ["message"], path
        elif section == "selector":
            assert rest[1] == "options", path


def test_every_key_is_one_that_hassfest_takes() -> None:
    for path in read(FOLDER / "strings.json"):
        for key in path.split("::"):
            assert re.fullmatch(r"[a-z0-9]+([_-][a-z0-9]+)*", key), path


# The words of the field and of Home Assistant, as CONTRIBUTING.md gives them for each language.

LANGUAGES: Final = {
    "English": "en",
    "German": "de",
    "Dutch": "nl",
    "French": "fr",
    "Spanish": "es",
    "Italian": "it",
    "Polish": "pl",
    "Czech": "cs",
}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def glossaries() -> list[dict[str, str]]:
    """Return each row of the glossaries: the term of each language."""
    rows = []
    for table in re.findall(r"(?m)(?:^\|.*\n)+", CONTRIBUTING.read_text(encoding="utf-8")):
        head, _, *lines = table.splitlines()
        if cells(head) == list(LANGUAGES):
            rows += [dict(zip(LANGUAGES.values(), cells(line), strict=True)) for line in lines]
    return rows


def words(text: str) -> list[str]:
    """Return the words of a text without accents and what is in brackets."""
    plain = unicodedata.normalize("NFD", re.sub(r"\(.*?\)", "", text.lower()))
    return re.findall(r"\w+", re.sub(r"[\u0300-\u036f]", "", plain))


def stem(word: str) -> str:
    """Return what is left of a word in all of its forms."""
    return word[: max(3, min(len(word) - 3, 5))]


def is_in(term: str, text: str) -> bool:
    return all(any(stem(word) in other for other in words(text)) for word in words(term))


def test_every_language_has_a_glossary() -> None:
    assert {file.stem for file in FILES} == set(LANGUAGES.values())
    assert len(glossaries()) > 60
    assert all(all(row.values()) for row in glossaries())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_where_english_has_a_term_the_others_have_theirs(file: Path) -> None:
    english = read(FOLDER / "translations" / "en.json")
    texts = read(file)
    for row in glossaries():
        if re.search("[,:]", row["en"]):
            continue  # several terms
        term = re.compile(rf"\b{re.escape(re.sub(r' *\(.*', '', row['en']))}", re.IGNORECASE)
        paths = [path for path, text in english.items() if term.search(text)]
        assert not paths or any(is_in(row[file.stem], texts[path]) for path in paths), row
        # Most texts that have a term of several words mean it.
        if " " in term.pattern and row["en"][0].islower():
            found = sum(is_in(row[file.stem], texts[path]) for path in paths)
            assert found >= len(paths) / 2, row
