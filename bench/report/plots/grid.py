"""A row of panels for each model of a card, a column for each cache type."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any, TypeVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.core.caches import finest_first
from bench.report.plots.panels import Card, Most
from bench.report.plots.style import USUAL, name, panels, say
from bench.report.tables.card import CardTable

MOST_ROWS = Most(panels=4, panels_in_all=14)
_MOST_TICKS = 5
_NAME_COLUMNS = 24  # as high as a row

Table = TypeVar("Table", bound=CardTable[Any])


def panel_in(rows: int) -> float:
    """The height of a panel without its labels, in inches."""
    return 2.1 if rows == 1 else 1.5


def draw_grid(
    card: Card[Table], draw: Callable[[Axes, Table, str], str | None], x_label: str, y_label: str
) -> tuple[Figure, list[list[Axes]]]:
    """The figure and its panels. `draw` fills one of a table and a cache, or returns why there is nothing to draw."""
    caches = finest_first(row["cache"] for table in card.tables for row in table.rows)
    figure, axes = panels(len(card.tables), len(caches), panel_in(len(card.tables)) + 0.35, share=True)
    for table, row in zip(card.tables, axes, strict=True):
        ran = {case["cache"] for case in table.rows}
        for panel, cache in zip(row, caches, strict=True):
            words = draw(panel, table, cache) if cache in ran else "not run"
            panel.yaxis.set_major_locator(MaxNLocator(_MOST_TICKS))
            if words:
                say(panel, words)
        named = textwrap.wrap(card.name(table), _NAME_COLUMNS)
        row[0].set_ylabel("\n".join([*named, y_label]), fontsize=USUAL)
    for panel, cache in zip(axes[0], caches, strict=True):
        panel.set_title(f"{cache} cache", fontsize=USUAL + 1)
    for panel in axes[-1]:
        panel.set_xlabel(x_label, fontsize=USUAL)
    name(figure, card.title, card.simulated)
    return figure, axes
