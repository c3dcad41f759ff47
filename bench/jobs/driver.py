"""A sweep by one of Hydra's launchers: what has no row becomes jobs, and what is lost is found missing."""

from __future__ import annotations

import contextlib
import functools
import shutil
import socket
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bench.config import compose
from bench.config.cases import Sweep
from bench.core.case import Axis, Case, Search
from bench.core.errors import BadInput
from bench.jobs import ray_cluster, slurm
from bench.jobs.cells import (
    FOLDER,
    Asked,
    Cell,
    cell_id,
    is_unassigned,
    new_token,
    write_cells,
    write_token,
)
from bench.jobs.hydra_jobs import Jobs
from bench.jobs.job import Told, options_of
from bench.jobs.queue import Lost, waited_for
from bench.jobs.schedulers import Scheduler, plain
from bench.jobs.watch import watched
from bench.launch.versions import installed_versions
from bench.run.locks import claimed
from bench.run.progress import Progress
from bench.run.resume import Stored
from bench.run.sweep import Finished, make_run_dir, new_run_id
from bench.store.store import compact

_ROUNDS = 20  # of a launcher that loses all with one: each but the last has brought an answer


@dataclass(frozen=True)
class _Work:
    """A case or a search, its id here, and where a scheduler chooses its card the id of what is asked of whom."""

    asked: Asked
    cell: str | None

    def answer_in(self, stored: Stored) -> str | None:
        """The id of the row that answers it; None without one."""
        if self.cell is not None:
            return stored.cells.get(self.cell)
        known = stored.answers if self.asked.axis is None else stored.boundary_ids
        return self.asked.key if self.asked.key in known else None


def launch(
    overrides: Sequence[str], planned: Sweep, scheduler: Scheduler, results_dir: Path, progress: Progress
) -> Finished:
    """Runs an already checked sweep by a launcher, and waits for it. Ctrl-C cancels what has not begun.

    What is measured is kept, whatever becomes of the launcher. Raises `BadInput` where nothing could be sent.
    """
    settings, versions = planned.settings, installed_versions()
    own = compose.hydras_own(overrides)
    all_works: list[Case | Search] = [*planned.searches, *planned.cases]
    asked = [Asked.of(work, versions) for work in all_works]
    cards = max((len(each.case.devices) for each in asked if not each.case.device.is_simulated), default=0)
    run_id = settings.run_id or new_run_id()
    scheduler.prepare(own.launcher, cards, f"vram-bench-{run_id}")
    places = scheduler.places(own.launcher)
    works = [_Work(each, cell_id(each.key, places) if is_unassigned(each.work) else None) for each in asked]
    results_dir = results_dir.resolve()
    stored = Stored.read(results_dir, settings.rerun, settings.retry)
    todo = [work for work in works if work.answer_in(stored) is None]
    begin = (len(planned.searches), len(planned.cases), len(works) - len(todo))
    if not todo:
        progress.begin(*begin)
        return _finished(works, stored, None, False)
    _require(scheduler, own.launcher)
    run_dir = make_run_dir(results_dir, run_id)
    with claimed(run_dir):
        cells = _cells(todo, stored, options_of(settings), versions)
        sender = _Sender(scheduler, own, run_dir, cells)
        progress.begin(*begin)
        with watched(results_dir, progress, {_name(work): work.asked.work for work in todo}):
            is_interrupted = sender.send_all([_names(cell) for cell in cells])
        compact(run_dir, are_ended=True)
        now = Stored.read(results_dir, rerun=False, retry=settings.retry)
        if all(work.answer_in(now) for work in todo):  # else what the jobs said is worth a look
            shutil.rmtree(run_dir / FOLDER, ignore_errors=True)
    sender.tell(sys.stderr)
    return _finished(works, now, run_dir, is_interrupted)


def _finished(works: Sequence[_Work], stored: Stored, run_dir: Path | None, is_interrupted: bool) -> Finished:
    def ids(are_cases: bool) -> list[str]:
        of_kind = [work for work in works if (work.asked.axis is None) is are_cases]
        return [work.answer_in(stored) or work.asked.key for work in of_kind]

    return Finished(ids(True), ids(False), run_dir, is_interrupted)


def _require(scheduler: Scheduler, launcher: DictConfig) -> None:
    if scheduler.has_queue:
        slurm.quiet()
        slurm.require(OmegaConf.select(launcher, "partition"))


def _name(work: _Work) -> str:
    """What a row of it has: the cell's id, where its own is known only when its card is."""
    return work.cell or work.asked.key


def _names(cell: Cell) -> set[str]:
    return {cell.cells.get(each.key, each.key) for each in cell.works}


