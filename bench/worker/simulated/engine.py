"""What a simulated card needs of the engine that runs on it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Protocol

from bench.core.case import Case
from bench.worker.simulated.tensor import SimulatedCuda


class SimulatedEngine(Protocol):
    """An engine whose Python code runs over stand-ins. Its own packages are not imported before `import_simulated`."""

    name: str

    def stand_ins(self, cuda: SimulatedCuda) -> dict[str, ModuleType]:
        """What takes the place of the engine's compiled modules in `sys.modules`."""

    def import_simulated(self) -> None:
        """Imports all of the engine that a case may need, over its stand-ins."""

    def part_of(self, frame: FrameType | None) -> int:
        """The index in `PARTS` of the part that the code running in `frame` allocates for."""

    def start_machine(self) -> None:
        """Forgets what the engine keeps of the cards for the life of a process."""

    def shortcuts(self, cuda: SimulatedCuda) -> AbstractContextManager[None]:
        """While it lasts, work that is known to repeat is done by its requests alone."""

    def layout_of(self, case: Case, layouts: Path) -> Path:
        """The model directory of `case` below `layouts`, without weights."""
