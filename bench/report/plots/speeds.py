"""Tokens a second over how many sequences or jobs decode together: a row of panels for each model of a card."""

from __future__ import annotations

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bench.report.plots.ends import GUIDE
from bench.report.plots.grid import draw_grid
from bench.report.plots.jobs import whole_number
from bench.report.plots.panels import Card
from bench.report.plots.style import SHAPES, explain, key, shades
from bench.report.tables.speeds import SpeedTable, length_of, speed_of

_MOST_LINES = len(SHAPES)


def draw_speeds(card: Card[SpeedTable]) -> Figure | None:
    """Tokens/s of all together over the batch size in powers of two; a line for each setting and length."""
    lengths = sorted({length_of(cells) for table in card.tables for cells in table.cells})
    if not lengths:
        return None
    words = [table.words(index) for table in card.tables for index in range(len(table.lines))]
    ways = list(dict.fromkeys(words))[:_MOST_LINES]
    looks = dict(zip(ways, zip(shades(len(ways)), SHAPES, strict=False), strict=True))

    def draw(axes: Axes, table: SpeedTable, cache: str) -> str | None:
        drawn = False
        for index, (line, cells) in enumerate(zip(table.lines, table.cells, strict=True)):
            way = table.words(index)
            points = [(row["batch_size"] or 1, speed) for row in cells if row and (speed := speed_of(row)) is not None]
            if line["cache"] != cache or way not in looks or not points:
                continue
            colour, shape = looks[way]
            axes.plot(*zip(*points, strict=True), f"{shape}:", color=colour, lw=0.9, ms=5)
            drawn = True
        return None if drawn else "no speed"

    simulated = card.simulated
    label = "est. tokens/s of all" if simulated else "tokens/s of all"
    figure, axes = draw_grid(card, draw, "sequences or jobs at a time", label)
    sizes = sorted({size for table in card.tables for size in table.batch_sizes})
    first = axes[0][0]
    first.set_xscale("log", base=2)
    first.xaxis.set_major_locator(FixedLocator(sizes))
    first.xaxis.set_major_formatter(FuncFormatter(whole_number))
    first.xaxis.set_minor_locator(NullLocator())
    first.set_ylim(bottom=0)
    handles: list[Artist] = [key(way, marker=shape, ls=":", color=colour) for way, (colour, shape) in looks.items()]
    basis = "Estimated from memory bandwidth, never measured." if simulated else "Measured, at the end of the context."
    dropped = len(set(words)) - len(ways)
    more = [f"{dropped} more lines are not drawn; all are in tables.md."] if dropped else []
    explain(figure, handles, [f"{basis} {GUIDE}", *more, *card.left_out])
    return figure
