"""Waiting for jobs of a queue: not longer than there are any, and with an end to them where nobody waits any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from bench.jobs import slurm

_POLL_S = 2.0
_GRACE_S = 30.0  # for what an ended job has written to be seen, on file systems that look it up now and then
_CANCEL_S = 60.0  # for jobs to end that were cancelled: Slurm kills them before

_Result = TypeVar("_Result")


class Lost(Exception):
    """Jobs ended without a word to whoever waits for them."""


def waited_for(send: Callable[[], _Result], name: str) -> _Result:
    """What `send` returns, which waits for jobs of that name. Raises `Lost` where none is left and it still waits.

    A launcher waits for the word of each job, and for ever for that of one that was killed where Slurm keeps no
    accounts. An interrupt cancels the jobs.
    """
    ended: list[_Result] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            ended.append(send())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        _wait(thread, name)
    except KeyboardInterrupt:
        slurm.cancel(name)
        _until_empty(name)
        raise
    if failed:  # one job's failure is raised before the others have ended
        _until_empty(name, None)
        raise failed[0]
    if not ended:
        raise Lost("jobs ended without a word (killed, or their node was lost); the same command sends them again")
    return ended[0]


def _wait(thread: threading.Thread, name: str) -> None:
    empty_since: float | None = None
    was_seen = False
    while thread.is_alive():
        thread.join(_POLL_S)
        left = slurm.left(name)
        was_seen = was_seen or bool(left)
        if left is None or left or not was_seen:
            empty_since = None
        elif empty_since is None:
            empty_since = time.monotonic()
        elif time.monotonic() - empty_since > _GRACE_S:
            return


def _until_empty(name: str, most_s: float | None = _CANCEL_S) -> None:
    started_at = time.monotonic()
    while most_s is None or time.monotonic() - started_at < most_s:
        left = slurm.left(name)
        if left is not None and not left:
            return
        time.sleep(_POLL_S)
