"""Pictures of both kinds of tables: the only door to matplotlib."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MultipleLocator
from matplotlib.transforms import ScaledTranslation

from bench.report.boundaries import BoundaryTable
from bench.report.card_table import CACHES, CardTable, Row
from bench.report.format import GIB, size, tokens
from bench.report.tables import VerdictTable

# Okabe and Ito's palette, safe for the colour-blind, the lightest left out.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_CACHE_COLOURS = dict(zip(CACHES, _COLOURS, strict=False))
_GREY = "#444444"


def draw(table: VerdictTable) -> Figure:
    """One panel for each cache type: a line for each bpw, crosses at the card's limit where memory ran out."""
    caches = [cache for cache in CACHES if any(line["cache"] == cache for line in table.lines)]
    widths = sorted({line["bpw"] for line in table.lines})
    colours = {bpw: _COLOURS[i % len(_COLOURS)] for i, bpw in enumerate(widths)}
    figure = Figure(figsize=(max(5.0, 2.6 * len(caches) + 1.2), 3.9), layout="constrained")
    axes = figure.subplots(1, len(caches), sharey=True, squeeze=False)[0]
    for panel, cache in zip(axes, caches, strict=True):
        _panel(panel, table, cache, colours)
    axes[0].set_ylabel("peak VRAM, GiB")
    axes[0].set_ylim(bottom=0)
    handles: list[Any] = [Line2D([], [], color=colours[bpw], marker="o", ms=4, label=f"{bpw:g} bpw") for bpw in widths]
    if any(line["lazy"] for line in table.lines):
        handles.append(Line2D([], [], color=_GREY, ls="--", label="lazy + load_autosplit"))
        handles.append(Line2D([], [], color=_GREY, ls="-", label="load"))
    handles.append(Line2D([], [], color=_GREY, marker="x", ls="", label="out of memory"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
    _name(figure, table)
    return figure


def _name(figure: Figure, table: CardTable) -> None:
    """The title, and the word that no simulated picture goes without."""
    figure.suptitle(table.title, fontsize=10, x=0.01, ha="left")
    if table.simulated:
        figure.text(0.995, 0.995, "simulated", ha="right", va="top", fontsize=9, color="#B00020", weight="bold")


def _panel(axes: Axes, table: VerdictTable, cache: str, colours: dict[float, str]) -> None:
    limit = None if table.limit_bytes is None else table.limit_bytes / GIB
    failed = 0
    for line, cells in zip(table.lines, table.cells, strict=True):
        if line["cache"] != cache:
            continue
        colour, style = colours[line["bpw"]], "--" if line["lazy"] else "-"
        fits = [
            (n, cell["peak_device_bytes"] / GIB)
            for n, cell in zip(table.lengths, cells, strict=True)
            if cell and cell["outcome"] == "fits" and cell["peak_device_bytes"] is not None
        ]
        marker_face = "white" if line["lazy"] else colour
        axes.plot(
            *zip(*fits, strict=True) if fits else ([], []), style, color=colour, marker="o", ms=4, mfc=marker_face
        )
        ooms = [n for n, cell in zip(table.lengths, cells, strict=True) if cell and cell["outcome"] == "oom"]
        if ooms and limit is not None:
            # One row of crosses a line, above the card's edge, so that none hides another.
            heights = [limit * (1.04 + 0.035 * failed)] * len(ooms)
            axes.plot(ooms, heights, "x", color=colour, ms=5, mew=1.5 if not line["lazy"] else 0.8)
            failed += 1
    if limit is not None:
        axes.axhline(limit, color=_GREY, lw=1)
        axes.annotate(
            size(table.limit_bytes, 1), (0.02, limit), xycoords=("axes fraction", "data"), va="top", fontsize=8
        )
    axes.set_title(f"{cache} cache", fontsize=10)
    axes.set_xlabel("max_seq_len, tokens", fontsize=9)
    axes.set_xscale("log", base=2)
    axes.set_xticks(table.lengths)
    axes.xaxis.set_major_formatter(FuncFormatter(_in_k))
    axes.minorticks_off()
    axes.margins(x=0.08)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def draw_boundaries(table: BoundaryTable) -> Figure:
    """How far each cache type goes over bpw: a curve for each way to run it, crosses at the bottom where none fits."""
    figure = Figure(figsize=(8.2, 4.0), layout="constrained")
    axes = figure.subplots()
    widths = sorted({line["bpw"] for line in table.lines})
    curves = _curves(table, widths)
    for curve in curves:
        fits = [(x, row["fits_at"]) for x, row in curve.points if row["fits_at"] is not None]
        axes.plot([x for x, _ in fits], [n for _, n in fits], curve.style, color=curve.colour, lw=1.3, zorder=2)
        if fits and curve.name:
            axes.annotate(
                curve.name,
                fits[0],
                (-7, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=7,
                color=curve.colour,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            )
    _marks(figure, axes, curves, len(widths))
    # Evenly spaced, as widths such as 2.25, 2.5 and 16 would crowd at one end.
    axes.set_xticks(range(len(widths)), [f"{bpw:g}" for bpw in widths])
    axes.set_xlim(-0.5, len(widths) - 0.5)
    axes.set_xlabel("bits per weight")
    _lengths(axes, table)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    handles = _boundary_legend(table, [row for curve in curves for _, row in curve.points])
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1), handlelength=3, fontsize=8, frameon=False)
    _name(figure, table)
    return figure


@dataclass(frozen=True)
class _Curve:
    """One cache type loaded in one way: a row at each place of a width. Named where other keys tell curves apart."""

    cache: str
    lazy: bool
    name: str
    points: list[tuple[int, Row]]

    @property
    def colour(self) -> str:
        return _CACHE_COLOURS[self.cache]

    @property
    def style(self) -> str:
        return "--" if self.lazy else "-"


def _curves(table: BoundaryTable, widths: list[float]) -> list[_Curve]:
    curves: dict[tuple[str, bool, str], list[tuple[int, Row]]] = {}
    for j, cache in enumerate(table.caches):
        for line, cells in zip(table.lines, table.cells, strict=True):
            row = cells[j]
            if row is not None:
                name = ", ".join(f"{key} {line[key]}" for key in table.varying if line[key] is not None)
                curves.setdefault((cache, line["lazy"], name), []).append((widths.index(line["bpw"]), row))
    return [_Curve(*key, points) for key, points in curves.items()]


def _height(row: Row) -> int | None:
    """Where a row's mark stands; None where it has no answer."""
    if row["fits_at"] is None and row["outcome"] == "oom" and row["certified"]:
        return 0
    height: int | None = row["fits_at"]
    return height


def _marks(figure: Figure, axes: Axes, curves: list[_Curve], places: int) -> None:
    """A mark for each answer. Those of one point stand side by side: at the model's own limit there are many."""
    together: dict[tuple[int, int], list[tuple[_Curve, Row]]] = {}
    for curve in curves:
        for x, row in curve.points:
            height = _height(row)
            if height is not None:
                together.setdefault((x, height), []).append((curve, row))
    for point, marks in together.items():
        step = min(6.5, 360 / places / len(marks))  # points; all of them between two ticks
        for i, (curve, row) in enumerate(marks):
            aside = ScaledTranslation((i - (len(marks) - 1) / 2) * step / 72, 0, figure.dpi_scale_trans)
            axes.plot(
                *point,
                "x" if row["fits_at"] is None else "D" if curve.lazy else "o",
                color=curve.colour,
                ms=4.5 if curve.lazy else 5.5,
                mfc=curve.colour if row["certified"] else "white",
                transform=axes.transData + aside,
                clip_on=False,
                zorder=3,
            )


def _lengths(axes: Axes, table: BoundaryTable) -> None:
    """The axis from nothing to the model's own limit, which is a line; only to the longest that fits where that is far
    less, as all would lie flat at the bottom.
    """
    native = table.native_max_seq_len
    longest = max((row["fits_at"] or 0 for cells in table.cells for row in cells if row), default=0)
    far = native is not None and 0 < longest < native / 3
    top = (longest if far else native or longest) or 256
    axes.set_ylim(0, 1.12 * top)
    axes.yaxis.set_major_locator(MultipleLocator(2 ** math.ceil(math.log2(top / 8))))
    axes.yaxis.set_major_formatter(FuncFormatter(_in_k))
    axes.set_ylabel("largest max_seq_len that fits, tokens")
    if native is None:
        return
    text = f"the model's own limit, {tokens(native)}"
    if far:
        axes.annotate(f"{text}, is far above", (0.01, 0.98), xycoords="axes fraction", va="top", fontsize=8)
    else:
        axes.axhline(native, color=_GREY, lw=1, zorder=1)
        where = axes.get_yaxis_transform()
        axes.annotate(text, (0.01, native), (0, 7), xycoords=where, textcoords="offset points", fontsize=8)


def _boundary_legend(table: BoundaryTable, rows: list[Row]) -> list[Line2D]:
    """Only of what is there."""
    handles = [Line2D([], [], color=_CACHE_COLOURS[cache], lw=3, label=f"{cache} cache") for cache in table.caches]
    ways = [(False, "-", "o", "load"), (True, "--", "D", "lazy + load_autosplit")]
    present = {line["lazy"] for line in table.lines}
    handles += [
        Line2D([], [], color=_GREY, ls=style, marker=mark, ms=5, label=label)
        for lazy, style, mark, label in ways
        if lazy in present
    ]
    if any(row["fits_at"] is not None and not row["certified"] for row in rows):
        handles.append(Line2D([], [], color=_GREY, ls="", marker="o", mfc="white", ms=5, label="not certified"))
    if any(_height(row) == 0 for row in rows):
        handles.append(Line2D([], [], color=_GREY, ls="", marker="x", ms=5, label="nothing fits"))
    return handles


def _in_k(n: float, _: object) -> str:
    return f"{n / 1024:g}k" if n >= 1024 else f"{n:g}"


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=150)
