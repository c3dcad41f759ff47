"""Pictures of peak VRAM over max_seq_len: the only door to matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from bench.report.format import GIB, size
from bench.report.tables import VerdictTable

# Okabe and Ito's palette, safe for the colour-blind, the lightest left out.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_CACHES = ("FP16", "Q8", "Q6", "Q4")


def draw(table: VerdictTable) -> Figure:
    """One panel for each cache type: a line for each bpw, crosses at the card's limit where memory ran out."""
    caches = [cache for cache in _CACHES if any(line["cache"] == cache for line in table.lines)]
    widths = sorted({line["bpw"] for line in table.lines})
    colours = {bpw: _COLOURS[i % len(_COLOURS)] for i, bpw in enumerate(widths)}
    figure = Figure(figsize=(max(5.0, 2.6 * len(caches) + 1.2), 3.9), layout="constrained")
    axes = figure.subplots(1, len(caches), sharey=True, squeeze=False)[0]
    for panel, cache in zip(axes, caches, strict=True):
        _panel(panel, table, cache, colours)
    axes[0].set_ylabel("peak VRAM, GiB")
    axes[0].set_ylim(bottom=0)
    figure.suptitle(table.title, fontsize=10, x=0.01, ha="left")
    handles: list[Any] = [Line2D([], [], color=colours[bpw], marker="o", ms=4, label=f"{bpw:g} bpw") for bpw in widths]
    if any(line["lazy"] for line in table.lines):
        handles.append(Line2D([], [], color="#444444", ls="--", label="lazy + load_autosplit"))
        handles.append(Line2D([], [], color="#444444", ls="-", label="load"))
    handles.append(Line2D([], [], color="#444444", marker="x", ls="", label="out of memory"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
    if table.simulated:
        figure.text(0.995, 0.995, "simulated", ha="right", va="top", fontsize=9, color="#B00020", weight="bold")
    return figure


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
        axes.axhline(limit, color="#444444", lw=1)
        axes.annotate(
            size(table.limit_bytes, 1), (0.02, limit), xycoords=("axes fraction", "data"), va="top", fontsize=8
        )
    axes.set_title(f"{cache} cache", fontsize=10)
    axes.set_xlabel("max_seq_len, tokens", fontsize=9)
    axes.set_xscale("log", base=2)
    axes.set_xticks(table.lengths)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n / 1024:g}k" if n >= 1024 else f"{n:g}"))
    axes.minorticks_off()
    axes.margins(x=0.08)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=150)
