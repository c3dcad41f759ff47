"""Tells how far a phase is while it lasts, no more often than anybody would look."""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.core.messages import Message, PhaseProgress
from bench.core.outcome import Phase

INTERVAL_S = 1.0


class Teller:
    """Reports how many `units` of a phase are done, once a second at most, and nothing in the first second.

    It is called between two modules or chunks of the engine and only looks at the clock: nothing is allocated on the
    card, and nothing waits for it. On a real GPU it counts what the host has launched.
    """

    def __init__(self, phase: Phase, units: str, emit: Callable[[Message], None]) -> None:
        self._phase = phase
        self._units = units
        self._emit = emit
        self._told_at = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Reports that `done` of `total` units are done, if the last report is old enough."""
        now = time.monotonic()
        if now - self._told_at >= INTERVAL_S:
            self._told_at = now
            self._emit(PhaseProgress(self._phase, done, total, self._units))
