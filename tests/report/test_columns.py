"""Tables in a terminal: lines of plain cells are made here, and are those that rich makes."""

from __future__ import annotations

import io
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from bench.report.text.columns import Column, Columns

_TEXTS = st.text(st.sampled_from("a1, .~≥模é[]\\"), max_size=9)
_CELLS = st.builds(Text, _TEXTS, style=st.sampled_from(["", "yellow"]))


@st.composite
def tables(draw: st.DrawFn) -> Columns:
    """A few columns of texts, some of them wider than the terminal."""
    count = draw(st.integers(0, 4))
    column = st.builds(
        Column,
        name=st.text(st.sampled_from("ab _\n"), max_size=8),
        cells=st.lists(_CELLS, min_size=count, max_size=count),
        justify=st.sampled_from(["left", "right"]),
        tells=st.booleans(),
    )
    return Columns(columns=draw(st.lists(column, min_size=1, max_size=5)), gap=draw(st.integers(1, 2)))


def printed(table: Columns, is_terminal: bool) -> str:
    """What 24 columns of a terminal get, escapes among them, or a file."""
    out = io.StringIO()
    colours = "standard" if is_terminal else None
    Console(file=out, width=24, force_terminal=is_terminal, color_system=colours, highlight=False).print(table)
    return out.getvalue()


@given(tables(), st.booleans())
def test_lines_of_plain_cells_are_those_of_rich(table: Columns, is_terminal: bool) -> None:
    """Each cell, and each escape, where rich's table has it."""
    ours = printed(table, is_terminal)
    with mock.patch.object(Column, "texts", None):
        assert ours == printed(table, is_terminal)
