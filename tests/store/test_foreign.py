"""What anybody may have put among the results: named and skipped, never waited for, and never other values."""

from __future__ import annotations

import csv
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.store import foreign
from bench.store.journal import Journal
from bench.store.schema import CASES
from bench.store.store import compact, read_cases, to_be_shown, without_formulae, write_csv
from tests.conftest import Program
from tests.store.test_store import REQUIRED

ESCAPE = "\x1b[31mred\x1b]0;title\x07\u202etxt\n[2/2] done\u2028"


def _row(**changes: Any) -> dict[str, Any]:
    return {**REQUIRED, **changes}


def _table(**changes: Any) -> pa.Table:
    row = _row(**changes)
    return pa.Table.from_pylist([{**row, "started_at": datetime.fromisoformat(row["started_at"])}], schema=CASES)


def _odd_files(folder: Path) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("journal-folder-1.jsonl", "folder.parquet"):
        (folder / name).mkdir()
    for name in ("journal-self-1.jsonl", "self.parquet"):
        (folder / name).symlink_to(folder / name)
    for name in ("journal-pipe-1.jsonl", "pipe.parquet"):
        os.mkfifo(folder / name)
    return sorted(os.listdir(folder))


def test_what_is_no_file_is_named_and_not_waited_for(in_process: Program, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "odd"
    names = _odd_files(folder)
    (folder / "journal-deep-1.jsonl").write_bytes(b"[" * 100_000 + b"\n")
    table, problems = read_cases(tmp_path / "results")
    assert table.num_rows == 0
    assert [any(name in problem for problem in problems) for name in names] == [True] * len(names)
    assert compact(folder) is None
    reported = in_process("report")
    assert "Traceback" not in reported.stderr
    assert reported.returncode in (1, 2)


@pytest.mark.parametrize("columns", [{}, {"model": "x"}])
def test_more_rows_than_bytes_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: dict[str, Any]
) -> None:
    monkeypatch.setattr(foreign, "_FREE_ROWS", 100)
    one = _table(**columns)
    path = tmp_path / "cases.parquet"
    pq.write_table(pa.concat_tables([one] * 20_000).combine_chunks(), path, compression="zstd")
    assert path.stat().st_size < 80_000
    table, problems = read_cases(tmp_path)
    assert table.num_rows == 0
    (problem,) = problems
    assert "20,000 rows in" in problem
    assert "they cannot all be different" in problem


def test_long_texts_in_many_rows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "MOST_TEXT_BYTES", 1 << 20)
    one = _table(model="x" * 10_000)
    pq.write_table(pa.concat_tables([one] * 200).combine_chunks(), tmp_path / "cases.parquet")
    table, problems = read_cases(tmp_path)
    assert table.num_rows == 0
    assert "bytes of text in 200 rows" in problems[0]


def test_a_changed_byte_is_never_another_value(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in range(20):
        journal.append(_row(case_id=f"{number:016x}", peak_device_bytes=number))
    journal.close()
    path = compact(tmp_path)
    assert path is not None
    right, data = read_cases(tmp_path)[0], path.read_bytes()
    footer = int.from_bytes(data[-8:-4], "little") + 8
    for at in range(4, len(data) - footer, 97):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :])
        table, problems = read_cases(tmp_path)
        assert problems or table.equals(right), at


def test_texts_of_rows_can_be_shown(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for row in (_row(model=ESCAPE, notes=[ESCAPE, "ü – ≥"]), _row(case_id="other", model="Ünïcode")):
        journal.append(row)
    journal.close()
    read = read_cases(tmp_path)
    assert read[0].column("model").to_pylist()[0] == ESCAPE
    shown = to_be_shown(read)[0].to_pylist()
    assert shown[0]["model"] == r"\x1b[31mred\x1b]0;title\x07\u202etxt\x0a[2/2] done\u2028"
    assert shown[0]["notes"] == [shown[0]["model"], "ü – ≥"]
    assert shown[1]["model"] == "Ünïcode"


def test_a_spreadsheet_computes_nothing(tmp_path: Path) -> None:
    frame = pa.table({"model": ["=1+1", "@x", "-2", "+3", "fine", None], "n": [-1, 2, 3, 4, 5, 6]}).to_pandas()
    write_csv([frame], tmp_path / "x.csv")
    lines = list(csv.reader((tmp_path / "x.csv").read_text().splitlines()))
    assert lines[1:] == [["'=1+1", "-1"], ["'@x", "2"], ["'-2", "3"], ["'+3", "4"], ["fine", "5"], ["", "6"]]
    assert without_formulae(frame)["model"].tolist()[:5] == ["'=1+1", "'@x", "'-2", "'+3", "fine"]
