"""A process and all that descends from it, as Linux's /proc shows them."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

_PROC = Path("/proc")
# A process that forks faster than it is looked for would keep the search going for ever.
_ROUNDS = 20


def kill_tree(pid: int) -> None:
    """Kills a process that has not been waited for, its session, and its descendants in whatever session; stopped ones
    die, too. The process itself comes last: what it has adopted can be found for as long as it lives.
    """
    for _ in range(_ROUNDS):
        found = descendants(pid)
        for each in found:
            _kill(each)
        if not found:
            break
    for kill in (os.killpg, os.kill):  # the session is not there yet in a child's first moments
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def descendants(pid: int) -> set[int]:
    """The processes that descend from `pid` and have not ended; none where there is no /proc."""
    parents = _parents()
    found: set[int] = set()
    level = {pid}
    while level := {each for each, parent in parents.items() if parent in level} - found:
        found |= level
    return found


def own_children() -> set[int]:
    """The children of this process, which has one thread; those that have ended and were not waited for, too."""
    try:
        return {int(pid) for pid in (_PROC / "self" / "task" / str(os.getpid()) / "children").read_text().split()}
    except OSError:  # a kernel without it
        return set()


def _parents() -> dict[int, int]:
    """The parent of each process that has not ended."""
    found: dict[int, int] = {}
    with contextlib.suppress(OSError):
        for name in os.listdir(_PROC):
            if name.isdigit():
                with contextlib.suppress(OSError, ValueError, IndexError):
                    # The name of the program, in parentheses, may have anything in it.
                    state, parent = (_PROC / name / "stat").read_text().rpartition(")")[2].split()[:2]
                    if state not in "ZX":
                        found[int(name)] = int(parent)
    return found


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
