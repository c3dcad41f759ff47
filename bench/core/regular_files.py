"""Files that anybody may have put where they lie: opened without waiting for what is no file."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_regular(path: Path) -> BinaryIO:
    """The file `path`, open to be read. Raises `OSError`, also for a folder, a pipe or a device.

    To open a pipe is to wait for whoever writes to it, for ever where nobody does.
    """
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(f"{path}: no regular file")
    return file


def is_regular(path: Path) -> bool:
    """Whether `path` is a file, or a link to one; False for what cannot be looked at, such as a link to itself."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False
