"""How far it goes: the largest max_seq_len that fits over bits per weight, a panel for each model of a card."""

from __future__ import annotations

from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.core.caches import finest_first
from bench.core.columns import BoundaryRow
from bench.report.colours import cache_colour
from bench.report.naming.ways import Way, Ways
from bench.report.plots.ends import GUIDE, Curve, draw_ends, kinds_of_ends
from bench.report.plots.panels import Card, Most
from bench.report.plots.style import USUAL, WIDTH_IN, explain, key, left_out, name, panels, way_shapes
from bench.report.tables.boundaries import BoundaryTable

MOST_PANELS = Most(panels=12, panels_in_all=42)


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
        draw_ends(panel, table, _curves(table, widths, ways), widths, 0.75 * 72 * WIDTH_IN / columns)
        if count > 1:
            panel.set_title(card.name(table), fontsize=USUAL, loc="left")
    for panel in places[count:]:
        panel.remove()
    figure.supylabel("largest max_seq_len that fits, tokens", fontsize=USUAL + 1)
    _explain(figure, card, ways)
    name(figure, card.title, card.simulated)
    return figure


def _curves(table: BoundaryTable, widths: list[float], ways: Ways) -> list[Curve]:
    shapes = way_shapes(ways.all)
    curves: dict[tuple[str, Way], list[tuple[int, BoundaryRow]]] = {}
    for j, cache in enumerate(table.caches):
        for line, cells in zip(table.lines, table.cells, strict=True):
            row, way = cells[j], ways.of(line)
            if row is not None and way in shapes:
                curves.setdefault((cache, way), []).append((widths.index(line["bpw"]), row))
    return [
        Curve(cache_colour(cache), shapes[way], way.lazy, ways.are_named, points)
        for (cache, way), points in curves.items()
    ]


def _explain(figure: Figure, card: Card[BoundaryTable], ways: Ways) -> None:
    """Only of what is there."""
    rows = [row for table in card.tables for cells in table.cells for row in cells if row]
    handles: list[Artist] = [
        Line2D([], [], color=cache_colour(cache), lw=3, label=f"{cache} cache")
        for cache in finest_first(row["cache"] for row in rows)
    ]
    for way, shape in way_shapes(ways.all).items():
        handles.append(key(way.label, ls="--" if way.lazy else ":", marker=shape))
    handles += kinds_of_ends(rows)
    joined = len({row["bpw"] for row in rows}) > 1
    guides = [GUIDE] if joined else []
    explain(figure, handles, [*guides, *left_out(ways.all), *card.left_out])
