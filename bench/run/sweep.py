"""Measures the cases and finds the boundaries of a sweep that are not known yet."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.config.settings import Settings
from bench.core.case import Case, Search
from bench.core.errors import BadInput
from bench.core.outcome import UNANSWERED
from bench.core.scratch import scratch_folder
from bench.launch.launchers import uuids_of
from bench.launch.versions import installed_versions
from bench.run.claims import Claims
from bench.run.lanes import Task, Way
from bench.run.leftovers import clean_up, remove_if_empty
from bench.run.locks import claimed, require_reservable
from bench.run.neighbours import Neighbours
from bench.run.progress import Progress
from bench.run.resume import Stored
from bench.run.row import now
from bench.run.scheduler import End, Scheduler, interrupts_ignored
from bench.run.tenants import require_alone
from bench.store.news import News
from bench.store.store import compact


@dataclass(frozen=True)
class SweepOptions:
    """How a sweep is run; results do not depend on it.

    Rows go to `results_dir/run_id`. Simulated cases run `jobs` at a time (None: one for each core), those of one real
    GPU one after the other. With `rerun`, nothing counts as known, and else no case that ended as one of `retry`. With
    `share_run`, other processes write to the same run, and whoever started them compacts it. Without `allow_foreign`,
    a real GPU on which others hold memory is refused. `cells` are what was asked for before its card was known, by its
    ids on the card that it was given.
    """

    results_dir: Path
    run_id: str
    timeout_s: float
    jobs: int | None = None
    rerun: bool = False
    share_run: bool = False
    retry: Collection[str] = UNANSWERED
    phase_timeout_s: float | None = None
    allow_foreign: bool = False
    cells: Mapping[str, str] = field(default_factory=dict)

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
            settings.retry,
            settings.phase_timeout_s,
            settings.allow_foreign,
        )


@dataclass
class Finished:
    """The sweep's cases and searches by their ids, and where their rows are; `interrupted` when some have none yet.

    `at_once`: it was interrupted twice, and nothing more is wanted of it.
    """

    case_ids: list[str]
    boundary_ids: list[str]
    run_dir: Path | None
    interrupted: bool
    at_once: bool = False


def new_run_id() -> str:
    """Sorts by time; two sweeps of one second differ by their process."""
    return f"{now():%Y-%m-%d_%H-%M-%S}_{os.getpid()}"


def run_sweep(
    cases: Sequence[Case],
    searches: Sequence[Search],
    options: SweepOptions,
    progress: Progress | None = None,
    stored: Stored | None = None,
) -> Finished:
    """Measures every case and finds every search's boundary that is not known yet.

    Ctrl-C ends it when the cases that run have ended, a second one at once: what is finished is kept, and the same
    sweep goes on where it stopped. What other sweeps below `results_dir` measure meanwhile is not measured here, too.
    Where somebody has looked into the folder already, `stored` is what there is, and it is not looked into again.
    Raises `BadInput` where the results cannot be written, or another sweep writes to the same run.
    """
    progress = progress or Progress()
    versions = installed_versions()
    wanted_cases, wanted_boundaries = ([Task.of(work, versions) for work in works] for works in (cases, searches))
    news = None
    if stored is None:
        if not options.share_run:
            clean_up(options.results_dir)
        news = News(options.results_dir)  # before what is there is read, so that nothing comes in between
        stored = Stored.read(options.results_dir, options.rerun, options.retry)
    done = {
        task.key: key
        for wanted, known in ((wanted_boundaries, stored.boundary_ids), (wanted_cases, stored.answers))
        for task in wanted
        if (key := task.done_in(known)) is not None
    }
    tasks = [task for task in (*wanted_boundaries, *wanted_cases) if task.key not in done]

    def ids(wanted: Sequence[Task]) -> list[str]:
        return [done.get(task.key, task.key) for task in wanted]

    begin = functools.partial(progress.begin, len(searches), len(cases), len(searches) + len(cases) - len(tasks))
    if not tasks:
        begin()
        return Finished(ids(wanted_cases), ids(wanted_boundaries), None, False)
    tasks = [Task(tuple(Way(_with_weights(way.work), way.key) for way in task.ways)) for task in tasks]
    devices = {device.uuid: device for task in tasks for way in task.ways for device in way.work.longest.devices}
    require_reservable(uuids_of(list(devices.values())))
    if not options.allow_foreign:
        require_alone(devices.values())
    run_dir = make_run_dir(options.results_dir, options.run_id)
    with contextlib.ExitStack() as held:
        if not options.share_run:
            held.enter_context(claimed(run_dir))
        claims = Claims(options.results_dir)
        held.callback(claims.close)
        scratch = held.enter_context(scratch_folder())
        scheduler = Scheduler(
            run_dir,
            options.timeout_s,
            options.phase_timeout_s,
            options.jobs or os.cpu_count() or 1,
            versions,
            stored,
            progress,
            scratch,
            Neighbours(claims, None if options.rerun else news),
            options.cells,
        )
        try:
            ended = scheduler.run(tasks, begin)
        finally:
            with interrupts_ignored():
                scheduler.close()
                if not options.share_run:
                    compact(run_dir)
    done |= scheduler.done
    has_rows = any(run_dir.glob("*.parquet"))
    if not has_rows and not options.share_run:
        with contextlib.suppress(OSError):
            remove_if_empty(run_dir)
    return Finished(
        ids(wanted_cases),
        ids(wanted_boundaries),
        run_dir if has_rows else None,
        ended is not End.DONE,
        ended is End.AT_ONCE,
    )


def _with_weights(work: Case | Search) -> Case | Search:
    """`work` with the weights of its model on disk, where a real GPU needs them and a hub has them."""
    case = work.longest
    if not case.needs_download:
        return work
    from bench.config import hub

    case = replace(case, model=hub.download(case.model))
    return work.along(case) if isinstance(work, Search) else case


def make_run_dir(results_dir: Path, run_id: str) -> Path:
    """Makes the folder of a run. Raises `BadInput` where the results cannot be written."""
    run_dir = results_dir / run_id
    try:
        (run_dir / "logs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"results_dir={results_dir}: cannot be written ({error.strerror}); choose another") from None
    return run_dir
