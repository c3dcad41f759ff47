"""Rows on disk: what is acknowledged survives, what is broken is named and skipped."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.columns import SCHEMA_VERSION
from bench.core.outcome import Outcome, Phase
from bench.store.journal import Journal
from bench.store.schema import CASES, value_before
from bench.store.store import compact, read_cases
from tests.store.any_values import as_read, values_of

STARTED = "2026-02-03T04:05:06.789012+00:00"
REQUIRED: dict[str, Any] = {
    "schema_version": SCHEMA_VERSION,
    "run_id": "run",
    "case_id": "case",
    "started_at": STARTED,
    "device_name": "rtx_4090",
    "device_kind": "simulated",
    "model": "tiny",
    "bpw": 4.25,
    "cache": "Q4",
    "lazy": False,
    "max_seq_len": 4096,
    "outcome": Outcome.FITS,
    "phase": Phase.DONE,
}


def _row(case_id: str = "case", **values: Any) -> dict[str, Any]:
    return {**REQUIRED, "case_id": case_id, **values}


def _full_row() -> dict[str, Any]:
    """A row in which every column has a value of its own."""
    row = dict(REQUIRED)
    for index, column in enumerate(CASES):
        if column.name in REQUIRED:
            continue
        if pa.types.is_int64(column.type):
            row[column.name] = (1 << 53) + index
        elif pa.types.is_integer(column.type):
            row[column.name] = index
        elif pa.types.is_floating(column.type):
            row[column.name] = index + 0.1
        elif pa.types.is_boolean(column.type):
            row[column.name] = True
        elif pa.types.is_list(column.type):
            row[column.name] = [0.1, 0.2] if pa.types.is_floating(column.type.value_type) else ["a", "ß\n"]
        else:
            row[column.name] = f"text {index} ✓\n"
    return row


def _write(run_dir: Path, *rows: dict[str, Any]) -> Path:
    """Appends rows to a journal and returns its path."""
    journal = Journal(run_dir)
    for row in rows:
        journal.append(row)
    journal.close()
    return next(run_dir.glob("journal-*"))


def _ids(results_dir: Path) -> list[str]:
    table, _ = read_cases(results_dir)
    return sorted(str(case_id) for case_id in table.column("case_id").to_pylist())


def _parquet(path: Path, *rows: dict[str, Any]) -> Path:
    """A valid `cases.parquet` at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    prepared = [{**row, "started_at": datetime.fromisoformat(row["started_at"])} for row in rows]
    pq.write_table(pa.Table.from_pylist(prepared, schema=CASES), path)
    return path


def test_every_column_survives_the_journal_and_the_parquet(tmp_path: Path) -> None:
    row = _full_row()
    assert set(row) == set(CASES.names)
    _write(tmp_path, row)
    assert compact(tmp_path) == tmp_path / "cases.parquet"
    table, problems = read_cases(tmp_path)
    assert problems == []
    assert table.to_pylist() == [{**row, "started_at": datetime.fromisoformat(STARTED)}]
    assert list(tmp_path.glob("journal-*")) == []


@given(rows=st.lists(values_of(CASES, REQUIRED), max_size=4))
@settings(max_examples=20, deadline=None)
def test_rows_read_the_same_from_the_journal_and_from_the_parquet(rows: list[dict[str, Any]]) -> None:
    expected = [
        as_read(CASES, _row(str(i), **row) | {"started_at": datetime.fromisoformat(STARTED)})
        for i, row in enumerate(rows)
    ]
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder)
        _write(run_dir, *(_row(str(i), **row) for i, row in enumerate(rows)))
        assert read_cases(run_dir)[0].to_pylist() == expected
        compact(run_dir)
        assert read_cases(run_dir)[0].to_pylist() == expected


def test_what_a_row_lacks_is_null_and_never_zero_unless_all_had_one_value(tmp_path: Path) -> None:
    _write(tmp_path, _row())
    compact(tmp_path)
    stored = read_cases(tmp_path)[0].to_pylist()[0]
    before = {column.name: value for column in CASES if (value := value_before(column)) is not None}
    assert {name: value for name, value in stored.items() if name not in REQUIRED and value is not None} == before


