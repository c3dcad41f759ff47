"""The order of a sweep: what runs at the same time, which cases are known, and which rows are written."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.core.case import Case, Search
from bench.core.columns import CaseRow
from bench.core.outcome import ANSWERS
from bench.forecast.forecaster import Forecaster
from bench.forecast.library import TraceLibrary
from bench.launch.launchers import Launchers, uuids_of
from bench.run.boundary import find_boundary
from bench.run.measure import Measurer
from bench.run.progress import Progress
from bench.run.resume import Stored
from bench.store.journal import Journal
from bench.store.schema import Kind


@dataclass(frozen=True)
class Task:
    """A case to measure, or a search whose boundary to find, and its id."""

    work: Case | Search
    key: str


class Scheduler:
    """Does the tasks of one run, whose rows go to `run_dir`."""

    def __init__(
        self,
        run_dir: Path,
        timeout_s: float,
        jobs: int,
        versions: dict[str, str | None],
        stored: Stored,
        progress: Progress,
    ) -> None:
        self._run_id = run_dir.name
        self._jobs = jobs
        self._versions = versions
        self._answers = dict(stored.answers)
        self._stored = stored
        self._progress = progress
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._muted = False
        self._measuring: dict[str, threading.Lock] = {}
        self._cases, self._boundaries = Journal(run_dir, Kind.CASES), Journal(run_dir, Kind.BOUNDARIES)
        self._memory = Journal(run_dir, Kind.MEMORY)
        self._layouts = Path(tempfile.mkdtemp(prefix="vram-bench-"))
        self._launchers = Launchers()
        self._forecaster = Forecaster(TraceLibrary(self._launchers.simulated, self._layouts, jobs), stored.rows)
        self._measurer = Measurer(
            run_dir,
            timeout_s,
            versions,
            self._layouts,
            self._launchers,
            self._forecaster,
            progress,
            self._notify,
            self._stop,
        )

    def run(self, tasks: Sequence[Task], begin: Callable[[], None]) -> bool:
        """Does all; true if it was interrupted. `begin` is called when all is ready."""
        try:
            self._forecaster.prepare([task.work.longest for task in tasks], self._prepared)
        except KeyboardInterrupt:
            return True
        self._notify(begin)
        # The longest first: one that starts last would keep a single core busy.
        tasks = sorted(tasks, key=lambda task: -task.work.longest.max_seq_len)
        lanes: dict[tuple[str, ...], list[Task]] = {}
        for task in tasks:
            lanes.setdefault(uuids_of(task.work.longest.devices), []).append(task)
        pools = [(ThreadPoolExecutor(1 if uuids else self._jobs), lane) for uuids, lane in lanes.items()]
        futures = [pool.submit(self._complete, task) for pool, lane in pools for task in lane]
        try:
            for future in futures:
                future.result()
        except BaseException as error:
            self._stop.set()
            with sigint_ignored():
                for pool, _ in pools:
                    pool.shutdown(wait=True, cancel_futures=True)
            if isinstance(error, KeyboardInterrupt):
                return True
            raise
        for pool, _ in pools:
            pool.shutdown()
        return False

    def close(self) -> None:
        """Ends the workers and closes the journals."""
        self._launchers.close()
        self._cases.close()
        self._boundaries.close()
        self._memory.close()
        shutil.rmtree(self._layouts, ignore_errors=True)

    def _prepared(self, done: int, total: int) -> None:
        self._notify(self._progress.prepare, done, total)

    def _complete(self, task: Task) -> None:
        """Gets the row of a task, and tells of it."""
        if isinstance(task.work, Case):
            row = self._row_of(task.work, again=False)
            if row is not None:
                self._notify(self._progress.finish, task.work, row)
            return
        known = self._stored.answers_of(task.work, self._versions)
        boundary = find_boundary(task.work, task.key, self._probe, self._forecaster, known)
        if boundary is not None:
            boundary["run_id"] = self._run_id  # its cases may be of other runs
            with self._lock:
                self._boundaries.append(boundary)
            self._notify(self._progress.find, task.work, boundary)

    def _probe(self, case: Case, again: bool) -> CaseRow | None:
        return self._row_of(case, again, self._progress.probe)

    def _row_of(
        self, case: Case, again: bool, measured: Callable[[Case, CaseRow], None] | None = None
    ) -> CaseRow | None:
        """The row of a case: the one that is stored, if there is one and it will do; None when the sweep is stopping.

        `measured` is called with a case that was run, and its row.
        """
        case_id = case.case_id(self._versions)
        with self._measuring.setdefault(case_id, threading.Lock()):  # a search may probe what is also asked for
            if not again and case_id in self._answers:
                return self._answers[case_id]
            rows = self._measurer.measure(case, case_id)
            if rows is None:
                return None
            row, cards = rows
            with self._lock:
                for card in cards:  # before the case, which says that all is there
                    self._memory.append(card)
                self._cases.append(row)
            self._forecaster.learn(row)
            if row["outcome"] in ANSWERS:
                self._answers[case_id] = row
        if measured is not None:
            self._notify(measured, case, row)
        return row

    def _notify(self, notify: Callable[..., None], *what: Any) -> None:
        with self._lock:
            if self._muted:
                return
            try:
                notify(*what)
            except OSError:  # the reader of the output is gone: go on measuring
                self._muted = True


@contextlib.contextmanager
def sigint_ignored() -> Iterator[None]:
    """Ignores Ctrl-C meanwhile, so that rows are written completely."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
