"""Columns of a table in a terminal: a name breaks at its words where room is short, and what is too wide goes on below.

No number is cut, and no name is broken within a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

# A name may break behind a blank or an underscore: `max_`, `attention_`, `size`.
_PARTS = re.compile(r"[^\s_]*_+|[^\s_]+")


@dataclass(frozen=True, kw_only=True)
class Column:
    """A name, broken where it has a newline, and its cells. A column that `tells` lines apart stands again in each
    piece of the table; one that `stretches` takes the room that others leave, and is left out where there is none.
    """

    name: str
    cells: Sequence[RenderableType]
    justify: JustifyMethod = "right"
    tells: bool = False
    stretches: bool = False

    @property
    def texts(self) -> list[Text] | None:
        """The cells, where each is a text of one line and of one style; None where one is not."""
        texts = [cell for cell in self.cells if isinstance(cell, Text) and not cell.spans and cell.plain.isprintable()]
        are_all = len(texts) == len(self.cells) and not self.stretches and self.justify in ("left", "right")
        return texts if are_all else None


@dataclass(frozen=True, kw_only=True)
class Columns:
    """A table of `columns`, `gap` cells apart."""

    columns: Sequence[Column]
    gap: int = 2

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        count = max((len(column.cells) for column in self.columns), default=0)
        numbers = Column(name="#", cells=[Text(str(number)) for number in range(1, count + 1)], tells=True)
        least = {id(column): self._least(console, options, column) for column in (numbers, *self.columns)}
        for number, piece in enumerate(self._pieces(least, options.max_width, numbers)):
            if number:
                yield ""
            yield from self._piece(console, piece, least, options.max_width)

    def _least(self, console: Console, options: ConsoleOptions, column: Column) -> int:
        """The narrowest in which every cell and every part of its name stands on one line."""
        parts = max(map(cell_len, _PARTS.findall(column.name)), default=0)
        if column.stretches:
            return max((Measurement.get(console, options, cell).minimum for cell in column.cells), default=parts)
        return max((*(_width(cell) for cell in column.cells), parts))

    def _pieces(self, least: dict[int, int], room: int, numbers: Column) -> Iterator[list[Column]]:
        """The columns of each piece, those that tell lines apart in all of them; where these leave no room, `numbers`
        stand for them.
        """

        def fits(columns: Sequence[Column]) -> bool:
            return self._total([least[id(column)] for column in columns]) <= room

        if fits(self.columns):
            yield list(self.columns)
            return
        columns = [column for column in self.columns if not column.stretches]
        same = [column for column in columns if column.tells]
        rest = [column for column in columns if not column.tells]
        if not all(fits([*same, column]) for column in rest):
            same, rest = [numbers], columns
        piece: list[Column] = []
        for column in rest:
            if piece and not fits([*same, *piece, column]):
                yield [*same, *piece]
                piece = []
            piece.append(column)
        yield [*same, *piece]

    def _piece(self, console: Console, columns: Sequence[Column], least: dict[int, int], room: int) -> RenderResult:
        widths = [least[id(column)] for column in columns]
        options = [max(map(cell_len, column.name.split("\n"))) for column in columns]
        _widen(widths, options, room - self._total(widths))
        table = Table(box=None, padding=(0, self.gap, 0, 0), pad_edge=False)
        # Where there is less room than for one column, rich folds what it must.
        tight = self._total(widths) > room
        for column, width in zip(columns, widths, strict=True):
            name = Text("\n".join(line for part in column.name.split("\n") for line in _lines(part, width)))
            if tight or column.stretches:
                table.add_column(name, justify=column.justify, overflow="fold")
            else:
                table.add_column(name, justify=column.justify, width=width, no_wrap=True)
        texts = [texts for column in columns if (texts := column.texts) is not None]
        if not tight and all(widths) and len(texts) == len(columns):
            yield table  # the names alone
            yield from self._lines(console, columns, texts, widths)
            return
        for cells in zip(*(column.cells for column in columns), strict=True):
            table.add_row(*cells)
        yield table

    def _lines(
        self, console: Console, columns: Sequence[Column], texts: Sequence[list[Text]], widths: Sequence[int]
    ) -> Iterator[Segment]:
        """The same lines as a `Table` of rich's, which looks at each cell for ten times as long."""
        gap, end = Segment(" " * self.gap, Style.null()), Segment.line()
        padded = [
            [Segment(_padded(text.plain, width, column.justify), console.get_style(text.style)) for text in own]
            for column, own, width in zip(columns, texts, widths, strict=True)
        ]
        for first, *others in zip(*padded, strict=True):
            yield first
            for other in others:
                yield gap
                yield other
            yield end

    def _total(self, widths: Sequence[int]) -> int:
        return sum(widths) + self.gap * max(0, len(widths) - 1)


def _lines(name: str, width: int) -> list[str]:
    """A name in as few lines of `width` cells as its parts allow; one that is longer has a line of its own."""
    ends = [0, *(part.end() for part in _PARTS.finditer(name))]
    parts = [name[start:end] for start, end in pairwise(ends)]
    filled: list[str] = []
    for part in parts:
        if filled and cell_len(filled[-1] + part) <= width:
            filled[-1] += part
        else:
            filled.append(part.lstrip())
    return filled or [name]


def _widen(widths: list[int], options: Sequence[int], spare: int) -> None:
    """Names on one line, as many as there is room for."""
    for i in sorted(range(len(widths)), key=lambda i: options[i] - widths[i]):
        more = options[i] - widths[i]
        if 0 < more <= spare:
            widths[i] += more
            spare -= more


def _padded(text: str, width: int, justify: JustifyMethod) -> str:
    if justify == "right":
        text = text.rstrip()
        return " " * (width - cell_len(text)) + text
    return text + " " * (width - cell_len(text))


def _width(cell: RenderableType) -> int:
    return cell_len(cell.plain if isinstance(cell, Text) else str(cell))
