"""The ends in one panel: a mark for each boundary over bits per weight, and a bar where the end is not known.

Lines between marks only guide the eye: nothing between two widths was run, and their steps are not to scale.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from bench.core.case import PAGE
from bench.core.columns import BoundaryRow
from bench.report.naming.axes import bits_of
from bench.report.plots.style import GREY, LAZY_SHAPE, SMALL, USUAL, crosses, key, say
from bench.report.tables.boundaries import BoundaryTable
from bench.report.text.ends import own_limit
from bench.report.text.units import in_k, tokens

GUIDE = "Lines only guide the eye: nothing between two marks was run."
_MARK_STEP = 6.5  # points between marks of one place


@dataclass(frozen=True)
class Curve:
    """Rows of one `colour` and marks of one `shape`, each at the place of its width. With `outlined` crosses have that
    shape around them; `lazy` ones are dashed.
    """

    colour: str
    shape: str
    lazy: bool
    outlined: bool
    points: list[tuple[int, BoundaryRow]]


def draw_ends(axes: Axes, table: BoundaryTable, curves: Sequence[Curve], widths: list[float], width_pt: float) -> None:
    """Fills a panel that is `width_pt` points wide; its axes are those of the whole `table`."""
    _lengths(axes, table, width_pt)
    if table.in_words:
        say(axes, textwrap.fill(table.in_words, 32))
    for curve in curves:
        fits = [(x, row["fits_at"]) for x, row in curve.points if row["fits_at"] is not None]
        style = "--" if curve.lazy else ":"
        axes.plot([x for x, _ in fits], [n for _, n in fits], style, color=curve.colour, lw=0.9, zorder=2)
    if not _marks(axes, curves, width_pt / len(widths)):
        say(axes, "no length is known")
    # Evenly spaced, as widths such as 2.25, 2.5 and 16 would crowd at one end.
    few = len(widths) <= width_pt / 16
    axes.set_xticks(range(len(widths)), [bits_of(widths)[bpw] for bpw in widths], rotation=0 if few else 90)
    axes.set_xlim(-0.5, len(widths) - 0.5)
    axes.set_xlabel("bits per weight" if len(widths) < 2 else "bits per weight, not to scale", fontsize=USUAL)


def kinds_of_ends(rows: Sequence[BoundaryRow]) -> list[Artist]:
    """What the marks of `rows` mean, for the legend: only of what is there."""
    handles: list[Artist] = []
    if any(row["certified"] and row["fits_at"] is not None for row in rows):
        handles.append(key("certified", marker="o"))
    if any(row["fits_at"] is not None and not row["certified"] for row in rows):
        handles.append(key("not certified", marker="o", mfc="white"))
    if any(_gap(row) for row in rows):
        handles.append(Patch(color=GREY, alpha=0.35, lw=0, label="the end lies in here"))
    if any(_height(row) == 0 for row in rows):
        handles.append(key("nothing fits", marker="x"))
    return handles


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


def _marks(axes: Axes, curves: Sequence[Curve], room_pt: float) -> int:
    """A mark for each answer, and the gap above it; returns how many rows had either. Those of one point stand side by
    side, within the `room_pt` points between two widths: at the model's own limit there are many. So do all gaps of one
    width, as they may overlap.
    """
    together: dict[tuple[int, int | None], list[tuple[Curve, BoundaryRow]]] = {}
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


def _draw_gap(axes: Axes, curve: Curve, row: BoundaryRow, x: float) -> None:
    gap = _gap(row)
    if gap is None:
        return
    low, high = gap[0], axes.get_ylim()[1] if gap[1] is None else gap[1]
    axes.vlines(x, low, high, color=curve.colour, lw=4, alpha=0.35, zorder=2.5)
    if row["fails_at"] is not None:
        axes.plot(x, high, "_", color=curve.colour, ms=7, zorder=3)


def _lengths(axes: Axes, table: BoundaryTable, width_pt: float) -> None:
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
    if 0.55 * SMALL * len(text) > width_pt:
        text = f"own limit, {tokens(limit)}"
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
