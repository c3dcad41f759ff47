"""README.zh-CN.md and docs/quickstart.zh-CN.md have the tables, figures and commands of README.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.core.errors import ExitCode

ROOT = Path(__file__).parent.parent
ENGLISH = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")
QUICK = (ROOT / "docs" / "quickstart.zh-CN.md").read_text(encoding="utf-8")
# What a cell says in words, in both languages.
CELLS = {
    "fits": "放得下",
    "OOM making the cache": "OOM（建缓存时）",
    "OOM loading": "OOM（加载时）",
}
_NUMBER = re.compile(r"[−+]?\d[\d,]*(?:\.\d+)?")


def tables(text: str) -> list[list[list[str]]]:
    """Every table: its rows without the head, each a list of cells."""
    found = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [[[cell.strip() for cell in row.strip("|").split("|")] for row in each.splitlines()[2:]] for each in found]


def numbers(text: str) -> set[str]:
    return {each.strip(",") for each in _NUMBER.findall(text)}


def commands(text: str) -> list[str]:
    """The lines of all shell blocks without their comments."""
    lines = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)).splitlines()
    return [command for line in lines if (command := re.sub(r"(^|\s+)#.*$", "", line).strip())]


def test_the_pages_are_linked_at_the_top() -> None:
    top = "\n".join(ENGLISH.splitlines()[:4])
    assert "](README.zh-CN.md)" in top
    assert "](docs/quickstart.zh-CN.md)" in top
    assert "](README.md)" in "\n".join(CHINESE.splitlines()[:4])


@pytest.mark.parametrize("number", [0, 1])
def test_a_table_of_figures_is_that_of_the_english_page(number: int) -> None:
    assert len(tables(ENGLISH)[number]) > 5
    assert tables(CHINESE)[number] == [[CELLS.get(cell, cell) for cell in row] for row in tables(ENGLISH)[number]]


def test_the_quickstart_has_the_table_of_boundaries() -> None:
    assert tables(QUICK) == [tables(ENGLISH)[0]]


def test_what_people_say_is_answered_with_the_same_figures() -> None:
    english, chinese = tables(ENGLISH)[2], tables(CHINESE)[2]
    assert len(english) == len(chinese) == 3
    for told, said in zip(english, chinese, strict=True):
        assert [numbers(cell) for cell in told] == [numbers(cell) for cell in said]


def test_the_commands_are_those_of_the_english_page() -> None:
    assert commands(CHINESE) == commands(ENGLISH)


def test_the_text_has_no_figure_that_the_english_page_lacks() -> None:
    text = ENGLISH + "72 24 40"
    assert numbers(CHINESE) - numbers(text) == set()
    own = re.sub(r"^```sh\n.*?^```|^\d\.", "", QUICK, flags=re.MULTILINE | re.DOTALL)
    assert numbers(own) - numbers(CHINESE) - {"11"} == set()


def test_the_exit_codes_are_those_of_the_program() -> None:
    told = CHINESE.split("退出码：", 1)[1].split("。", 1)[0]
    assert [int(part.split()[0]) for part in told.split("；")] == [*ExitCode]
