"""How far a case came, and its verdict."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """The steps of a case, in order. A row's `phase` is the last that was entered."""

    LOAD = "load"
    CACHE = "cache"
    PREFILL = "prefill"
    DECODE = "decode"
    DONE = "done"


class Outcome(StrEnum):
    """The verdict of a case."""

    FITS = "fits"
    OOM = "oom"
    TIMEOUT = "timeout"
    CRASH = "crash"
    UNSUPPORTED = "unsupported"
    DEGRADED = "degraded"
    ERROR = "error"


class LimitBasis(StrEnum):
    """What tells a model's own limit in tokens. `ENGINE_DEFAULT`: nothing does; there is only what the engine takes."""

    CONFIG = "config.json"
    ROPE_SCALING = "rope scaling"
    FAMILY = "family"
    ENGINE_DEFAULT = "engine default"


# Verdicts that answer the question; the others mean that the case should be looked at (exit code 1).
ANSWERS = frozenset({Outcome.FITS, Outcome.OOM, Outcome.UNSUPPORTED, Outcome.DEGRADED})
UNANSWERED = frozenset(set(Outcome) - ANSWERS)
