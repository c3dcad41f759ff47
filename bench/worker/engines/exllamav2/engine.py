"""ExLlamaV2 as the worker knows it: every way in, each to its own file. Nothing is imported before it is asked for."""

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
from bench.worker.engines.exllamav2 import attribution, checkpoint, inspection, packages, readable, recording
from bench.worker.engines.exllamav2.extension import Extension
from bench.worker.engines.exllamav2.session import ExLlamaV2Session
from bench.worker.engines.exllamav2.shortcuts import shortcuts
from bench.worker.interfaces.card import Machine
from bench.worker.interfaces.engine import Faults, Session
from bench.worker.simulated.tensor import SimulatedCuda


class ExLlamaV2Engine:
    """See `bench.worker.engines.base.WorkerEngine`."""

    name = "exllamav2"

    # To be run

    def import_engine(self) -> list[str]:
        """Imports exllamav2 without the attention packages that are broken here, and notes those."""
        notes = packages.switch_off_broken()
        packages.import_engine()
        return notes

    def broken_packages(self) -> dict[str, str]:
        """The attention packages and the extension that cannot be imported."""
        extension = packages.broken_extension()
        return {**packages.broken_back_ends(), **({} if extension is None else {"exllamav2_ext": extension})}

    def session(self, case: Case, machine: Machine) -> ExLlamaV2Session:
        """See `ExLlamaV2Session`."""
        return ExLlamaV2Session(case, machine)

    def require_readable(self, config: dict[str, Any]) -> None:
        """By ExLlamaV2Config itself."""
        readable.read_config(config)

    def lay_out(self, config: dict[str, Any], bpw: float, head_bits: int | None) -> Layout:
        """An EXL2 checkpoint; with 16 bpw unquantised."""
        return checkpoint.lay_out(config, bpw, head_bits)

    def layout_of(self, case: Case, layouts: Path) -> Path:
        """See `checkpoint.layout_of`."""
        return checkpoint.layout_of(case, layouts)

    def faults(self, directory: Path, config: dict[str, Any]) -> Faults:
        """By the names and shapes that the engine's modules load."""
        return inspection.faults(directory, config)

    # To be simulated

    def stand_ins(self, cuda: SimulatedCuda) -> dict[str, ModuleType]:
        """The compiled extension is the one module that needs CUDA."""
        return {"exllamav2_ext": Extension(cuda).module()}

    def import_simulated(self) -> None:
        """Imports all that a case and a layout need."""
        importlib.import_module("exllamav2.conversion.qparams")

    def part_of(self, frame: FrameType | None) -> int:
        """By the module and function of ExLlamaV2 that allocates."""
        return attribution.part_of(frame)

    def start_machine(self) -> None:
        # The engine keeps them for the life of a process, and a second model in it would load on those streams.
        """Forgets the streams of the cards before, and what was found out about copies between them."""
        importlib.import_module("exllamav2.device").global_streams.clear()
        vars(importlib.import_module("exllamav2.compat"))["tested_peer_copy"] = None

    def shortcuts(self, cuda: SimulatedCuda) -> AbstractContextManager[None]:
        """See `shortcuts`."""
        return shortcuts(cuda)

    # To be recorded

    def recordable(self, case: Case, machine: Machine) -> Recordable:
        """With as few layers as show how they repeat."""
        return recording.recordable(case, machine)

    def marked(self, listener: Listener, how: Beginning | Division | None = None) -> AbstractContextManager[None]:
        """The layers are the modules' `forward` and `load`."""
        return recording.marked(listener, how)

    def forward(self, session: Session, each: Pass) -> None:
        """One pass of the session's model."""
        assert isinstance(session, ExLlamaV2Session)
        session.forward(each)


EXLLAMAV2 = ExLlamaV2Engine()
