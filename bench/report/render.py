"""A table as text: for the terminal and for Markdown, the same cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rich.console import Group
from rich.table import Table
from rich.text import Text

# Their columns are aligned to the left.
_WORDS = {"cache", "how", "attention", "for", "model", "basis", "saying", "card", "least", "most", "so the saying"}


def left_aligned(column: str) -> bool:
    """Words are aligned to the left, numbers to the right."""
    return column in _WORDS


class Shown(Protocol):
    """What a table must tell to be shown; the columns that `varying` names may be broken."""

    @property
    def title(self) -> str: ...
    @property
    def legend(self) -> str: ...
    @property
    def notes(self) -> list[str]: ...
    @property
    def varying(self) -> Sequence[str]: ...
    def header(self) -> list[str]: ...
    def body(self) -> list[list[str]]: ...


def as_markdown(table: Shown) -> str:
    """A heading, the table, and its notes."""
    header = table.header()
    rule = ["---" if name in _WORDS else "---:" for name in header]
    lines = [f"### {table.title}", "", table.legend, ""]
    lines += ["| " + " | ".join(row) + " |" for row in (header, rule, *table.body())]
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes)]).rstrip() + "\n"


def as_rich(table: Shown) -> Group:
    """For the terminal, at home in 80 columns."""
    rich = Table(box=None, padding=(0, 1), pad_edge=False)
    for name in table.header():
        # Where there is too little room, a key's long name is what may break; never a number.
        rich.add_column(
            name, justify="left" if name in _WORDS else "right", no_wrap=name not in table.varying, overflow="fold"
        )
    for row in table.body():
        rich.add_row(*(Text(cell, style="yellow" if cell.startswith(("OOM", "none")) else "") for cell in row))
    legend = [Text(text, style="bright_black") for text in (table.legend, *table.notes) if text]
    return Group(Text(table.title, style="bold"), rich, *legend)
