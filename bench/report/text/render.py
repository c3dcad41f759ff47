"""A table as text: for the terminal and for Markdown, the same cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rich.console import Group
from rich.text import Text

from bench.report.text.columns import Column, Columns
from bench.report.text.markdown import markdown_table

# Their columns are aligned to the left.
_WORDS = {"cache", "how", "attention", "for", "model", "basis", "saying", "card", "least", "most", "so the saying"}

# What names a line, where a table is too wide for one piece.
_IDENTIFYING = {"for", "model", "card", "bpw", "cache", "how", "attention"}


def left_aligned(column: str) -> bool:
    """Words are aligned to the left, numbers to the right."""
    return column in _WORDS


class Shown(Protocol):
    """What a table must tell to be shown; the columns that `varying` names tell lines apart."""

    @property
    def title(self) -> str:
        """What stands above the table."""

    @property
    def legend(self) -> str:
        """How to read it."""

    @property
    def notes(self) -> list[str]:
        """What else a reader should know, a paragraph each."""

    @property
    def varying(self) -> Sequence[str]:
        """The names of the columns that tell lines apart."""

    def header(self) -> list[str]:
        """The names of the columns."""

    def body(self) -> list[list[str]]:
        """The cells of each line, as long as the header."""


def as_markdown(table: Shown) -> str:
    """A heading, the table, and its notes."""
    lines = [f"### {table.title}", "", table.legend, "", *markdown_table(table.header(), table.body(), _WORDS)]
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes)]).rstrip() + "\n"


def as_rich(table: Shown) -> Group:
    """For the terminal, at home in 80 columns."""
    legend = [Text(text, style="bright_black") for text in (table.legend, *table.notes) if text]
    return Group(Text(table.title, style="bold"), _columns(table), *legend)


def _columns(table: Shown) -> Columns:
    telling = _IDENTIFYING.union(table.varying)
    header, body = table.header(), table.body()
    # The first ones: an attention that stands among figures is one of them.
    first = next((i for i, name in enumerate(header) if name not in telling), 0)
    return Columns(
        columns=[
            Column(
                name=name,
                cells=[_cell(row[i]) for row in body],
                justify="left" if left_aligned(name) else "right",
                tells=i < first,
            )
            for i, name in enumerate(header)
        ]
    )


def _cell(text: str) -> Text:
    return Text(text, style="yellow" if text.startswith(("OOM", "none")) else "")
