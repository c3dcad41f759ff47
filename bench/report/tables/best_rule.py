"""What `best` means in tables and plans."""

from __future__ import annotations

from bench.analysis.asked import DEFAULT_HEADROOM_BYTES
from bench.report.text.units import size

WANTED_TOKENS = 32768


def rule(wanted_tokens: int = WANTED_TOKENS, headroom_bytes: int = DEFAULT_HEADROOM_BYTES) -> str:
    """What `best` means, for the length and the headroom that were asked for."""
    return (
        f"best: the highest bpw, then the finest cache, that fits {wanted_tokens:,} tokens (or all that the model "
        f"takes or that was asked for, where that is less) and leaves {size(headroom_bytes)}; where none does, the "
        "longest that leaves as much."
    )
