"""The engines that the worker knows, by name."""

from __future__ import annotations

from bench.worker.engines.base import WorkerEngine
from bench.worker.engines.exllamav2.engine import EXLLAMAV2
from bench.worker.engines.exllamav3.engine import EXLLAMAV3

_ENGINES: dict[str, WorkerEngine] = {engine.name: engine for engine in (EXLLAMAV2, EXLLAMAV3)}


def worker_engine(name: str) -> WorkerEngine:
    """Raises KeyError for a name that is none."""
    return _ENGINES[name]


def worker_engines() -> list[WorkerEngine]:
    """All of them."""
    return list(_ENGINES.values())
