"""How many jobs of a generator fit, and how long each may be: a row of panels for each model of a card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bench.core.case import DEFAULT_SCENARIO, PAGE
from bench.core.columns import BoundaryRow
from bench.report.naming.axes import OPTIONAL, bits_of, how
from bench.report.naming.axes import Axes as Settings
from bench.report.naming.models import CARD_AND_MODEL
from bench.report.plots.ends import GUIDE
from bench.report.plots.grid import draw_grid
from bench.report.plots.panels import Card
from bench.report.plots.style import LAZY_SHAPE, SHAPES, explain, key, shades
from bench.report.tables.boundaries import BoundaryTable
from bench.report.tables.caches import CacheTable
from bench.report.tables.card import CardTable
from bench.report.text.ends import is_lower_bound, is_own_limit, users_of
from bench.report.text.units import in_k

_BUT_JOBS = [name for name in OPTIONAL if name not in ("batch_size", "attention_requested")]
_MOST_COUNTS = 7  # that are told on the axis
_Way = tuple[float, str]  # bits per weight, and what else varies


Table = TypeVar("Table", bound=CardTable[Any])


def of_several_jobs(boundaries: pd.DataFrame) -> pd.DataFrame:
    """The boundaries of a generator, of the models and cards that were asked for several numbers of jobs."""
    if boundaries.empty:
        return boundaries
    served = boundaries[boundaries["scenario"].fillna(DEFAULT_SCENARIO) != DEFAULT_SCENARIO]
    if served.empty:
        return served
    counts = served.groupby(CARD_AND_MODEL, dropna=False)["batch_size"].transform("nunique")
    return served[counts > 1]


def draw_jobs(card: Card[BoundaryTable]) -> Figure | None:
    """Jobs over the tokens of each, both in powers of two; a line for each bpw, and for whatever else varies."""
    return _draw(card, _BUT_JOBS, lambda row: (row["fits_at"] or 0, int(row["batch_size"] or 1)), "jobs at a time")


def draw_users(card: Card[CacheTable]) -> Figure | None:
    """The same of how many users the largest cache has room for, over the tokens of each."""

    def point(row: BoundaryRow) -> tuple[int, int]:
        return row["max_seq_len"] or 0, users_of(row["fits_at"], row["max_seq_len"]) or 0

    return _draw(card, [*_BUT_JOBS, "batch_size"], point, "users (cache_size // max_seq_len)")


def _draw(
    card: Card[Table], optional: Sequence[str], point: Callable[[BoundaryRow], tuple[int, int]], counted: str
) -> Figure | None:
    """What is `counted` over tokens, by the `point` of each row; lines differ in what is `optional`."""
    lines = [row for table in card.tables for row in table.rows if row["fits_at"] is not None]
    if not lines:
        return None
    settings = Settings(lines, optional)
    ways = sorted({_way(row, settings) for row in lines})
    widths = sorted({bpw for bpw, _ in ways})
    others = sorted({other for _, other in ways})
    colours = dict(zip(widths, shades(len(widths)), strict=True))
    shapes = {
        other: LAZY_SHAPE if other.startswith("lazy") else SHAPES[i % len(SHAPES)] for i, other in enumerate(others)
    }

    def draw(axes: Axes, table: Table, cache: str) -> str | None:
        there = [row for row in lines if row["cache"] == cache and any(row is own for own in table.rows)]
        for way in ways:
            points = sorted((*reversed(point(row)), _may_be_more(row)) for row in there if _way(row, settings) == way)
            colour, shape = colours[way[0]], shapes[way[1]]
            axes.plot([n for _, n, _ in points], [jobs for jobs, _, _ in points], ":", color=colour, lw=0.9)
            for ends, face in ((False, colour), (True, "white")):
                chosen = [(tokens, jobs) for jobs, tokens, is_end in points if is_end is ends]
                if chosen:
                    axes.plot(*zip(*chosen, strict=True), shape, color=colour, mfc=face, ms=5)
        return None if there else "nothing fits"

    figure, axes = draw_grid(card, draw, "tokens of each", counted)
    _scale(axes[0][0], [point(row) for row in lines])
    handles: list[Artist] = [
        Line2D([], [], color=colours[bpw], lw=3, label=f"{bits_of(widths)[bpw]} bpw") for bpw in widths
    ]
    handles += [key(other, marker=shape, ls=":") for other, shape in shapes.items()]
    if any(map(_may_be_more, lines)):
        handles.append(key("as far as was looked, or not certified: more may fit", marker="o", mfc="white"))
    explain(figure, handles, [GUIDE, *card.left_out])
    return figure


def _may_be_more(row: BoundaryRow) -> bool:
    """Whether jobs may be longer: as long as the model or the search goes, or nobody saw where it ends."""
    return is_own_limit(row) or is_lower_bound(row) or not row["certified"]


def _way(row: BoundaryRow, settings: Settings) -> _Way:
    return row["bpw"], ", ".join([how(row), *settings.others(row)])


def _scale(axes: Axes, points: Sequence[tuple[int, int]]) -> None:
    """The axes of all panels."""
    lengths, jobs = [tokens or PAGE for tokens, _ in points], sorted({count for _, count in points})
    longest, shortest = max(lengths), min(lengths)
    if len(jobs) > _MOST_COUNTS:
        jobs = [1 << n for n in range(jobs[0].bit_length() - 1, jobs[-1].bit_length() + 1)]
    ticks = [PAGE << n for n in range(24) if shortest / 2 < PAGE << n < 2 * longest]
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(in_k))
    axes.yaxis.set_major_locator(FixedLocator(jobs))
    axes.yaxis.set_major_formatter(FuncFormatter(whole_number))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.set_ylim(jobs[0] / 1.4, jobs[-1] * 1.4)


def whole_number(value: float, _: Any = None) -> str:
    """A tick of an axis that counts."""
    return f"{value:,.0f}"
