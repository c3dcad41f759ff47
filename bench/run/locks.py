"""Who may write to a run, and who may use a GPU: one process at a time."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from bench.core.errors import BadInput


@contextlib.contextmanager
def claimed(run_dir: Path) -> Iterator[None]:
    """Locks this run against other writers. Raises `BadInput` where another process holds the lock."""
    lock = FileLock(run_dir / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BadInput(f"run_id={run_dir.name}: another sweep is writing to {run_dir}; choose another") from None
    try:
        yield
    finally:
        lock.release()
        (run_dir / ".lock").unlink(missing_ok=True)


@contextlib.contextmanager
def reserved(uuids: Sequence[str], stop: threading.Event) -> Iterator[None]:
    """No other process runs a case on these GPUs meanwhile; without the reservation where `stop` was set before.

    All take the locks in the same order, so that no two wait for each other.
    """
    with contextlib.ExitStack() as stack:
        for uuid in sorted(uuids):
            lock = FileLock(Path(tempfile.gettempdir()) / f"vram-bench-{uuid}.lock")
            while not stop.is_set():
                try:
                    lock.acquire(timeout=0.5)
                except Timeout:
                    continue
                stack.callback(lock.release)
                break
        yield
