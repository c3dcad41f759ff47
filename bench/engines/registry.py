"""The engines there are, by name: each is a folder here, and one in `worker/engines`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from importlib import import_module

from bench.engines.base import EngineRules, EngineSpec

# Names engines that are no part of this program, with commas between: each is a package that can be imported.
MORE_ENGINES = "VRAM_BENCH_ENGINES"
_PACKAGES = {name: f"bench.engines.{name}" for name in ("exllamav2", "exllamav3")} | {
    name: name for name in os.environ.get(MORE_ENGINES, "").split(",") if name
}
NAMES = tuple(_PACKAGES)


@cache
def engine_of(name: str) -> EngineSpec:
    """What is said of an engine."""
    spec: EngineSpec = import_module(f"{_PACKAGES[name]}.spec").SPEC
    return spec


@cache
def rules_of(name: str) -> EngineRules:
    """What is computed of an engine. Imports NumPy and numba."""
    rules: EngineRules = import_module(f"{_PACKAGES[name]}.rules").RULES
    return rules


def engines() -> list[EngineSpec]:
    """All that there are."""
    return [engine_of(name) for name in NAMES]


def caches_in_words() -> str:
    """The caches that there are, and whose they are."""
    return "; ".join(f"{engine.caches_in_words} with {engine.name}" for engine in engines())


def bits_in_words() -> str:
    """The bits per weight of quantised weights, and whose they are."""
    return ", ".join(f"{each.least_bpw} to {each.most_bpw} bits per weight with {each.name}" for each in engines())


def titles(names: Iterable[str] = NAMES) -> str:
    """What people call the engines: all, or those of `names`."""
    asked = set(names)
    return " and ".join(engine_of(name).title for name in NAMES if name in asked)
