"""Rows that other processes add to a folder of results while this one works on it."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.store.journal import pattern, rows_after
from bench.store.parquet_files import UnreadableFile
from bench.store.schema import ANSWERS, Kind
from bench.store.store import read_file, rows_in


@dataclass
class _Run:
    """What was seen of a run's folder: when it changed, how far each journal is read, and what each file was."""

    changed_ns: int = -1
    is_live: bool = False
    read: dict[str, int] = field(default_factory=dict)
    files: dict[str, tuple[int, int, int]] = field(default_factory=dict)


Found = dict[Kind, list[dict[str, Any]]]


class News:
    """What is added below `results_dir` from its making on, but for the journals that are `own`."""

    def __init__(self, results_dir: Path) -> None:
        self._results_dir = results_dir
        self._runs: dict[str, _Run] = {}
        self.own: set[Path] = set()
        self._look(is_first=True)

    def since(self) -> Found:
        """The cases and boundaries that have come since the last call; some may be known already."""
        return self._look()

    def _look(self, is_first: bool = False) -> Found:
        found: Found = {kind: [] for kind in ANSWERS}
        with contextlib.suppress(OSError), os.scandir(self._results_dir) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        self._look_at(entry.name, entry.stat().st_mtime_ns, found, is_first)
        return found

    def _look_at(self, name: str, changed_ns: int, found: Found, is_first: bool) -> None:
        run = self._runs.setdefault(name, _Run())
        if changed_ns == run.changed_ns and not run.is_live:
            return
        run.changed_ns = changed_ns
        folder = self._results_dir / name
        for kind in ANSWERS:
            # Journals first: a run that ends meanwhile has its parquet file before they are gone.
            for path in folder.glob(pattern(kind)):
                if path not in self.own:
                    run.is_live = True
                    rows, run.read[path.name] = rows_after(path, run.read.get(path.name, 0))
                    found[kind] += rows_in(rows, kind)
            path = folder / f"{kind}.parquet"
            with contextlib.suppress(FileNotFoundError):
                about = path.stat()
                mark = (about.st_ino, about.st_size, about.st_mtime_ns)
                if run.files.get(path.name) != mark:
                    run.files[path.name] = mark
                    if not is_first:
                        with contextlib.suppress(UnreadableFile):
                            found[kind] += read_file(path, kind).to_pylist()
