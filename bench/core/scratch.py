"""Temporary folders that their process holds a lock of, so that others can tell whether it still lives."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.core.errors import BadInput
from bench.core.file_locks import is_still, locked_if_free, try_lock

_PREFIX = "vram-bench-run-"
# What the layouts of a sweep's checkpoints and logs of recordings take, at the least.
_NEEDED_BYTES = 1 << 20


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder, deleted at the end. Raises `BadInput` where the place for such has no room."""
    folder, fd = _make()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(fd)


def remove_dead() -> None:
    """Deletes the temporary folders whose process was killed."""
    with contextlib.suppress(OSError):
        for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            if folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.getuid():
                with locked_if_free(folder) as is_dead:
                    if is_dead:
                        shutil.rmtree(folder, ignore_errors=True)


def _make() -> tuple[Path, int]:
    while True:
        try:
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        except OSError as error:
            raise _no_room(error) from None
        with contextlib.suppress(FileNotFoundError):  # before it was locked, another process took it for a dead one's
            fd = os.open(folder, os.O_RDONLY)
            if try_lock(fd) is not False and is_still(fd, folder):
                break
            os.close(fd)
    try:
        (folder / "room").write_bytes(bytes(_NEEDED_BYTES))
        (folder / "room").unlink()
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(fd)
        raise _no_room(error) from None
    return folder, fd


def _no_room(error: OSError) -> BadInput:
    where = os.environ.get("TMPDIR") or error.filename or "/tmp"
    return BadInput(
        f"TMPDIR={where}: no temporary files can be written there ({error.strerror}); "
        "free some space in it, or name another folder: TMPDIR=DIR vram-bench …"
    )
