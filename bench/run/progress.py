"""The callbacks of a sweep."""

from __future__ import annotations

from bench.core.case import Case, Search
from bench.core.columns import BoundaryRow, CaseRow
from bench.core.messages import PhaseProgress
from bench.core.outcome import Phase


class Progress:
    """Callbacks, called from several threads, one at a time; those of the base class do nothing."""

    def prepare(self, done: int, total: int) -> None:
        """`done` of `total` recordings that predictions need are there."""

    def begin(self, searches: int, cases: int, known: int) -> None:
        """So many boundaries are to be found and so many cases to be measured; `known` have their answer already."""

    def start(self, case: Case) -> None:
        """A case is about to be run."""

    def enter(self, case: Case, phase: Phase) -> None:
        """A case has come to a phase."""

    def advance(self, case: Case, reached: PhaseProgress) -> None:
        """How far the phase of a case is; told now and then while it lasts."""

    def finish(self, case: Case, row: CaseRow) -> None:
        """A case has its row."""

    def probe(self, case: Case, row: CaseRow) -> None:
        """A case that was run to find a search's boundary has its row."""

    def find(self, search: Search, boundary: BoundaryRow) -> None:
        """A search has its boundary."""

    def wait(self, works: int) -> None:
        """All else is done; so many cases and searches are waited for, which another sweep has taken."""

    def end(self) -> None:
        """The sweep was interrupted, and waits for the cases that run."""
