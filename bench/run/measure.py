"""Runs one case in a child, to its row."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.core.case import Case
from bench.core.columns import CaseRow, MemoryRow
from bench.core.messages import Entered, Failure, Message, PhaseProgress
from bench.core.requests import RunCase
from bench.forecast.forecaster import Forecaster
from bench.launch.environment import child_environment
from bench.launch.launcher import LauncherFailed
from bench.launch.launchers import Launchers, uuids_of
from bench.launch.supervise import Ending, Interrupted, run_isolated
from bench.run.cards import memory_rows
from bench.run.locks import reserved
from bench.run.progress import Progress
from bench.run.row import Measurement, make_row, now
from bench.run.telemetry import Sampler
from bench.run.tenants import Baseline
from bench.run.verdict import judge


@dataclass(frozen=True)
class Stops:
    """Set when a sweep is interrupted: no other case is to be started; those that run are to be killed, too."""

    starting: threading.Event = field(default_factory=threading.Event)
    running: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Measurer:
    """Measures the cases of one run. `notify` calls a method of `progress`; checkpoints go below `layouts`."""

    run_dir: Path
    timeout_s: float
    phase_timeout_s: float | None
    versions: dict[str, str | None]
    layouts: Path
    launchers: Launchers
    forecaster: Forecaster
    progress: Progress
    notify: Callable[..., None]
    stops: Stops

    def measure(self, case: Case, case_id: str) -> tuple[CaseRow, list[MemoryRow]] | None:
        """The row of one case, and of each of its cards where it has several; None when the sweep is stopping.

        One case at a time runs on a real GPU, and again where others came or went on it meanwhile; the row says so
        where they do it the second time.
        """
        uuids = uuids_of(case.devices)
        to_run = self.forecaster.resolved(case)
        with reserved(uuids, self.stops.starting):
            if self.stops.starting.is_set():
                return None
            for is_last in (False, True):
                baseline = Baseline.of(uuids)
                self.notify(self.progress.start, case)
                started_at = now()
                with Sampler(uuids) as sampler:
                    try:
                        ending = self._run_child(case, to_run, self.run_dir / "logs" / f"{case_id}.log")
                    except Interrupted:
                        return None
                moved = baseline.moved()
                if not moved or is_last or self.stops.starting.is_set():
                    break
        totals_bytes = [device.total_memory_bytes for device in case.devices]
        verdict = judge(ending, self.timeout_s, totals_bytes, case.limits_bytes)
        environment = child_environment(case.device.kind, uuids, case.allocator)
        best_split = to_run.split if isinstance(to_run, Case) and to_run is not case else None
        measured = Measurement(
            case, case_id, started_at, ending, verdict, sampler.telemetry(), environment, best_split, moved
        )
        row = make_row(self.run_dir.name, measured, self.versions, self.forecaster.forecast(case))
        return row, memory_rows(self.run_dir.name, case_id, measured.cards)

    def _run_child(self, case: Case, to_run: Case | str, log_path: Path) -> Ending:
        """How the case's child ended; a launcher that fails gets a second chance.

        `to_run` is the case with all decided, or why that cannot be: then nothing is run.
        """
        if isinstance(to_run, str):
            return Ending([Failure("Unsupported", to_run)])

        def on_message(message: Message) -> None:
            match message:
                case Entered(phase):
                    self.notify(self.progress.enter, case, phase)
                case PhaseProgress():
                    self.notify(self.progress.advance, case, message)

        launcher, failure = self.launchers.of(to_run), ""
        request = RunCase(to_run, self.layouts)
        for _ in range(2):
            try:
                return run_isolated(
                    launcher,
                    request,
                    log_path,
                    self.timeout_s,
                    on_message,
                    self.stops.running,
                    self.phase_timeout_s,
                )
            except LauncherFailed as error:
                if self.stops.running.is_set():
                    raise Interrupted from error
                failure = str(error)
        return Ending([Failure(LauncherFailed.__name__, failure)])
