"""Measures the cases and finds the boundaries of a sweep that are not known yet."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.config.settings import Settings
from bench.core.case import Case, Search
from bench.core.errors import BadInput
from bench.launch.versions import installed_versions
from bench.run.locks import claimed
from bench.run.progress import Progress
from bench.run.resume import Stored
from bench.run.row import now
from bench.run.scheduler import Scheduler, Task, sigint_ignored
from bench.store.store import compact


@dataclass(frozen=True)
class SweepOptions:
    """How a sweep is run; results do not depend on it.

    Rows go to `results_dir/run_id`. Simulated cases run `jobs` at a time (None: one for each core), those of one real
    GPU one after the other. With `rerun`, nothing counts as known. With `share_run`, other processes write to the same
    run, and whoever started them compacts it.
    """

    results_dir: Path
    run_id: str
    timeout_s: float
    jobs: int | None = None
    rerun: bool = False
    share_run: bool = False

    @staticmethod
    def of(settings: Settings, share_run: bool = False) -> SweepOptions:
        """As `settings` have it, with a new `run_id` where they have none."""
        return SweepOptions(
            Path(settings.results_dir),
            settings.run_id or new_run_id(),
            settings.timeout_s,
            settings.jobs,
            settings.rerun,
            share_run,
        )


@dataclass
class Finished:
    """The sweep's cases and searches by their ids, and where their rows are; `interrupted` when some have none yet."""

    case_ids: list[str]
    boundary_ids: list[str]
    run_dir: Path | None
    interrupted: bool


def new_run_id() -> str:
    """Sorts by time; two sweeps of one second differ by their process."""
    return f"{now():%Y-%m-%d_%H-%M-%S}_{os.getpid()}"


def run_sweep(
    cases: Sequence[Case], searches: Sequence[Search], options: SweepOptions, progress: Progress | None = None
) -> Finished:
    """Measures every case and finds every search's boundary that is not known yet.

    Ctrl-C ends it: what is finished is kept, and the same sweep goes on where it stopped. Raises `BadInput` where the
    results cannot be written, or another sweep writes to the same run.
    """
    progress = progress or Progress()
    versions = installed_versions()
    case_ids = [case.case_id(versions) for case in cases]
    boundary_ids = [search.boundary_id(versions) for search in searches]
    stored = Stored.read(options.results_dir, options.rerun)
    tasks = [
        *(Task(work, key) for work, key in zip(searches, boundary_ids, strict=True) if key not in stored.boundary_ids),
        *(Task(work, key) for work, key in zip(cases, case_ids, strict=True) if key not in stored.answers),
    ]
    begin = functools.partial(progress.begin, len(searches), len(cases), len(searches) + len(cases) - len(tasks))
    if not tasks:
        begin()
        return Finished(case_ids, boundary_ids, None, False)
    tasks = [replace(task, work=_with_weights(task.work)) for task in tasks]
    run_dir = _make_run_dir(options)
    with contextlib.nullcontext() if options.share_run else claimed(run_dir):
        scheduler = Scheduler(
            run_dir, options.timeout_s, options.jobs or os.cpu_count() or 1, versions, stored, progress
        )
        try:
            interrupted = scheduler.run(tasks, begin)
        finally:
            with sigint_ignored():
                scheduler.close()
                if not options.share_run:
                    compact(run_dir)
    has_rows = any(run_dir.glob("*.parquet"))
    if not has_rows and not options.share_run:
        _remove_empty(run_dir)
    return Finished(case_ids, boundary_ids, run_dir if has_rows else None, interrupted)


def _with_weights(work: Case | Search) -> Case | Search:
    """`work` with the weights of its model on disk, where a real GPU needs them and a hub has them."""
    case = work.longest
    if not case.needs_download:
        return work
    from bench.config import hub

    case = replace(case, model=hub.download(case.model))
    return Search(case) if isinstance(work, Search) else case


def _make_run_dir(options: SweepOptions) -> Path:
    run_dir = options.results_dir / options.run_id
    try:
        (run_dir / "logs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(
            f"results_dir={options.results_dir}: cannot be written ({error.strerror}); choose another"
        ) from None
    return run_dir


def _remove_empty(run_dir: Path) -> None:
    """Deletes the folder of a run that measured nothing, unless there are logs in it."""
    for folder in (run_dir / "logs", run_dir):
        with contextlib.suppress(OSError):
            folder.rmdir()
