"""The cards of a case, real or simulated, with the engine that runs on them."""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager

from bench.core.case import Case
from bench.worker.engines.registry import worker_engine
from bench.worker.interfaces.card import Machine


def preload(kind: str, engine: str) -> None:
    """Imports what every case on a kind of device needs, as far as that leaves the GPU untouched."""
    importlib.import_module("torch")
    if kind == "simulated":
        importlib.import_module("bench.worker.simulated.machine").preload(worker_engine(engine))


def open_machine(case: Case) -> AbstractContextManager[Machine]:
    """The machine of `case`, in force until the block ends."""
    module = "bench.worker.simulated.machine" if case.device.kind == "simulated" else "bench.worker.cuda.machine"
    open_ = importlib.import_module(module).open_machine
    opened: AbstractContextManager[Machine] = open_(case, worker_engine(case.engine), case.devices)
    return opened
