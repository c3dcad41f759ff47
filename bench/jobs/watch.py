"""Tells how far the jobs are, by the rows that come into the folder while they run."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from bench.core.case import Case, Search
from bench.core.columns import BoundaryRow, CaseRow
from bench.run.progress import Progress
from bench.store.news import News
from bench.store.schema import Kind

_POLL_S = 2.0


@contextlib.contextmanager
def watched(results_dir: Path, progress: Progress, works: Mapping[str, Case | Search]) -> Iterator[None]:
    """Meanwhile, `progress` is told of each of `works` (by its id, or its cell's) that has its row."""
    news, is_over = News(results_dir), threading.Event()
    left = dict(works)

    def look() -> None:
        since = news.since()
        for row in since[Kind.CASES]:
            if isinstance(case := _taken(left, row, "case_id"), Case):
                progress.finish(case, cast(CaseRow, row))
        for row in since[Kind.BOUNDARIES]:
            if isinstance(search := _taken(left, row, "boundary_id"), Search):
                progress.find(search, cast(BoundaryRow, row))

    def watch() -> None:
        while not is_over.wait(_POLL_S):
            with contextlib.suppress(OSError):
                look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        with contextlib.suppress(OSError):
            look()


def _taken(left: dict[str, Case | Search], row: Mapping[str, object], identity: str) -> Case | Search | None:
    return left.pop(str(row.get("cell_id")), None) or left.pop(str(row[identity]), None)
