"""Rows on disk: a journal that survives a power cut, and the parquet that it becomes. schema.py too uses pyarrow.

A run is a folder. While it goes on, each process appends its rows to a journal of its own for each kind of row (one
JSON document a line, synced before the next case starts); when it ends they become `cases.parquet`,
`boundaries.parquet` and `memory.parquet`, written beside and renamed.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac
import pyarrow.csv as pc
import pyarrow.parquet as pq

from bench.core.columns import SCHEMA_VERSION
from bench.core.files import replaced
from bench.core.printable import printable
from bench.core.regular_files import is_regular
from bench.store.foreign import shown
from bench.store.journal import ended, is_over, keep_only, pattern
from bench.store.journal import rows_of as rows_of_journal
from bench.store.parquet_files import as_called_now, read_all, read_parquet
from bench.store.schema import ANSWERS, SCHEMAS, Kind, value_before

if TYPE_CHECKING:
    import pandas as pd

# Arrow's default pool keeps freed memory (hundreds of MB for a million rows); the system's pool shares it with pandas.
pa.set_memory_pool(pa.system_memory_pool())

# A journal is made a table piece by piece, as its lines take three times as much memory.
_ROWS_AT_ONCE = 2000
# Rows that have these alike are one, which is there twice: a process died between two steps, or a folder was copied.
_SAME = {
    Kind.CASES: ("run_id", "case_id", "started_at"),
    Kind.BOUNDARIES: ("run_id", "boundary_id", "finished_at"),
    Kind.MEMORY: ("run_id", "case_id", "card", "peak_allocated_bytes", "peak_reserved_bytes", "peak_device_bytes"),
}
# What a cell of a spreadsheet begins with that computes something.
_FORMULA = r"^([=+\-@\t\r])"
# Errors of building a table from rows that do not fit the schema.
_NO_ROW = (pa.ArrowException, ValueError, TypeError, OverflowError)


_Row = TypeVar("_Row")


def compact(run_dir: Path, are_ended: bool = False) -> Path | None:
    """Turns the journals of a run into one parquet file for each kind of rows. Rows already there stay.

    Journals that another process still writes to are left alone. Those of other hosts stay where they are as well, as
    not every file system tells of their locks, unless `are_ended`: their rows count once all the same.

    Returns the run's `cases.parquet`, or its `boundaries.parquet` where it has no cases; None where it has neither.
    """
    paths = {kind: _compact(run_dir, kind, are_ended) for kind in Kind}
    return next((paths[kind] for kind in ANSWERS if paths[kind].exists()), None)


def read_cases(*results_dirs: Path, without: Collection[str] = ()) -> tuple[pa.Table, list[str]]:
    """Every case below `results_dirs` (or in parquet files), and a line for each file that could not be read.

    The columns `without` are not read. A row that is in several of them counts once.
    """
    return _read(results_dirs, Kind.CASES, without)


def read_boundaries(*results_dirs: Path) -> tuple[pa.Table, list[str]]:
    """Every boundary below `results_dirs` (or in parquet files), and a line for each file that could not be read."""
    return _read(results_dirs, Kind.BOUNDARIES)


def read_memory(*results_dirs: Path) -> tuple[pa.Table, list[str]]:
    """Each card of every case on several cards, and a line for each file that could not be read."""
    return _read(results_dirs, Kind.MEMORY)


def read_file(path: Path, kind: Kind) -> pa.Table:
    """The rows of one parquet file. Raises `UnreadableFile`."""
    return _once(read_parquet(path, kind), kind)


def write_rows(table: pa.Table, path: Path | BinaryIO) -> None:
    """Writes rows as they are stored."""
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)


def rows_in(rows: list[dict[str, Any]], kind: Kind) -> list[dict[str, Any]]:
    """Lines of a journal as the rows that they are read as; those that fit no schema are left out."""
    found: list[dict[str, Any]] = _fitting(rows, kind)[0].to_pylist()
    return found


def to_be_shown(read: tuple[pa.Table, list[str]]) -> tuple[pa.Table, list[str]]:
    """What one of the functions above has read, with texts that can be shown; what is on disk stays as it is."""
    return shown(read[0]), read[1]


def as_rows(table: pa.Table, row: type[_Row]) -> list[_Row]:
    """The rows of a table that has the columns of `row`, as plain values."""
    return cast(list[_Row], table.to_pylist())


def release_memory() -> None:
    """Returns freed memory to the system: hundreds of MB after each large step with a million rows."""
    pa.default_memory_pool().release_unused()


def write_csv(frames: Iterable[pd.DataFrame], path: Path) -> None:
    """Writes frames with the same columns below each other; text is quoted where it must be, null is empty."""
    writer = None
    options = pc.WriteOptions(quoting_style="needed")
    with contextlib.ExitStack() as stack:
        for frame in frames:
            table = pa.Table.from_pandas(frame, preserve_index=False)
            if writer is None:
                # A column that begins with nulls alone may still hold text.
                known = [pa.field(f.name, pa.string()) if pa.types.is_null(f.type) else f for f in table.schema]
                schema = pa.schema(known)
                writer = stack.enter_context(pc.CSVWriter(path, schema, write_options=options))
            writer.write_table(_without_formulae(table.cast(schema)))


def _without_formulae(table: pa.Table) -> pa.Table:
    """A table with an apostrophe before texts that a spreadsheet would compute."""
    for number, column in enumerate(table.schema):
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            safe = pac.replace_substring_regex(table.column(number), _FORMULA, r"'\1")
            table = table.set_column(number, column, safe)
    return table


def without_formulae(frame: pd.DataFrame) -> pd.DataFrame:
    """The same for a frame."""
    texts = frame.select_dtypes(["object", "str", "string"]).columns
    return frame.assign(**{name: frame[name].map(_quoted) for name in texts})


def _quoted(value: Any) -> Any:
    return re.sub(_FORMULA, r"'\1", value) if isinstance(value, str) else value


def _compact(run_dir: Path, kind: Kind, are_ended: bool) -> Path:
    """Where the rows of one kind are now; there is no such file where there are none.

    Each step may be the last: rows that are in the journals and in the parquet file are equal, and count once.
    """
    path = run_dir / f"{kind}.parquet"
    with ended(sorted(path for path in run_dir.glob(pattern(kind)) if is_regular(path))) as journals:
        tables: list[pa.Table] = []
        foreign: dict[Path, list[dict[str, Any]]] = {journal: [] for journal in journals}
        for journal in journals:
            for table, torn in _tables(journal, kind):
                tables.append(table)
                foreign[journal] += torn
        if any(table.num_rows for table in tables):
            stored = [read_parquet(path, kind)] if path.exists() else []
            rows = _once(pa.concat_tables([*stored, *tables]), kind).cast(SCHEMAS[kind])
            with replaced(path, sync=True) as partial:
                write_rows(rows, partial)
        for journal in journals:
            if are_ended or is_over(journal):
                keep_only(journal, foreign[journal])
    return path


def _read(sources: Sequence[Path], kind: Kind, without: Collection[str] = ()) -> tuple[pa.Table, list[str]]:
    columns = [name for name in SCHEMAS[kind].names if name not in without]
    tables, problems = [SCHEMAS[kind].empty_table().select(columns)], list[str]()
    for source in sources:
        # Journals first: a run that ends meanwhile has its parquet file before they are gone.
        for journal in sorted(source.rglob(pattern(kind))) if source.is_dir() else []:
            if not is_regular(journal):
                if journal.is_symlink() or journal.exists():  # else its process has compacted it meanwhile
                    problems.append(f"{journal}: no regular file")
                continue
            count = 0
            for table, torn in _tables(journal, kind):
                tables.append(table.select(columns))
                count += len(torn)
            problems += [f"{journal}: {count} rows that are not of this program"] if count else []
        found, damaged = read_all([source] if source.is_file() else sorted(source.rglob("*.parquet")), kind, columns)
        tables += found
        problems += damaged
    return _once(pa.concat_tables(tables), kind), [printable(problem) for problem in problems]


def _once(table: pa.Table, kind: Kind) -> pa.Table:
    """A table without the rows that are there before."""
    numbered = table.select(_SAME[kind]).append_column("row", pa.array(np.arange(table.num_rows)))
    first = numbered.group_by(list(_SAME[kind])).aggregate([("row", "min")]).column("row_min")
    if len(first) == table.num_rows:
        return table
    is_first = np.zeros(table.num_rows, dtype=bool)
    is_first[first.to_numpy()] = True
    return table.filter(pa.array(is_first))


def _tables(journal: Path, kind: Kind) -> Iterator[tuple[pa.Table, list[dict[str, Any]]]]:
    """The rows of a journal that fit the schema, and the others: of a newer version, or damaged. Piece by piece."""
    rows = rows_of_journal(journal)
    while piece := list(itertools.islice(rows, _ROWS_AT_ONCE)):
        yield _fitting(piece, kind)


def _fitting(rows: list[dict[str, Any]], kind: Kind) -> tuple[pa.Table, list[dict[str, Any]]]:
    own = [row for row in rows if row["schema_version"] in range(1, SCHEMA_VERSION + 1)]
    try:
        table = _table(own, kind)
    except _NO_ROW:
        own = [row for row in own if _is_row(row, kind)]
        table = _table(own, kind)
    kept = {id(row) for row in own}
    return table, [row for row in rows if id(row) not in kept]


def _table(rows: Iterable[dict[str, Any]], kind: Kind) -> pa.Table:
    schema = SCHEMAS[kind]
    moments = [column.name for column in schema if pa.types.is_timestamp(column.type)]
    before = {column.name: value_before(column) for column in schema}
    prepared = []
    for row in rows:
        row = {name: row.get(name, value) for name, value in before.items()}
        for name in moments:
            if isinstance(row[name], str):
                row[name] = datetime.fromisoformat(row[name])
        prepared.append(row)
    table = pa.Table.from_pylist(prepared, schema=schema)
    table.validate(full=True)
    for column in schema:
        if not column.nullable and table.column(column.name).null_count:
            raise ValueError(f"{column.name} is missing")
    return as_called_now(table)


def _is_row(row: dict[str, Any], kind: Kind) -> bool:
    try:
        _table([row], kind)
    except _NO_ROW:
        return False
    return True