def test_a_zero_stays_a_zero(tmp_path: Path) -> None:
    _write(tmp_path, _row(cache_bytes=0, wall_s=0.0, exit_code=0, notes=[]))
    compact(tmp_path)
    stored = read_cases(tmp_path)[0].to_pylist()[0]
    assert (stored["cache_bytes"], stored["wall_s"], stored["exit_code"], stored["notes"]) == (0, 0.0, 0, [])


def test_times_of_any_zone_are_kept_as_the_same_moment(tmp_path: Path) -> None:
    _write(tmp_path, _row(started_at="2026-02-03T06:05:06+02:00"))
    compact(tmp_path)
    assert read_cases(tmp_path)[0].to_pylist()[0]["started_at"] == datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)


def test_a_column_that_the_schema_does_not_have_is_dropped(tmp_path: Path) -> None:
    _write(tmp_path, _row(novelty=1))
    assert read_cases(tmp_path)[0].column_names == CASES.names


def test_rows_are_seen_before_they_are_compacted(tmp_path: Path) -> None:
    _write(tmp_path / "run", _row("a"), _row("b"))
    assert not (tmp_path / "run" / "cases.parquet").exists()
    assert _ids(tmp_path) == ["a", "b"]


def test_a_row_is_synced_before_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[str, int]] = []

    def sync(fd: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{fd}")).name
        synced.append((name, os.fstat(fd).st_size if name != tmp_path.name else 0))

    monkeypatch.setattr(os, "fsync", sync)
    journal = _write(tmp_path, _row("a"))
    assert synced == [(tmp_path.name, 0), (journal.name, journal.stat().st_size)]


def test_a_torn_last_line_is_skipped_and_the_rows_before_it_survive(tmp_path: Path) -> None:
    journal = _write(tmp_path, _row("a"), _row("b"), _row("c"))
    journal.write_bytes(journal.read_bytes()[:-40])
    assert _ids(tmp_path) == ["a", "b"]
    compact(tmp_path)
    assert _ids(tmp_path) == ["a", "b"]


def test_a_journal_that_ends_in_zeros_keeps_its_rows(tmp_path: Path) -> None:
    journal = _write(tmp_path, _row("a"))
    journal.write_bytes(journal.read_bytes() + b"\0" * 512)
    assert _ids(tmp_path) == ["a"]


def test_a_row_appended_after_a_torn_line_is_not_lost(tmp_path: Path) -> None:
    journal = _write(tmp_path, _row("a"), _row("b"))
    journal.write_bytes(journal.read_bytes()[:-40])
    _write(tmp_path, _row("c"))
    assert _ids(tmp_path) == ["a", "c"]


def test_compacting_twice_keeps_everything(tmp_path: Path) -> None:
    _write(tmp_path, _row("a"))
    compact(tmp_path)
    assert compact(tmp_path) == tmp_path / "cases.parquet"
    assert _ids(tmp_path) == ["a"]
    _write(tmp_path, _row("b"))
    compact(tmp_path)
    assert _ids(tmp_path) == ["a", "b"]


def test_the_journals_of_all_processes_are_compacted_together(tmp_path: Path) -> None:
    _write(tmp_path, _row("a")).rename(tmp_path / f"journal-{socket.gethostname()}-1.jsonl")
    _write(tmp_path, _row("b"))
    compact(tmp_path)
    assert _ids(tmp_path) == ["a", "b"]
    assert list(tmp_path.glob("journal-*")) == []


def test_rows_of_all_runs_are_read(tmp_path: Path) -> None:
    for name in ("one", "two"):
        _write(tmp_path / name, _row(name))
    compact(tmp_path / "one")
    assert _ids(tmp_path) == ["one", "two"]


def test_one_parquet_file_can_be_read_by_itself(tmp_path: Path) -> None:
    _parquet(tmp_path / "other.parquet", _row("other"))
    assert _ids(_parquet(tmp_path / "cases.parquet", _row("a"))) == ["a"]


def test_an_empty_directory_has_no_rows_and_no_problems(tmp_path: Path) -> None:
    table, problems = read_cases(tmp_path)
    assert (table.num_rows, problems) == (0, [])
    assert table.schema.equals(CASES)
    assert compact(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_the_parquet_carries_its_schema_version(tmp_path: Path) -> None:
    _write(tmp_path, _row())
    path = compact(tmp_path)
    assert path is not None
    metadata = pq.read_schema(path).metadata
    assert metadata[b"schema_version"] == str(SCHEMA_VERSION).encode()
    assert metadata[b"kind"] == b"cases"
    assert pq.read_table(path).column("schema_version").to_pylist() == [SCHEMA_VERSION]


def test_nothing_half_written_is_left_beside_the_parquet_or_read(tmp_path: Path) -> None:
    _write(tmp_path, _row("a"))
    (tmp_path / "cases.1.partial").write_bytes(b"PAR1 half of a file")
    compact(tmp_path)
    assert (_ids(tmp_path), read_cases(tmp_path)[1]) == (["a"], [])
    assert [path.name for path in tmp_path.glob("*.partial")] == ["cases.1.partial"]


def _foreign(path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), path)


def _foreign_of_the_same_columns(path: Path) -> None:
    pq.write_table(_parquet_table().replace_schema_metadata(None), path)


def _no_parquet(path: Path) -> None:
    path.write_bytes(b"case_id,outcome\n1,fits\n")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _truncated(path: Path) -> None:
    _parquet(path, _row())
    path.write_bytes(path.read_bytes()[:-100])


def _damaged_inside(path: Path) -> None:
    _parquet(path, _row(phases="x" * 5000))
    data = bytearray(path.read_bytes())
    data[4:400] = b"\xff" * 396
    path.write_bytes(bytes(data))


def _newer(path: Path) -> None:
    metadata = {"kind": "cases", "schema_version": str(SCHEMA_VERSION + 1)}
    pq.write_table(_parquet_table().replace_schema_metadata(metadata), path)


def _other_columns(path: Path) -> None:
    table = _parquet_table().drop_columns(["max_seq_len"])
    pq.write_table(table.replace_schema_metadata({"kind": "cases", "schema_version": str(SCHEMA_VERSION)}), path)


def _parquet_table() -> pa.Table:
    return pa.Table.from_pylist([{**_row("bad"), "started_at": datetime.fromisoformat(STARTED)}], schema=CASES)


@pytest.mark.parametrize(
    "spoil",
    [
        _foreign,
        _foreign_of_the_same_columns,
        _no_parquet,
        _empty,
        _truncated,
        _damaged_inside,
        _newer,
        _other_columns,
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_skipped(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    _parquet(tmp_path / "good" / "cases.parquet", _row("good"))
    _write(tmp_path / "running", _row("running"))
    bad = tmp_path / "bad.parquet"
    spoil(bad)
    table, problems = read_cases(tmp_path)
    assert sorted(map(str, table.column("case_id").to_pylist())) == ["good", "running"]
    assert len(problems) == 1
    assert problems[0].startswith(str(bad))
    assert "\n" not in problems[0]


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_foreign, "not a table of cases"),
        (_truncated, "not a readable parquet file"),
        (_newer, f"schema version {SCHEMA_VERSION + 1}; this program reads up to {SCHEMA_VERSION}"),
    ],
)
def test_the_problem_says_what_is_wrong_with_the_file(tmp_path: Path, spoil: Callable[[Path], None], why: str) -> None:
    spoil(tmp_path / "bad.parquet")
    _, problems = read_cases(tmp_path)
    assert why in problems[0]


def test_compacting_does_not_destroy_rows_of_a_newer_program(tmp_path: Path) -> None:
    _write(tmp_path, _row("new", schema_version=SCHEMA_VERSION + 1), _row("old"))
    compact(tmp_path)
    assert _ids(tmp_path) == ["old"]
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("journal-*"))
    assert b'"new"' in kept


