"""The engines there are, by name: each is a folder here, and one in `worker/engines`."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from bench.engines.base import EngineRules, EngineSpec

NAMES = ("exllamav2",)


@cache
def engine_of(name: str) -> EngineSpec:
    """What is said of an engine."""
    spec: EngineSpec = import_module(f"bench.engines.{name}.spec").SPEC
    return spec


@cache
def rules_of(name: str) -> EngineRules:
    """What is computed of an engine. Imports NumPy and numba."""
    rules: EngineRules = import_module(f"bench.engines.{name}.rules").RULES
    return rules


def engines() -> list[EngineSpec]:
    """All that there are."""
    return [engine_of(name) for name in NAMES]


def titles() -> str:
    """What people call the engines."""
    return " and ".join(engine.title for engine in engines())
