"""`vram-bench sweep`: plan, run, report."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from bench.answers.found import Found, read_found
from bench.commands.progress import progress_for
from bench.commands.report import stored_memory
from bench.commands.setups import tell_setup
from bench.config import compose as config
from bench.config.cases import plan_sweep
from bench.config.devices import resolve_machines
from bench.core.alternatives import alternatives
from bench.core.case import Case, Search
from bench.core.errors import BadInput, ExitCode
from bench.jobs.machines import machines_for
from bench.jobs.schedulers import scheduler_of
from bench.launch.inspection import require_whole
from bench.report.publish import publish
from bench.report.rows import plain
from bench.report.text.console import console_for
from bench.run.sweep import SweepOptions, run_sweep
from bench.setups.beside import beside
from bench.setups.setup import Setup
from bench.share.opened import Opened


def run(arguments: argparse.Namespace) -> int:
    """`vram-bench sweep KEY=VALUE… [--json]`."""
    return sweep(arguments.overrides, arguments.json, arguments.setup)


def sweep(overrides: Sequence[str], as_json: bool = False, setup: Setup | None = None) -> int:
    """Measures what `overrides` ask for and shows it, or prints it as one JSON document; returns the exit code.

    Where they are a `setup`, another program's, it is also found how far that could go.
    """
    launcher = config.launcher_override(overrides)
    scheduler = None if launcher is None else scheduler_of(launcher)
    planned = plan_sweep(overrides, resolve_machines if scheduler is None else machines_for(scheduler))
    if setup is not None:
        tell_setup(setup)
        further = [search for case in planned.cases for search in beside(case, setup.frontend).searches]
        planned = replace(planned, searches=list(dict.fromkeys([*planned.searches, *further])))
    require_whole([*(search.longest for search in planned.searches), *planned.cases])
    works: list[Case | Search] = [*planned.searches, *planned.cases]
    settings = planned.settings
    results_dir = Path(settings.results_dir)
    if launcher is not None and setup is not None:
        raise BadInput(f"hydra/launcher={launcher}: a launcher is not handed {setup.source}; leave one of the two out")
    with progress_for(sys.stderr, [each for work in works for each in alternatives(work)]) as progress:
        if scheduler is not None:
            from bench.jobs.driver import launch  # with Hydra's plugins, which may be slow to import

            finished = launch(overrides, planned, scheduler, results_dir, progress)
        else:
            finished = run_sweep(planned.cases, planned.searches, SweepOptions.of(settings), progress)
    answer = read_found(planned, finished, results_dir)
    for problem in answer.problems:
        print(f"vram-bench: skipped {problem}", file=sys.stderr)
    files: list[Path] = []
    if (not finished.at_once and not answer.cases.empty) or not answer.boundaries.empty:
        files = publish(
            answer.shown,
            answer.boundaries,
            answer.run_dir / "report",
            echo=not as_json,
            list_files=False,
            memory=partial(stored_memory, Opened.of(results_dir), answer.problems),
        ).files
    if as_json:
        print(json.dumps(_document(answer, files), indent=2, default=_as_json))
    elif files:
        _tell_where(answer.run_dirs, files)
    if finished.interrupted:
        print(
            f"interrupted; {answer.left} of {answer.total} are left, the same command goes on with them",
            file=sys.stderr,
        )
        return ExitCode.INTERRUPTED
    return ExitCode.PROBLEMS if answer.left else ExitCode.DONE


def _tell_where(run_dirs: Sequence[Path], files: Sequence[Path]) -> None:
    """Where the tables, the plots and the rows are, and last the one file to open."""
    console = console_for()
    plots = [file for file in files if file.suffix == ".png"]
    more = f", and {len(plots) - 1} more beside it" if len(plots) > 1 else ""
    lines = [f"tables: {file}" for file in files if file.name == "tables.md"]
    lines += [f"plot: {plots[0]}{more}"] if plots else []
    tables = [str(path) for run_dir in run_dirs for path in sorted(run_dir.glob("*.parquet"))]
    lines += [f"rows: {', '.join(tables)}"] if tables else []
    lines += [f"open {file} ({len(files)} files in this folder)" for file in files if file.suffix == ".html"]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _document(answer: Found, files: Sequence[Path]) -> dict[str, Any]:
    return {
        "cases": plain(answer.cases),
        "boundaries": plain(answer.boundaries),
        "left": answer.left,
        "run_dir": str(answer.run_dir),
        "run_dirs": [str(folder) for folder in answer.run_dirs],
        "files": [str(file) for file in files],
    }


def _as_json(value: Any) -> Any:
    """What pandas and numpy have for a moment, a list and a number."""
    return value.isoformat() if isinstance(value, datetime) else value.tolist()
