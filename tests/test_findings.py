"""The findings' shape: each is one script that installs pinned packages somewhere else. They are not run here."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "findings"
SCRIPTS = sorted(path for path in FOLDER.glob("*.sh") if path.name != "lib.sh")
README = (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_finding_says_what_it_shows_and_pins_what_it_installs(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    lines = text.splitlines()
    assert os.access(script, os.X_OK)
    assert lines[0] == "#!/usr/bin/env bash"
    assert [word for word in ("# Versions: ", "# Expected: ", "# Seen: ") if word not in text] == []
    assert lines.index("set -euo pipefail") < lines.index('. "$(dirname "$0")/lib.sh"')
    assert len(lines) <= 80
    assert len(re.findall("^echo .*as recorded|print.*as recorded", text, re.MULTILINE)) == 1
    assert "changed" in text
    assert installed(text)
    assert [package for package in installed(text) if not re.fullmatch(r"[\w.-]+==[\w.]+", package)] == []
    assert [package for package in installed(text) if package.startswith("torch=") and package != "torch==2.13.0"] == []


@pytest.mark.parametrize("script", [*SCRIPTS, FOLDER / "lib.sh"], ids=lambda path: path.stem)
def test_a_finding_names_no_host_and_none_of_us(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert re.findall(r"https?://|index-url|find-links|vram[-_]bench|from bench|import bench", text) == []


def test_all_is_made_in_a_temporary_folder_that_goes() -> None:
    text = (FOLDER / "lib.sh").read_text(encoding="utf-8")
    assert "work=$(mktemp -d)" in text
    assert "trap 'rm -rf \"$work\"' EXIT" in text


def test_the_list_names_each_once() -> None:
    assert re.findall(r"^\| \[`(\w+)`\]\((\w+)\.sh\)", README, re.MULTILINE) == [(s.stem, s.stem) for s in SCRIPTS]


def installed(text: str) -> list[str]:
    """What a script installs, each as it is given to pip."""
    calls = re.findall(r"(?:new_environment|add_packages) ([^\n#]*)", text)
    return [word for call in calls for word in call.split() if not word.startswith("--")]
