"""A row of panels for each model of a card, a column for each cache type."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report.card_table import CACHES, CardTable
from bench.report.plots.panels import Card
from bench.report.plots.style import USUAL, name, panels, say

MOST_ROWS = 4  # models in a picture

Table = TypeVar("Table", bound=CardTable)


def draw_grid(
    card: Card[Table], draw: Callable[[Axes, Table, str], str | None], x_label: str, y_label: str
) -> tuple[Figure, list[list[Axes]]]:
    """The figure and its panels. `draw` fills one of a table and a cache, or returns why there is nothing to draw."""
    caches = [cache for cache in CACHES if any(cache == row["cache"] for table in card.tables for row in table.rows)]
    alone = len(card.tables) == 1
    figure, axes = panels(len(card.tables), len(caches), row_in=2.7 if alone else 1.8, share=True)
    for table, row in zip(card.tables, axes, strict=True):
        ran = {case["cache"] for case in table.rows}
        for panel, cache in zip(row, caches, strict=True):
            words = draw(panel, table, cache) if cache in ran else "not run"
            if words:
                say(panel, words)
        row[0].set_ylabel(y_label if alone else f"{card.name(table)}\n{y_label}", fontsize=USUAL)
    for panel, cache in zip(axes[0], caches, strict=True):
        panel.set_title(f"{cache} cache", fontsize=USUAL + 1)
    for panel in axes[-1]:
        panel.set_xlabel(x_label, fontsize=USUAL)
    name(figure, card.title, card.simulated)
    return figure, axes
