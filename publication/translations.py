"""Write the files in translations/ from strings.json, and strings.json without repetition.

A text that stands in several places of strings.json is written in one of them, its home. The
other places refer to it, as Home Assistant's own strings do:

    "address": "[%key:component::klefr::config::step::modbus::data::address%]"

Home Assistant reads only translations/. English is strings.json with the references replaced. In
other languages a text is translated at its home and copied to the places that refer to it.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping
import json
from pathlib import Path
import re
import sys
from typing import Any, Final

FOLDER: Final = Path(__file__).parents[1] / "custom_components" / "klefr"
ENGLISH: Final = "en"

REFERENCE: Final = re.compile(r"\[%key:component::klefr::(.+)%\]")
# What a text names, and not where else it is mentioned, is its home.
HOMES: Final = ("entity", "exceptions")

type Tree = Mapping[str, Any]
type Texts = dict[str, str]  # by path, such as config::step::user::title


def flat(tree: Tree, prefix: str = "") -> Texts:
    """Return all texts of a file by path, in the file's order."""
    texts: Texts = {}
    for key, value in tree.items():
        texts |= (
            {prefix + key: value} if isinstance(value, str) else flat(value, f"{prefix}{key}::")
        )
    return texts


def nested(texts: Texts) -> Tree:
    """Return texts by path as they stand in a file."""
    tree: dict[str, Any] = {}
    for path, text in texts.items():
        *parents, key = path.split("::")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[key] = text
    return tree


def homes(strings: Texts) -> dict[str, str]:
    """Return for each path the path where its text is written.

    Raises ValueError if a reference leads nowhere, to another reference, or to Home Assistant's
    own common strings: it does not ship these in other languages.
    """
    found = {}
    for path, text in strings.items():
        reference = REFERENCE.fullmatch(text)
        found[path] = reference[1] if reference else path
        if "[%" in strings.get(found[path], "[%"):
            raise ValueError(f"{path} has to refer to a text, or be one: {text}")
    return found


def translation(strings: Texts, written: Texts) -> Texts:
    """Return a language's whole file, made of what is written in that language.

    What has no translation is left out: Home Assistant then shows it in English.
    """
    return {path: written[home] for path, home in homes(strings).items() if home in written}


def without_repetition(strings: Texts) -> Texts:
    """Return the same strings with each text in one place and references in all others."""
    expanded = translation(strings, strings)
    places = defaultdict(list)
    for path, text in expanded.items():
        places[text].append(path)

    def home(text: str) -> str:
        for section in HOMES:
            for path in places[text]:
                if path.startswith(f"{section}::"):
                    return path
        return places[text][0]

    return {
        path: text if path == home(text) else f"[%key:component::klefr::{home(text)}%]"
        for path, text in expanded.items()
    }


def content(texts: Texts) -> str:
    """Return what a file with these texts holds."""
    return json.dumps(nested(texts), indent=2, ensure_ascii=False) + "\n"


def read(file: Path) -> Texts:
    """Return a file's texts by path."""
    return flat(json.loads(file.read_text(encoding="utf-8")))


def wanted(folder: Path) -> dict[Path, str]:
    """Return what each file in translations/ has to hold."""
    strings = read(folder / "strings.json")
    files = {folder / "translations" / f"{ENGLISH}.json": strings}
    for file in sorted((folder / "translations").glob("*.json")):
        files.setdefault(file, read(file))
    return {file: content(translation(strings, written)) for file, written in files.items()}


def main() -> int:
    """Write the files, or return 1 if they are not what they have to be."""
    parser = argparse.ArgumentParser(
        prog="scripts/translations", description="Write translations/ from strings.json."
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--check", action="store_true", help="only say which files are not up to date"
    )
    choice.add_argument(
        "--refer",
        action="store_true",
        help="first replace each text that strings.json already has by a reference to it",
    )
    options = parser.parse_args()
    strings = FOLDER / "strings.json"
    if options.refer:
        strings.write_text(content(without_repetition(read(strings))), encoding="utf-8")
    outdated = {
        file: text
        for file, text in wanted(FOLDER).items()
        if not file.exists() or file.read_text(encoding="utf-8") != text
    }
    for file, text in outdated.items():
        if options.check:
            print(f"{file.name} is not up to date: run scripts/translations.")
        else:
            file.write_text(text, encoding="utf-8")
    return int(options.check and bool(outdated))


if __name__ == "__main__":
    sys.exit(main())
