"""What the parent computes of it: nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

from bench.core.case import Case
from bench.engines.base import EngineRules, PredictionRules
from bench.trace.parametric import ParametricTrace
from bench.trace.passes import NoPrediction
from bench.trace.split import SplitTrace

_WHY = "faults are not predicted"


def _nothing(*_: object, **__: object) -> NoReturn:
    raise NoPrediction(_WHY)


def _no_replayer(trace: SplitTrace, tensor_bytes: Mapping[str, int], case: Case) -> NoReturn:
    raise NoPrediction(_WHY)


def _with_cache(trace: ParametricTrace, cache: str) -> ParametricTrace:
    return trace


RULES = EngineRules(
    refusal=lambda case: None,
    prediction=PredictionRules(
        kind_of_cards=lambda case: None,
        setup=_nothing,
        unread_setup=_nothing,
        load_compiled=lambda: None,
        with_cache=_with_cache,
        split_replayer=_no_replayer,
        unpredicted=lambda case: _WHY,
    ),
    notes=lambda case, reading: [],
    snippets=lambda chosen: [],
)
