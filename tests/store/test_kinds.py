"""The kinds of rows beside each other on the disk: each is read by its own name, and none disturbs another."""

from __future__ import annotations

import itertools
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
from bench.store.journal import Journal
from bench.store.parquet_files import UnreadableFile
from bench.store.schema import BOUNDARIES, CASES, SCHEMAS, Kind
from bench.store.store import compact, read_boundaries, read_cases, read_memory
from tests.store.any_values import as_read, values_of

MOMENT = "2026-02-03T04:05:06.789012+00:00"
SHARED: dict[str, Any] = {
    "schema_version": SCHEMA_VERSION,
    "run_id": "run",
    "device_name": "rtx_4090",
    "device_kind": "simulated",
    "model": "tiny",
    "bpw": 4.25,
    "cache": "Q4",
    "lazy": False,
    "outcome": "fits",
}
CASE = {**SHARED, "started_at": MOMENT, "max_seq_len": 4096, "phase": "done"}
BOUNDARY = {**SHARED, "boundary_id": "b", "finished_at": MOMENT, "certified": True, "contradictory": False}
CARD = {**SHARED, "card": 1, "ran_out": False}
ROWS = {Kind.CASES: CASE, Kind.BOUNDARIES: BOUNDARY, Kind.MEMORY: CARD}
READERS = {Kind.CASES: read_cases, Kind.BOUNDARIES: read_boundaries, Kind.MEMORY: read_memory}
JOURNALS = {Kind.CASES: "journal-*", Kind.BOUNDARIES: "boundaries-journal-*", Kind.MEMORY: "memory-journal-*"}
IDS = {Kind.CASES: "case_id", Kind.BOUNDARIES: "boundary_id", Kind.MEMORY: "case_id"}


def _row(kind: Kind, name: str = "x", **values: Any) -> dict[str, Any]:
    return {**ROWS[kind], IDS[kind]: name, **values}


def _write(run_dir: Path, kind: Kind, *rows: dict[str, Any]) -> Path:
    """Appends rows to a journal and returns its path."""
    journal = Journal(run_dir, kind)
    for row in rows:
        journal.append(row)
    journal.close()
    return next(run_dir.glob(JOURNALS[kind]))


def _ids(results_dir: Path, kind: Kind) -> list[str]:
    table, _ = READERS[kind](results_dir)
    return sorted(map(str, table.column(IDS[kind]).to_pylist()))


def _table(kind: Kind, name: str = "x") -> pa.Table:
    row = _row(kind, name)
    moments = {key: datetime.fromisoformat(MOMENT) for key in ("started_at", "finished_at") if key in row}
    row = {name: value for name, value in (row | moments).items() if name in SCHEMAS[kind].names}
    return pa.Table.from_pylist([row], schema=SCHEMAS[kind])


def test_a_journal_without_a_kind_is_of_cases(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(_row(Kind.CASES, "a"))
    journal.close()
    assert (_ids(tmp_path, Kind.CASES), _ids(tmp_path, Kind.BOUNDARIES)) == (["a"], [])


@pytest.mark.parametrize("kind", Kind)
def test_the_parquet_carries_its_version_and_kind(tmp_path: Path, kind: Kind) -> None:
    _write(tmp_path, kind, _row(kind))
    told = compact(tmp_path)
    path = tmp_path / f"{kind}.parquet"
    assert told == (None if kind is Kind.MEMORY else path)
    metadata = pq.read_schema(path).metadata
    assert metadata[b"kind"] == kind.encode()
    assert metadata[b"schema_version"] == str(SCHEMA_VERSION).encode()


def test_both_kinds_share_the_columns_that_say_what_was_run_and_where() -> None:
    same = set(CASES.names) & set(BOUNDARIES.names)
    # A boundary that is no cache's has no one length.
    assert {name for name in same if CASES.field(name) != BOUNDARIES.field(name)} == {"max_seq_len"}
    assert {"host", "device_uuid", "harness_version", "model_fingerprint", "attention_requested", "batch_size"} <= same


@given(rows=st.lists(values_of(BOUNDARIES, BOUNDARY), max_size=4))
@settings(max_examples=20, deadline=None)
def test_boundaries_read_the_same_from_the_journal_and_from_the_parquet(rows: list[dict[str, Any]]) -> None:
    stored = [_row(Kind.BOUNDARIES, str(i), **row) for i, row in enumerate(rows)]
    moment = {"finished_at": datetime.fromisoformat(MOMENT)}
    expected = [as_read(BOUNDARIES, row | moment) for row in stored]
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder)
        _write(run_dir, Kind.BOUNDARIES, *stored)
        assert read_boundaries(run_dir)[0].to_pylist() == expected
        compact(run_dir)
        assert read_boundaries(run_dir)[0].to_pylist() == expected


