"""Who may write to a run, and who may use a GPU: one process at a time, of whichever user."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bench.core.errors import BadInput
from bench.core.file_locks import is_still, locked_if_free, try_lock

LOCK_NAME = ".lock"
# One place for all users of a machine, whatever TMPDIR each has.
_SHARED = Path("/tmp")
_POLL_S = 0.5


@contextlib.contextmanager
def claimed(run_dir: Path) -> Iterator[None]:
    """Locks this run against other writers. Raises `BadInput` where another process holds the lock."""
    path = run_dir / LOCK_NAME
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if try_lock(fd) is False or not is_still(fd, path):
            raise BadInput(f"run_id={run_dir.name}: another sweep is writing to {run_dir}; choose another")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(fd)


@contextlib.contextmanager
def reserved(uuids: Sequence[str], stop: threading.Event) -> Iterator[None]:
    """No other process runs a case on these GPUs meanwhile; without the reservation where `stop` was set before.

    All take the locks in the same order, so that no two wait for each other. Raises `BadInput`.
    """
    with contextlib.ExitStack() as stack:
        for uuid in sorted(uuids):
            while not stop.is_set():
                if stack.enter_context(_taken(uuid)):
                    break
                stop.wait(_POLL_S)
        yield


def require_reservable(uuids: Iterable[str]) -> None:
    """Raises `BadInput` where this user cannot take turns with others on a GPU."""
    for uuid in uuids:
        os.close(_open(_path(uuid)))


def is_reserved(uuid: str) -> bool:
    """Whether a process has its turn on a GPU now."""
    path = _path(uuid)
    if not path.exists():
        return False
    with locked_if_free(path) as is_free:
        return not is_free


@contextlib.contextmanager
def _taken(uuid: str) -> Iterator[bool]:
    path = _path(uuid)
    fd = _open(path)
    try:
        is_taken = try_lock(fd) is not False and is_still(fd, path)
        yield is_taken
        if is_taken:
            with contextlib.suppress(OSError):  # of another user
                path.unlink()
    finally:
        os.close(fd)


def _path(uuid: str) -> Path:
    folder = _SHARED if os.access(_SHARED, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
    return folder / f"vram-bench-{uuid}.lock"


def _open(path: Path) -> int:
    """The file of a GPU's lock. One of another user's is opened for reading, which is enough to lock it."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
        try:
            with contextlib.suppress(FileNotFoundError):
                return os.open(path, os.O_RDONLY | flags)
            with contextlib.suppress(FileExistsError):
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | flags, 0o666)
                os.fchmod(fd, 0o666)  # whatever this user's umask is
                return fd
        except OSError as error:
            raise BadInput(
                f"{path}: cannot be opened ({error.strerror}), and keeps two sweeps from using one GPU at once; "
                "its owner can delete it, or make it readable: chmod a+r"
            ) from None
