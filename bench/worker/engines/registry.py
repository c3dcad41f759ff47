"""The engines that the worker knows, by name."""

from __future__ import annotations

from importlib import import_module

from bench.engines.registry import NAMES
from bench.worker.engines.base import WorkerEngine
from bench.worker.engines.exllamav2.engine import EXLLAMAV2
from bench.worker.engines.exllamav3.engine import EXLLAMAV3

_ENGINES: dict[str, WorkerEngine] = {engine.name: engine for engine in (EXLLAMAV2, EXLLAMAV3)}
_ENGINES |= {name: import_module(f"{name}.worker").ENGINE for name in NAMES if name not in _ENGINES}


def worker_engine(name: str) -> WorkerEngine:
    """Raises KeyError for a name that is none."""
    return _ENGINES[name]


def worker_engines() -> list[WorkerEngine]:
    """All of them."""
    return list(_ENGINES.values())
