"""How far it goes: the largest max_seq_len that fits over bits per weight, a panel for each model of a card."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from bench.core.caches import finest_first
from bench.core.case import PAGE
from bench.core.columns import BoundaryRow
from bench.report.colours import cache_colour
from bench.report.naming.axes import bits_of
from bench.report.naming.ways import Way, Ways
from bench.report.plots.panels import Card, Most
from bench.report.plots.style import (
    GREY,
    LAZY_SHAPE,
    SMALL,
    USUAL,
    WIDTH_IN,
    crosses,
    explain,
    key,
    left_out,
    name,
    panels,
    say,
    way_shapes,
)
from bench.report.tables.boundaries import BoundaryTable
from bench.report.text.ends import own_limit
from bench.report.text.units import in_k, tokens

MOST_PANELS = Most(panels=12, panels_in_all=42)
_MARK_STEP = 6.5  # points between marks of one place


def draw_boundaries(card: Card[BoundaryTable]) -> Figure:
    """A mark for each answer, by cache type and way of loading, and a bar where the end is not known.

    Lines between marks only guide the eye: nothing between two widths was run, and their steps are not to scale.
    """
    count = len(card.tables)
    columns = 1 if count == 1 else 2 if count in (2, 4) else 3
    rows = -(-count // columns)
    figure, axes = panels(rows, columns, row_in=3.2 if columns == 1 else 2.4, share=False)
    places = [panel for row in axes for panel in row]
    widths = sorted({line["bpw"] for table in card.tables for line in table.lines})
    ways = Ways(line for table in card.tables for line in table.lines)
    for panel, table in zip(places, card.tables, strict=False):
        _panel(panel, table, widths, 0.75 * 72 * WIDTH_IN / columns, ways)
        if count > 1:
            panel.set_title(card.name(table), fontsize=USUAL, loc="left")
    for panel in places[count:]:
        panel.remove()
    figure.supylabel("largest max_seq_len that fits, tokens", fontsize=USUAL + 1)
    _explain(figure, card, ways)
    name(figure, card.title, card.simulated)
    return figure


def _panel(axes: Axes, table: BoundaryTable, widths: list[float], width_pt: float, ways: Ways) -> None:
    curves = _curves(table, widths, ways)
    _lengths(axes, table)
    if table.in_words:
        say(axes, textwrap.fill(table.in_words, 32))
    for curve in curves:
        fits = [(x, row["fits_at"]) for x, row in curve.points if row["fits_at"] is not None]
        axes.plot([x for x, _ in fits], [n for _, n in fits], curve.style, color=curve.colour, lw=0.9, zorder=2)
    if not _marks(axes, curves, width_pt / len(widths)):
        say(axes, "no length is known")
    # Evenly spaced, as widths such as 2.25, 2.5 and 16 would crowd at one end.
    few = len(widths) <= width_pt / 16
    axes.set_xticks(range(len(widths)), [bits_of(widths)[bpw] for bpw in widths], rotation=0 if few else 90)
    axes.set_xlim(-0.5, len(widths) - 0.5)
    axes.set_xlabel("bits per weight" if len(widths) < 2 else "bits per weight, not to scale", fontsize=USUAL)


@dataclass(frozen=True)
class _Curve:
    """One cache type run in one way, whose marks have a `shape`: a row at each place of a width. With `outlined`
    crosses have that shape around them.
    """

    cache: str
    way: Way
    shape: str
    outlined: bool
    points: list[tuple[int, BoundaryRow]]

    @property
    def colour(self) -> str:
        return cache_colour(self.cache)

    @property
    def style(self) -> str:
        return "--" if self.way.lazy else ":"


def _curves(table: BoundaryTable, widths: list[float], ways: Ways) -> list[_Curve]:
    shapes = way_shapes(ways)
    curves: dict[tuple[str, Way], list[tuple[int, BoundaryRow]]] = {}
    for j, cache in enumerate(table.caches):
        for line, cells in zip(table.lines, table.cells, strict=True):
            row, way = cells[j], ways.of(line)
            if row is not None and way in shapes:
                curves.setdefault((cache, way), []).append((widths.index(line["bpw"]), row))
    return [_Curve(cache, way, shapes[way], ways.are_named, points) for (cache, way), points in curves.items()]


def _height(row: BoundaryRow) -> int | None:
    """Where a row's mark stands; None where it has no answer."""
    if row["fits_at"] is None and row["outcome"] == "oom" and row["certified"]:
        return 0
    return row["fits_at"]


def _gap(row: BoundaryRow) -> tuple[int, int | None] | None:
    """What the end lies between, where that is more than a step apart: a length that fits, or 0, and one that fails,
    or else the model's own limit (None where that is unknown). None where the end is known, or nothing is.
    """
    fits_at, fails_at = row["fits_at"], row["fails_at"]
    if row["certified"] or (fits_at is None and fails_at is None):
        return None
    low, high = fits_at or 0, fails_at
    if high is None:
        limit = own_limit(row)
        high = limit if limit is not None and limit > low else None
    return None if high is not None and high - low <= PAGE else (low, high)


