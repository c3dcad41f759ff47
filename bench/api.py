"""vram-bench as a library: the answers of `plan`, `sweep` and `report` as pandas DataFrames.

    from bench import api

    api.plan(["model=llama_3_1_8b", "bpw=4.0", "cache=FP16,Q4", "device=rtx_3090"])

Overrides are those of the command line, a text each, as one types them. What is wrong with them raises `BadInput`, and
nothing was run. Columns have the names of docs/results.md, `frame.attrs["units"]` their units; sizes are whole bytes,
unknown is null. Nothing here imports torch or an engine: whatever needs them runs in worker processes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bench.answers.display import Silent
from bench.answers.foreseen import foresee
from bench.answers.found import read_found
from bench.answers.frames import forecast_frame, typed
from bench.config.cases import Sweep, plan_sweep
from bench.config.compose import launcher_override
from bench.config.models import forget
from bench.core.case import Case, Search
from bench.core.columns import DOCUMENTS
from bench.core.errors import BadInput
from bench.launch.inspection import require_whole
from bench.report.rows import latest
from bench.run.sweep import SweepOptions, run_sweep
from bench.store.store import read_boundaries, read_cases, to_be_shown

__all__ = ["BadInput", "SweepResult", "boundaries", "plan", "read_rows", "sweep"]


@dataclass(frozen=True)
class SweepResult:
    """What is stored of a sweep.

    `cases` are those that were asked for, and that were run to find its boundaries: columns as in cases.parquet.
    `boundaries` say how far each setting goes, in the order that was asked for: columns as in boundaries.parquet. So
    many are `left` without a verdict: they crashed, timed out or failed, and their rows say why; or it was
    `interrupted`, and the same sweep goes on with them.
    """

    cases: pd.DataFrame
    boundaries: pd.DataFrame
    run_dir: Path
    left: int
    interrupted: bool


def plan(overrides: Sequence[str]) -> pd.DataFrame:
    """What a sweep of `overrides` is expected to find, a row for each case and each search; nothing is run.

    All of it is predicted (`predicted_…`, `estimated_…`, and `fits`, `failed_in` and `headroom_bytes` beside them), but
    for `stored_…`, which an earlier run has found; `reason` says why a row has no prediction. `attrs` has `units`, the
    number of `probes` that a sweep would run, and its `expected_s` with `expected_basis` (`stored rows`, `assumed`, or
    None where nothing tells). Raises `BadInput`.
    """
    planned = _planned(overrides)
    works: list[Case | Search] = [*planned.searches, *planned.cases]
    foreseen = foresee(works, planned.settings, len(works), Silent())
    expectation = foreseen.expectation(foreseen.rows)
    frame = forecast_frame(foreseen.rows)
    frame.attrs |= {
        "probes": expectation.probes,
        "expected_s": expectation.seconds,
        "expected_basis": expectation.basis,
    }
    return frame


def sweep(overrides: Sequence[str]) -> SweepResult:
    """Runs what `overrides` ask for and is not stored yet, and returns all of it; no report is written.

    Rows are kept below `results_dir`, as on the command line. Ctrl-C ends it when the cases that run have ended.
    Raises `BadInput`.
    """
    planned = _planned(overrides)
    if (launcher := launcher_override(overrides)) is not None:
        raise BadInput(f"hydra/launcher={launcher}: it goes with `vram-bench sweep`; leave it out here")
    finished = run_sweep(planned.cases, planned.searches, SweepOptions.of(planned.settings))
    found = read_found(planned, finished, Path(planned.settings.results_dir))
    _warn(found.problems)
    order = {boundary_id: number for number, boundary_id in enumerate(finished.boundary_ids)}
    in_order = found.boundaries.sort_values("boundary_id", key=lambda ids: ids.map(order))
    return SweepResult(
        typed(found.shown.reset_index(drop=True)),
        typed(in_order.reset_index(drop=True)),
        found.run_dir,
        found.left,
        finished.interrupted,
    )


def read_rows(folder: str | Path, documents: bool = False) -> pd.DataFrame:
    """Every case below `folder` (or in a parquet file), each once: the newest row of it. Columns as in cases.parquet.

    Without `documents`, the columns that hold whole documents or every sample are left out. A file that cannot be read
    is skipped with a warning. Raises `BadInput` where there is no such folder.
    """
    table, problems = to_be_shown(read_cases(_existing(folder), without=() if documents else DOCUMENTS))
    _warn(problems)
    return typed(latest(table.to_pandas(), "case_id", "started_at").reset_index(drop=True))


def boundaries(folder: str | Path) -> pd.DataFrame:
    """Every boundary below `folder` (or in a parquet file), each once: the newest. Columns as in boundaries.parquet.

    `fits_at` is a fact where `certified` is true: it was run and fits, and `fails_at` was run and does not. Raises
    `BadInput` where there is no such folder.
    """
    table, problems = to_be_shown(read_boundaries(_existing(folder)))
    _warn(problems)
    return typed(latest(table.to_pandas(), "boundary_id", "finished_at").reset_index(drop=True))


def _planned(overrides: Sequence[str]) -> Sweep:
    if isinstance(overrides, str):
        raise BadInput(f'overrides: {overrides!r} is one text; give a list, as ["model=llama_3_1_8b", "bpw=4.0"]')
    forget()  # what lies on disk or on a hub may have changed since the last call
    planned = plan_sweep(overrides)
    require_whole([*(search.longest for search in planned.searches), *planned.cases])
    return planned


def _existing(folder: str | Path) -> Path:
    path = Path(folder)
    if not path.exists():
        raise BadInput(f"{path}: no such directory; run a sweep first, or name another")
    return path


def _warn(problems: Sequence[str]) -> None:
    for problem in problems:
        warnings.warn(f"skipped {problem}", stacklevel=3)
