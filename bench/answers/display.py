"""Who is told how far something is: a terminal, a log, or nobody."""

from __future__ import annotations

from typing import Protocol


class Display(Protocol):
    """Shows the steps of a command, one after the other."""

    def begin(self, text: str, total: int | None = None, known: int = 0) -> None:
        """Another step, `text`; of its `total`, if that is known, `known` were there before it."""

    def reach(self, done: int, text: str) -> None:
        """So many of the step's total are done; `text` says it in words."""

    def say(self, text: str) -> None:
        """A line for a log: shown where lines stay, and not in a terminal."""


class Silent:
    """Shows nothing."""

    def begin(self, text: str, total: int | None = None, known: int = 0) -> None:
        """Shows nothing."""

    def reach(self, done: int, text: str) -> None:
        """Shows nothing."""

    def say(self, text: str) -> None:
        """Shows nothing."""
