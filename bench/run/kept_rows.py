"""The rows that a sweep has already, to be had again by their ids, without thousands of them in memory."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import cast

from bench.core.columns import CaseRow


class KeptRows(Mapping[str, CaseRow]):
    """Rows of cases by case_id: `stored` ones as they are, and those that are added in a temporary file in `folder`.

    A row of this sweep takes 5 KiB as a dictionary, and some hundred bytes as a place in a file. Such a row is what a
    line of a journal can say. One that finds no room in the file stays in memory. Several threads may read and add.
    """

    def __init__(self, stored: Mapping[str, CaseRow], folder: Path) -> None:
        self._in_memory = dict(stored)
        self._places: dict[str, int] = {}
        self._adding = threading.Lock()
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115

    def add(self, case_id: str, row: CaseRow) -> None:
        """Keeps `row` from now on; a moment of it is read as text, as it is in a journal."""
        line = json.dumps(row, default=datetime.isoformat).encode() + b"\n"
        with self._adding, contextlib.suppress(OSError):
            place = os.fstat(self._file.fileno()).st_size
            if os.pwrite(self._file.fileno(), line, place) == len(line):
                self._places[case_id] = place
                return
        self._in_memory[case_id] = row

    def __getitem__(self, case_id: str) -> CaseRow:
        place = self._places.get(case_id)
        return self._in_memory[case_id] if place is None else cast(CaseRow, json.loads(self._line(place)))

    def __contains__(self, case_id: object) -> bool:
        return case_id in self._places or case_id in self._in_memory

    def __iter__(self) -> Iterator[str]:
        yield from self._in_memory
        yield from (case_id for case_id in self._places if case_id not in self._in_memory)

    def __len__(self) -> int:
        return len(self._in_memory.keys() | self._places.keys())

    def close(self) -> None:
        """Gives the file back."""
        self._file.close()

    def _line(self, place: int) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            piece = os.pread(self._file.fileno(), 1 << 13, place + len(line))
            end = piece.find(b"\n")
            line += piece if end < 0 else piece[: end + 1]
        return line
