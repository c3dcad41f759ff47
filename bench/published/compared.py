"""A published figure beside ours: what is kept of it, and whether the two agree."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, get_type_hints


class Section(StrEnum):
    """What is never put into one table with another."""

    BOARD = "whole boards"
    OOM = "out-of-memory messages"
    DELTA = "deltas"
    FILE = "file sizes"
    SPEED = "speeds"
    VERDICT = "verdicts"


class Cause(StrEnum):
    """Why a figure of ours is another."""

    VERSION = "version"
    UNKNOWN = "unknown settings"
    OUTSIDE = "outside of what is simulated"
    FAULT = "fault"


# By how much ours may be off and agree, where the published figure is not less exact by itself.
AGREES_WITHIN = {
    Section.BOARD: 0.025,
    Section.OOM: 0.002,
    Section.DELTA: 0.025,
    Section.FILE: 0.01,
    Section.SPEED: 0.25,
    Section.VERDICT: 0.0,
}


@dataclass(frozen=True)
class Compared:
    """One figure. Sizes are bytes, speeds tokens/s, verdicts 1 (fits) or 0; None where nothing is known.

    `by` says who reported it. Where it is `not_comparable`, that is the reason, and there is no figure of ours.
    `predicted` is the forecast, `ours` the run on a simulated card, `known_bytes` what the version that was measured is
    known by its source to hold more; None where there is no such difference.
    """

    line: int
    id: str
    section: Section
    figure: str
    by: str
    published: float | None
    off: float | None
    predicted: float | None = None
    ours: float | None = None
    predicted_text: str | None = None
    our_text: str | None = None
    published_text: str | None = None
    cause: Cause | None = None
    words: str | None = None
    unknown: str | None = None
    not_comparable: str | None = None
    must_agree: bool = False
    known_bytes: float | None = None

    @property
    def key(self) -> str:
        """What tells it from all others of its table."""
        return f"{self.id}: {self.section}: {self.figure}"

    @property
    def is_compared(self) -> bool:
        """Whether there is a figure of ours beside it."""
        return self.not_comparable is None

    @property
    def agrees(self) -> bool:
        """Whether ours is the published figure, as exactly as that is told or as the section asks for."""
        if self.published_text is not None:
            return self.published_text == self.our_text
        if self.published is None or self.ours is None:
            return False
        allowed = max(self.off or 0.0, AGREES_WITHIN[self.section] * abs(self.published))
        return abs(self.ours + (self.known_bytes or 0.0) - self.published) <= allowed

    @property
    def share(self) -> float | None:
        """Ours, with what that version is known to hold more, less the published one, as a share of that."""
        if self.ours is None or not self.published:
            return None
        return (self.ours + (self.known_bytes or 0.0)) / self.published - 1

    @property
    def share_as_simulated(self) -> float | None:
        """The same of what is simulated alone."""
        if self.ours is None or not self.published:
            return None
        return self.ours / self.published - 1


_HINTS = get_type_hints(Compared)


def as_csv(compared: Iterable[Compared]) -> str:
    """The lines as they are kept beside the table."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [each.name for each in fields(Compared)], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _told(value) for name, value in asdict(each).items()} for each in compared)
    return text.getvalue()


def read_csv(path: Path) -> list[Compared]:
    """What `as_csv` has written."""
    with path.open(encoding="utf-8", newline="") as file:
        return [Compared(**{name: _read(name, text) for name, text in row.items()}) for row in csv.DictReader(file)]


def _told(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _read(name: str, text: str) -> Any:
    kind = _HINTS[name]
    if text == "" and name not in ("id", "figure", "by"):
        return None
    if kind is bool:
        return text == "True"
    if kind in (int, str, Section):
        return kind(text)
    if kind == (float | None):
        return float(text)
    return Cause(text) if kind == (Cause | None) else text
