"""Processes that do not outlive the one that started them: Linux's prctl, by which the kernel sees to it.

Elsewhere, all of it does nothing.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys

# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def die_with_parent(parent: int | None = None) -> None:
    """From now on the kernel kills this process when the thread that started it ends, even while it is stopped.

    `parent` is the process that it was started by: where that has ended already, this one ends, too.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def serve_parent() -> None:
    """For a process of `multiprocessing`: interrupts are left to its parent, and it ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    die_with_parent(None if parent is None else parent.pid)


def adopt_orphans() -> None:
    """From now on descendants whose parent has ended are children of this process, not of the system's first."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
