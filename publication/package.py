"""Make the file of a release. It runs with any Python 3, so that a release needs no environment."""

import argparse
import json
from pathlib import Path
import re
import subprocess
import sys
from typing import Final
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

ROOT: Final = Path(__file__).parents[1]
INTEGRATION: Final = "custom_components/klefr"
ARCHIVE: Final = "klefr.zip"
# The same content gives the same file.
TIME: Final = (2026, 1, 1, 0, 0, 0)


def notes(changelog: str, version: str) -> str:
    """Return what a changelog says of a version, or an empty text."""
    sections = re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]
    for section in sections:
        heading, _, text = section.partition("\n")
        if heading.split()[0] == version:
            return text.strip()
    return ""


def shipped(root: Path) -> list[Path]:
    """Return the files of the integration that are under version control."""
    command = ["git", "ls-files", "-z", INTEGRATION]
    listed = subprocess.check_output(command, cwd=root, text=True)  # noqa: S603, a fixed command
    return [root / name for name in sorted(listed.split("\0")) if name]


def write_archive(root: Path) -> None:
    """Write the files of the integration, without the folders that they are in."""
    with ZipFile(root / ARCHIVE, "w") as archive:
        for file in shipped(root):
            name = file.relative_to(root / INTEGRATION).as_posix()
            archive.writestr(ZipInfo(name, TIME), file.read_bytes(), ZIP_DEFLATED)


def main(root: Path = ROOT) -> int:
    """Write the archive and the notes, or return 1 if this is no version to release."""
    parser = argparse.ArgumentParser(prog="scripts/package", description=f"Make {ARCHIVE}.")
    parser.add_argument("version", help="the tag that is released")
    parser.add_argument("notes", type=Path, help="the file for the version's part of CHANGELOG.md")
    options = parser.parse_args()
    manifest = json.loads((root / INTEGRATION / "manifest.json").read_text(encoding="utf-8"))
    if options.version != manifest["version"]:
        print(f"The tag is {options.version}, but manifest.json says {manifest['version']}.")
        return 1
    text = notes((root / "CHANGELOG.md").read_text(encoding="utf-8"), options.version)
    if not text:
        print(f"CHANGELOG.md says nothing of {options.version}.")
        return 1
    options.notes.write_text(text + "\n", encoding="utf-8")
    write_archive(root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
