"""That README leads to what exists, and that its commands work."""

from collections.abc import Iterator
from functools import cache
import os
from pathlib import Path
import re
import shlex
import signal
import subprocess
import sys
from threading import Timer
from typing import Final
from xml.etree import ElementTree as ET

import pytest

from tests.readme import ROOT, TEXT, blocks, prose

from .test_integration import ENGLISH

FIRST_SCREEN: Final = 60
"""Lines."""
CI: Final = (ROOT / ".ci/run").read_text(encoding="utf-8")
SVG: Final = "{http://www.w3.org/2000/svg}"
READY_SECONDS: Final = 60

# What is written by hand stands for something else in each run.
PLACEHOLDERS: Final = {
    "/tmp/": "{tmp}/",
    "0.0.0.0:502": "127.0.0.1:0",
    "FILE": "tests/data/real_meter_registers.json",
}


def console() -> Iterator[str]:
    """Return the commands in fenced blocks."""
    for block in blocks("console"):
        for line in block.replace("\\\n", " ").splitlines():
            yield " ".join(line.partition("#")[0].split())


def simulators() -> list[str]:
    return [command for command in console() if "-m simulator" in command]


def scripts() -> set[str]:
    """Return the commands of this folder, in fenced blocks and between backquotes."""
    named = {*console(), *re.findall(r"`([^`\n]+)`", prose())}
    return {each for each in named if re.match(r"(scripts/|\.ci/)", each)}


def test_every_command_is_known() -> None:
    """What is in a fenced block is either a script or a simulator."""
    assert {*console()} <= scripts() | {*simulators()}
    assert len(simulators()) == 4
    assert {"scripts/demo", "scripts/test", "scripts/demo --check"} <= scripts()


@cache
def help_of(module: str) -> str:
    command = [sys.executable, "-m", module, "--help"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("command", sorted(scripts()))
def test_a_script_exists_and_takes_these_arguments(command: str) -> None:
    name, *arguments = shlex.split(command)
    script = ROOT / name
    assert os.access(script, os.X_OK)
    subprocess.run(["/bin/bash", "-n", script], check=True)
    text = script.read_text(encoding="utf-8")
    if module := re.search(r"python -m (demo|soak) ", text.replace('"$@"', " ")):
        text = help_of(module[1])
    options = [each for each in arguments if re.match(r"--[a-z]", each)]
    assert [option for option in options if option not in text] == []


def test_ci_runs_every_script() -> None:
    """Also those that other scripts run first. Pictures are taken with the code of the tests in a browser."""
    others = {".ci/run", "scripts/screenshots", "scripts/setup"}
    assert {command.split()[0] for command in scripts()} - others == {
        *re.findall(r"scripts/[a-z]+", CI)
    }


@pytest.mark.parametrize("command", simulators())
def test_a_simulator_starts(command: str, tmp_path: Path) -> None:
    arguments = command.partition("-m simulator")[2]
    for written, meant in PLACEHOLDERS.items():
        arguments = arguments.replace(written, meant.format(tmp=tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-m", "simulator", *shlex.split(arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        # One that never says that it is ready would keep the test waiting.
        too_late = Timer(READY_SECONDS, process.kill)
        too_late.start()
        ready = process.stdout.readline()
        too_late.cancel()
        process.send_signal(signal.SIGTERM)
    assert " is ready on " in ready
    assert process.returncode == 0


def headings() -> dict[str, str]:
    """Return the marks of the headings by the links that lead to them."""
    return {
        re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-"): marks
        for marks, title in re.findall(r"^(#+) (.*)$", prose(), re.MULTILINE)
    }


def test_every_link_leads_to_a_heading() -> None:
    links = set(re.findall(r"\]\(#([^)]+)\)", TEXT))
    assert links - headings().keys() == set()


def test_the_contents_name_every_section_on_the_first_screen() -> None:
    contents = TEXT[: TEXT.index("\n## ", TEXT.index("\n## Contents\n") + 1)]
    assert len(contents.splitlines()) <= FIRST_SCREEN
    links = set(re.findall(r"\]\(#([^)]+)\)", contents))
    sections = {link for link, marks in headings().items() if marks == "##"}
    # Above and beside the contents, and reached on the way to what is named.
    assert sections - links == {"what-this-is-and-for-whom", "contents", "adding-a-meter"}
    assert "`scripts/demo`" in contents
    assert "`scripts/test`" in contents


def section(heading: str) -> str:
    """Return what stands below a heading and those below it."""
    marks, body = heading.partition(" ")[0], TEXT.partition(f"\n{heading}\n")[2]
    assert body
    return re.split(rf"^#{{2,{len(marks)}}} ", body, maxsplit=1, flags=re.MULTILINE)[0]


def names_in_first_cells(text: str) -> list[str]:
    return [row.split("|")[1].lower() for row in text.splitlines() if row.startswith("| ")]


def test_every_entity_is_listed() -> None:
    rows = names_in_first_cells(section("## What the entities mean"))

    def is_listed(name: str) -> bool:
        """Whether a row has the name, and beside it the phase or the tariff."""
        words = name.lower().split()
        parts = [word for word in words if re.fullmatch("[lt][123]", word)]
        what = " ".join(word for word in words if word not in parts)
        return any(what in row and {*parts} <= {*re.findall(r"\w+", row)} for row in rows)

    platforms = ENGLISH["entity"].values()
    names = [entity["name"] for platform in platforms for entity in platform.values()]
    assert len(names) > 70
    assert [name for name in names if not is_listed(name)] == []


def labels() -> set[str]:
    """Return the fields of all forms but those that change the meter or choose among meters."""
    steps = {**ENGLISH["config"]["step"], **ENGLISH["options"]["step"]}
    found = [
        data
        for name, step in steps.items()
        if not name.startswith("change")
        for data in (
            step.get("data", {}),
            *(each["data"] for each in step.get("sections", {}).values()),
        )
    ]
    return {label for data in found for key, label in data.items() if key != "meter"}


def test_every_parameter_is_listed() -> None:
    cells = " ".join(names_in_first_cells(section("### Configuration parameters")))
    assert len(labels()) >= 10
    assert {label for label in labels() if label.lower() not in cells} == set()


def pictures() -> list[str]:
    return re.findall(r"!\[[^]]+\]\((images/[^)]+)\)", TEXT)


def test_every_picture_is_shown() -> None:
    folder = ROOT / "images"
    assert sorted(pictures()) == sorted(f"images/{file.name}" for file in folder.iterdir())


def test_every_drawing_stands_alone() -> None:
    drawings = [picture for picture in pictures() if picture.endswith(".svg")]
    assert len(drawings) == 2
    for drawing in drawings:
        text = (ROOT / drawing).read_text(encoding="utf-8")
        root = ET.fromstring(text)
        assert root.findtext(f"{SVG}title")
        # A page may be dark, and may load nothing from elsewhere.
        assert "prefers-color-scheme: dark" in text
        assert re.findall(r"(?:href|url)\W", text) == []
        assert root.find(f"{SVG}rect[@class='paper']") is not None


def test_the_button_adds_this_repository() -> None:
    owner, repository = "klefr-home-assistant", "klefr"
    assert (
        "https://my.home-assistant.io/redirect/hacs_repository/"
        f"?owner={owner}&repository={repository}&category=integration"
    ) in TEXT
    assert f"`https://github.com/{owner}/{repository}`" in TEXT
