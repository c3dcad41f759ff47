"""What earlier runs have found, so that the same sweep goes on where it stopped."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from bench.core.alternatives import alternatives
from bench.core.case import Axis, Case, Search
from bench.core.columns import DOCUMENTS, BoundaryRow, CaseRow
from bench.core.outcome import UNANSWERED
from bench.run.boundary import settled
from bench.store.found import has_rows


def _length(row: Mapping[str, Any], axis: Axis) -> int | None:
    """How far along an axis a case is; None of a row that does not tell."""
    return row.get(axis)


@dataclass(frozen=True)
class Stored:
    """What earlier runs have found: `answers` by case_id; `rows` are all, for what can be learned from them, by time.

    Of several rows of one case the last counts. What ended as one of `retry` is run again, as crashes and timeouts are
    where nothing else was said, and so is a search whose boundary was not certified.
    """

    answers: dict[str, CaseRow]
    boundary_ids: set[str]
    rows: Sequence[CaseRow]
    ends: Mapping[str, tuple[str, int | None]] = field(default_factory=dict)  # of each of `boundary_ids`
    cells: Mapping[str, str] = field(default_factory=dict)  # of what a scheduler chose the card for, the answer's id

    def answer(self, work: Case | Search, versions: dict[str, str | None]) -> tuple[str, int | None] | None:
        """What a stored row says of `work`: how it ended, and of a search the longest that fits; None without one."""
        for each in alternatives(work) if self.ends or self.answers else ():
            if isinstance(each, Search):
                if (end := self.ends.get(each.boundary_id(versions))) is not None:
                    return end
            elif (row := self.answers.get(each.case_id(versions))) is not None:
                return str(row["outcome"]), None
        return None

    def has(self, work: Case | Search, versions: dict[str, str | None]) -> bool:
        """Whether there is an answer to `work`, so that a sweep skips it."""
        return any(
            each.boundary_id(versions) in self.boundary_ids
            if isinstance(each, Search)
            else each.case_id(versions) in self.answers
            for each in alternatives(work)
        )

    def answers_of(self, search: Search, versions: dict[str, str | None]) -> list[CaseRow]:
        """The answers to the search's cases, at any length."""
        case = search.longest
        alike = self._alike.get((case.model.fingerprint, case.machine.name, case.bpw, case.cache, case.lazy), [])
        told = [(row, _length(row, search.axis)) for row in alike]
        return [row for row, n in told if n is not None and row["case_id"] == search.at(n).case_id(versions)]

    @functools.cached_property
    def _alike(self) -> dict[tuple[Any, ...], list[CaseRow]]:
        """The answers by enough of what makes a search that few others share it."""
        alike: dict[tuple[Any, ...], list[CaseRow]] = {}
        for row in self.answers.values():
            key = (row["model_fingerprint"], row["device_name"], row["bpw"], row["cache"], row["lazy"])
            alike.setdefault(key, []).append(row)
        return alike

    @staticmethod
    def read(results_dir: Path, rerun: bool, retry: Collection[str] = UNANSWERED) -> Stored:
        """All below `results_dir`; with `rerun` no answers, but rows to learn from; else none that ended as `retry`."""
        if not has_rows(results_dir):
            return Stored({}, set(), [])
        from bench.store.store import as_rows, read_boundaries, read_cases  # with pyarrow

        rows = as_rows(read_cases(results_dir, without=DOCUMENTS)[0].sort_by("started_at"), CaseRow)
        if rerun:
            return Stored({}, set(), rows)
        columns = ["boundary_id", "finished_at", "certified", "outcome", "fits_at", "searched_up_to", "cell_id"]
        stored = read_boundaries(results_dir)[0].select(columns).sort_by("finished_at")
        boundaries = as_rows(stored, BoundaryRow)
        cases = {str(row["case_id"]): row for row in rows}
        found = {str(row["boundary_id"]): row for row in boundaries}
        ends = {
            key: (str(row["outcome"]), row["fits_at"])
            for key, row in found.items()
            if row["outcome"] not in retry and (settled(row) or row["outcome"] in UNANSWERED)
        }
        answers = {case_id: row for case_id, row in cases.items() if row["outcome"] not in retry}
        told = [*((row["cell_id"], key) for key, row in answers.items())]
        told += [(row["cell_id"], key) for key, row in found.items() if key in ends]
        return Stored(answers, set(ends), rows, ends, {cell: key for cell, key in told if cell is not None})


def without_documents(row: CaseRow) -> CaseRow:
    """A row as `Stored` has it: what no search and no prediction looks at is null."""
    return cast(CaseRow, {name: None if name in DOCUMENTS else value for name, value in row.items()})