_WRITER = """\
import json, sys
from pathlib import Path
from bench.store.journal import Journal
journal, row = Journal(Path(sys.argv[1])), json.loads(sys.argv[2])
for index in range(1_000_000):
    journal.append({**row, "case_id": f"{index:06d}"})
    print(f"{index:06d}", flush=True)
"""


def test_a_killed_writer_loses_no_row_that_it_acknowledged(tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(tmp_path), json.dumps(_row())], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    acknowledged = [writer.stdout.readline().strip() for _ in range(50)]
    writer.kill()
    acknowledged += [line.strip() for line in writer.stdout if line.endswith("\n")]
    writer.stdout.close()
    assert writer.wait() < 0
    compact(tmp_path)
    stored = _ids(tmp_path)
    assert len(acknowledged) >= 50
    assert set(acknowledged) <= set(stored)
    assert len(stored) == len(set(stored)) <= len(acknowledged) + 1


@pytest.mark.parametrize(
    "damaged",
    [{"schema_version": SCHEMA_VERSION, "run_id": "x"}, _row("big", batch_size=1 << 40), _row("text", bpw="four")],
    ids=["columns missing", "out of range", "wrong type"],
)
def test_a_row_that_fits_no_schema_is_named_and_costs_no_other(tmp_path: Path, damaged: dict[str, Any]) -> None:
    journal = Journal(tmp_path)
    for row in (_row("a"), damaged, _row("b")):
        journal.append(row)
    journal.close()
    table, problems = read_cases(tmp_path)
    assert table.column("case_id").to_pylist() == ["a", "b"]
    assert len(problems) == 1
    compact(tmp_path)
    table, problems = read_cases(tmp_path)
    assert table.column("case_id").to_pylist() == ["a", "b"]
    assert len(problems) == 1


