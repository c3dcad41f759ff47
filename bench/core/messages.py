"""What a child tells its parent while it runs a case. Sizes are integer bytes, times float seconds, None unknown."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, ClassVar

from bench.core.outcome import Phase


@dataclass(frozen=True)
class Memory:
    """A card's memory now and at its highest since the case began."""

    allocated_bytes: int
    reserved_bytes: int
    device_bytes: int | None
    peak_allocated_bytes: int
    peak_requested_bytes: int
    peak_reserved_bytes: int
    peak_device_bytes: int | None


@dataclass
class Report:
    """One line from the child: its `event` (`versions`, `start`, `enter`, `progress`, `phase`, `result`, `failure`,
    `recorded`) and the data of it.
    """

    event: str
    data: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps({"event": self.event, **self.data})

    @staticmethod
    def from_json(line: str) -> Report:
        """Raises ValueError for a line that is no record."""
        data = json.loads(line)
        if not isinstance(data, dict) or "event" not in data:
            raise ValueError(f"not a record: {line[:100]}")
        return Report(data.pop("event"), data)


@dataclass(frozen=True)
class PhaseProgress:
    """How far a phase is: `done` of `total` `units` (modules or tokens). Shown while it lasts, and never kept."""

    phase: Phase
    done: int
    total: int
    units: str

    EVENT: ClassVar[str] = "progress"

    def to_report(self) -> Report:
        return Report(self.EVENT, dataclasses.asdict(self))

    @staticmethod
    def from_report(report: Report) -> PhaseProgress:
        """Raises KeyError, TypeError or ValueError where the data is of another form."""
        data = report.data
        return PhaseProgress(Phase(data["phase"]), int(data["done"]), int(data["total"]), str(data["units"]))

    def __str__(self) -> str:
        return f"{self.done:,} of {self.total:,} {self.units}"
