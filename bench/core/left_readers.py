"""Output whose reader has left, as of `vram-bench sweep … | head -1`: nobody wants it, and the work goes on."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


_STDERR = 2


class _Outliving(io.FileIO):
    """A file of which nobody may be reading: what is written then goes nowhere."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            # An answer that a full disk cuts off is told; what is said beside it changes nothing.
            if not isinstance(error, BrokenPipeError) and self.fileno() != _STDERR:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(data).nbytes


def outlive_readers() -> None:
    """From now on a command ends with the exit code that it earned, whoever reads its output and errors."""
    _open_what_is_closed()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        binary = getattr(stream, "buffer", None)
        raw = getattr(binary, "raw", binary)
        if not isinstance(stream, io.TextIOWrapper) or type(raw) is not io.FileIO:
            continue
        outliving = _Outliving(raw.fileno(), "wb", closefd=False)
        setattr(
            sys,
            name,
            io.TextIOWrapper(
                outliving if binary is raw else io.BufferedWriter(outliving),
                encoding=stream.encoding,
                errors=stream.errors,
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            ),
        )


def _open_what_is_closed() -> None:
    """Opens standard streams that were closed: else a file of rows would take the number of one, and be written to."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(fd, "w" if fd else "r", encoding="utf-8", closefd=False))
