"""The engine in the worker: a model of a few MiB, and in one of the phases its fault."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NoReturn

import torch

from bench.allocator.parts import WEIGHTS
from bench.core.case import Case
from bench.core.outcome import Phase
from bench.engines.reading import Reading
from bench.worker import host_memory
from bench.worker.interfaces.card import Machine
from bench.worker.interfaces.engine import Faults, Placed, Tell
from bench.worker.simulated.tensor import SimulatedCuda
from faulty.faults import FAULTS, MOST_HOST_BYTES

_MIB = 1 << 20
_BYTES_PER_TOKEN = 1 << 10


class FaultySession:
    """See `bench.worker.interfaces.engine.Session`; of what only generators ask for it has nothing."""

    def __init__(self, case: Case, machine: Machine) -> None:
        self._case, self._machine = case, machine
        self._fault = FAULTS[case.model.config["fault"]]
        self._phase = case.model.config["fault_phase"]
        self._weights: list[torch.Tensor] = []
        self._cache: list[torch.Tensor] = []

    def open(self, directory: Path, draft: Path | None = None) -> Reading:
        return Reading("none", 64, 1, (), None)

    def build(self) -> None: ...

    def load(self, tell: Tell | None = None) -> None:
        self._weights = [self._taken(16 * _MIB)]
        self._fail_in(Phase.LOAD)

    def make_cache(self) -> None:
        self._cache = [self._taken(self._case.max_seq_len * _BYTES_PER_TOKEN)]
        self._fail_in(Phase.CACHE)

    def fill(self, tokens: int, tell: Tell | None = None) -> None:
        self._taken(tokens * _BYTES_PER_TOKEN)
        self._fail_in(Phase.PREFILL)

    def decode(self, start: int, tokens: int, tell: Tell | None = None) -> None:
        self._taken(tokens * _BYTES_PER_TOKEN)
        if start > self._case.max_seq_len // 2:  # of the decodes one is at the end of the context
            self._fail_in(Phase.DECODE)

    def load_vision(self, tell: Tell | None = None) -> None: ...

    def trim(self) -> None: ...

    def host_buffers_bytes(self) -> None: ...

    def given(self) -> None: ...

    def resident_tensors(self) -> dict[str, Iterable[Any]]:
        return {"weights": self._weights, "cache": self._cache}

    def placement(self) -> list[Placed]:
        return [Placed(["all"], 1)]

    def _taken(self, size_bytes: int) -> torch.Tensor:
        return torch.empty(size_bytes, dtype=torch.uint8, device="cuda:0")

    def _fail_in(self, phase: Phase) -> None:
        if self._phase == phase:
            self._fault()


class FaultyEngine:
    """See `bench.worker.engines.base.WorkerEngine`; it is not recorded, and has no checkpoints."""

    name = "faulty"

    def import_engine(self) -> list[str]:
        return []

    def broken_packages(self) -> dict[str, str]:
        return {}

    def session(self, case: Case, machine: Machine) -> FaultySession:
        return FaultySession(case, machine)

    def require_readable(self, config: dict[str, Any]) -> None: ...

    def layout_of(self, case: Case, layouts: Path) -> Path:
        return layouts

    def faults(self, directory: Path, config: dict[str, Any]) -> Faults:
        return Faults([], [])

    def stand_ins(self, cuda: SimulatedCuda) -> dict[str, ModuleType]:
        return {}

    def import_simulated(self) -> None:
        """A child may eat less of this machine than of others: it is shared."""
        host_memory.most_bytes = lambda: MOST_HOST_BYTES

    def part_of(self, frame: FrameType | None) -> int:
        return WEIGHTS

    def start_machine(self) -> None: ...

    def shortcuts(self, cuda: SimulatedCuda) -> AbstractContextManager[None]:
        return nullcontext()

    def recordable(self, case: Case, machine: Machine) -> NoReturn:
        raise NotImplementedError

    marked = forward = lay_out = recordable


ENGINE = FaultyEngine()
