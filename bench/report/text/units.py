"""Units for people. Everything that is shown with a unit goes through here; what is stored is raw."""

from __future__ import annotations

import math

GIB = 1 << 30


def size(size_bytes: float | None, digits: int = 2) -> str:
    """`5.74 GiB`; a dash for unknown."""
    if size_bytes is None or math.isnan(size_bytes):
        return "–"
    return f"{size_bytes / GIB:.{digits}f} GiB"


def gib(size_bytes: float | None, digits: int = 1) -> str:
    """`5.7`, for columns that name their unit; a dash for unknown."""
    return "–" if size_bytes is None or math.isnan(size_bytes) else f"{size_bytes / GIB:.{digits}f}"


def size_in_mib(size_bytes: float) -> str:
    """`386.0 MiB`."""
    return f"{size_bytes / (1 << 20):.1f} MiB"


def exact_size(size_bytes: float) -> str:
    """`25,297,027,072 B`, for sizes that look the same when they are rounded."""
    return f"{size_bytes:,.0f} B"


def size_change(change_bytes: int) -> str:
    """`+32.0 MiB`, `-512 B`: in a unit that suits it, so that no change is too small to be seen."""
    for unit, unit_bytes in (("GiB", GIB), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if abs(change_bytes) >= unit_bytes:
            return f"{change_bytes / unit_bytes:+.1f} {unit}"
    return f"{change_bytes:+d} B"


def percent_change(before: float, after: float) -> str:
    """`+0.64 %`, `-12 %`; a dash where there is nothing to begin with."""
    if not before:
        return "–"
    percent = 100 * (after / before - 1)
    if abs(percent) < 0.01:
        return "<0.01 %"
    return f"{percent:+.0f} %" if abs(percent) >= 10 else f"{percent:+.2g} %"


def tokens(count: float | None) -> str:
    """`131,072`; a dash for unknown."""
    return "–" if count is None or math.isnan(count) else f"{int(count):,}"


def in_k(count: float, _: object = None) -> str:
    """`128k` tokens, for axes, which also give a tick's number."""
    return f"{count / 1024:g}k" if count >= 1024 else f"{count:g}"


def rate(per_s: float | None) -> str:
    """`104`, `5.3` tokens a second, for columns that name their unit; a dash for unknown."""
    if per_s is None or math.isnan(per_s):
        return "–"
    return f"{per_s:.1f}" if per_s < 10 else f"{per_s:,.0f}"


def duration(seconds: float | None) -> str:
    """`0.6 s`, `2 min 05 s`; a dash for unknown."""
    if seconds is None or math.isnan(seconds):
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def is_near_timeout(seconds: float | None, timeout_s: float | None) -> bool:
    """Whether a case that is estimated to take so long may be ended: estimates are good to a factor of two or three."""
    return seconds is not None and timeout_s is not None and seconds > timeout_s / 2
