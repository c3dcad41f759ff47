"""How far it goes with one engine and with another: a row of panels for each model of a card, one for each cache."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.core.caches import finest_first
from bench.core.columns import BoundaryRow
from bench.engines.registry import engine_of
from bench.report.colours import engine_colour
from bench.report.naming.ways import Way
from bench.report.plots.ends import GUIDE, Curve, draw_ends, kinds_of_ends
from bench.report.plots.grid import panel_in
from bench.report.plots.panels import Card
from bench.report.plots.style import USUAL, WIDTH_IN, explain, key, left_out, name, panels, way_shapes
from bench.report.tables.engines import EnginesTable, EngineWays

_NAME_COLUMNS = 24


def draw_engines(card: Card[EnginesTable]) -> Figure:
    """A colour for each engine, a panel for each cache that several were run with; for all where there is none."""
    common = [cache for table in card.tables for cache in table.common_caches]
    caches = finest_first(common or (row["cache"] for table in card.tables for row in table.rows))
    count = len(card.tables)
    figure, axes = panels(count, len(caches), panel_in(count) + 0.5, share=False)
    widths = sorted({line["bpw"] for table in card.tables for line in table.lines})
    ways = EngineWays(card.tables)
    shapes = way_shapes(ways.all)
    for table, row in zip(card.tables, axes, strict=True):
        for panel, cache in zip(row, caches, strict=True):
            curves = _curves(table, cache, widths, ways, shapes)
            draw_ends(panel, table, curves, widths, 0.75 * 72 * WIDTH_IN / len(caches))
            panel.set_title(f"{cache} cache", fontsize=USUAL + 1)
        row[0].set_ylabel("\n".join(textwrap.wrap(card.name(table), _NAME_COLUMNS)), fontsize=USUAL)
    figure.supylabel("largest max_seq_len that fits, tokens", fontsize=USUAL + 1)
    _explain(figure, card, ways, shapes)
    name(figure, f"{card.tables[0].formats}: {card.title}", card.simulated)
    return figure


def _curves(
    table: EnginesTable, cache: str, widths: Sequence[float], ways: EngineWays, shapes: Mapping[Way, str]
) -> list[Curve]:
    """Those of one cache, an engine after the other."""
    found: dict[tuple[str, Way], list[tuple[int, BoundaryRow]]] = {}
    for j, column in enumerate(table.engine_columns):
        for line, cells in zip(table.lines, table.cells, strict=True):
            row, way = cells[j], ways.of(line, column)
            if row is not None and column.cache == cache and way in shapes:
                found.setdefault((column.engine, way), []).append((widths.index(line["bpw"]), row))
    return [
        Curve(engine_colour(engine), shapes[way], way.lazy, ways.are_named, points)
        for (engine, way), points in found.items()
    ]


def _explain(figure: Figure, card: Card[EnginesTable], ways: EngineWays, shapes: Mapping[Way, str]) -> None:
    """Only of what is there."""
    handles: list[Artist] = [
        Line2D([], [], color=engine_colour(engine), lw=3, label=_called(engine))
        for engine in dict.fromkeys(engine for table in card.tables for engine in table.engines)
    ]
    handles += [key(way.label, ls="--" if way.lazy else ":", marker=shape) for way, shape in shapes.items()]
    rows = [row for table in card.tables for cells in table.cells for row in cells if row]
    words = [GUIDE] if len({row["bpw"] for row in rows}) > 1 else []
    words += dict.fromkeys(table.caution for table in card.tables)
    explain(figure, [*handles, *kinds_of_ends(rows)], [*words, *left_out(ways.all), *card.left_out])


def _called(engine: str) -> str:
    return f"{engine_of(engine).weights.quantised}, {engine_of(engine).title}"
