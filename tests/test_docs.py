"""What the pages name is there: files, and the words of the program's own sources."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [
    *sorted(ROOT.glob("README*.md")),
    ROOT / "SKILL.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
# Of others, or of the reader's own.
_ELSEWHERE = {"config.yml", "my_card.yaml", "mine.yaml", "test_inference.py"}
_WORDS_ELSEWHERE = {"ByteSize", "parse_safetensors_file_metadata"}
_FILES = [
    path.relative_to(ROOT).as_posix()
    for folder in (".github", "bench", "conf", "findings", "scripts", "tests")
    for path in (ROOT / folder).rglob("*.*")
] + [path.name for path in ROOT.iterdir()]
_INSIDE = ("adding.md", "architecture.md", "decisions.md", "glossary.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    named = set(re.findall(r"[\w./-]*\w\.(?:py|sh|ya?ml|toml)\b", page.read_text(encoding="utf-8")))
    own = {name for name in named if Path(name).name not in _ELSEWHERE and not re.search("NAME|ENGINE", name)}
    assert not {
        name for name in own if not any(f"/{file}".endswith(f"/{re.sub(r'^[./]*/', '', name)}") for file in _FILES)
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]


def test_the_files_of_a_room_are_in_it() -> None:
    table = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)/` \|(.*)\|[^|]*\|$", table, re.MULTILINE)
    assert rows
    for room, told in rows:
        for name in re.findall(r"`([\w/]+\.py)`", told):
            assert (ROOT / "bench" / room / name).exists(), f"{room}: {name}"


@pytest.mark.parametrize("name", _INSIDE)
def test_the_words_of_the_code_are_those_of_the_code(name: str) -> None:
    """Of the pages about the inside: a name in backticks that is written as code is must be in the sources."""
    sources = " ".join(
        path.read_text(encoding="utf-8")
        for pattern in ("bench/**/*.py", "tests/**/*.py", "scripts/**/*.py", "conf/*.yaml")
        for path in ROOT.glob(pattern)
    )
    words = set(re.findall(r"\w+", sources))
    text = re.sub(
        r"^```.*?^```", "", (ROOT / "docs" / name).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    named = re.findall(r"`([A-Za-z_]+(?:\.[A-Za-z_]+)*)(?:\([^`]*\))?`", text)
    code = {word for each in named for word in each.split(".") if "_" in word or re.search("[a-z][A-Z]", word)}
    assert sorted(code - words - _WORDS_ELSEWHERE) == []
