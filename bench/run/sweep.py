"""Runs the cases and searches of a sweep: order, resume, locks, and what is told while it goes on."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bench.core.case import Case, Search
from bench.core.errors import BadInput
from bench.core.messages import PhaseProgress, Report
from bench.core.outcome import ANSWERS
from bench.forecast.forecaster import Forecaster
from bench.forecast.library import TraceLibrary
from bench.launch.isolate import (
    Ending,
    Interrupted,
    Launcher,
    LauncherFailed,
    case_request,
    child_environment,
    make_launcher,
    run_isolated,
)
from bench.launch.versions import installed_versions
from bench.run.boundary import Row, find_boundary, settled
from bench.run.row import make_row, now
from bench.run.telemetry import Sampler
from bench.run.verdict import judge
from bench.store.schema import Kind
from bench.store.store import Journal, compact, read_boundaries, read_cases


class Progress:
    """Is told of what happens; the base tells nobody. Called from several threads, one at a time."""

    def prepare(self, done: int, total: int) -> None:
        """Of the recordings that predictions need, so many are there."""

    def begin(self, searches: int, cases: int, known: int) -> None:
        """So many boundaries are to be found and so many cases to be measured; `known` have their answer already."""

    def start(self, case: Case) -> None: ...

    def enter(self, case: Case, phase: str) -> None: ...

    def advance(self, case: Case, reached: PhaseProgress) -> None:
        """How far the phase of a case is; told now and then while it lasts."""

    def finish(self, case: Case, row: Row) -> None:
        """A case has its row."""

    def probe(self, case: Case, row: Row) -> None:
        """A case that was run to find a search's boundary has its row."""

    def find(self, search: Search, boundary: Row) -> None:
        """A search has its boundary."""


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
    cases: Sequence[Case],
    searches: Sequence[Search],
    results_dir: Path,
    run_id: str,
    timeout_s: float,
    jobs: int | None = None,
    rerun: bool = False,
    progress: Progress | None = None,
    share_run: bool = False,
) -> Finished:
    """Measures every case and finds every search's boundary that is not known yet below `results_dir`.

    Rows go to `results_dir/run_id`. Simulated cases run `jobs` at a time (None: one for each core), those of one real
    GPU one after the other. Ctrl-C ends it: what is finished is kept, and the same sweep goes on where it stopped. With
    `share_run`, other processes write to the same run, and whoever started them compacts it.
    """
    progress = progress or Progress()
    versions = installed_versions()
    case_ids = [case.case_id(versions) for case in cases]
    boundary_ids = [search.boundary_id(versions) for search in searches]
    stored = Stored.read(results_dir, rerun)
    tasks: list[_Task] = [
        *(
            _Task(search, key)
            for search, key in zip(searches, boundary_ids, strict=True)
            if key not in stored.boundary_ids
        ),
        *(_Task(case, key) for case, key in zip(cases, case_ids, strict=True) if key not in stored.answers),
    ]
    begin = functools.partial(progress.begin, len(searches), len(cases), len(searches) + len(cases) - len(tasks))
    if not tasks:
        begin()
        return Finished(case_ids, boundary_ids, None, False)
    tasks = [_with_weights(task) for task in tasks]
    run_dir = _make_run_dir(results_dir, run_id)
    with contextlib.nullcontext() if share_run else _claim(run_dir):
        run = _Run(run_dir, run_id, timeout_s, jobs or os.cpu_count() or 1, versions, stored, progress)
        try:
            interrupted = run.work(tasks, begin)
        finally:
            with _sigint_ignored():
                run.close()
                if not share_run:
                    compact(run_dir)
    has_rows = any(run_dir.glob("*.parquet"))
    if not has_rows and not share_run:
        _remove_empty(run_dir)
    return Finished(case_ids, boundary_ids, run_dir if has_rows else None, interrupted)


def _remove_empty(run_dir: Path) -> None:
    """A run that came to nothing leaves no folder, unless something is in it."""
    for folder in (run_dir / "logs", run_dir):
        with contextlib.suppress(OSError):
            folder.rmdir()


@dataclass(frozen=True)
class _Task:
    """A case to measure, or a search whose boundary to find, and its id."""

    work: Case | Search
    key: str

    @property
    def longest(self) -> Case:
        return self.work.longest if isinstance(self.work, Search) else self.work


def _with_weights(task: _Task) -> _Task:
    """The task with the weights of its model on disk, where a real GPU needs them and a hub has them."""
    case = task.longest
    if case.device.kind != "cuda" or case.model.repo is None:
        return task
    from bench.config import hub

    case = replace(case, model=hub.download(case.model))
    return replace(task, work=Search(case) if isinstance(task.work, Search) else case)


