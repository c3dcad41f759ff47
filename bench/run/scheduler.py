"""The order of a sweep: what runs at the same time, which cases are known, and which rows are written."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from enum import Enum, auto
from pathlib import Path
from typing import Any

from bench.core.case import Case, Search
from bench.core.columns import BoundaryRow, CaseRow
from bench.core.outcome import ANSWERS
from bench.forecast.forecaster import Forecaster
from bench.forecast.library import TraceLibrary
from bench.launch.launchers import Launchers
from bench.run.boundary import find_boundary
from bench.run.kept_rows import KeptRows
from bench.run.lanes import Task, Way, lanes_of
from bench.run.measure import Measurer, Stops
from bench.run.neighbours import Neighbours
from bench.run.place import place
from bench.run.progress import Progress
from bench.run.resume import Stored, without_documents
from bench.store.journal import Journal
from bench.store.schema import Kind

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_KILLED_S = 5.0


class End(Enum):
    """How a sweep ends."""

    DONE = auto()
    WHEN_CASES_ENDED = auto()  # interrupted: no other case was started
    AT_ONCE = auto()  # interrupted twice: those that ran were killed


class Scheduler:
    """Does the tasks of one run, whose rows go to `run_dir`; temporary files go to `scratch`."""

    def __init__(
        self,
        run_dir: Path,
        timeout_s: float,
        phase_timeout_s: float | None,
        jobs: int,
        versions: dict[str, str | None],
        stored: Stored,
        progress: Progress,
        scratch: Path,
        neighbours: Neighbours,
        cells: Mapping[str, str],
    ) -> None:
        self._run_id = run_dir.name
        self._jobs = jobs
        self._versions = versions
        self._answers = KeptRows(stored.answers, scratch)
        self._stored = stored
        self._progress = progress
        self._neighbours = neighbours
        self._cells = cells  # of what was asked for before its card was known, by the ids on this one
        self._found: dict[str, BoundaryRow] = {}  # by neighbours
        self.done: dict[str, str] = {}  # of each task by its key, the id of the row that it has
        self._lock = threading.Lock()
        self._stops = Stops()
        self._muted = False
        self._measuring: dict[str, threading.Lock] = {}
        self._cases, self._boundaries = Journal(run_dir, Kind.CASES), Journal(run_dir, Kind.BOUNDARIES)
        self._memory = Journal(run_dir, Kind.MEMORY)
        for journal in (self._cases, self._boundaries):
            neighbours.leave_out(journal.path)
        self._launchers = Launchers()
        self._forecaster = Forecaster(TraceLibrary(self._launchers.simulated, scratch, jobs), stored.rows)
        self._measurer = Measurer(
            run_dir,
            timeout_s,
            phase_timeout_s,
            versions,
            scratch,
            self._launchers,
            self._forecaster,
            progress,
            self._notify,
            self._stops,
        )

    def run(self, tasks: Sequence[Task], begin: Callable[[], None]) -> End:
        """Does all, unless it is interrupted. `begin` is called when all is ready."""
        try:
            self._forecaster.prepare([task.work.longest for task in tasks], self._prepared)
        except KeyboardInterrupt:
            return End.WHEN_CASES_ENDED
        self._notify(begin)
        # The longest first: one that starts last would keep a single core busy.
        tasks = sorted(tasks, key=lambda task: -task.work.longest.max_seq_len)
        lanes = lanes_of(tasks, self._jobs)
        futures: list[Future[Task | None]] = []

        def start(do: Callable[[Task, Way], Task | None], some: Sequence[Task]) -> list[Task]:
            futures[:] = [lanes[task.lane].submit(do, task) for task in some]
            return [left for future in futures if (left := future.result()) is not None]

        try:
            left = start(self._complete_if_free, tasks)
            if left:
                self._notify(self._progress.wait, len(left))
                start(self._complete, left)
        except KeyboardInterrupt:
            return self._end(futures)
        except BaseException:
            self._kill(futures)
            raise
        finally:
            for lane in lanes.values():
                lane.shutdown()
        return End.DONE

    def close(self) -> None:
        """Ends the workers and closes the journals."""
        self._launchers.close()
        self._cases.close()
        self._boundaries.close()
        self._memory.close()
        self._answers.close()

    def _end(self, futures: Sequence[Future[Any]]) -> End:
        """Lets the cases that run come to their end; another interrupt ends them at once."""
        try:
            self._stops.starting.set()
            for future in futures:
                future.cancel()
            self._notify(self._progress.end)
            wait(futures)
        except KeyboardInterrupt:
            self._kill(futures)
            return End.AT_ONCE
        return End.WHEN_CASES_ENDED

    def _kill(self, futures: Sequence[Future[Any]]) -> None:
        with interrupts_ignored():
            self._stops.starting.set()
            self._stops.running.set()
            for future in futures:
                future.cancel()
            if wait(futures, _KILLED_S).not_done:  # somebody has stopped what should answer
                self._launchers.kill()
                wait(futures)

    def _prepared(self, done: int, total: int) -> None:
        self._notify(self._progress.prepare, done, total)

    def _complete_if_free(self, task: Task, way: Way) -> Task | None:
        """Completes a task that no neighbour has taken; else returns it."""
        if self._stops.starting.is_set():
            return None
        if not self._neighbours.take(task.key):
            return task
        self._neighbours.release(task.key)
        self._complete(task, way)
        return None

    def _complete(self, task: Task, way: Way) -> None:
        """Gets the row of a task, and tells of it; one that a neighbour has taken is waited for."""
        with self._neighbours.held(task.key, self._stops.starting) as is_held:
            if not is_held:
                return
            self._hear()
            if isinstance(way.work, Search):
                self._find(way.work, way.key, task)
            else:
                self._measure(way.work, way.key, task)

    def _measure(self, case: Case, key: str, task: Task) -> None:
        known = task.done_in(self._answers)
        row = self._answers[known] if known is not None else self._row_of(case, again=False)
        if row is not None:
            self.done[task.key] = known or key
            self._notify(self._progress.finish, case, row)

    def _find(self, search: Search, key: str, task: Task) -> None:
        known = task.done_in(self._found)
        if known is not None:
            self.done[task.key] = known
            self._notify(self._progress.find, search, self._found[known])
            return
        answers = self._stored.answers_of(search, self._versions)
        boundary = find_boundary(search, key, self._probe, self._forecaster, answers)
        if boundary is not None:
            self.done[task.key] = key
            boundary["run_id"] = self._run_id  # its cases may be of other runs
            boundary.update({**place(), "cell_id": self._cells.get(key)})  # type: ignore[typeddict-item]
            with self._lock:
                self._boundaries.append(boundary)
            self._notify(self._progress.find, search, boundary)

    def _hear(self) -> None:
        """Takes over what neighbours have found."""
        cases, boundaries = self._neighbours.found()
        for row in cases:
            if row["case_id"] not in self._answers:
                self._answers.add(str(row["case_id"]), row)
                self._forecaster.learn(row)
        self._found.update({str(row["boundary_id"]): row for row in boundaries})

    def _probe(self, case: Case, again: bool) -> CaseRow | None:
        return self._row_of(case, again, self._progress.probe)

    def _row_of(
        self, case: Case, again: bool, measured: Callable[[Case, CaseRow], None] | None = None
    ) -> CaseRow | None:
        """The row of a case: the one that is stored, if there is one and it will do; None when the sweep is stopping.

        `measured` is called with a case that was run, and its row.
        """
        case_id = case.case_id(self._versions)
        with (
            self._measuring.setdefault(case_id, threading.Lock()),  # a search may probe what is also asked for
            contextlib.ExitStack() as held,
        ):
            if not again and case_id in self._answers:
                return self._answers[case_id]
            if not held.enter_context(self._neighbours.held(case_id, self._stops.starting)):
                return None
            self._hear()
            if not again and case_id in self._answers:
                return self._answers[case_id]
            rows = self._measurer.measure(case, case_id)
            if rows is None:
                return None
            row, cards = rows
            row["cell_id"] = self._cells.get(case_id)
            with self._lock:
                for card in cards:  # before the case, which says that all is there
                    self._memory.append(card)
                self._cases.append(row)
            kept = without_documents(row)  # of thousands the documents alone would be some 100 MB
            self._forecaster.learn(kept)
            if row["outcome"] in ANSWERS:
                self._answers.add(case_id, kept)
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
def interrupts_ignored() -> Iterator[None]:
    """Ignores Ctrl-C and its like meanwhile, so that rows are written completely."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
