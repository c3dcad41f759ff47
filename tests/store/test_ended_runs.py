"""Runs that end while others look, or that were killed at any step: every row is there, and none twice."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.store import store
from bench.store.journal import Journal
from bench.store.schema import Kind
from bench.store.store import compact
from tests.store.test_kinds import JOURNALS, READERS, _ids, _row, _write


@pytest.mark.parametrize("kind", Kind)
def test_a_process_that_dies_between_the_parquet_and_the_journal_doubles_no_row(tmp_path: Path, kind: Kind) -> None:
    journal = _write(tmp_path, kind, _row(kind, "a"), _row(kind, "b"))
    lines = journal.read_bytes()
    compact(tmp_path)
    journal.write_bytes(lines)  # as if it had not been deleted
    assert _ids(tmp_path, kind) == ["a", "b"]
    compact(tmp_path)
    assert (_ids(tmp_path, kind), list(tmp_path.glob(JOURNALS[kind]))) == (["a", "b"], [])


@pytest.mark.parametrize("kind", Kind)
def test_a_copy_of_a_run_doubles_no_row(tmp_path: Path, kind: Kind) -> None:
    _write(tmp_path / "run", kind, _row(kind, "a"))
    compact(tmp_path / "run")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / f"{kind}.parquet").write_bytes((tmp_path / "run" / f"{kind}.parquet").read_bytes())
    assert _ids(tmp_path, kind) == ["a"]


def test_the_same_case_at_another_time_or_in_another_run_is_another_row(tmp_path: Path) -> None:
    later = {"started_at": "2026-02-03T04:05:07+00:00"}
    _write(tmp_path, Kind.CASES, _row(Kind.CASES), _row(Kind.CASES, **later), _row(Kind.CASES, run_id="other"))
    assert _ids(tmp_path, Kind.CASES) == ["x", "x", "x"]


@pytest.mark.parametrize("kind", Kind)
def test_a_run_that_is_compacted_while_it_is_read_is_read(
    tmp_path: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path / "run", kind, _row(kind, "a"))
    read = store.rows_of_journal

    def late(path: Path) -> Any:
        monkeypatch.setattr(store, "rows_of_journal", read)
        compact(tmp_path / "run")
        return read(path)

    monkeypatch.setattr(store, "rows_of_journal", late)
    assert _ids(tmp_path, kind) == ["a"]


def test_a_journal_that_is_being_written_is_left_to_its_writer(tmp_path: Path) -> None:
    _write(tmp_path, Kind.CASES, _row(Kind.CASES, "a")).rename(tmp_path / f"journal-{socket.gethostname()}-1.jsonl")
    living = Journal(tmp_path)
    living.append(_row(Kind.CASES, "b"))
    compact(tmp_path)
    assert [path.name for path in tmp_path.glob("journal-*")] == [living.path.name]
    living.append(_row(Kind.CASES, "c"))
    assert _ids(tmp_path, Kind.CASES) == ["a", "b", "c"]
    living.close()
    compact(tmp_path)
    assert (_ids(tmp_path, Kind.CASES), list(tmp_path.glob("journal-*"))) == (["a", "b", "c"], [])


def test_two_writers_of_one_name_have_a_journal_each(tmp_path: Path) -> None:
    """Two containers have the same number of a process, and may have the same name."""
    one, other = Journal(tmp_path), Journal(tmp_path)
    assert one.path != other.path
    for journal, name in ((one, "a"), (other, "b")):
        journal.append(_row(Kind.CASES, name))
        journal.close()
    assert _ids(tmp_path, Kind.CASES) == ["a", "b"]


# Compacts each folder named in a process of its own, which dies after as many steps as its number says.
_COMPACT = """\
import os, sys
from pathlib import Path
from bench.store.store import compact
def dying(do):
    def step(*what, **how):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return do(*what, **how)
    return step
for left, run_dir in enumerate(sys.argv[1:]):
    pid = os.fork()
    if not pid:
        for name in ("replace", "fsync", "unlink", "open", "close"):
            setattr(os, name, dying(getattr(os, name)))
        compact(Path(run_dir))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_process_that_dies_at_any_step_of_compacting_costs_and_doubles_no_row(tmp_path: Path) -> None:
    folders = [tmp_path / f"{steps}" for steps in range(16)]
    for folder in folders:
        _write(folder, Kind.CASES, _row(Kind.CASES, "a"), _row(Kind.CASES, "b"))
    command = [sys.executable, "-c", _COMPACT, *map(str, folders)]
    ends = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    for folder in folders:
        assert _ids(folder, Kind.CASES) == ["a", "b"]
    died = ends.count("9")
    assert died > 6
    assert ends == ["9"] * died + ["0"] * (len(folders) - died)


@pytest.mark.parametrize("reader", READERS.values())
def test_a_long_journal_is_read_piece_by_piece(
    tmp_path: Path, reader: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = next(kind for kind, each in READERS.items() if each is reader)
    monkeypatch.setattr(store, "_ROWS_AT_ONCE", 2)
    names = [f"{number}" for number in range(5)]
    journal = _write(tmp_path, kind, *(_row(kind, name) for name in names))
    with journal.open("ab") as file:
        file.write(b'{"schema_version": 9999}\n')
    table, problems = reader(tmp_path)
    assert table.num_rows == 5
    assert problems == [f"{journal}: 1 rows that are not of this program"]
    compact(tmp_path)
    assert (_ids(tmp_path, kind), journal.read_bytes()) == (names, b'{"schema_version": 9999}\n')
    assert os.listdir(tmp_path).count(f"{kind}.parquet") == 1
