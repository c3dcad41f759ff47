"""What a report says in a terminal: its first tables, and what is best; each explanation once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from bench.report.text.render import Shown, Told, as_rich

# Of each kind; whoever has more finds all of them in the files.
MOST_TABLES = 20

_Table = TypeVar("_Table", bound=Shown)


class Echo:
    """Prints to `console`; nothing where there is none."""

    def __init__(self, console: Console | None) -> None:
        self._console = console
        self._told = Told()

    def tables(self, tables: Iterable[_Table], path: Path) -> Iterator[_Table]:
        """The same tables. The first are printed on their way; where the others are is told."""
        count = 0
        for count, table in enumerate(tables, 1):
            yield table
            if self._console is not None and count <= MOST_TABLES:
                self._console.print(as_rich(table, self._told))
                self._console.print()
        if count > MOST_TABLES:
            self.lines([f"{count - MOST_TABLES:,} more of {count:,} tables are in {path}\n"])

    def best(self, lines: Sequence[str], rule: str) -> None:
        """The first of `lines`, and what they mean."""
        if self._console is None or not lines:
            return
        for line in lines[:MOST_TABLES]:
            self._console.print(line, style="bold", markup=False, highlight=False, soft_wrap=True)
        self._console.print(rule, style="bright_black", markup=False, highlight=False)

    def lines(self, lines: Iterable[str]) -> None:
        """Lines as long as they are."""
        if self._console is None:
            return
        for line in lines:
            self._console.print(line, highlight=False, soft_wrap=True, markup=False)
