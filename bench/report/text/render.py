"""A table as text: for the terminal and for Markdown, the same cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderResult
from rich.table import Table
from rich.text import Text

# Their columns are aligned to the left.
_WORDS = {"cache", "how", "attention", "for", "model", "basis", "saying", "card", "least", "most", "so the saying"}

# What names a line, where a table is too wide for one piece.
_IDENTIFYING = {"for", "model", "card", "bpw", "cache", "how", "attention"}


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
    legend = [Text(text, style="bright_black") for text in (table.legend, *table.notes) if text]
    return Group(Text(table.title, style="bold"), _InWidth(table), *legend)


@dataclass(frozen=True)
class _InWidth:
    """A table no wider than there is room: the rest goes on below, beside the same first columns. No number is cut."""

    table: Shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        header, body = self.table.header(), self.table.body()
        first = next((i for i, name in enumerate(header) if not self._tells_lines_apart(name)), len(header))
        first = first if first < len(header) else 0
        for number, columns in enumerate(self._pieces(header, body, first, options.max_width)):
            if number:
                yield ""
            yield self._piece(header, body, columns)

    def _tells_lines_apart(self, name: str) -> bool:
        return name in _IDENTIFYING or name in self.table.varying

    def _pieces(self, header: list[str], body: list[list[str]], first: int, room: int) -> Iterator[list[int]]:
        """The columns of each table, the `first` ones in all of them."""
        cells = [max((cell_len(row[i]) for row in body), default=0) for i in range(len(header))]
        # Where there is too little room, a key's long name is what may break.
        widths = [
            max(width, 1 if name in self.table.varying else cell_len(name)) + 2
            for width, name in zip(cells, header, strict=True)
        ]
        same = list(range(first))
        piece: list[int] = []
        for column in range(first, len(header)):
            if piece and sum(widths[i] for i in (*same, *piece, column)) - 2 > room:
                yield [*same, *piece]
                piece = []
            piece.append(column)
        yield [*same, *piece]

    def _piece(self, header: list[str], body: list[list[str]], columns: list[int]) -> Table:
        rich = Table(box=None, padding=(0, 1), pad_edge=False)
        for name in (header[i] for i in columns):
            justify: JustifyMethod = "left" if name in _WORDS else "right"
            rich.add_column(name, justify=justify, no_wrap=name not in self.table.varying, overflow="fold")
        for row in body:
            cells = (row[i] for i in columns)
            rich.add_row(*(Text(cell, style="yellow" if cell.startswith(("OOM", "none")) else "") for cell in cells))
        return rich
