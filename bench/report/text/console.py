"""Where text for people goes."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console


def console_for(stream: TextIO | None = None) -> Console:
    """A console for `stream`, or for standard output."""
    return Console(file=stream)
