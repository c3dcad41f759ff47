"""Files and directories that appear complete or not at all: written beside, then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replaced(path: Path, *, sync: bool = False, exclusive: bool = False) -> Iterator[Path]:
    """Yields a path beside `path` to write to, which takes the place of `path` when the block is left without an error.

    With `sync` the bytes are on disk before that, and the name after it. What is written to has the process's number in
    its name, so that several processes may write the same file; with `exclusive`, for a folder that only one process
    writes to, it has not, and what a killed process left is written over. Raises FileNotFoundError where the block
    wrote nothing, and OSError as `os.replace` does.
    """
    partial = path.with_name(f"{path.name}.partial" if exclusive else f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        if sync:
            with partial.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(partial, path)
        if sync:
            sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """What was made, renamed or deleted in a folder is on disk afterwards, where its file system can say so."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def made_directory(directory: Path, is_complete: Callable[[Path], bool]) -> Iterator[Path]:
    """Yields a new directory that becomes `directory` when the block is left without an error.

    Parents are made where they are missing. Where another process was first, its directory stays, provided that
    `is_complete` says so; else OSError as `os.rename` raises it.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=directory.parent) as folder:
        made = Path(folder) / directory.name
        made.mkdir()
        yield made
        try:
            os.rename(made, directory)
        except OSError:
            if not is_complete(directory):
                raise
