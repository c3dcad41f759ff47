"""What a user can get wrong before anything is run, and the exit codes."""

from __future__ import annotations

import difflib
import re
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


def nearest(given: str, known: Iterable[str], group: str = "") -> str:
    """`More exactly: a, b?` for several names that `given` is a part of; `Did you mean a?` for one, or for names that
    are near; or the whole list where none is. The beginning `group`, which all have, does not count.
    """
    names = sorted(known)
    by_letters = {_letters(name.removeprefix(group)): name for name in names}
    typed = _letters(given.removeprefix(group))
    parts = [by_letters[typed]] if typed in by_letters else []
    parts = parts or [name for letters, name in by_letters.items() if len(typed) > 1 and letters.startswith(typed)]
    parts = parts or [name for letters, name in by_letters.items() if len(typed) > 2 and typed in letters]
    if len(parts) > 1:
        return f"More exactly: {', '.join(parts)}?"
    close = parts or [by_letters[one] for one in difflib.get_close_matches(typed, by_letters, n=3, cutoff=0.5)]
    return f"Did you mean {', '.join(close)}?" if close else f"Known: {', '.join(names)}."


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its name where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _letters(name: str) -> str:
    """A name without what people write between its parts: `RTX 3080` and `rtx_3080` are the same."""
    return re.sub(r"[\W_]", "", name.lower())
