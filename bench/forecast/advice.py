"""What can be given up to take less of a card, and what to type for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from bench.core.caches import CACHES, coarseness
from bench.core.case import Case
from bench.engines.registry import engine_of

_WIDTHS = (8.0, 6.0, 5.0, 4.0, 3.5, 3.0, 2.5, 2.25, 2.0, 1.5, 1.0)
_INPUT_LENGTHS = (2048, 1024, 512, 256)


def next_smaller(case: Case) -> Iterator[tuple[str, Case]]:
    """One step down for each setting by itself."""
    steps: list[dict[str, Any]] = [{"lazy": False}] if case.lazy and not case.more_devices else []
    steps += [{"cache": cache} for cache in _caches(case)[:1]]
    steps += [{"bpw": bpw} for bpw in _widths(case)[:1]]
    steps += [{"max_input_len": length} for length in _input_lengths(case)[:1]]
    yield from (_taken(step, case) for step in steps)


def smallest(case: Case) -> tuple[str, Case]:
    """All given up at once, and every setting of it."""
    step: dict[str, Any] = {
        "lazy": False,
        **({} if case.model.has_weights else {"bpw": min(case.bpw, _widths_of(case)[-1])}),
        "cache": max((case.cache, CACHES[-1]), key=coarseness),
        "max_input_len": min(case.max_input_len, _INPUT_LENGTHS[-1]),
    }
    return _taken(step, case)


def smaller(case: Case) -> Iterator[tuple[str, Case]]:
    """Cases that take less, the nearest first."""
    eager: dict[str, Any] = {"lazy": False} if case.lazy else {}
    caches, widths = _caches(case), _widths(case)
    steps: list[dict[str, Any]] = [{}] if eager else []
    steps += [{"cache": cache} for cache in caches]
    steps += [{"bpw": bpw} for bpw in widths]
    steps += [{"bpw": bpw, "cache": caches[-1]} for bpw in widths if caches]
    least = {**({"bpw": widths[-1]} if widths else {}), **({"cache": caches[-1]} if caches else {})}
    steps += [{**least, "max_input_len": length} for length in _input_lengths(case)]
    yield from (_taken({**eager, **step}, case) for step in steps)


def _taken(step: dict[str, Any], case: Case) -> tuple[str, Case]:
    said = " ".join(f"{key}={_typed(value)}" for key, value in step.items())
    if "bpw" in step and case.head_bits is None:  # an unquantised model has none
        step = {**step, "head_bits": engine_of(case.engine).default_head_bits}
    if "max_input_len" in step and case.load_as is not None:
        step = {**step, "max_attention_size": step["max_input_len"] ** 2}
    return said, replace(case, **step)


def _typed(value: Any) -> str:
    """A value as it is typed on the command line."""
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _caches(case: Case) -> list[str]:
    """Those of the engine that people have a name for, and that take less."""
    there = engine_of(case.engine).caches
    return [cache for cache in CACHES if cache in there and coarseness(cache) > coarseness(case.cache)]


def _widths(case: Case) -> list[float]:
    return [] if case.model.has_weights else [bpw for bpw in _widths_of(case) if bpw < case.bpw]


def _widths_of(case: Case) -> list[float]:
    return [bpw for bpw in _WIDTHS if bpw >= engine_of(case.engine).least_bpw]


def _input_lengths(case: Case) -> list[int]:
    return [length for length in _INPUT_LENGTHS if length < case.max_input_len]
