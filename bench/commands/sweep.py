"""`vram-bench sweep`: plan, run, report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bench.commands.progress import watcher_for
from bench.errors import ExitCode
from bench.plan import config
from bench.plan.cases import Sweep, plan_sweep
from bench.records import ANSWERS
from bench.report.publish import publish
from bench.report.rows import latest
from bench.results.store import read_boundaries, read_cases
from bench.run.boundary import settled
from bench.run.sweep import Finished, new_run_id, run_sweep
from bench.run.whole import require_whole


def sweep(overrides: Sequence[str]) -> int:
    """Measures what `overrides` ask for and shows it; returns the exit code."""
    planned = plan_sweep(overrides)
    require_whole([*(cell.longest for cell in planned.cells), *planned.cases])
    settings = planned.settings
    results_dir = Path(settings.results_dir)
    launcher = config.launcher_override(overrides)
    if launcher is not None:
        from bench.run.hydra_launch import launch

        finished = launch(overrides, planned, results_dir)
    else:
        with watcher_for(sys.stderr, [*planned.cells, *planned.cases]) as watcher:
            finished = run_sweep(
                planned.cases,
                planned.cells,
                results_dir,
                settings.run_id or new_run_id(),
                settings.timeout_s,
                settings.jobs,
                settings.rerun,
                watcher,
            )
    return _show(planned, finished, results_dir)


def _show(planned: Sweep, finished: Finished, results_dir: Path) -> int:
    (cases, problems), (boundaries, others) = read_cases(results_dir), read_boundaries(results_dir)
    for problem in dict.fromkeys([*problems, *others]):
        print(f"vram-bench: skipped {problem}", file=sys.stderr)
    found = latest(boundaries.to_pandas(), "boundary_id", "finished_at")
    found = found[found["boundary_id"].isin(finished.boundary_ids)]
    probes = {case_id for case_ids in found["case_ids"] if case_ids is not None for case_id in case_ids}
    rows = latest(cases.to_pandas(), "case_id", "started_at")
    asked = rows[rows["case_id"].isin(finished.case_ids)]
    if not asked.empty or not found.empty:
        out_dir = (finished.run_dir or results_dir) / "report"
        publish(rows[rows["case_id"].isin({*finished.case_ids, *probes})], found, out_dir, echo=True)
    if finished.run_dir is not None:
        print(f"rows: {', '.join(str(path) for path in sorted(finished.run_dir.glob('*.parquet')))}")
    answered = [outcome in ANSWERS for outcome in asked["outcome"]] + [settled(row) for row in found.to_dict("records")]
    total = len(planned.cases) + len(planned.cells)
    left = total - sum(answered)
    if finished.interrupted:
        print(f"interrupted; {left} of {total} are left, the same command goes on with them", file=sys.stderr)
        return ExitCode.INTERRUPTED
    return ExitCode.LOOK if left else ExitCode.DONE
