"""What a job is to do, as it was resolved when the sweep was started: a file for each job, and a hash of it.

A job is told the number and the hash of its file and no more, so that nothing is read again that may have changed.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.core import wire
from bench.core.case import Axis, Case, Search
from bench.core.device import DeviceSpec
from bench.core.files import replaced

FOLDER = ".jobs"
_UNASSIGNED = "cuda"


class ChangedCell(Exception):
    """A file is not there, or not the one that the job was told of; the text says which."""


@dataclass(frozen=True)
class Asked:
    """One case, or one search by its longest case and its axis. `key` is the id that it has where it was asked for."""

    key: str
    case: Case
    axis: str | None = None

    @staticmethod
    def of(work: Case | Search, versions: Mapping[str, str | None]) -> Asked:
        """`work`, and its id with these versions."""
        told = dict(versions)
        if isinstance(work, Search):
            return Asked(work.boundary_id(told), work.longest, work.axis.value)
        return Asked(work.case_id(told), work)

    @property
    def work(self) -> Case | Search:
        """What is to be done."""
        return self.case if self.axis is None else Search(self.case, Axis(self.axis))


@dataclass(frozen=True)
class Cell:
    """What a job does, and how. `known` are rows that other runs have of it; `cells` the ids in rows, by key."""

    works: list[Asked]
    versions: dict[str, str | None]
    options: dict[str, Any]
    known: list[dict[str, Any]] = field(default_factory=list)
    cells: dict[str, str] = field(default_factory=dict)


def write_cells(run_dir: Path, cells: Sequence[Cell]) -> list[str]:
    """Writes a file for each; returns their hashes. What an earlier start of the run has left is written over."""
    folder = run_dir / FOLDER / "cells"
    folder.mkdir(parents=True, exist_ok=True)
    hashes = []
    for number, cell in enumerate(cells):
        text = wire.to_json(cell)
        with replaced(_path(run_dir, number)) as partial:
            partial.write_text(text, encoding="utf-8")
        hashes.append(_hash(text))
    return hashes


def read_cell(run_dir: Path, number: int, told_hash: str) -> Cell:
    """The file of a job. Raises `ChangedCell`."""
    path = _path(run_dir, number)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ChangedCell(f"{path} cannot be read ({error.strerror})") from None
    if _hash(text) != told_hash:
        raise ChangedCell(f"{path} is not the one that the sweep was started with")
    return wire.from_json(Cell, text)


def unassigned(cards: int) -> tuple[DeviceSpec, ...]:
    """Real cards of which nothing is known before a scheduler has chosen them."""
    anything = 1 << 60
    return tuple(DeviceSpec(_UNASSIGNED, "cuda", _UNASSIGNED, anything, index=number) for number in range(cards))


def is_unassigned(work: Case | Search) -> bool:
    """Whether the cards of `work` are not chosen yet."""
    device = work.longest.device
    return not device.is_simulated and device.uuid is None


def assigned(work: Case | Search, devices: Sequence[DeviceSpec]) -> Case | Search:
    """`work` on the cards that it was given."""
    first, *more = devices
    case = replace(work.longest, device=first, more_devices=tuple(more))
    return work.along(case) if isinstance(work, Search) else case


def cell_id(key: str, places: Mapping[str, Any]) -> str:
    """The id of what was asked for, and where: another partition is another question."""
    return hashlib.sha256(json.dumps([key, dict(places)], sort_keys=True, default=str).encode()).hexdigest()[:16]


def new_token() -> str:
    """What no other sweep has."""
    return secrets.token_hex(8)


def token_of(run_dir: Path) -> str | None:
    """What the sweep that started the jobs has written into the run's folder; None where it is not seen here."""
    try:
        return (run_dir / FOLDER / "token").read_text(encoding="utf-8")
    except OSError:
        return None


def write_token(run_dir: Path, token: str) -> None:
    """Leaves `token` where every job has to see it."""
    (run_dir / FOLDER).mkdir(parents=True, exist_ok=True)
    with replaced(run_dir / FOLDER / "token", sync=True) as partial:
        partial.write_text(token, encoding="utf-8")


def options_of(options: Any) -> dict[str, Any]:
    """A `SweepOptions` as JSON has it."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(options).items()}


def _path(run_dir: Path, number: int) -> Path:
    return run_dir / FOLDER / "cells" / f"{number:05}.json"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
