"""The card of a case, real or simulated, with the engine that runs on it."""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager

from bench.core.case import Case
from bench.worker.engines.registry import worker_engine
from bench.worker.interfaces.card import Card


def preload(kind: str, engine: str) -> None:
    """Imports what every case on a kind of device needs, as far as that leaves the GPU untouched."""
    importlib.import_module("torch")
    if kind == "simulated":
        importlib.import_module("bench.worker.simulated.card").preload(worker_engine(engine))


def open_card(case: Case) -> AbstractContextManager[Card]:
    """The card of `case`, in force until the block ends."""
    module = "bench.worker.simulated.card" if case.device.kind == "simulated" else "bench.worker.cuda"
    opened: AbstractContextManager[Card] = importlib.import_module(module).open_card(case, worker_engine(case.engine))
    return opened
