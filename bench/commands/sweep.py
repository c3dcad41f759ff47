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
from bench.results.schema import BOUNDARIES
from bench.results.store import read_cases
from bench.run.sweep import Finished, new_run_id, run_sweep


def sweep(overrides: Sequence[str]) -> int:
    """Measures what `overrides` ask for and shows it; returns the exit code."""
    planned = plan_sweep(overrides)
    settings = planned.settings
    results_dir = Path(settings.results_dir)
    launcher = config.launcher_override(overrides)
    if launcher is not None:
        from bench.run.hydra_launch import launch

        finished = launch(overrides, planned, results_dir)
    else:
        with watcher_for(sys.stderr) as watcher:
            finished = run_sweep(
                planned.cases,
                results_dir,
                settings.run_id or new_run_id(),
                settings.timeout_s,
                settings.jobs,
                settings.rerun,
                watcher,
            )
    return _show(planned, finished, results_dir)


def _show(planned: Sweep, finished: Finished, results_dir: Path) -> int:
    table, problems = read_cases(results_dir)
    for problem in problems:
        print(f"vram-bench: skipped {problem}", file=sys.stderr)
    frame = table.to_pandas()
    frame = frame[frame["case_id"].isin(finished.case_ids)]
    frame = frame.sort_values("started_at").drop_duplicates("case_id", keep="last")
    out_dir = (finished.run_dir or results_dir) / "report"
    if not frame.empty:
        publish(frame, BOUNDARIES.empty_table().to_pandas(), out_dir, echo=True)
    if finished.run_dir is not None:
        print(f"rows: {finished.run_dir / 'cases.parquet'}")
    missing = len(planned.cases) - len(frame)
    if finished.interrupted:
        print(f"interrupted; {missing} cases are left, the same command goes on with them", file=sys.stderr)
        return ExitCode.INTERRUPTED
    return ExitCode.DONE if not missing and frame["outcome"].isin(ANSWERS).all() else ExitCode.LOOK
