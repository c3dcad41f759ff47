"""How much is taken of what a child says: it may be broken, and say anything without end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_MOST_LINE_BYTES = 4 << 20  # a message of the largest model has some 100 KiB
_MOST_BYTES = 16 << 20
_MOST_LOG_BYTES = 64 << 20
_LOOK_S = 0.2
_CUT = b"(the log was longer than %d MiB up to here: that is left out)\n"


class Lines:
    """The lines of what comes in pieces. `refused` says why some of it is none of them."""

    def __init__(self) -> None:
        self.refused: str | None = None
        self._pieces: list[bytes] = []
        self._pending_bytes = 0
        self._taken_bytes = 0

    def of(self, data: bytes) -> Iterator[bytes]:
        """Those that end in `data`, which follows what was given before."""
        self._taken_bytes += len(data)
        if self._taken_bytes > _MOST_BYTES:
            self._refuse(f"more than {_MOST_BYTES >> 20} MiB of messages")
            self._pieces = []
            return
        *ends, rest = data.split(b"\n")
        for end in ends:
            if self._add(end) and (line := b"".join(self._pieces)):
                yield line
            self._pieces, self._pending_bytes = [], 0
        self._add(rest)

    def end(self) -> None:
        """What is left without the end of a line is none."""
        if self._pending_bytes:
            self._refuse("cut off in the middle")

    def _add(self, piece: bytes) -> bool:
        """Whether the line is still short enough to be one."""
        self._pending_bytes += len(piece)
        if self._pending_bytes > _MOST_LINE_BYTES:
            self._refuse(f"longer than {_MOST_LINE_BYTES >> 20} MiB")
            self._pieces = []
            return False
        self._pieces.append(piece)
        return True

    def _refuse(self, why: str) -> None:
        self.refused = self.refused or why


class Log:
    """The file of what a child prints. A child that prints without end does not fill the disk."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(b"")
        self._file: BinaryIO = path.open("ab", buffering=0)  # the child goes on at the end, wherever that is
        self._looked_at = time.monotonic()

    def fileno(self) -> int:
        """The descriptor that the child gets."""
        return self._file.fileno()

    def keep_short(self) -> None:
        """Cuts off what there is where it is too long; looks no more often than is needed."""
        if time.monotonic() - self._looked_at < _LOOK_S:
            return
        self._looked_at = time.monotonic()
        if os.fstat(self.fileno()).st_size > _MOST_LOG_BYTES:
            os.ftruncate(self.fileno(), 0)
            self._file.write(_CUT % (_MOST_LOG_BYTES >> 20))

    def close(self) -> None:
        """Closes the parent's end of it."""
        self._file.close()
