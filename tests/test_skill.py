"""SKILL.md: what it says of commands, JSON and exit codes is what the program has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench.commands.command_line import commands_of, make_parser
from bench.core.errors import ExitCode
from tests.conftest import Program

PAGE = (Path(__file__).parent.parent / "SKILL.md").read_text(encoding="utf-8")
ASKED = ("model=tinyllama_1_1b", "bpw=4.0", "cache=FP16", "device=rtx_3060_12gb")
CALLS = {
    "plan": ("plan", *ASKED, "max_seq_len=auto,1024"),
    "plan setup": ("plan", "--tabby", "config.yml", *ASKED),
    "sweep": ("sweep", *ASKED, "max_seq_len=auto,1024"),
    "report": ("report",),
    "recommend": (
        "recommend",
        "device=rtx_3060_12gb",
        "model=tinyllama_1_1b",
        "min_tokens=1k",
        "cache=FP16",
        "bpw=4.0",
    ),
    "compare": ("compare", "results", "results"),
    "list": ("list",),
    "doctor": ("doctor",),
    "doctor self-test": ("doctor", "--self-test", "device=rtx_3060_12gb"),
}


def table(head: str) -> dict[str, str]:
    """The rows of the table with that head, by their first cells."""
    block = PAGE.split(f"\n| {head} |", 1)[1].split("\n\n", 1)[0]
    rows = [line.strip("| ").split(" | ") for line in block.splitlines()[2:]]
    return {row[0]: " | ".join(row[1:]) for row in rows}


def words(text: str) -> list[str]:
    return re.findall(r"`(\w+)`", text)


@pytest.fixture(scope="module")
def documents(called: Program, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each command prints."""
    folder = tmp_path_factory.mktemp("skill")
    (folder / "config.yml").write_text("model:\n  model_name: mine\n  max_seq_len: 1024\n")
    found = {}
    for name, call in CALLS.items():
        done = called(*call, "--json", cwd=folder)
        found[name] = json.loads(done.stdout)
    return found


def test_the_members_are_those_that_are_printed(documents: dict[str, dict[str, Any]]) -> None:
    told = table("command | members")
    assert set(told) == {f"`{name.split()[0]}`" for name in CALLS}
    for command, text in told.items():
        name = command.strip("`")
        own, _, more = text.partition(";")
        assert words(re.sub(r"\(each .*\)", "", own)) == [*documents[name]]
        if name == "plan":
            assert words(more) == [key for key in documents["plan setup"] if key not in documents["plan"]]
        if name == "doctor":
            assert words(more) == [*documents["doctor self-test"]]


@pytest.mark.parametrize(
    ("told", "command", "member"),
    [
        ("item of `cells`", "plan", "cells"),
        ("item of `cases` of `plan`", "plan", "cases"),
        ("item of `boundaries`", "sweep", "boundaries"),
        ("item of `cases` of `sweep`", "sweep", "cases"),
        ("item of `recommendations`", "report", "recommendations"),
        ("`setup`", "plan setup", "setup"),
    ],
)
def test_the_keys_of_each_are_there(documents: dict[str, dict[str, Any]], told: str, command: str, member: str) -> None:
    value = documents[command][member]
    item = value if isinstance(value, dict) else value[0]
    keys = words(table("of each | read first")[told])
    assert len(keys) > 3
    assert set(keys) <= set(item)


def test_the_exit_codes_are_those_of_the_program() -> None:
    assert [int(code) for code in table("code | means | do")] == [*ExitCode]


def test_the_commands_are_those_of_the_program(called: Program, tmp_path: Path) -> None:
    parsers = commands_of(make_parser())
    named = re.findall(r"`(?:vram-bench )?([a-z]+)(?: [^`]*)?`", PAGE.split("\n## JSON")[0])
    spoken = {name for name in named if name in parsers}
    assert parsers.keys() - spoken == {"synth", "completion", "share"}  # which answer no question
    for option, command in {
        "--tabby": "plan",
        "--webui": "plan",
        "--self-test": "doctor",
        "--published": "validate",
    }.items():
        assert option in PAGE
        assert option in parsers[command].format_help()
    first = re.findall(r"`vram-bench (plan model=[^`]*)`", PAGE)
    assert first
    for words_of in first:
        done = called(*words_of.split(), "cache=FP16", "turns=2", "--cfg", "job", cwd=tmp_path)
        assert done.returncode == 0, done.stderr


def test_it_is_one_page() -> None:
    assert len(PAGE.splitlines()) < 100
    assert PAGE.startswith("---\nname: vram-bench\n")
