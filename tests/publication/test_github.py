"""What GitHub, a release and a contributor's Git take from this repository."""

import re
from typing import Any, Final

import pytest
import yaml

from .test_integration import HACS, ROOT

GITHUB: Final = ROOT / ".github"
WORKFLOWS: Final = sorted((GITHUB / "workflows").glob("*.yml"))


def load(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def commands_of_ci() -> set[str]:
    """Return the commands of .ci/run, with what a loop puts in them."""
    text = (ROOT / ".ci/run").read_text(encoding="utf-8")
    commands = set(re.findall(r"^ *(scripts/[^>\n]*?) *(?:>.*)?$", text, re.MULTILINE))
    for name, values in re.findall(r"^for (\w+) in (.*); do$", text, re.MULTILINE):
        commands = {
            command.replace(f'"${name}"', value)
            for command in commands
            for value in (values.split() if f'"${name}"' in command else [""])
        }
    return commands


def test_github_runs_what_ci_runs() -> None:
    (job,) = load(".github/workflows/check.yml")["jobs"].values()
    commands = job["strategy"]["matrix"]["command"]
    assert len(commands) == len(set(commands)) > 5
    assert set(commands) == commands_of_ci()
    assert job["steps"][-1] == {"run": "${{ matrix.command }}"}


def test_tests_that_need_a_package_of_the_system_are_not_skipped() -> None:
    for path in (".github/workflows/check.yml", ".ci/run"):
        assert "apt-get install -qq mbpoll" in (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_a_workflow_may_only_do_what_it_needs(file: Any) -> None:
    workflow = load(f".github/workflows/{file.name}")
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] <= 60
        assert ("permissions" in job) == (name == "release")


def test_actions_are_pinned() -> None:
    used = {
        line.strip().removeprefix("- ")
        for file in WORKFLOWS
        for line in file.read_text(encoding="utf-8").splitlines()
        if "uses:" in line
    }
    assert len(used) == 3
    for action in used:
        assert re.fullmatch(r"uses: [\w./-]+@[0-9a-f]{40} # \S+", action)
    assert load(".github/dependabot.yml")["updates"][0]["package-ecosystem"] == "github-actions"


def test_hassfest_and_hacs_are_asked_every_night() -> None:
    text = (GITHUB / "workflows/validate.yml").read_text(encoding="utf-8")
    assert re.search(r'cron: "\d+ \d+ \* \* \*"', text)
    jobs = load(".github/workflows/validate.yml")["jobs"]
    assert jobs.keys() == {"hassfest", "hacs"}
    assert jobs["hacs"]["steps"][-1]["with"] == {"category": "integration"}


def test_a_problem_comes_with_what_is_needed_to_understand_it() -> None:
    fields = {each.get("id"): each for each in load(".github/ISSUE_TEMPLATE/problem.yml")["body"]}
    for name in ("diagnostics", "home-assistant", "integration", "model", "bus", "hardware"):
        assert fields[name]["validations"] == {"required": True}, name
    models = " ".join(fields["model"]["attributes"]["options"])
    assert all(
        model in models for model in ("6933", "6934", "6943", "6944", "PRO1", "PRO2", "PRO380")
    )


def test_links_in_the_issue_forms_lead_to_a_heading_of_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", readme, re.MULTILINE)
    }
    linked = {
        anchor
        for file in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml")
        for anchor in re.findall(r"/klefr#([\w-]+)", file.read_text(encoding="utf-8"))
    }
    assert linked
    assert linked <= headings


def test_the_pull_request_template_asks_for_ci() -> None:
    assert ".ci/run" in (GITHUB / "pull_request_template.md").read_text(encoding="utf-8")


def test_pre_commit_runs_lint() -> None:
    (repository,) = load(".pre-commit-config.yaml")["repos"]
    (hook,) = repository["hooks"]
    assert repository["repo"] == "local"
    assert hook["entry"] == "scripts/lint"


def paragraphs(name: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return [" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n")]


def test_info_says_in_ten_lines_what_readme_says_first() -> None:
    assert len((ROOT / "info.md").read_text(encoding="utf-8").splitlines()) == 10
    info = paragraphs("info.md")
    readme = paragraphs("README.md")
    assert info[0] == readme[0]
    assert [each for each in readme if each in info] == info
    assert HACS["homeassistant"].removesuffix(".0") in info[-1]
