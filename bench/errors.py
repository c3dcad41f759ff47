"""What a user can get wrong before anything is run."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BadInput(Exception):
    """One or two lines: what was given, what is allowed, what to do. Ends the program with exit code 2."""


def nearest(given: str, known: Iterable[str]) -> str:
    """` Did you mean a, b?`, or the whole list where nothing is near."""
    names = sorted(known)
    close = difflib.get_close_matches(given.lower(), names, n=3, cutoff=0.5)
    return f"Did you mean {', '.join(close)}?" if close else f"Known: {', '.join(names)}."
