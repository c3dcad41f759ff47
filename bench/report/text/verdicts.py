"""How a case ended, in words."""

from __future__ import annotations

from bench.core.outcome import Outcome, Phase

_SHORT: dict[str, str] = {Outcome.TIMEOUT: "timed out", Outcome.UNSUPPORTED: "n/a", Outcome.DEGRADED: "spilled"}


def short(outcome: str) -> str:
    """`timed out`, `n/a`; a word of the schema where that is as short."""
    return _SHORT.get(outcome, outcome)


def ended(outcome: str, phase: str) -> str:
    """`OOM in cache`; of another end, which no phase explains, `short`."""
    return f"OOM in {phase}" if outcome == Outcome.OOM else short(outcome)


def in_a_cell(outcome: str, phase: str) -> str:
    """`OOM cache`, in as little room as a table's cell has; of another end `short`."""
    return f"OOM {phase}" if outcome == Outcome.OOM else short(outcome)


def stored(outcome: str, phase: str | None) -> str:
    """In the schema's words: `fits`, `oom in cache`."""
    return outcome if outcome == Outcome.FITS or phase in (None, Phase.DONE) else f"{outcome} in {phase}"