def _cells(
    todo: Sequence[_Work], stored: Stored, options: dict[str, Any], versions: dict[str, str | None]
) -> list[Cell]:
    """A cell for each search; cases that differ in their length alone share one: one start of a worker serves all."""
    together: dict[str, list[_Work]] = {}
    for work in todo:
        together.setdefault(_alike(work.asked.work, versions), []).append(work)
    cells = []
    for group in together.values():
        asked = [work.asked for work in group]
        known = [] if options["rerun"] else list(_known(asked, stored, versions))
        of_cells = {work.asked.key: work.cell for work in group if work.cell is not None}
        cells.append(Cell(asked, versions, options, known, of_cells))
    return cells


def _alike(work: Case | Search, versions: dict[str, str | None]) -> str:
    axis = work.axis if isinstance(work, Search) else Axis.MAX_SEQ_LEN
    return f"{axis} {replace(work.longest, max_seq_len=0).case_id(versions)}"


def _known(asked: Iterable[Asked], stored: Stored, versions: dict[str, str | None]) -> Iterable[dict[str, Any]]:
    """What other runs have of its cases, as JSON has it."""
    for each in asked:
        if isinstance(work := each.work, Search) and work.longest.device.is_simulated:
            for row in stored.answers_of(work, versions):
                yield {key: value.isoformat() if hasattr(value, "isoformat") else value for key, value in row.items()}


class _Sender:
    """Sends jobs, and again those that went down with others; what could not be done is told once."""

    def __init__(self, scheduler: Scheduler, own: DictConfig, run_dir: Path, cells: Sequence[Cell]) -> None:
        self._scheduler, self._own, self._run_dir = scheduler, own, run_dir
        token, host = new_token(), socket.gethostname()
        write_token(run_dir, token)
        hashes = write_cells(run_dir, cells)
        self._told = [Told(str(run_dir), number, key, host, token) for number, key in enumerate(hashes)]
        self._jobs = Jobs(own, run_dir / FOLDER)
        self._problems: dict[str, int] = {}

    def send_all(self, names: Sequence[set[str]]) -> bool:
        """Sends all and waits for them; whether it was interrupted. `names` are those of each job's rows."""
        cards = OmegaConf.select(self._own.launcher, "ray.remote.num_gpus") or 0
        is_ray = self._scheduler.name == "ray"
        try:
            if is_ray:
                ray_cluster.start(plain(self._own.launcher.ray.init), float(cards))
            return self._send_rounds(names)
        except KeyboardInterrupt:
            return True
        finally:
            if is_ray:
                ray_cluster.stop()

    def _send_rounds(self, names: Sequence[set[str]]) -> bool:
        missing = list(range(len(names)))
        for number in range(_ROUNDS):
            error = self._send([self._told[each] for each in missing])
            done = _names_in(self._run_dir)
            still = [each for each in missing if not names[each] <= done]
            is_stuck = len(still) == len(missing)
            if error is not None and is_stuck and number == 0 and not self._has_begun():
                raise BadInput(f"hydra/launcher={self._scheduler.name}: nothing was sent ({error})")
            if error is not None and (is_stuck or not self._scheduler.loses_all):
                self._note(f"the launcher ended early: {error}")
            if error is None or is_stuck or not still or not self._scheduler.loses_all:
                return False
            print(f"vram-bench: a worker was lost ({error}); {len(still)} jobs are sent again", file=sys.stderr)
            missing = still
        return False

    def _send(self, jobs: Sequence[Told]) -> str | None:
        """Sends jobs in as many batches as it takes. None, or why the launcher ended before them."""
        most = slurm.longest_array() if self._scheduler.has_queue else len(jobs)
        try:
            for at in range(0, len(jobs), most):
                send = functools.partial(self._jobs.launch, jobs[at : at + most], at)
                has_queue = self._scheduler.has_queue
                for problem in waited_for(send, self._own.launcher.name) if has_queue else send():
                    self._note(problem)
        except Lost as lost:
            self._note(str(lost))
        except Exception as error:  # whatever a launcher raises: rows are there all the same
            return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return None

    def _has_begun(self) -> bool:
        return any((self._run_dir / FOLDER / "begun").glob("*"))

    def _note(self, problem: str | None) -> None:
        if problem is not None:
            self._problems[problem] = self._problems.get(problem, 0) + 1

    def tell(self, stream: Any) -> None:
        """Says each problem once, and of how many jobs."""
        for problem, count in self._problems.items():
            with contextlib.suppress(OSError):
                print(f"vram-bench: {problem}{f' ({count} jobs)' if count > 1 else ''}", file=stream)


def _names_in(run_dir: Path) -> set[str]:
    """The ids, and those of cells, of the rows that the run has."""
    stored = Stored.read(run_dir, rerun=False)
    return {*stored.answers, *stored.boundary_ids, *stored.cells}
