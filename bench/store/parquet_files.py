"""Rows out of parquet files, of this program and of older ones, many small ones at a time.

A run has a file for each kind of rows, of over a hundred columns: to open one and to check it takes milliseconds, which
hundreds of runs would multiply. So a few are read at a time, and what is made of their rows is made of all at once.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pac
import pyarrow.parquet as pq

from bench.core.case import version_column
from bench.core.columns import SCHEMA_VERSION
from bench.core.errors import first_line
from bench.core.regular_files import open_regular
from bench.store.foreign import read_checked, require_plausible
from bench.store.schema import SCHEMAS, Kind, is_later, renamed_values, value_before

_AT_ONCE_BYTES = 4 << 20  # of files; a larger one is read by itself
_AT_ONCE = 64
_Stamp = tuple[int, int, int, int]
_KINDS: dict[_Stamp, Kind] = {}  # of files that were looked at: a report asks each file for each kind of rows
_DAMAGED = (pa.ArrowException, OSError, ValueError)


class UnreadableFile(Exception):
    """A file below the results that cannot be read as rows; the text names it and says why."""


@dataclass(frozen=True)
class _Read:
    """The rows of a file as they are there, and the version of their schema."""

    path: Path
    version: int
    table: pa.Table

    @property
    def shape(self) -> tuple[int, list[str]]:
        """Files that have this alike are made rows of this program in the same way."""
        return self.version, self.table.column_names


def read_parquet(path: Path, kind: Kind) -> pa.Table:
    """The rows of one file. Raises `UnreadableFile`, also for a table of another kind of rows."""
    wanted = SCHEMAS[kind]
    read = _read(path, kind, wanted)
    if read is None:
        raise UnreadableFile(f"{path}: a table of {_KINDS[_stamp(path)]}, not of {kind}")
    return _rows([read], wanted)


def read_all(paths: Sequence[Path], kind: Kind, columns: Sequence[str]) -> tuple[list[pa.Table], list[str]]:
    """The rows of those of `paths` that have this kind of them, in their order, and a line for each damaged one."""
    wanted = pa.schema([SCHEMAS[kind].field(name) for name in columns])
    tables, problems = [], list[str]()
    for batch in _batches(paths):
        good = []
        for read in _each(batch, kind, wanted):
            if isinstance(read, UnreadableFile):
                problems.append(str(read))
            elif read is not None:
                good.append(read)
        for _, alike in itertools.groupby(good, key=lambda read: read.shape):
            for found in _rows_of(list(alike), wanted):
                if isinstance(found, UnreadableFile):
                    problems.append(str(found))
                else:
                    tables.append(found)
    return tables, problems


def as_called_now(table: pa.Table) -> pa.Table:
    """A table whose values are called as this program calls them."""
    for number, column in enumerate(table.schema):
        for before, now in renamed_values(column).items():
            is_old = pac.fill_null(pac.equal(table.column(number), before), False)
            values = pac.if_else(is_old, pa.scalar(now, column.type), table.column(number))
            table = table.set_column(number, column, values)
    return _with_engine_versions(table)


def _batches(paths: Sequence[Path]) -> Iterator[list[Path]]:
    batch, size_bytes = list[Path](), 0
    for path in paths:
        its_bytes = path.stat().st_size if path.exists() else 0
        if batch and (size_bytes + its_bytes > _AT_ONCE_BYTES or len(batch) == _AT_ONCE):
            yield batch
            batch, size_bytes = [], 0
        batch.append(path)
        size_bytes += its_bytes
    if batch:
        yield batch


def _each(paths: Sequence[Path], kind: Kind, wanted: pa.Schema) -> list[_Read | UnreadableFile | None]:
    def read(path: Path) -> _Read | UnreadableFile | None:
        try:
            return _read(path, kind, wanted)
        except UnreadableFile as error:
            return error

    if len(paths) == 1:
        return [read(paths[0])]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(read, paths))


def _rows_of(reads: list[_Read], wanted: pa.Schema) -> Iterator[pa.Table | UnreadableFile]:
    """The rows of all, or where there is something wrong with one of them, those of each."""
    try:
        yield _rows(reads, wanted)
    except UnreadableFile as error:
        if len(reads) == 1:
            yield error
            return
        for read in reads:
            yield from _rows_of([read], wanted)


def _rows(reads: list[_Read], wanted: pa.Schema) -> pa.Table:
    """Files that are alike as rows of this program. Raises `UnreadableFile`, which names the first of them."""
    try:
        table = pa.concat_tables([read.table for read in reads])
        table = _widened(table, wanted, reads[0].version < SCHEMA_VERSION).cast(wanted)
        table.validate(full=True)  # invalid UTF-8 would otherwise fail later, where it is used
        return as_called_now(table)
    except _DAMAGED as error:
        raise _damaged(reads[0].path, error) from error


def _read(path: Path, kind: Kind, wanted: pa.Schema) -> _Read | None:
    """What is in a file; None where it is a table of another kind of rows. Raises `UnreadableFile`."""
    try:
        stamp = _stamp(path)
        if _KINDS.get(stamp, kind) != kind:
            return None
        with open_regular(path) as file:  # and not a folder, nor a pipe to wait at
            about = pq.read_metadata(file)
        schema = about.schema.to_arrow_schema()
    except _DAMAGED as error:
        raise UnreadableFile(f"{path}: not a readable parquet file ({first_line(error)})") from error
    told = schema.metadata or {}
    metadata = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in told.items()}
    if metadata.get("kind") not in list(Kind):
        raise UnreadableFile(f"{path}: not a table of {', '.join([*Kind][:-1])} or {[*Kind][-1]}")
    _KINDS[stamp] = Kind(metadata["kind"])
    if metadata["kind"] != kind:
        return None
    try:
        version = int(metadata.get("schema_version", 0))
        if version > SCHEMA_VERSION:
            raise UnreadableFile(
                f"{path}: schema version {version}; this program reads up to {SCHEMA_VERSION}: "
                f"install {_writer(path, schema)}"
            )
        there = set(schema.names)  # pyarrow makes a list of them each time
        require_plausible(path, about)
        known = [name for name in wanted.names if name in there]
        return _Read(path, version, read_checked(path, about, known, wanted))
    except _DAMAGED as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UnreadableFile:
    return UnreadableFile(f"{path}: damaged, or not of this program ({first_line(error)})")


def _stamp(path: Path) -> _Stamp:
    about = path.stat()
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns


def _widened(table: pa.Table, schema: pa.Schema, is_older: bool) -> pa.Table:
    """A table with the columns of `schema`; those that it lacks get the value that older programs implied."""
    there = set(table.column_names)  # pyarrow makes a list of them each time
    for column in schema:
        if column.name not in there:
            if not (is_older and column.nullable) and not is_later(column):
                raise ValueError(f"{column.name} is missing")
            value = pa.scalar(value_before(column), column.type)
            table = table.append_column(column.name, pa.repeat(value, table.num_rows))
    return table.select(schema.names)


def _with_engine_versions(table: pa.Table) -> pa.Table:
    """A table that tells `engine_version`: older programs kept it only in the column called after the engine."""
    if not {"engine", "engine_version"} <= set(table.column_names):
        return table
    engines, versions = table.column("engine"), table.column("engine_version")
    if not versions.null_count:
        return table
    for engine in engines.unique().to_pylist():
        if engine is not None and (own := version_column(engine)) in table.column_names:
            is_its = pac.fill_null(pac.equal(engines, engine), False)
            versions = pac.if_else(is_its, pac.coalesce(versions, table.column(own)), versions)
    return table.set_column(table.column_names.index("engine_version"), table.schema.field("engine_version"), versions)


def _writer(path: Path, schema: pa.Schema) -> str:
    """The newest harness version among a file's rows: the least that can read it; as far as the rows have one."""
    column = "harness_version"
    values = pq.read_table(path, columns=[column]).column(0).to_pylist() if column in schema.names else []
    versions = {str(value) for value in values if value is not None}
    return f"vram-bench {max(versions, key=_release)} or newer" if versions else "a newer vram-bench"


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
