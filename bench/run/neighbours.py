"""Other sweeps that write below the same folder of results at the same time: nothing is measured twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from bench.core.columns import BoundaryRow, CaseRow
from bench.core.outcome import ANSWERS
from bench.run.boundary import settled
from bench.run.claims import Claims
from bench.store.news import News
from bench.store.schema import Kind


class Neighbours:
    """What they have claimed, and what they have found. Without `news` they are waited for, and not asked."""

    def __init__(self, claims: Claims, news: News | None) -> None:
        self._claims = claims
        self._news = news
        self._lock = threading.Lock()

    def leave_out(self, own: Path) -> None:
        """The journal `own` is this sweep's."""
        if self._news is not None:
            self._news.own.add(own)

    def take(self, key: str) -> bool:
        """Claims `key`, if none of them has."""
        return self._claims.take(key)

    def release(self, key: str) -> None:
        """Gives a claim back."""
        self._claims.release(key)

    @contextmanager
    def held(self, key: str, stop: threading.Event) -> Iterator[bool]:
        """Claims `key` meanwhile, when none of them has it any more; false where `stop` was set before."""
        with self._claims.held(key, stop) as is_held:
            yield is_held

    def found(self) -> tuple[list[CaseRow], list[BoundaryRow]]:
        """The answers and the settled boundaries that they have found since the last call, by time."""
        if self._news is None:
            return [], []
        with self._lock:
            since = self._news.since()
        cases = [cast(CaseRow, row) for row in since[Kind.CASES] if row["outcome"] in ANSWERS]
        boundaries = [cast(BoundaryRow, row) for row in since[Kind.BOUNDARIES]]
        return (
            sorted(cases, key=lambda row: row["started_at"]),
            sorted(filter(settled, boundaries), key=lambda row: row["finished_at"]),
        )
