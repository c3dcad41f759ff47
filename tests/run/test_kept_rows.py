"""Rows that a sweep has already are had again as they were, wherever they are kept."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.columns import CaseRow
from bench.run.kept_rows import KeptRows

VALUES = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text() | st.lists(st.text(), max_size=3)


def _row(**values: Any) -> CaseRow:
    return cast(CaseRow, values)


@given(rows=st.dictionaries(st.text(), st.dictionaries(st.text(), VALUES, max_size=4), max_size=8))
def test_every_row_is_had_again(tmp_path_factory: pytest.TempPathFactory, rows: dict[str, dict[str, Any]]) -> None:
    kept = KeptRows({"stored": _row(outcome="fits")}, tmp_path_factory.getbasetemp())
    for case_id, row in rows.items():
        kept.add(case_id, cast(CaseRow, row))
    assert dict(kept) == {"stored": {"outcome": "fits"}, **rows}
    assert len(kept) == len({"stored", *rows})
    kept.close()


def test_a_long_row_and_a_moment_and_the_last_of_two(tmp_path: Path) -> None:
    kept = KeptRows({"a": _row(outcome="crash")}, tmp_path)
    moment = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    kept.add("a", _row(outcome="oom", error="x" * 100_000, started_at=moment))
    assert kept["a"] == {"outcome": "oom", "error": "x" * 100_000, "started_at": "2026-01-02T03:04:05.000678+00:00"}
    kept.add("a", _row(outcome="fits"))
    assert (kept["a"], list(kept), "b" in kept) == ({"outcome": "fits"}, ["a"], False)
    assert os.listdir(tmp_path) == []  # the file has no name
    with pytest.raises(KeyError):
        kept["b"]


def test_what_finds_no_room_stays_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = KeptRows({}, tmp_path)
    kept.add("before", _row(outcome="fits"))
    monkeypatch.setattr(os, "pwrite", lambda fd, line, place: len(line) // 2)  # as a disk that is nearly full
    kept.add("half", _row(outcome="oom"))
    monkeypatch.undo()
    kept.add("after", _row(outcome="fits"))
    assert {case_id: row["outcome"] for case_id, row in kept.items()} == {
        "half": "oom",
        "before": "fits",
        "after": "fits",
    }


def test_several_threads_add_and_read(tmp_path: Path) -> None:
    kept = KeptRows({}, tmp_path)

    def work(name: str) -> None:
        for number in range(200):
            kept.add(f"{name}{number}", _row(case_id=f"{name}{number}"))
            assert kept[f"{name}{number}"]["case_id"] == f"{name}{number}"

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(row["case_id"] == case_id for case_id, row in kept.items())
    assert len(kept) == 800
