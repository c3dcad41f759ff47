"""A table as text: for the terminal and for Markdown, the same cells."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Protocol

from rich.console import Group
from rich.text import Text

from bench.report.text.columns import Column, Columns
from bench.report.text.markdown import list_item, markdown_table, paragraph, plain_text

# Their columns are aligned to the left.
_WORDS = {"cache", "how", "attention", "split", "for", "model", "basis", "card", "least", "most"}.union(
    ("saying", "so the saying")
)

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
        """What else a reader should know of this table, a paragraph each."""

    @property
    def assumptions(self) -> list[str]:
        """What was taken for granted, which other tables may have in common with it."""

    @property
    def varying(self) -> Sequence[str]:
        """The names of the columns that tell lines apart."""

    def header(self) -> list[str]:
        """The names of the columns."""

    def body(self) -> list[list[str]]:
        """The cells of each line, as long as the header."""


def as_markdown(table: Shown) -> str:
    """A heading, the table, and its notes."""
    lines = [f"### {plain_text(table.title)}", "", paragraph(table.legend), ""]
    body = [[plain_text(cell) for cell in line] for line in table.body()]
    lines += markdown_table([plain_text(name) for name in table.header()], body, _WORDS)
    notes = (list_item(plain_text(note)) for note in (*table.notes, *table.assumptions))
    return "\n".join([*lines, "", *notes]).rstrip() + "\n"


class Told:
    """What a reader of a terminal was told already, as tables that follow each other explain the same."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def new(self, words: Iterable[str]) -> list[str]:
        """Those of `words` that are new, which they are no more."""
        new = [word for word in dict.fromkeys(words) if word not in self._told]
        self._told.update(new)
        return new


_SENTENCE = re.compile(r"(?<=\.) (?=\S)")


def as_rich(table: Shown, told: Told | None = None) -> Group:
    """For the terminal, at home in 80 columns; without the sentences that were `told` with another table."""
    told = told or Told()
    legend = " ".join(told.new(_SENTENCE.split(table.legend)))
    texts = [text for text in (legend, *table.notes, *told.new(table.assumptions)) if text]
    lines = [Text(text, style="bright_black") for text in texts]
    return Group(Text(table.title, style="bold"), _columns(table), *lines)


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
