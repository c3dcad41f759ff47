"""Which split was best, and what it gains, in words."""

from __future__ import annotations

from bench.report.text.units import tokens


def best_split_words(best_split: str | None, fits_at: int | None, auto_fits_at: int | None) -> str | None:
    """`split=[20.2,24] is the best gpu_split: 11,264 tokens more than split=auto (predicted to end at 103,424)`.

    None of other splits.

    `fits_at` is the boundary with it, None where nothing fits or one case was asked for; the last one is predicted.
    """
    if best_split is None:
        return None
    told = f"split={best_split} is the best gpu_split"
    if fits_at is None or auto_fits_at is None:
        return told
    gained = fits_at - auto_fits_at
    if gained == 0:
        return f"{told}, and goes no further than split=auto (predicted)"
    ends = f"predicted to end at {tokens(auto_fits_at)}" if auto_fits_at else "with which nothing is predicted to fit"
    return f"{told}: {abs(gained):,} tokens {'more' if gained > 0 else 'fewer'} than split=auto ({ends})"
