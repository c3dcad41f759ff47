"""Runs the cases of a sweep: order, resume, locks, and what is told while it goes on."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bench.errors import BadInput
from bench.records import ANSWERS, Case, Report
from bench.results.store import Journal, compact, read_cases
from bench.run.isolate import (
    Ending,
    Interrupted,
    Launcher,
    LauncherFailed,
    case_request,
    child_environment,
    make_launcher,
    run_isolated,
)
from bench.run.judge import judge
from bench.run.row import installed_versions, make_row, now
from bench.run.telemetry import Sampler


class Watcher:
    """Is told of what happens; the base tells nobody. Called from several threads, one at a time."""

    def begin(self, total: int, known: int) -> None: ...

    def start(self, case: Case) -> None: ...

    def enter(self, case: Case, phase: str) -> None: ...

    def finish(self, case: Case, row: dict[str, Any]) -> None: ...


@dataclass
class Finished:
    """The sweep's cases and where their rows are; `interrupted` when some have none yet."""

    case_ids: list[str]
    run_dir: Path | None
    interrupted: bool


def new_run_id() -> str:
    """Sorts by time; two sweeps of one second differ by their process."""
    return f"{now():%Y-%m-%d_%H-%M-%S}_{os.getpid()}"


def run_sweep(
    cases: list[Case],
    results_dir: Path,
    run_id: str,
    timeout_s: float,
    jobs: int | None = None,
    rerun: bool = False,
    watcher: Watcher | None = None,
    share_run: bool = False,
) -> Finished:
    """Measures every case that has no row yet below `results_dir`; rows go to `results_dir/run_id`.

    Simulated cases run `jobs` at a time (None: one for each core), those of one real GPU one after the other.
    Ctrl-C ends it: what is finished is kept, and the same sweep goes on where it stopped. With `share_run`, other
    processes write to the same run, and whoever started them compacts it.
    """
    watcher = watcher or Watcher()
    versions = installed_versions()
    ids = [case.case_id(versions) for case in cases]
    known: set[str] = set() if rerun else _answered_ids(results_dir)
    todo = [(case, case_id) for case, case_id in zip(cases, ids, strict=True) if case_id not in known]
    if not todo:
        watcher.begin(len(cases), len(cases))
        return Finished(ids, None, False)
    run_dir = _make_run_dir(results_dir, run_id)
    with contextlib.nullcontext() if share_run else _claim(run_dir):
        watcher.begin(len(cases), len(cases) - len(todo))
        run = _Run(run_dir, run_id, timeout_s, versions, watcher)
        try:
            interrupted = run.measure(todo, jobs or os.cpu_count() or 1)
        finally:
            with _deaf_to_interrupts():
                run.close()
                if not share_run:
                    compact(run_dir)
    return Finished(ids, run.run_dir if any(run.run_dir.glob("*.parquet")) else None, interrupted)


def _answered_ids(results_dir: Path) -> set[str]:
    """The cases with a verdict. A crash or a timeout answers nothing: such a case is tried again."""
    if not results_dir.exists():
        return set()
    table, _ = read_cases(results_dir)
    ids, outcomes = (table.column(name).to_pylist() for name in ("case_id", "outcome"))
    return {str(case_id) for case_id, outcome in zip(ids, outcomes, strict=True) if outcome in ANSWERS}


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
def _deaf_to_interrupts() -> Iterator[None]:
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
        self, run_dir: Path, run_id: str, timeout_s: float, versions: dict[str, str | None], watcher: Watcher
    ) -> None:
        self.run_dir = run_dir
        self._run_id = run_id
        self._timeout_s = timeout_s
        self._versions = versions
        self._watcher = watcher
        self._journal = Journal(run_dir)
        self._layouts = Path(tempfile.mkdtemp(prefix="vram-bench-"))
        self._launchers: dict[str | None, Launcher] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._muted = False

    def measure(self, todo: list[tuple[Case, str]], jobs: int) -> bool:
        """Runs all; true if it was interrupted."""
        # The longest first, so that no core waits for a straggler at the end.
        todo = sorted(todo, key=lambda item: -item[0].max_seq_len)
        lanes: dict[str | None, list[tuple[Case, str]]] = {}
        for case, case_id in todo:
            lanes.setdefault(case.device.uuid, []).append((case, case_id))
        pools = [(ThreadPoolExecutor(1 if uuid else jobs), lane) for uuid, lane in lanes.items()]
        futures = [pool.submit(self._one, case, case_id) for pool, lane in pools for case, case_id in lane]
        try:
            for future in futures:
                future.result()
        except BaseException as error:
            self._stop.set()
            with _deaf_to_interrupts():
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
        self._journal.close()
        shutil.rmtree(self._layouts, ignore_errors=True)

    def _one(self, case: Case, case_id: str) -> None:
        with self._gpu(case) as mine:
            if not mine:
                return
            self._tell(self._watcher.start, case)
            log_path = self.run_dir / "logs" / f"{case_id}.log"
            started_at = now()

            def on_report(report: Report) -> None:
                if report.event == "enter":
                    self._tell(self._watcher.enter, case, report.data["phase"])

            with Sampler(case.device.uuid) as sampler:
                try:
                    ending = self._run(case, log_path, on_report)
                except Interrupted:
                    return
        row = make_row(
            case,
            case_id,
            self._run_id,
            started_at,
            ending,
            judge(ending, self._timeout_s, case.device.total_memory_bytes),
            self._versions,
            sampler.summary(),
            sampler.energy_j(),
            child_environment(case.device.kind, case.device.uuid),
        )
        with self._lock:
            self._journal.append(row)
        self._tell(self._watcher.finish, case, row)

    def _launcher(self, case: Case) -> Launcher:
        """One for each real GPU, and one for all simulated cards."""
        with self._lock:
            uuid = case.device.uuid
            if uuid not in self._launchers:
                self._launchers[uuid] = make_launcher(case.device.kind, uuid)
            return self._launchers[uuid]

    def _run(self, case: Case, log_path: Path, on_report: Callable[[Report], None]) -> Ending:
        """The case's ending; a launcher that fails gets a second chance."""
        launcher, failure = self._launcher(case), ""
        request = case_request(case, self._layouts)
        for _ in range(2):
            try:
                return run_isolated(launcher, request, log_path, self._timeout_s, on_report, self._stop)
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

    def _tell(self, tell: Callable[..., None], *what: Any) -> None:
        with self._lock:
            if self._muted:
                return
            try:
                tell(*what)
            except OSError:  # nobody listens any more; that is no reason to stop measuring
                self._muted = True
