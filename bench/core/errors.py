"""What a user can get wrong before anything is run, and the exit codes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """How the program ends."""

    DONE = 0  # every case has a verdict
    PROBLEMS = 1  # finished, but something crashed, timed out or could not be read
    BAD_INPUT = 2  # nothing was run
    INTERRUPTED = 130  # what is finished is kept


class BadInput(Exception):
    """One or two lines: what was given, what is allowed, what to do. Ends the program with exit code 2."""


def nearest(given: str, known: Iterable[str]) -> str:
    """` Did you mean a, b?`, or the whole list where nothing is near."""
    names = sorted(known)
    close = difflib.get_close_matches(given.lower(), names, n=3, cutoff=0.5)
    return f"Did you mean {', '.join(close)}?" if close else f"Known: {', '.join(names)}."
