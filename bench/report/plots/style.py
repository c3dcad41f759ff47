"""How all pictures look: their colours, their size, their names and their files."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import colormaps, rc_context, rcParams
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from bench.report.naming.ways import Way, shapes_for

rcParams["text.parse_math"] = False  # a name with two dollars in it is no formula

GREY = "#444444"
# Marks that can be told apart at their size; the one of lazy loading is no other's.
SHAPES, LAZY_SHAPE = ("o", "s", "^", "v", "P", "*", "<", ">", "h", "d", "X"), "D"
MOST_WAYS = len(SHAPES)
WIDTH_IN = 8.2  # at the width of a README the smallest text is still 10 pixels high
SMALL, USUAL = 7.0, 8.0  # points of text
_DPI = 150
_RED = "#B00020"
_TITLE_COLUMNS, _NOTE_COLUMNS = 88, 130
_KEY_PT = 42.0  # of a legend's entry beside its text


def panels(rows: int, columns: int, row_in: float, share: bool) -> tuple[Figure, list[list[Axes]]]:
    """A figure of `rows` by `columns` panels, each row `row_in` inches high; with `share` they have the same axes."""
    figure = Figure(figsize=(WIDTH_IN, row_in * rows + 1.1))
    axes = figure.subplots(rows, columns, sharex=share, sharey=share, squeeze=False)
    for panel in axes.flat:
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=USUAL)
    return figure, [list(row) for row in axes]


def name(figure: Figure, title: str, simulated: bool) -> None:
    """The title, and the word that no simulated picture goes without."""
    figure.suptitle(textwrap.fill(title, _TITLE_COLUMNS), fontsize=10, x=0.01, ha="left", va="top")
    if simulated:
        top = (
            1 - rcParams["figure.constrained_layout.h_pad"] / figure.get_figheight()
        )  # where the layout puts the title
        figure.text(0.995, top, "simulated", ha="right", va="top", fontsize=10, color=_RED, weight="bold")


def key(label: str, **looks: Any) -> Line2D:
    """A legend's entry that speaks of shape, not of colour."""
    return Line2D([], [], **{"color": GREY, "ls": "", "ms": 4.5, "label": label, **looks})


def explain(figure: Figure, handles: list[Artist], words: Sequence[str]) -> None:
    """The legend below all panels, over it what else a reader should know, in words."""
    columns = _columns([len(str(handle.get_label())) for handle in handles])
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=columns,
        handlelength=2.5,
        fontsize=USUAL,
        frameon=False,
        title="\n".join(textwrap.fill(line, _NOTE_COLUMNS) for line in words) or None,
        title_fontsize=SMALL,
    )


def _columns(lengths: list[int]) -> int:
    """In how many columns the labels of so many characters stand side by side; the rows as even as can be."""
    for rows in range(1, len(lengths) + 1):
        columns = -(-len(lengths) // rows)
        widest = [max(lengths[at : at + rows]) for at in range(0, len(lengths), rows)]
        if sum(_KEY_PT + 0.6 * USUAL * length for length in widest) <= 72 * WIDTH_IN:
            return columns
    return 1


def way_shapes(ways: Sequence[Way]) -> dict[Way, str]:
    """The shape of each way that is drawn: no more than can be told apart."""
    drawn = ways[:MOST_WAYS]
    return dict(zip(drawn, shapes_for(drawn, SHAPES, LAZY_SHAPE), strict=True))


def left_out(ways: Sequence[Way]) -> list[str]:
    """In words, that some ways are not drawn."""
    if len(ways) <= MOST_WAYS:
        return []
    return [f"{MOST_WAYS} of {len(ways)} ways to run it are drawn; all are in tables.md."]


def crosses(panel: Axes, xs: Sequence[float], ys: Sequence[float], shape: str | None, **looks: Any) -> None:
    """Crosses, each in an outline of `shape` where that tells what failed there."""
    panel.plot(xs, ys, "x", **looks)
    if shape is not None:
        place = {"transform": looks["transform"]} if "transform" in looks else {}
        panel.plot(xs, ys, shape, color=looks["color"], ms=7, mew=0.7, mfc="none", clip_on=False, **place)


def say(panel: Axes, words: str) -> None:
    """A panel with nothing in it says why."""
    panel.text(0.5, 0.5, words, transform=panel.transAxes, ha="center", va="center", fontsize=USUAL, color=GREY)


def shades(count: int) -> list[str]:
    """Colours of an order, dark to light, that the colour-blind see in the same order."""
    return [to_hex(colormaps["viridis"](0.82 * i / max(1, count - 1))) for i in range(count)]


def save(figure: Figure, stem: Path) -> list[Path]:
    """Writes the figure as PNG and as SVG, and returns both."""
    png, svg = (stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "svg"))
    # Text stays text, and the same rows make the same file.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "vram-bench"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # names may have any; a box stands for them
        # Once, and by hand: a figure that owns its layout is laid out anew and drawn twice for each file.
        ConstrainedLayoutEngine().execute(figure)
        figure.savefig(png, dpi=_DPI)
        figure.savefig(svg, metadata={"Date": None})
    return [png, svg]