def test_text_that_is_none_is_a_problem(tmp_path: Path) -> None:
    broken = pa.array([b"rtx\xff"], pa.binary()).view(pa.string())
    path = _parquet(tmp_path / "bad.parquet", _row("a"))
    table = pq.read_table(path)
    column = CASES.get_field_index("device_name")
    pq.write_table(table.set_column(column, CASES.field(column), broken), path)
    read, problems = read_cases(path)
    assert (read.num_rows, len(problems)) == (0, 1)
    assert "damaged" in problems[0]


def test_metadata_that_is_no_text_is_a_problem(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "bad.parquet", _row("a"))
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"kind": b"\xff"}), path)
    assert len(read_cases(path)[1]) == 1


def test_a_file_of_an_older_schema_is_read_with_nulls_for_what_it_did_not_know(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "old.parquet", _row("a"))
    table = pq.read_table(path).drop_columns(["energy_j"]).append_column("given_up", [["x"]])
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"schema_version": b"0"}), path)
    read, problems = read_cases(path)
    assert problems == []
    assert read.column_names == CASES.names
    assert read.column("energy_j").to_pylist() == [None]


def test_a_file_of_an_older_schema_that_lacks_what_every_row_needs_is_a_problem(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "old.parquet", _row("a"))
    table = pq.read_table(path).drop_columns(["outcome"])
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"schema_version": b"0"}), path)
    read, problems = read_cases(path)
    assert (read.num_rows, len(problems)) == (0, 1)


def test_a_journal_of_an_older_program_is_read_as_its_parquet_would_be(tmp_path: Path) -> None:
    _write(tmp_path / "run", _row("old", exllamav2_version="0.3.1"), _row("none", engine="another"))
    for _ in range(2):
        old, none = read_cases(tmp_path)[0].sort_by("case_id").to_pylist()[::-1]
        assert (old["engine"], old["scenario"], old["max_attention_size"]) == ("exllamav2", "forward", 2048**2)
        assert (old["engine_version"], none["engine_version"]) == ("0.3.1", None)
        compact(tmp_path / "run")
