"""Where the memory goes at the boundary: stacked parts under the card's limit."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import wrap

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bench.core.columns import BoundaryRow
from bench.report.naming.axes import bits_of
from bench.report.plots.grid import draw_grid, panel_in
from bench.report.plots.panels import Card
from bench.report.plots.style import GREY, SMALL, WIDTH_IN, explain, key
from bench.report.tables.boundaries import BoundaryTable
from bench.report.tables.parts import KIND_COLOURS, stack_of
from bench.report.text.units import GIB, size, tokens
from bench.report.text.verdicts import short

_HATCH = "////"
_LABEL_WIDTH_PT, _LABEL_HEIGHT_PT = 8.0, 36.0  # of a length as it stands over its bar, and the air around it
_TICK_COLUMNS, _FREE_COLUMNS = 28, 10  # of what stands below a bar, on end: the longest line, and what has room anyway
_TWO_LINES_PT = 30.0


@dataclass(frozen=True)
class _Bar:
    """One setting at its boundary: what stands below the bar (`group`), beside which way of loading, and how far."""

    group: tuple[float, str]
    lazy: bool
    row: BoundaryRow
    stack: dict[str, int]

    @property
    def label(self) -> str:
        row = self.row
        if row["fits_at"] is not None:
            return tokens(row["fits_at"]) + ("" if row["certified"] else "?")
        if row["outcome"] == "oom":
            return "none" if row["certified"] else "?"
        return short(row["outcome"])


def draw_memory(card: Card[BoundaryTable]) -> Figure | None:
    """A bar for each bpw and way of loading, its length above it; None where nothing is known of any."""
    bars = [_bars(table) for table in card.tables]
    every = [bar for own in bars for of_cache in own.values() for bar in of_cache]
    if not any(bar.stack for bar in every):
        return None
    groups = sorted({bar.group for bar in every})
    room_pt = 0.8 * 72 * WIDTH_IN / len({cache for own in bars for cache in own}) / len(groups)
    ways = {bar.lazy for bar in every}
    width = 0.8 / len(ways)
    labelled = width * room_pt >= _LABEL_WIDTH_PT
    of_table = dict(zip(map(id, card.tables), bars, strict=True))

    # Lengths that stand over the card's limit take this much of the axis, in cards.
    over = 1 / (1 - _LABEL_HEIGHT_PT / (72 * panel_in(len(card.tables)))) - 1 if labelled else 0.08

    def draw(axes: Axes, table: BoundaryTable, cache: str) -> str | None:
        own = of_table[id(table)][cache]
        placed = [(groups.index(bar.group) + (0 if len(ways) == 1 else (bar.lazy - 0.5) * width), bar) for bar in own]
        _draw_bars(axes, placed, width)
        for x, bar in placed if labelled else []:
            _label(axes, bar, x, over)
        if table.limit_bytes is not None:
            axes.axhline(table.limit_bytes / GIB, color="black", lw=1)
        return None if any(bar.stack for bar in own) or labelled else "no memory is known"

    figure, axes = draw_grid(card, draw, "bits per weight", "GiB")
    tallest = max(sum(bar.stack.values()) for bar in every)
    axes[0][0].set_ylim(0, max(tallest, card.tables[0].limit_bytes or 0) / GIB * (1 + over))
    bits = bits_of(bpw for bpw, _ in groups)
    labels = [", ".join(filter(None, (bits[bpw], n))) for bpw, n in groups]
    if room_pt < 16 or any(named for _, named in groups):
        labels = ["\n".join(wrap(label, _TICK_COLUMNS)) if room_pt > _TWO_LINES_PT else label for label in labels]
        for panel in axes[-1]:
            panel.tick_params(axis="x", labelrotation=90, labelsize=SMALL)
        longest = max(len(line) for label in labels for line in label.splitlines())
        more_in = max(0, longest - _FREE_COLUMNS) * 0.6 * SMALL / 72
        figure.set_figheight(figure.get_figheight() + more_in)
    axes[0][0].set_xticks(range(len(groups)), labels)
    axes[0][0].set_xlim(-0.6, len(groups) - 0.4)
    for row in axes:
        for panel in row:
            panel.grid(visible=False, axis="x")
    _explain(figure, card, every, labelled)
    return figure


def _bars(table: BoundaryTable) -> dict[str, list[_Bar]]:
    """The bars of each cache type, the longest of those of one place in front."""
    bars: dict[str, list[_Bar]] = {}
    for line, cells in zip(table.lines, table.cells, strict=True):
        named = ", ".join(table.axes.others(line))
        for cache, row in zip(table.caches, cells, strict=True):
            if row is not None:
                bars.setdefault(cache, []).append(_Bar((line["bpw"], named), line["lazy"], row, stack_of(row)))
    return bars


def _draw_bars(axes: Axes, bars: list[tuple[float, _Bar]], width: float) -> None:
    """All pieces of one kind and way of loading are one artist: there may be many."""
    pieces: dict[tuple[str, bool], list[list[tuple[float, float]]]] = {}
    for x, bar in bars:
        bottom, left, right = 0.0, x - 0.45 * width, x + 0.45 * width
        for kind, size_bytes in bar.stack.items():
            top = bottom + size_bytes / GIB
            corners = [(left, bottom), (right, bottom), (right, top), (left, top)]
            pieces.setdefault((kind, bar.lazy), []).append(corners)
            bottom = top
    for (kind, lazy), shapes in pieces.items():
        hatch = _HATCH if lazy else None
        polygons = PolyCollection(shapes, fc=KIND_COLOURS[kind], ec="white", lw=0.3, hatch=hatch, label=kind)
        axes.add_collection(polygons, autolim=False)


def _label(axes: Axes, bar: _Bar, x: float, over: float) -> None:
    """How far it goes, over its bar; over the card's limit, if that would go through the number."""
    top = sum(bar.stack.values()) / GIB
    limit = (bar.row["vram_limit_bytes"] or bar.row["device_total_bytes"] or 0) / GIB
    place = max(top, limit) if top + over * limit > limit else top
    axes.annotate(
        bar.label,
        (x, place),
        (0, 2),
        textcoords="offset points",
        rotation=90,
        ha="center",
        va="bottom",
        fontsize=SMALL,
    )


def _explain(figure: Figure, card: Card[BoundaryTable], bars: list[_Bar], labelled: bool) -> None:
    """Only of what is there."""
    present = {kind for bar in bars for kind in bar.stack}
    handles: list[Artist] = [Patch(color=c, label=kind) for kind, c in KIND_COLOURS.items() if kind in present]
    if any(bar.lazy for bar in bars):
        handles.append(Patch(facecolor=GREY, edgecolor="white", hatch=_HATCH, label="lazy + load_autosplit"))
    if any(not bar.lazy for bar in bars):
        handles.append(Patch(facecolor=GREY, label="load"))
    limit = card.tables[0].limit_bytes
    if limit is not None:
        handles.append(key(f"{card.tables[0].limit_name}, {size(limit)}", color="black", ls="-", lw=1))
    words = ["Above each bar: the largest max_seq_len that fits, in tokens."] if labelled else []
    if any(not bar.stack for bar in bars if bar.row["fits_at"] is not None):
        words.append("Where there is a length and no bar, no row tells the memory.")
    explain(figure, handles, [*words, *card.left_out])
