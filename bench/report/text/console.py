"""Where text for people goes."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console


class PipedConsole(Console):
    """A console whose reader may leave: that is a BrokenPipeError for the program to handle, not the end of it."""

    def on_broken_pipe(self) -> None:
        """Raises `BrokenPipeError`."""
        raise BrokenPipeError


def console_for(stream: TextIO | None = None) -> Console:
    """A console for `stream`, or for standard output."""
    return PipedConsole(file=stream)
