"""What is stored of a sweep: its cases, its boundaries, and where they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bench.config.cases import Sweep
from bench.core.columns import BoundaryRow
from bench.core.outcome import ANSWERS
from bench.report.rows import latest, rows_of
from bench.run.boundary import settled
from bench.run.sweep import Finished
from bench.store.store import read_boundaries, read_cases, to_be_shown


@dataclass(frozen=True)
class Found:
    """What is stored of a sweep. `shown` are its cases and those that were run to find its boundaries."""

    cases: pd.DataFrame
    boundaries: pd.DataFrame
    shown: pd.DataFrame
    run_dir: Path  # of this run, or where all is stored already of the newest that has a row of it
    run_dirs: list[Path]  # of all runs that have a row of it, the first first
    problems: list[str]  # what could not be read
    left: int
    total: int


def read_found(planned: Sweep, finished: Finished, results_dir: Path) -> Found:
    """The rows of a sweep that has come to its end, or was interrupted."""
    (stored, problems), (boundaries, others) = (
        to_be_shown(read(results_dir)) for read in (read_cases, read_boundaries)
    )
    problems = list(dict.fromkeys([*problems, *others]))
    found = latest(boundaries.to_pandas(), "boundary_id", "finished_at")
    found = found[found["boundary_id"].isin(finished.boundary_ids)]
    probes = {case_id for case_ids in found["case_ids"] if case_ids is not None for case_id in case_ids}
    rows = latest(stored.to_pandas(), "case_id", "started_at")
    asked = rows[rows["case_id"].isin(finished.case_ids)]
    answered = [outcome in ANSWERS for outcome in asked["outcome"]] + [
        settled(row) for row in rows_of(found, BoundaryRow)
    ]
    total = len(planned.cases) + len(planned.searches)
    shown = rows[rows["case_id"].isin({*finished.case_ids, *probes})]
    run_dirs = _run_dirs(shown, found, results_dir)
    return Found(
        cases=asked,
        boundaries=found,
        shown=shown,
        run_dir=finished.run_dir or (run_dirs[-1] if run_dirs else results_dir),
        run_dirs=run_dirs,
        problems=problems,
        left=total - sum(answered),
        total=total,
    )


def _run_dirs(cases: pd.DataFrame, boundaries: pd.DataFrame, results_dir: Path) -> list[Path]:
    """The folders of the runs that added to what was asked for, in the order of the last that each added."""
    ends = [*zip(cases["started_at"], cases["run_id"], strict=True)]
    ends += [*zip(boundaries["finished_at"], boundaries["run_id"], strict=True)]
    last = {run_id: moment for moment, run_id in sorted(ends)}
    folders = [results_dir / run_id for run_id in sorted(last, key=last.__getitem__)]
    return [folder for folder in folders if folder.is_dir()]