@dataclass(frozen=True)
class Stored:
    """What earlier runs have found: `answers` by case_id; `rows` are all, for what can be learned from them, by time.

    The last word counts. A crash or a timeout answers nothing: such a case is tried again, and so is a boundary that
    was not certified.
    """

    answers: dict[str, Row]
    boundary_ids: set[str]
    rows: Sequence[Row]

    def answers_of(self, search: Search, versions: dict[str, str | None]) -> list[Row]:
        """The answers to the search's cases, at any length."""
        case = search.longest
        alike = self._alike.get((case.model.fingerprint, case.device.name, case.bpw, case.cache, case.lazy), [])
        return [row for row in alike if row["case_id"] == search.at(row["max_seq_len"]).case_id(versions)]

    @functools.cached_property
    def _alike(self) -> dict[tuple[Any, ...], list[Row]]:
        """The answers by enough of what makes a search that few others share it."""
        alike: dict[tuple[Any, ...], list[Row]] = {}
        for row in self.answers.values():
            key = tuple(row[name] for name in ("model_fingerprint", "device_name", "bpw", "cache", "lazy"))
            alike.setdefault(key, []).append(row)
        return alike

    @staticmethod
    def read(results_dir: Path, rerun: bool) -> Stored:
        if not results_dir.exists():
            return Stored({}, set(), [])
        rows = read_cases(results_dir)[0].sort_by("started_at").to_pylist()
        if rerun:
            return Stored({}, set(), rows)
        columns = ["boundary_id", "finished_at", "certified", "outcome", "fits_at", "searched_up_to"]
        boundaries = read_boundaries(results_dir)[0].select(columns).sort_by("finished_at").to_pylist()
        cases = {str(row["case_id"]): row for row in rows}
        found = {str(row["boundary_id"]): row for row in boundaries}
        return Stored(
            {case_id: row for case_id, row in cases.items() if row["outcome"] in ANSWERS},
            {boundary_id for boundary_id, row in found.items() if settled(row)},
            rows,
        )


