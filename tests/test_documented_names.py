"""Every file and folder that README.md, CONTRIBUTING.md and docs/ name is there."""

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
_PATH = re.compile(r"(?<![\w/.…~-])((?:bench|scripts|docs|tests)/[\w/.-]*\w)")
_NAME = re.compile(r"`((?:\w+/)*\w+\.(?:py|sh))\b")
_PLACEHOLDER = re.compile(r"\b(?:NAME|ENGINE)\b")
OTHERS = {"test_inference.py": "is ExLlamaV2's"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    paths = {path for path in _PATH.findall(text) if not _PLACEHOLDER.search(path)}
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []
    names = {name for name in _NAME.findall(text) if not _PLACEHOLDER.search(name)} - OTHERS.keys()
    files = [path.as_posix() for top in ("bench", "scripts", "tests", "findings") for path in (ROOT / top).rglob("*.*")]
    assert sorted(name for name in names if not any(file.endswith(f"/{name}") for file in files)) == []
