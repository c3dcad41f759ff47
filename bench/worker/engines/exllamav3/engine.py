"""exllamav3 as the worker knows it: every way in, each to its own file. Nothing is imported before it is asked for."""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from bench.core.case import Case
from bench.synth.layout import Layout
from bench.trace.passes import Pass
from bench.worker.engines.base import Beginning, Division, Listener, Recordable
from bench.worker.engines.exllamav3 import attribution, checkpoint, inspection, packages, readable, recording
from bench.worker.engines.exllamav3.session import ExLlamaV3Session
from bench.worker.engines.exllamav3.shortcuts import shortcuts
from bench.worker.engines.exllamav3.stand_ins import extension, triton
from bench.worker.interfaces.card import Machine
from bench.worker.interfaces.engine import Faults, Session
from bench.worker.simulated.tensor import SimulatedCuda


class ExLlamaV3Engine:
    """See `bench.worker.engines.base.WorkerEngine`."""

    name = "exllamav3"
    _extension: extension.Extension | None = None

    # To be run

    def import_engine(self) -> list[str]:
        """Imports exllamav3, which builds its extension at the first time where no wheel has brought it."""
        packages.import_engine()
        return []

    def broken_packages(self) -> dict[str, str]:
        """The extension and Triton, if they cannot be imported."""
        return packages.broken()

    def session(self, case: Case, machine: Machine) -> ExLlamaV3Session:
        """See `ExLlamaV3Session`."""
        return ExLlamaV3Session(case, machine)

    def require_readable(self, config: dict[str, Any]) -> None:
        """By exllamav3's own Config and Model."""
        readable.read_model(config)

    def lay_out(self, config: dict[str, Any], bpw: float, head_bits: int | None) -> Layout:
        """An EXL3 checkpoint; with 16 bpw unquantised."""
        return checkpoint.lay_out(config, bpw, head_bits)

    def layout_of(self, case: Case, layouts: Path) -> Path:
        """See `checkpoint.layout_of`."""
        return checkpoint.layout_of(case, layouts)

    def faults(self, directory: Path, config: dict[str, Any]) -> Faults:
        """By the names of tensors that the engine's modules load."""
        return inspection.faults(directory, config)

    # To be simulated

    def stand_ins(self, cuda: SimulatedCuda) -> dict[str, ModuleType]:
        """The compiled extension, and Triton, which PyTorch brings with CUDA alone."""
        self._extension = extension.Extension(cuda)
        return {extension.NAME: self._extension.module(), **triton.modules()}

    def import_simulated(self) -> None:
        """Imports all that a case and a layout need."""
        importlib.import_module("exllamav3")
        importlib.import_module("exllamav3.conversion.allocation")

    def part_of(self, frame: FrameType | None) -> int:
        """By the module and function of exllamav3 that allocates."""
        return attribution.part_of(frame)

    def start_machine(self) -> None:
        """Forgets what the engine and its extension keep of the cards for the life of a process."""
        if self._extension is not None:
            self._extension.forget()
        packages.forget_cards()

    def shortcuts(self, cuda: SimulatedCuda) -> AbstractContextManager[None]:
        """See `shortcuts`."""
        return shortcuts(cuda)

    # To be recorded

    def recordable(self, case: Case, machine: Machine) -> Recordable:
        """See `recording.recordable`."""
        return recording.recordable(case, machine)

    def marked(self, listener: Listener, how: Beginning | Division | None = None) -> AbstractContextManager[None]:
        """See `recording.marked`."""
        return recording.marked(listener)

    def forward(self, session: Session, each: Pass) -> None:
        """A chunk of a prompt."""
        assert isinstance(session, ExLlamaV3Session)
        session.forward(each)


EXLLAMAV3 = ExLlamaV3Engine()