@contextlib.contextmanager
def _claim(run_dir: Path) -> Iterator[None]:
    """Nobody else writes to this run meanwhile."""
    lock = FileLock(run_dir / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BadInput(f"run_id={run_dir.name}: another sweep is writing to {run_dir}; choose another") from None
    try:
        yield
    finally:
        lock.release()
        (run_dir / ".lock").unlink(missing_ok=True)


@contextlib.contextmanager
def _sigint_ignored() -> Iterator[None]:
    """What is finished is written down whole, however often Ctrl-C is pressed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _make_run_dir(results_dir: Path, run_id: str) -> Path:
    run_dir = results_dir / run_id
    try:
        (run_dir / "logs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"results_dir={results_dir}: cannot be written ({error.strerror}); choose another") from None
    return run_dir


class _Run:
    """One run's folder, launchers and threads."""

    def __init__(
        self,
        run_dir: Path,
        run_id: str,
        timeout_s: float,
        jobs: int,
        versions: dict[str, str | None],
        stored: Stored,
        progress: Progress,
    ) -> None:
        self._run_dir = run_dir
        self._run_id = run_id
        self._timeout_s = timeout_s
        self._jobs = jobs
        self._versions = versions
        self._answers = dict(stored.answers)
        self._stored = stored
        self._turns: dict[str, threading.Lock] = {}
        self._progress = progress
        self._cases, self._boundaries = Journal(run_dir, Kind.CASES), Journal(run_dir, Kind.BOUNDARIES)
        self._layouts = Path(tempfile.mkdtemp(prefix="vram-bench-"))
        self._launchers: dict[str | None, Launcher] = {}
        self._forecaster = Forecaster(
            TraceLibrary(lambda: self._launcher("simulated", None), self._layouts, jobs), stored.rows
        )
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._muted = False

    def work(self, tasks: list[_Task], begin: Callable[[], None]) -> bool:
        """Does all; true if it was interrupted. `begin` is called when all is ready."""
        try:
            self._forecaster.prepare([task.longest for task in tasks], self._prepared)
        except KeyboardInterrupt:
            return True
        self._notify(begin)
        # The longest first, so that no core waits for a straggler at the end.
        tasks = sorted(tasks, key=lambda task: -task.longest.max_seq_len)
        lanes: dict[str | None, list[_Task]] = {}
        for task in tasks:
            lanes.setdefault(task.longest.device.uuid, []).append(task)
        pools = [(ThreadPoolExecutor(1 if uuid else self._jobs), lane) for uuid, lane in lanes.items()]
        futures = [pool.submit(self._do, task) for pool, lane in pools for task in lane]
        try:
            for future in futures:
                future.result()
        except BaseException as error:
            self._stop.set()
            with _sigint_ignored():
                for pool, _ in pools:
                    pool.shutdown(wait=True, cancel_futures=True)
            if isinstance(error, KeyboardInterrupt):
                return True
            raise
        for pool, _ in pools:
            pool.shutdown()
        return False

    def close(self) -> None:
        for launcher in self._launchers.values():
            launcher.close()
        self._cases.close()
        self._boundaries.close()
        shutil.rmtree(self._layouts, ignore_errors=True)

    def _prepared(self, done: int, total: int) -> None:
        self._notify(self._progress.prepare, done, total)

    def _do(self, task: _Task) -> None:
        if isinstance(task.work, Case):
            row = self._answer(task.work, again=False)
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

    def _probe(self, case: Case, again: bool) -> Row | None:
        return self._answer(case, again, self._progress.probe)

    def _answer(self, case: Case, again: bool, notify: Callable[[Case, Row], None] | None = None) -> Row | None:
        """The row of a case: the one that is stored, if there is one and it will do; None when the sweep is stopping.

        `tell` hears of a case that was run.
        """
        case_id = case.case_id(self._versions)
        with self._turns.setdefault(case_id, threading.Lock()):  # a search may probe what was asked for by itself
            if not again and case_id in self._answers:
                return self._answers[case_id]
            row = self._measure(case, case_id)
            if row is None:
                return None
            with self._lock:
                self._cases.append(row)
            self._forecaster.learn(row)
            if row["outcome"] in ANSWERS:
                self._answers[case_id] = row
        if notify is not None:
            self._notify(notify, case, row)
        return row

    def _measure(self, case: Case, case_id: str) -> dict[str, Any] | None:
        """Runs one case; None when the sweep is stopping."""
        with self._gpu(case) as mine:
            if not mine:
                return None
            self._notify(self._progress.start, case)
            log_path = self._run_dir / "logs" / f"{case_id}.log"
            started_at = now()

            def on_report(report: Report) -> None:
                if report.event == "enter":
                    self._notify(self._progress.enter, case, report.data["phase"])

            def on_progress(reached: PhaseProgress) -> None:
                self._notify(self._progress.advance, case, reached)

            with Sampler(case.device.uuid) as sampler:
                try:
                    ending = self._run(case, log_path, on_report, on_progress)
                except Interrupted:
                    return None
        return make_row(
            case,
            case_id,
            self._run_id,
            started_at,
            ending,
            judge(ending, self._timeout_s, case.device.total_memory_bytes, case.vram_limit_bytes),
            self._versions,
            sampler.summary(),
            sampler.energy_j(),
            child_environment(case.device.kind, case.device.uuid),
            self._forecaster.forecast(case),
        )

    def _launcher(self, kind: str, uuid: str | None) -> Launcher:
        """One for each real GPU, and one for all simulated cards."""
        with self._lock:
            if uuid not in self._launchers:
                self._launchers[uuid] = make_launcher(kind, uuid)
            return self._launchers[uuid]

    def _run(
        self,
        case: Case,
        log_path: Path,
        on_report: Callable[[Report], None],
        on_progress: Callable[[PhaseProgress], None],
    ) -> Ending:
        """The case's ending; a launcher that fails gets a second chance."""
        launcher, failure = self._launcher(case.device.kind, case.device.uuid), ""
        request = case_request(case, self._layouts)
        for _ in range(2):
            try:
                return run_isolated(launcher, request, log_path, self._timeout_s, on_report, self._stop, on_progress)
            except LauncherFailed as error:
                if self._stop.is_set():
                    raise Interrupted from error
                failure = str(error)
        return Ending([Report("failure", {"type": LauncherFailed.__name__, "message": failure})])

    @contextlib.contextmanager
    def _gpu(self, case: Case) -> Iterator[bool]:
        """One case at a time on a real GPU, whichever process it comes from; False when the sweep is stopping."""
        if case.device.uuid is None:
            yield not self._stop.is_set()
            return
        lock = FileLock(Path(tempfile.gettempdir()) / f"vram-bench-{case.device.uuid}.lock")
        while not self._stop.is_set():
            try:
                lock.acquire(timeout=0.5)
                break
            except Timeout:
                continue
        try:
            yield not self._stop.is_set()
        finally:
            lock.release()

    def _notify(self, notify: Callable[..., None], *what: Any) -> None:
        with self._lock:
            if self._muted:
                return
            try:
                notify(*what)
            except OSError:  # nobody listens any more; that is no reason to stop measuring
                self._muted = True
