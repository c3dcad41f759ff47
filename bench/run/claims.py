"""Which sweep measures what, of all that write to one folder of results at the same time.

A claim is a lock of one byte of a file in that folder, by a hash of the key. The kernel lets go of all of a process's
locks when it ends, however it ends. The last sweep deletes the file.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bench.core.file_locks import is_still

_NAME = ".claims"
_POLL_S = 0.2
# The byte that every sweep shares for as long as it lives; keys have those after it.
_LIFE = 0
_MOST = (1 << 62) - 1


class Claims:
    """What this process has claimed. On a file system without locks, everything is claimed at once."""

    def __init__(self, results_dir: Path) -> None:
        self._path = results_dir / _NAME
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()  # a process has a lock once, however many of its threads take it
        self._fd = self._open()

    def take(self, key: str) -> bool:
        """Claims `key`, if no other process has; each claim of it is to be given back."""
        with self._lock:
            is_taken = self._held[key] > 0 or self._try(fcntl.LOCK_EX, _byte_of(key))
            self._held[key] += is_taken
        return is_taken

    def release(self, key: str) -> None:
        """Gives a claim back."""
        with self._lock, contextlib.suppress(OSError):
            self._held[key] -= 1
            if not self._held[key]:
                fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, _byte_of(key))

    @contextlib.contextmanager
    def held(self, key: str, stop: threading.Event) -> Iterator[bool]:
        """Claims `key` meanwhile, when no other process has it any more; false where `stop` was set before."""
        while not stop.is_set() and not self.take(key):
            stop.wait(_POLL_S)
        if stop.is_set():
            yield False
            return
        try:
            yield True
        finally:
            self.release(key)

    def close(self) -> None:
        """Gives all back; the last one deletes the file."""
        with contextlib.suppress(OSError):
            if self._try(fcntl.LOCK_EX, _LIFE):
                self._path.unlink(missing_ok=True)
        os.close(self._fd)

    def _open(self) -> int:
        while True:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            with contextlib.suppress(OSError):  # no locks here
                fcntl.lockf(fd, fcntl.LOCK_SH, 1, _LIFE)
            if is_still(fd, self._path):
                return fd
            os.close(fd)  # the last sweep has deleted it just now

    def _try(self, how: int, byte: int) -> bool:
        try:
            fcntl.lockf(self._fd, how | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):  # some file systems say the latter
            return False
        except OSError:
            return True
        return True


def remove_unused(results_dir: Path) -> None:
    """Deletes the file of claims that killed sweeps have left, where no sweep lives. Raises `OSError` as files do."""
    if (results_dir / _NAME).exists():
        Claims(results_dir).close()


def _byte_of(key: str) -> int:
    (number,) = struct.unpack(">Q", hashlib.sha256(key.encode()).digest()[:8])
    return 1 + int(number) % _MOST
