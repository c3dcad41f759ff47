"""The journals of a run: one JSON document a line, each synced before the next case starts, in a file for each process.

The writer holds the lock of its file for as long as it lives, so that others can tell a journal that is being written
from one whose process has died.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from bench.core.file_locks import is_still, locked_if_free, try_lock
from bench.core.files import replaced, sync_folder
from bench.core.regular_files import open_regular
from bench.store.schema import Kind

_OVER_S = 86_400.0  # without a row: another host may not see whose lock it is
# How the names of the journals begin; none is the beginning of another.
_BEGINNINGS = {Kind.CASES: "journal", Kind.BOUNDARIES: "boundaries-journal", Kind.MEMORY: "memory-journal"}


class Journal:
    """Appends rows of one kind to a run's folder; a row is on disk when `append` returns."""

    def __init__(self, run_dir: Path, kind: Kind = Kind.CASES) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self.path, self._file = _open_own(run_dir / f"{_BEGINNINGS[kind]}-{socket.gethostname()}-{os.getpid()}")
        if self._file.tell():  # a line that the power cut off must not swallow the next
            self._file.seek(-1, os.SEEK_END)
            if self._file.read(1) != b"\n":
                self._file.write(b"\n")
        sync_folder(run_dir)

    def append(self, row: Mapping[str, object]) -> None:
        """Appends `row` as a line of JSON, and syncs it to disk."""
        self._file.write(json.dumps(row).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _open_own(stem: Path) -> tuple[Path, BinaryIO]:
    """The first journal of this name that no other process writes to: numbers of processes are not unique."""
    for number in itertools.count():
        path = Path(f"{stem}-{number}.jsonl" if number else f"{stem}.jsonl")
        file = path.open("ab+")
        if try_lock(file.fileno()) is not False and is_still(file.fileno(), path):
            return path, file
        file.close()
    raise AssertionError


def pattern(kind: Kind) -> str:
    """What the names of a kind's journals match."""
    return f"{_BEGINNINGS[kind]}-*.jsonl"


def is_journal(name: str) -> bool:
    """Whether a file is called as a journal of any kind."""
    return name.endswith(".jsonl") and any(name.startswith(f"{beginning}-") for beginning in _BEGINNINGS.values())


@contextlib.contextmanager
def ended(paths: list[Path]) -> Iterator[list[Path]]:
    """Those of the journals `paths` that no living process writes to; nobody else takes them meanwhile."""
    with contextlib.ExitStack() as held:
        yield [path for path in paths if held.enter_context(locked_if_free(path))]


def is_over(path: Path) -> bool:
    """Whether a journal that nobody holds a lock of is sure to be written no more: this host's, or a day old."""
    kinds = "|".join(_BEGINNINGS.values())
    host = re.fullmatch(rf"(?:{kinds})-(.*)-\d+(?:-\d+)?\.jsonl", path.name)
    with contextlib.suppress(OSError):
        return host is None or host[1] == socket.gethostname() or time.time() - path.stat().st_mtime > _OVER_S
    return False


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a journal; lines that are none are skipped, such as one that the power cut off.

    Nothing where the file is gone: its process, or the next, has written the parquet file.
    """
    try:
        file = open_regular(path)
    except FileNotFoundError:
        return
    with file:
        for line in file:
            if (row := _row(line)) is not None:
                yield row


def rows_after(path: Path, start: int) -> tuple[list[dict[str, Any]], int]:
    """The rows of a journal in whole lines from byte `start` on, and where the next line begins."""
    try:
        with open_regular(path) as file:
            file.seek(start)
            lines = file.read().split(b"\n")[:-1]
    except OSError:  # it is gone, or is no file
        return [], start
    rows = [row for line in lines if (row := _row(line)) is not None]
    return rows, start + sum(len(line) + 1 for line in lines)


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None  # the end of a file, or a line that was being written when the power went
    return row if isinstance(row, dict) and "schema_version" in row else None


def keep_only(path: Path, foreign: list[dict[str, Any]]) -> None:
    """Removes a journal, but keeps the rows that could not be read."""
    if not foreign:
        path.unlink(missing_ok=True)
        return
    with replaced(path, sync=True) as partial:
        partial.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in foreign))
