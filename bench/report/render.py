"""A table as text: for the terminal and for Markdown, the same cells."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from bench.report.card_table import CardTable

_WORDS = {"cache", "how", "attention"}  # their columns are aligned to the left


def as_markdown(table: CardTable) -> str:
    """A heading, the table, and its notes."""
    header = table.header()
    rule = ["---" if name in _WORDS else "---:" for name in header]
    lines = [f"### {table.title}", "", table.legend, ""]
    lines += ["| " + " | ".join(row) + " |" for row in (header, rule, *table.body())]
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes)]).rstrip() + "\n"


def as_rich(table: CardTable) -> Group:
    """For the terminal, at home in 80 columns."""
    rich = Table(box=None, padding=(0, 1), pad_edge=False)
    for name in table.header():
        # Where there is too little room, a key's long name is what may break; never a number.
        rich.add_column(
            name, justify="left" if name in _WORDS else "right", no_wrap=name not in table.varying, overflow="fold"
        )
    for row in table.body():
        rich.add_row(*(Text(cell, style="yellow" if cell.startswith(("OOM", "none")) else "") for cell in row))
    legend = [Text(text, style="bright_black") for text in (table.legend, *table.notes)]
    return Group(Text(table.title, style="bold"), rich, *legend)
