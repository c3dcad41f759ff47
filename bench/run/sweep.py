"""Runs the cases of a sweep: order, resume, locks, and what is told while it goes on."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from bench.errors import BadInput
from bench.records import Case, Report
from bench.results.store import Journal, compact, read_cases
from bench.run.isolate import Interrupted, Launcher, child_environment, make_launcher, run_isolated
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
    known: set[str] = set() if rerun else _known_ids(results_dir)
    todo = [(case, case_id) for case, case_id in zip(cases, ids, strict=True) if case_id not in known]
    watcher.begin(len(cases), len(cases) - len(todo))
    if not todo:
        return Finished(ids, None, False)
    run = _Run(_make_run_dir(results_dir, run_id), run_id, timeout_s, versions, watcher)
    try:
        interrupted = run.measure(todo, jobs or os.cpu_count() or 1)
    finally:
        run.close()
        if not share_run:
            compact(run.run_dir)
    return Finished(ids, run.run_dir if any(run.run_dir.glob("*.parquet")) else None, interrupted)


def _known_ids(results_dir: Path) -> set[str]:
    if not results_dir.exists():
        return set()
    table, _ = read_cases(results_dir)
    return {str(case_id) for case_id in table.column("case_id").to_pylist()}


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

    def measure(self, todo: list[tuple[Case, str]], jobs: int) -> bool:
        """Runs all; true if it was interrupted."""
        # The longest first, so that no core waits for a straggler at the end.
        todo = sorted(todo, key=lambda item: -item[0].max_seq_len)
        lanes: dict[str | None, list[tuple[Case, str]]] = {}
        for case, case_id in todo:
            lanes.setdefault(case.device.uuid, []).append((case, case_id))
        pools = [
            (ThreadPoolExecutor(jobs if uuid is None else 1), lane) for uuid, lane in lanes.items()
        ]  # fmt: skip
        futures = [pool.submit(self._one, case, case_id) for pool, lane in pools for case, case_id in lane]
        try:
            for future in futures:
                future.result()
        except BaseException as error:
            self._stop.set()
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
        if self._stop.is_set():
            return
        with self._gpu_lock(case):
            self._tell(self._watcher.start, case)
            launcher = self._launcher(case)
            log_path = self.run_dir / "logs" / f"{case_id}.log"
            started_at = now()

            def on_report(report: Report) -> None:
                if report.event == "enter":
                    self._tell(self._watcher.enter, case, report.data["phase"])

            with Sampler(case.device.uuid) as sampler:
                try:
                    ending = run_isolated(
                        launcher, case, self._layouts, log_path, self._timeout_s, on_report, self._stop
                    )
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
        with self._lock:
            uuid = case.device.uuid
            if uuid not in self._launchers:
                self._launchers[uuid] = make_launcher(case.device.kind, uuid)
            return self._launchers[uuid]

    def _gpu_lock(self, case: Case) -> Any:
        """One case at a time on a real GPU, whichever process it comes from."""
        if case.device.uuid is None:
            return threading.Semaphore()
        return FileLock(Path(tempfile.gettempdir()) / f"vram-bench-{case.device.uuid}.lock")

    def _tell(self, tell: Callable[..., None], *what: Any) -> None:
        with self._lock:
            tell(*what)
