"""One job: the cell that it was told of, on the cards that it was given, with a journal of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from bench.core.case import Case, Search
from bench.core.columns import CaseRow
from bench.core.errors import BadInput
from bench.jobs.cells import FOLDER, Cell, ChangedCell, is_unassigned, read_cell, token_of
from bench.jobs.machines import on_given_cards
from bench.launch.versions import installed_versions
from bench.run.resume import Stored
from bench.run.sweep import SweepOptions, run_sweep

_POLL_S = 1.0


@dataclass(frozen=True)
class Told:
    """All that a job is told: the run's folder, its number, the hash of its cell, who started it, and a token."""

    run_dir: str
    number: int
    hash: str
    started_by: str
    token: str


def do(told: Told) -> str | None:
    """Does a job; None, or in a line why it could not be done. What is measured is in the run's folder."""
    run_dir, host = Path(told.run_dir), socket.gethostname()
    if token_of(run_dir) != told.token:
        return (
            f"{host} does not see the {run_dir} of {told.started_by}; "
            "results_dir must be on a file system that all nodes share"
        )
    begun = run_dir / FOLDER / "begun"
    begun.mkdir(exist_ok=True)
    (begun / f"{told.number:05}-{host}-{os.getpid()}").touch()
    try:
        cell = read_cell(run_dir, told.number, told.hash)
        _require_same_versions(cell)
        with _ended_with_parent():
            _run(run_dir, cell)
    except (BadInput, ChangedCell) as error:
        return f"{host}: {error}"
    return None


def _run(run_dir: Path, cell: Cell) -> None:
    asked = [each.work for each in cell.works]
    for work in asked:
        path = work.longest.model.path
        if path is not None and not Path(path).is_dir():
            raise BadInput(f"model.path={path} is not there; it must be on a file system that all nodes share")
    are_real = any(map(is_unassigned, asked))
    works = on_given_cards(asked) if are_real else asked
    versions = installed_versions()
    ids = [work.boundary_id(versions) if isinstance(work, Search) else work.case_id(versions) for work in works]
    cells = {key: cell.cells[each.key] for key, each in zip(ids, cell.works, strict=True) if each.key in cell.cells}
    known = {str(row["case_id"]): cast(CaseRow, row) for row in cell.known}
    options = SweepOptions(run_dir.parent, run_dir.name, share_run=True, cells=cells, **cell.options)
    finished = run_sweep(
        [work for work in works if isinstance(work, Case)],
        [work for work in works if isinstance(work, Search)],
        options,
        # What a card has shown before is worth a look into the whole folder; what is simulated is known beforehand.
        stored=None if are_real else Stored(known, set(), list(known.values())),
    )
    if finished.interrupted:
        raise KeyboardInterrupt


def _require_same_versions(cell: Cell) -> None:
    here = installed_versions()
    differ = [name for name in cell.versions if cell.versions[name] != here.get(name)]
    if differ:
        told = ", ".join(f"{name} {here.get(name)}, not {cell.versions[name]}" for name in differ)
        raise BadInput(f"this node has {told}: install what the sweep was started with")


@contextlib.contextmanager
def _ended_with_parent() -> Iterator[None]:
    """Meanwhile, this process ends when the one that started it does: its probes then end with it (`core/lifeline.py`).

    The kernel's own signal would come when the thread ends that started it, and launchers start jobs from threads.
    """
    parent, is_over = os.getppid(), threading.Event()

    def watch() -> None:
        while not is_over.wait(_POLL_S):
            if os.getppid() != parent:
                os._exit(1)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()


def options_of(settings: Any) -> dict[str, Any]:
    """How a sweep is run, as its jobs run it: one case at a time, unless more were asked for."""
    return {
        "timeout_s": settings.timeout_s,
        "phase_timeout_s": settings.phase_timeout_s,
        "jobs": settings.jobs or 1,
        "rerun": settings.rerun,
        "retry": list(settings.retry),
        "allow_foreign": settings.allow_foreign,
    }
