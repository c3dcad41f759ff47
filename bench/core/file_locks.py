"""Locks of open files. The kernel lets go of them when their process ends, however it ends, so that none outlives it.

They are of `flock`: a file that is opened once more, by the same process too, does not share them. Files named by a
lock are opened here, as filelock opens them for writing, which is refused for a file that belongs to another user.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

_HELD = {errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK}


def try_lock(fd: int, *, shared: bool = False) -> bool | None:
    """Whether the lock of an open file could be had at once; None on a file system that has no locks."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in _HELD else None
    return True


def is_still(fd: int, path: Path) -> bool:
    """Whether `path` is the open file, which its last holder may have deleted before it let go of the lock."""
    try:
        there, opened = os.stat(path), os.fstat(fd)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (opened.st_dev, opened.st_ino)


@contextlib.contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Holds the lock of the file or folder `path` meanwhile; false where another has it, or where none can be had."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        yield False
        return
    try:
        yield try_lock(fd) is True and is_still(fd, path)
    finally:
        os.close(fd)
