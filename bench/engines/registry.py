"""The engines there are, by name."""

from __future__ import annotations

from bench.engines.base import EngineSpec
from bench.engines.exllamav2.spec import EXLLAMAV2

ENGINES: dict[str, EngineSpec] = {engine.name: engine for engine in (EXLLAMAV2,)}


def engine_of(name: str) -> EngineSpec:
    """Raises KeyError for a name that is none."""
    return ENGINES[name]


def titles() -> str:
    """What people call the engines."""
    return " and ".join(engine.title for engine in ENGINES.values())
