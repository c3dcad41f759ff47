"""Names that anybody may have given: they are shown, and do nothing."""

from __future__ import annotations

import csv
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from bench.store.journal import Journal
from bench.store.store import read_cases
from tests.commands.test_refused_models import CARD, SMALL
from tests.conftest import Program
from tests.store.test_store import REQUIRED

HOSTILE = (
    '\x1b[31m=HYPERLINK("x")<img src=http://a.example/i.png>![i](http://a.example/i.png)`x`|$\\frac$|@all'
    "\n[9/9] 😀 \u202e"
)
_MEANS = re.compile(r"[\x1b\u202e]|<img|(?<!\\)\]\(|://a\.example")


def _rows(folder: Path, **changes: Any) -> None:
    journal = Journal(folder / "run")
    for length in (2048, 4096):
        known = {"device_total_bytes": 24 << 30, "peak_device_bytes": length << 20, "model_fingerprint": "f" * 16}
        journal.append({**REQUIRED, "case_id": f"{length}", "max_seq_len": length, **known, **changes})
    journal.close()


def _has_no_meaning(text: str) -> bool:
    outside, inside = text.split("```")[::2], text.split("```")[1::2]
    return not any(map(_MEANS.search, outside)) and "\x1b" not in "".join(inside)


def test_a_report_shows_hostile_text_and_does_nothing_of_it(in_process: Program, tmp_path: Path) -> None:
    names = dict.fromkeys(("model", "device_name", "attention", "error", "device_full_name"), HOSTILE)
    _rows(tmp_path / "results", **{**names, "model": f"={HOSTILE}", "notes": [HOSTILE]})
    reported = in_process("report", plots=True)
    assert reported.returncode == 0, reported.stderr
    assert "Glyph" not in reported.stderr
    assert not any(character in reported.stdout + reported.stderr for character in "\x1b\u202e\u2028")
    assert "\n[9/9]" not in reported.stdout
    files = sorted((tmp_path / "results" / "report").iterdir())
    for file in files:
        if file.suffix == ".md":
            assert _has_no_meaning(file.read_text()), file
        elif file.suffix == ".svg":
            ElementTree.parse(file)
        elif file.suffix == ".csv":
            for line in csv.reader(file.read_text().splitlines()):
                assert not any(cell.startswith(("=", "+", "@")) for cell in line)
    assert {file.suffix for file in files} >= {".md", ".svg", ".csv", ".png", ".html"}


def test_a_comparison_for_a_pull_request_has_no_image_and_no_link(in_process: Program, tmp_path: Path) -> None:
    for side, length in (("base", 1), ("head", 2)):
        _rows(tmp_path / side, model=HOSTILE, device_name=HOSTILE, peak_allocated_bytes=length << 30)
    compared = in_process("compare", "base", "head", "--out", "out.md")
    assert compared.returncode in (0, 1), compared.stderr
    assert _has_no_meaning((tmp_path / "out.md").read_text())
    assert not any(character in compared.stdout for character in "\x1b\u202e")


@pytest.mark.parametrize("name", ["esc\x1b[31mred", "line\n[2 of 2] x: fits", "turned\u202etxt", "bytes\udcff"])
def test_a_name_that_cannot_be_shown_is_refused_before_anything_runs(
    in_process: Program, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "config.json").write_text(json.dumps(SMALL))
    (tmp_path / "card.yaml").write_text(json.dumps({"kind": "simulated", "name": name, "total_memory": "8GiB"}))
    model = (f"model.path={name}", CARD)
    own_card = ("model=llama_3_2_1b", "device=./card.yaml")
    for words in (model, own_card) if name.isascii() else (model,):
        swept = in_process("sweep", *words, "max_seq_len=512", "results_dir=r")
        assert (swept.returncode, swept.stdout) == (2, "")
        assert not any(character in swept.stderr for character in "\x1b\u202e\udcff")
        assert not (tmp_path / "r").exists()


def test_a_name_of_any_letters_is_a_row(in_process: Program, tmp_path: Path) -> None:
    name = "Modèle (a)=b's, 😀"
    (tmp_path / name).mkdir()
    (tmp_path / name / "config.json").write_text(json.dumps(SMALL))
    swept = in_process("sweep", f"model.path={name}", CARD, "max_seq_len=512", "results_dir=r")
    assert swept.returncode == 0, swept.stderr
    assert read_cases(tmp_path / "r")[0].column("model").to_pylist() == [name]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested more than 32 deep"),
        ('{"a":' + "[" * 40 + "]" * 40 + "}", "nested more than 32 deep"),
        (json.dumps({**SMALL, "x": "x" * 150_000}), "one with a text of 150,000 characters"),
        (json.dumps({**SMALL, "architectures": ["\x1b[31mred"]}), r"cannot be shown (\x1b[31mred)"),
        (json.dumps({**SMALL, "architectures": ["Bad\ud800"]}), r"cannot be shown (Bad\ud800)"),
        (" " * (5 << 20), "longer than 4,194,304 bytes"),
        ("7", "not a JSON object"),
        ("9" * 5000, "not a JSON object"),
    ],
    ids=lambda value: value[:20],
)
def test_a_config_that_is_none_is_refused(in_process: Program, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text(text)
    for command in ("plan", "sweep"):
        refused = in_process(command, "model.path=m", CARD, "max_seq_len=512")
        assert (refused.returncode, refused.stdout) == (2, "")
        assert said in refused.stderr
        assert refused.stderr.count("\n") == 1


def test_a_long_config_reaches_the_child_whole(in_process: Program, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    long = {**SMALL, **{f"of_others_{number}": "x" * 60_000 for number in range(5)}}
    (tmp_path / "m" / "config.json").write_text(json.dumps(long))
    swept = in_process("sweep", "model.path=m", CARD, "max_seq_len=512", "results_dir=r")
    assert swept.returncode == 0, swept.stderr
    assert read_cases(tmp_path / "r")[0].column("outcome").to_pylist() == ["fits"]


def test_an_empty_axis_is_told(in_process: Program) -> None:
    refused = in_process("plan", "model=llama_3_1_8b", "bpw=range(4,4)", CARD)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "the axis is empty" in refused.stderr