def test_times_of_any_zone_are_kept_as_the_same_moment(tmp_path: Path) -> None:
    _write(tmp_path, Kind.BOUNDARIES, _row(Kind.BOUNDARIES, finished_at="2026-02-03T06:05:06+02:00"))
    (row,) = read_boundaries(tmp_path)[0].to_pylist()
    assert row["finished_at"] == datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)


def test_a_run_of_all_kinds_becomes_a_file_each(tmp_path: Path) -> None:
    for kind in Kind:
        _write(tmp_path, kind, _row(kind, "a"), _row(kind, "b"))
    assert [_ids(tmp_path, kind) for kind in Kind] == [["a", "b"]] * 3
    assert compact(tmp_path) == tmp_path / "cases.parquet"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("boundaries.parquet", "cases.parquet", "memory.parquet")
    ]
    assert [_ids(tmp_path, kind) for kind in Kind] == [["a", "b"]] * 3
    assert [READERS[kind](tmp_path)[1] for kind in Kind] == [[], [], []]


def test_a_run_whose_cases_were_all_stored_before_has_only_boundaries(tmp_path: Path) -> None:
    _write(tmp_path, Kind.BOUNDARIES, _row(Kind.BOUNDARIES))
    assert compact(tmp_path) == tmp_path / "boundaries.parquet"
    assert not (tmp_path / "cases.parquet").exists()


