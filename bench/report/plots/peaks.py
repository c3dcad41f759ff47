"""Peak VRAM case by case over max_seq_len."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain, pairwise

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from bench.report.naming.axes import bits_of
from bench.report.naming.ways import Way, Ways
from bench.report.plots.grid import draw_grid, panel_in
from bench.report.plots.panels import Card
from bench.report.plots.style import WIDTH_IN, crosses, explain, key, left_out, shades, way_shapes
from bench.report.tables.verdicts import VerdictTable, close_together
from bench.report.text.units import GIB, in_k, size

_MOST_TICKS = 6
_MOST_MARKED = 12  # lengths; with more of them marks would hide the lines
_MOST_HEIGHTS = 5
_STRIP = 0.2  # of a panel's height, for crosses
_MARK_PT = 6.0  # of a mark and the air around it


@dataclass(frozen=True)
class _Looks:
    """What tells the curves of all panels apart, and the room for marks that would hide each other: the octaves of
    max_seq_len that a mark takes, and the part of a panel's height.
    """

    colours: dict[float, str]
    ways: Ways
    shapes: dict[Way, str]
    mark_octaves: float
    most_octaves: float
    mark_height: float

    def aside(self, at: int, count: int) -> float:
        """By which factor the mark `at` of `count` that stand side by side is away from its length."""
        step = min(self.mark_octaves, self.most_octaves / max(1, count - 1))
        return float(2 ** ((at - (count - 1) / 2) * step))

    def outline(self, way: Way) -> str | None:
        return self.shapes[way] if self.ways.are_named else None


@dataclass(frozen=True)
class _Curve:
    """One line of a table: what fits, in tokens and GiB, and the lengths that ran out."""

    colour: str
    way: Way
    fits: list[tuple[int, float]]
    ooms: list[int]

    @property
    def joined(self) -> bool:
        return close_together([n for n, _ in self.fits])


def draw_peaks(card: Card[VerdictTable]) -> Figure:
    """Marks for each bpw and way to run it, joined where lengths are close together, and crosses in a strip without a
    scale where memory ran out. Marks that would hide each other stand side by side.
    """
    widths = sorted({line["bpw"] for table in card.tables for line in table.lines})
    lengths = sorted({n for table in card.tables for n in table.lengths})
    caches = {row["cache"] for table in card.tables for row in table.rows}
    ways = Ways(line for table in card.tables for line in table.lines)
    octaves = 1.16 * math.log2(lengths[-1] / lengths[0]) if len(lengths) > 1 else 2.0
    nearest = min((math.log2(longer / shorter) for shorter, longer in pairwise(lengths)), default=octaves)
    looks = _Looks(
        colours=dict(zip(widths, shades(len(widths)), strict=True)),
        ways=ways,
        shapes=way_shapes(ways.all),
        mark_octaves=min(_MARK_PT / (0.8 * 72 * WIDTH_IN / len(caches)) * octaves, 0.7 * nearest),
        most_octaves=0.7 * nearest,
        mark_height=_MARK_PT / (72 * panel_in(len(card.tables))),
    )
    aside = False
    limit = None if card.tables[0].limit_bytes is None else card.tables[0].limit_bytes / GIB

    def draw(axes: Axes, table: VerdictTable, cache: str) -> str | None:
        nonlocal aside
        curves = _curves(table, cache, looks)
        places = _places(curves, limit, looks)
        aside = aside or any(x != n for curve, of in places for (n, _), x in zip(curve.fits, of, strict=True))
        return _panel(axes, places, limit, len(table.lengths) <= _MOST_MARKED, looks)

    figure, axes = draw_grid(card, draw, "max_seq_len, tokens", "peak VRAM, GiB")
    shared = axes[0][0]
    shared.set_ylim(bottom=0)
    curves = [curve for table in card.tables for cache in sorted(caches) for curve in _curves(table, cache, looks)]
    if any(curve.ooms for curve in curves):
        _strip(axes, _top(curves, limit))
    shared.set_xscale("log", base=2)
    shared.xaxis.set_major_locator(FixedLocator(_ticks(lengths)))
    shared.xaxis.set_major_formatter(FuncFormatter(in_k))
    shared.xaxis.set_minor_locator(NullLocator())
    shared.margins(x=0.08)
    if len(lengths) == 1:
        shared.set_xlim(lengths[0] / 2, lengths[0] * 2)
    _explain(figure, card, looks, aside)
    return figure


def _curves(table: VerdictTable, cache: str, looks: _Looks) -> list[_Curve]:
    """Those of one cache. Of many lengths the first that ran out is enough."""
    few = len(table.lengths) <= _MOST_MARKED
    curves = []
    for line, cells in zip(table.lines, table.cells, strict=True):
        way = looks.ways.of(line)
        if line["cache"] != cache or way not in looks.shapes:
            continue
        known = [(n, cell) for n, cell in zip(table.lengths, cells, strict=True) if cell]
        fits = [
            (n, cell["peak_device_bytes"] / GIB)
            for n, cell in known
            if cell["outcome"] == "fits" and cell["peak_device_bytes"] is not None
        ]
        ooms = [n for n, cell in known if cell["outcome"] == "oom"]
        curves.append(_Curve(looks.colours[line["bpw"]], way, fits, ooms if few else ooms[:1]))
    return curves


def _places(curves: list[_Curve], limit: float | None, looks: _Looks) -> list[tuple[_Curve, list[float]]]:
    """For each curve where its marks stand along the axis: at their length; those that would hide each other side by
    side around it. What is a line stays where it is.
    """
    top = _top(curves, limit)
    if any(curve.ooms for curve in curves):
        top /= 1 - _STRIP
    of_length: dict[int, list[tuple[float, int]]] = {}
    for i, curve in enumerate(curves):
        for n, height in curve.fits if not curve.joined else []:
            of_length.setdefault(n, []).append((height, i))
    places: dict[tuple[int, int], float] = {}
    for n, marks in of_length.items():
        for group in _near(sorted(marks), looks.mark_height * top):
            for at, i in enumerate(sorted(i for _, i in group)):
                places[i, n] = n * looks.aside(at, len(group))
    return [(curve, [places.get((i, n), n) for n, _ in curve.fits]) for i, curve in enumerate(curves)]


def _top(curves: list[_Curve], limit: float | None) -> float:
    """Where the scale ends."""
    return 1.1 * (max([limit or 0, *(height for curve in curves for _, height in curve.fits)]) or 1.0)


def _near(marks: list[tuple[float, int]], apart: float) -> list[list[tuple[float, int]]]:
    """Marks, from the bottom up, in groups of which each is less than `apart` above the one before."""
    groups: list[list[tuple[float, int]]] = []
    for mark in marks:
        if groups and mark[0] - groups[-1][-1][0] < apart:
            groups[-1].append(mark)
        else:
            groups.append([mark])
    return groups


def _panel(
    axes: Axes, places: list[tuple[_Curve, list[float]]], limit: float | None, few: bool, looks: _Looks
) -> str | None:
    """Draws one cache type; in words, why there is nothing to draw."""
    drawn = 0
    for curve, at in places:
        if not curve.fits:
            continue
        alone = len(curve.fits) == 1
        style = ("--" if curve.way.lazy else "-") if curve.joined or alone else ""
        # A point alone is no line.
        shape = looks.shapes[curve.way] if few or not curve.joined or alone else ""
        face = "white" if curve.way.lazy else curve.colour
        heights = [height for _, height in curve.fits]
        axes.plot(at, heights, ls=style, color=curve.colour, marker=shape, ms=4, lw=1.2, mfc=face)
        drawn += len(curve.fits)
    if limit is not None:
        axes.axhline(limit, color="black", lw=1)
    failed = [curve for curve, _ in places if curve.ooms]
    for i, curve in enumerate(failed):
        # A row of crosses for each line, so that none hides another; outlined ones are larger.
        height = 1 - _STRIP * (1 - (i + 1) / (len(failed) + 1))
        width = 0.8 if curve.way.lazy else 1.5
        aside = looks.aside(i, len(failed)) if looks.ways.are_named else 1.0
        xs, heights = [n * aside for n in curve.ooms], [height] * len(curve.ooms)
        place = {"transform": axes.get_xaxis_transform(), "clip_on": False}
        crosses(axes, xs, heights, looks.outline(curve.way), color=curve.colour, ms=4, mew=width, **place)
    return None if drawn or failed else "no peak is known"


def _strip(panels: list[list[Axes]], top: float) -> None:
    """Room above the scale, which ends at `top`, for what ran out of memory: how much it lacked no height tells."""
    first = panels[0][0]
    first.set_ylim(0, top / (1 - _STRIP))
    heights = [tick for tick in MaxNLocator(_MOST_HEIGHTS).tick_values(0, top) if 0 <= tick <= top]
    middle = top / (1 - _STRIP) * (1 - _STRIP / 2)
    first.set_yticks([*heights, middle], [*(f"{tick:g}" for tick in heights), "out of\nmemory"])
    for panel in chain.from_iterable(panels):
        panel.add_patch(Rectangle((0, 1 - _STRIP), 1, _STRIP, transform=panel.transAxes, fc="#EEEEEE", lw=0, zorder=0))


def _ticks(lengths: list[int]) -> list[int]:
    """Of the lengths that were tried, the longest and those below it that are far enough apart to be read."""
    apart = 1.4
    while True:
        ticks = lengths[-1:]
        for length in reversed(lengths):
            if length * apart <= ticks[-1]:
                ticks.append(length)
        if len(ticks) <= _MOST_TICKS:
            return ticks[::-1]
        apart *= 1.2


def _explain(figure: Figure, card: Card[VerdictTable], looks: _Looks, aside: bool) -> None:
    """Only of what is there."""
    rows = list(chain.from_iterable(table.rows for table in card.tables))
    bits = bits_of(looks.colours)
    handles: list[Artist] = [
        Line2D([], [], color=colour, lw=3, label=f"{bits[bpw]} bpw") for bpw, colour in looks.colours.items()
    ]
    for way, shape in looks.shapes.items():
        handles.append(key(way.label, marker=shape, **({"mfc": "white"} if way.lazy else {})))
    if any(row["outcome"] == "oom" for row in rows):
        handles.append(key("out of memory", marker="x"))
    limit = card.tables[0].limit_bytes
    if limit is not None:
        handles.append(key(f"{card.tables[0].limit_name}, {size(limit)}", color="black", ls="-", lw=1))
    words = ["Marks of one length that would hide each other stand side by side."] if aside else []
    explain(figure, handles, [*words, *left_out(looks.ways.all), *card.left_out])
