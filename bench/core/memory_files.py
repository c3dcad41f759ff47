"""Text for another process in a file that has no name, of any length: packets of a socket are cut off."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def in_memory(text: str) -> Iterator[int]:
    """Yields the descriptor of a file with `text`, in UTF-8, to be read from its beginning."""
    with tempfile.TemporaryFile() if not hasattr(os, "memfd_create") else os.fdopen(_made(), "w+b") as file:
        file.write(text.encode())
        file.flush()
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        yield file.fileno()


def _made() -> int:
    return os.memfd_create("vram-bench-request", os.MFD_CLOEXEC)