def test_a_run_that_goes_on_adds_to_all(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for kind in Kind:
            _write(tmp_path, kind, _row(kind, name))
        compact(tmp_path)
    assert [_ids(tmp_path, kind) for kind in Kind] == [["a", "b"]] * 3


@pytest.mark.parametrize("kind", Kind)
def test_a_torn_line_costs_no_other_row_of_any_kind(tmp_path: Path, kind: Kind) -> None:
    journals = {each: _write(tmp_path, each, _row(each, "a"), _row(each, "b")) for each in Kind}
    journals[kind].write_bytes(journals[kind].read_bytes()[:-40])
    _write(tmp_path, kind, _row(kind, "c"))
    compact(tmp_path)
    assert {each: _ids(tmp_path, each) for each in Kind} == {
        each: ["a", "c"] if each == kind else ["a", "b"] for each in Kind
    }


@pytest.mark.parametrize(("kind", "other"), list(itertools.permutations(Kind, 2)))
def test_one_file_of_another_kind_is_empty_and_no_problem(tmp_path: Path, kind: Kind, other: Kind) -> None:
    pq.write_table(_table(other), tmp_path / "other.parquet")
    table, problems = READERS[kind](tmp_path / "other.parquet")
    assert (table.num_rows, problems) == (0, [])
    assert table.schema.equals(SCHEMAS[kind])


def _newer(path: Path) -> None:
    metadata = {"kind": "boundaries", "schema_version": str(SCHEMA_VERSION + 1)}
    pq.write_table(_table(Kind.BOUNDARIES).replace_schema_metadata(metadata), path)


def _other_columns(path: Path) -> None:
    table = _table(Kind.BOUNDARIES).drop_columns(["fits_at"])
    pq.write_table(table.replace_schema_metadata({"kind": "boundaries", "schema_version": str(SCHEMA_VERSION)}), path)


@pytest.mark.parametrize(("spoil", "why"), [(_newer, "install a newer vram-bench"), (_other_columns, "damaged")])
def test_a_boundaries_file_that_cannot_be_read_is_the_boundaries_problem(
    tmp_path: Path, spoil: Callable[[Path], None], why: str
) -> None:
    _write(tmp_path / "run", Kind.BOUNDARIES, _row(Kind.BOUNDARIES, "good"))
    spoil(tmp_path / "bad.parquet")
    table, problems = read_boundaries(tmp_path)
    assert table.column("boundary_id").to_pylist() == ["good"]
    assert len(problems) == 1
    assert problems[0].startswith(str(tmp_path / "bad.parquet"))
    assert why in problems[0]
    assert read_cases(tmp_path)[1] == []


def test_a_foreign_file_is_named_by_both_in_the_same_words(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "foreign.parquet")
    (problem,) = read_cases(tmp_path)[1]
    assert problem.endswith("not a table of cases, boundaries or memory")
    assert read_boundaries(tmp_path)[1] == [problem]


@pytest.mark.parametrize(
    "damaged",
    [
        {"schema_version": SCHEMA_VERSION, "run_id": "x"},
        _row(Kind.BOUNDARIES, "text", fits_at="far"),
        _row(Kind.BOUNDARIES, "unsure", certified=None),
        _row(Kind.CASES, "case"),
    ],
    ids=["columns missing", "wrong type", "null", "other kind"],
)
def test_a_row_that_is_no_boundary_is_named_and_kept(tmp_path: Path, damaged: dict[str, Any]) -> None:
    _write(tmp_path, Kind.BOUNDARIES, _row(Kind.BOUNDARIES, "a"), damaged, _row(Kind.BOUNDARIES, "b"))
    for _ in range(2):
        table, problems = read_boundaries(tmp_path)
        assert table.column("boundary_id").to_pylist() == ["a", "b"]
        assert len(problems) == 1
        assert read_cases(tmp_path)[1] == []
        compact(tmp_path)


def test_compacting_does_not_destroy_boundaries_of_a_newer_program(tmp_path: Path) -> None:
    new = _row(Kind.BOUNDARIES, "new", schema_version=SCHEMA_VERSION + 1)
    _write(tmp_path, Kind.BOUNDARIES, new, _row(Kind.BOUNDARIES, "old"))
    compact(tmp_path)
    assert _ids(tmp_path, Kind.BOUNDARIES) == ["old"]
    assert b'"new"' in b"".join(path.read_bytes() for path in tmp_path.glob("*.jsonl"))


def test_a_file_of_the_other_kind_in_the_place_of_ours_is_not_overwritten(tmp_path: Path) -> None:
    pq.write_table(_table(Kind.BOUNDARIES, "kept"), tmp_path / "cases.parquet")
    _write(tmp_path, Kind.CASES, _row(Kind.CASES, "a"))
    with pytest.raises(UnreadableFile, match="a table of boundaries, not of cases"):
        compact(tmp_path)
    assert _ids(tmp_path, Kind.BOUNDARIES) == ["kept"]
    assert _ids(tmp_path, Kind.CASES) == ["a"]


def _no_utf8(table: pa.Table) -> pa.Table:
    """The same with a text that is none, which only a look at each value shows."""
    at = table.column_names.index("model")
    bad = pa.Array.from_buffers(pa.binary(), 1, pa.array([b"\xff\xfe"], pa.binary()).buffers()).view(pa.string())
    return table.set_column(at, table.schema.field("model"), bad)


@pytest.mark.parametrize("kind", [Kind.CASES, Kind.BOUNDARIES])
def test_files_that_are_read_together_cost_each_other_nothing(tmp_path: Path, kind: Kind) -> None:
    """Among files that are alike, one that is damaged, one of another kind, and one of an older program."""
    other = Kind.BOUNDARIES if kind is Kind.CASES else Kind.CASES
    older = _table(kind, "c").drop_columns(["engine_version"])
    older = older.replace_schema_metadata(
        {**older.schema.metadata, b"schema_version": str(SCHEMA_VERSION - 1).encode()}
    )
    tables = {"a": _table(kind, "a"), "b": _no_utf8(_table(kind, "b")), "c": older, "d": _table(other, "d")}
    for name, table in {**tables, "e": _table(kind, "e")}.items():
        (tmp_path / name).mkdir()
        pq.write_table(table, tmp_path / name / f"{kind}.parquet")
    (tmp_path / "f.parquet").write_bytes(b"PAR1" * 5)
    for _ in range(2):  # the second time it is known what they are
        table, problems = READERS[kind](tmp_path)
        assert table.column(IDS[kind]).to_pylist() == ["a", "c", "e"]
        assert [problem.partition(": ")[0] for problem in sorted(problems)] == [
            str(tmp_path / "b" / f"{kind}.parquet"),
            str(tmp_path / "f.parquet"),
        ]