def _marks(axes: Axes, curves: list[_Curve], room_pt: float) -> int:
    """A mark for each answer, and the gap above it; returns how many rows had either. Those of one point stand side by
    side, within the `room_pt` points between two widths: at the model's own limit there are many. So do all gaps of one
    width, as they may overlap.
    """
    together: dict[tuple[int, int | None], list[tuple[_Curve, BoundaryRow]]] = {}
    for curve in curves:
        for x, row in curve.points:
            height, gap = _height(row), _gap(row)
            if height is not None or gap is not None:
                together.setdefault((x, height if gap is None else None), []).append((curve, row))
    # Marks that look the same are one artist: there may be many.
    alike: dict[tuple[str, str | None, str, bool], list[tuple[float, int]]] = {}
    for (x, _), marks in together.items():
        step = min(_MARK_STEP / room_pt, 0.8 / len(marks))
        for i, (curve, row) in enumerate(marks):
            aside = x + (i - (len(marks) - 1) / 2) * step
            height = _height(row)
            if height is not None:
                fails = row["fits_at"] is None
                look = ("x", curve.shape if curve.outlined else None) if fails else (curve.shape, None)
                alike.setdefault((*look, curve.colour, row["certified"]), []).append((aside, height))
            _draw_gap(axes, curve, row, aside)
    for (shape, outline, colour, certified), points in alike.items():
        xs, heights = zip(*points, strict=True)
        if shape == "x":
            crosses(axes, xs, heights, outline, color=colour, ms=5, clip_on=False, zorder=3)
            continue
        face = colour if certified else "white"
        size_pt = 4.0 if shape == LAZY_SHAPE else 5.0
        axes.plot(xs, heights, shape, color=colour, ms=size_pt, mfc=face, clip_on=False, zorder=3)
    return sum(map(len, together.values()))


def _draw_gap(axes: Axes, curve: _Curve, row: BoundaryRow, x: float) -> None:
    gap = _gap(row)
    if gap is None:
        return
    low, high = gap[0], axes.get_ylim()[1] if gap[1] is None else gap[1]
    axes.vlines(x, low, high, color=curve.colour, lw=4, alpha=0.35, zorder=2.5)
    if row["fails_at"] is not None:
        axes.plot(x, high, "_", color=curve.colour, ms=7, zorder=3)


def _lengths(axes: Axes, table: BoundaryTable) -> None:
    """The axis from nothing to the model's own limit, which is a line; only to the longest that fits where that is far
    less, as all would lie flat at the bottom.
    """
    limit = table.own_limit
    rows = [row for cells in table.cells for row in cells if row]
    longest = max((length for row in rows for length in (row["fits_at"], _seen_to_fail(row)) if length), default=0)
    far = limit is not None and 0 < longest < limit / 3
    top = (longest if far else max(limit or 0, longest)) or PAGE
    axes.set_ylim(0, (1.25 if far else 1.14) * top)
    axes.set_yticks(range(0, top + 1, 2 ** math.ceil(math.log2(top / 8))))
    axes.yaxis.set_major_formatter(FuncFormatter(in_k))
    if limit is None:
        return
    text = f"the model's own limit, {tokens(limit)}"
    if far:
        axes.annotate(f"{text},\nis far above", (0.01, 1), xycoords="axes fraction", va="top", fontsize=SMALL)
    else:
        axes.axhline(limit, color=GREY, lw=1, zorder=1)
        where = axes.get_yaxis_transform()
        axes.annotate(text, (0.01, limit), (0, 5), xycoords=where, textcoords="offset points", fontsize=SMALL)


def _seen_to_fail(row: BoundaryRow) -> int | None:
    """The upper end of a gap that ends where something failed."""
    gap = _gap(row)
    return None if gap is None or row["fails_at"] is None else gap[1]


def _explain(figure: Figure, card: Card[BoundaryTable], ways: Ways) -> None:
    """Only of what is there."""
    rows = [row for table in card.tables for cells in table.cells for row in cells if row]
    handles: list[Artist] = [
        Line2D([], [], color=cache_colour(cache), lw=3, label=f"{cache} cache")
        for cache in finest_first(row["cache"] for row in rows)
    ]
    for way, shape in way_shapes(ways).items():
        handles.append(key(way.label, ls="--" if way.lazy else ":", marker=shape))
    if any(row["certified"] and row["fits_at"] is not None for row in rows):
        handles.append(key("certified", marker="o"))
    if any(row["fits_at"] is not None and not row["certified"] for row in rows):
        handles.append(key("not certified", marker="o", mfc="white"))
    if any(_gap(row) for row in rows):
        handles.append(Patch(color=GREY, alpha=0.35, lw=0, label="the end lies in here"))
    if any(_height(row) == 0 for row in rows):
        handles.append(key("nothing fits", marker="x"))
    joined = len({row["bpw"] for row in rows}) > 1
    guides = ["Lines only guide the eye: nothing between two marks was run."] if joined else []
    explain(figure, handles, [*guides, *left_out(ways), *card.left_out])
