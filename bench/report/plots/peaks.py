"""Peak VRAM case by case over max_seq_len."""

from __future__ import annotations

import math
from itertools import chain, pairwise

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bench.report.naming.axes import bits_of
from bench.report.plots.grid import draw_grid
from bench.report.plots.panels import Card
from bench.report.plots.style import SMALL, explain, key, shades
from bench.report.tables.card import Row
from bench.report.tables.verdicts import VerdictTable, close_together
from bench.report.text.units import GIB, in_k, size

_MOST_TICKS = 6
_MOST_MARKED = 12  # lengths; with more of them marks would hide the lines
_ABOVE = 0.35  # of the limit: the room for crosses


def draw_peaks(card: Card[VerdictTable]) -> Figure:
    """Marks for each bpw and way of loading, joined where lengths are close together, and crosses above the card's
    limit where memory ran out.
    """
    widths = sorted({line["bpw"] for table in card.tables for line in table.lines})
    colours = dict(zip(widths, shades(len(widths)), strict=True))
    lengths = sorted({n for table in card.tables for n in table.lengths})

    def draw(axes: Axes, table: VerdictTable, cache: str) -> str | None:
        return _panel(axes, table, cache, colours)

    figure, axes = draw_grid(card, draw, "max_seq_len, tokens", "peak VRAM, GiB")
    shared = axes[0][0]
    shared.set_ylim(bottom=0)
    shared.set_xscale("log", base=2)
    shared.xaxis.set_major_locator(FixedLocator(_ticks(lengths)))
    shared.xaxis.set_major_formatter(FuncFormatter(in_k))
    shared.xaxis.set_minor_locator(NullLocator())
    shared.margins(x=0.08)
    _explain(figure, card, colours)
    return figure


def _panel(axes: Axes, table: VerdictTable, cache: str, colours: dict[float, str]) -> str | None:
    """Draws one cache type; in words, why there is nothing to draw. Of many lengths the first cross is enough."""
    limit = None if table.limit_bytes is None else table.limit_bytes / GIB
    few = len(table.lengths) <= _MOST_MARKED
    own = [(line, cells) for line, cells in zip(table.lines, table.cells, strict=True) if line["cache"] == cache]
    drawn, failed = 0, []
    for line, cells in own:
        colour = colours[line["bpw"]]
        known = [(n, cell) for n, cell in zip(table.lengths, cells, strict=True) if cell]
        fits = [
            (n, cell["peak_device_bytes"] / GIB)
            for n, cell in known
            if cell["outcome"] == "fits" and cell["peak_device_bytes"] is not None
        ]
        if fits:
            face = "white" if line["lazy"] else colour
            joined = len(fits) == 1 or close_together([n for n, _ in fits])
            style = ("--" if line["lazy"] else "-") if joined else ""
            # A point alone is no line.
            shape = "o" if few or not joined or len(fits) == 1 else ""
            axes.plot(*zip(*fits, strict=True), ls=style, color=colour, marker=shape, ms=3.5, lw=1.2, mfc=face)
            _name(axes, table, line, fits[-1], colour)
        ooms = [n for n, cell in known if cell["outcome"] == "oom"]
        ooms = ooms if few else ooms[:1]
        if ooms:
            failed.append((ooms, colour, line["lazy"]))
        drawn += len(fits)
    if limit is not None:
        axes.axhline(limit, color="black", lw=1)
        for i, (ooms, colour, lazy) in enumerate(failed):
            # One row of crosses a line, above the card's edge, so that none hides another.
            height = limit * (1.04 + min(0.035, _ABOVE / len(failed)) * i)
            axes.plot(ooms, [height] * len(ooms), "x", color=colour, ms=4, mew=0.8 if lazy else 1.5)
            drawn += len(ooms)
    if drawn:
        return None
    return "out of memory;\nthe card's size is unknown" if failed else "no peak is known"


def _name(axes: Axes, table: VerdictTable, line: Row, end: tuple[int, float], colour: str) -> None:
    """Names a line by the other keys that tell it apart."""
    text = ", ".join(table.axes.others(line))
    if text:
        axes.annotate(text, end, (2, 3), textcoords="offset points", ha="right", fontsize=SMALL, color=colour)


def _ticks(lengths: list[int]) -> list[int]:
    """The lengths themselves where they are few and far between; else powers of two."""
    if len(lengths) <= _MOST_TICKS and all(longer >= 1.4 * shorter for shorter, longer in pairwise(lengths)):
        return lengths
    low, high = math.ceil(math.log2(max(1, lengths[0]))), math.floor(math.log2(max(1, lengths[-1])))
    step = max(1, -(-(high - low + 1) // _MOST_TICKS))  # there may be no power of two between them
    return [2**k for k in range(low, high + 1, step)] or lengths[:1]


def _explain(figure: Figure, card: Card[VerdictTable], colours: dict[float, str]) -> None:
    """Only of what is there."""
    rows = list(chain.from_iterable(table.rows for table in card.tables))
    bits = bits_of(colours)
    handles: list[Artist] = [
        Line2D([], [], color=colour, lw=3, label=f"{bits[bpw]} bpw") for bpw, colour in colours.items()
    ]
    ways = {row["lazy"] for row in rows}
    if False in ways:
        handles.append(key("load", marker="o"))
    if True in ways:
        handles.append(key("lazy + load_autosplit", marker="o", mfc="white"))
    if any(row["outcome"] == "oom" for row in rows):
        handles.append(key("out of memory", marker="x"))
    limit = card.tables[0].limit_bytes
    if limit is not None:
        handles.append(key(f"the card's limit, {size(limit)}", color="black", ls="-", lw=1))
    explain(figure, handles, card.left_out)
