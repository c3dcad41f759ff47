"""Figures of the page, for a reader who hovers and zooms: the only door to plotly.

A figure's colours are for light and dark alike; text and grid take those of the page (assets/report.css).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from bench.core.caches import finest_first
from bench.core.columns import BoundaryRow
from bench.engines.registry import engine_of
from bench.report.colours import cache_colour, engine_colour
from bench.report.naming.axes import bits_of, how
from bench.report.naming.ways import Way, Ways, shapes_for
from bench.report.tables.boundaries import BoundaryTable
from bench.report.tables.card import CardTable, Line
from bench.report.tables.engines import EnginesTable, EngineWays
from bench.report.tables.parts import KIND_COLOURS, stack_of
from bench.report.tables.verdicts import ShownCase, VerdictTable, close_together
from bench.report.text.ends import is_lower_bound, reach
from bench.report.text.units import GIB, in_k, size, tokens
from bench.report.text.verdicts import ended

# Okabe and Ito's palette as in the pictures, less what is too pale on white and what is lost on black. The colour-blind
# see no fifth apart from all of these: what is more than four has shapes, too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
# Marks; an open one says that a boundary is not certified.
_SHAPES = (
    *(
        "circle",
        "square",
        "triangle-up",
        "triangle-down",
        "cross",
        "star",
        "triangle-left",
        "triangle-right",
        "hexagon",
    ),
    *(
        "hexagon",
        "bowtie",
        "hourglass",
        "diamond-tall",
        "diamond-wide",
        "star-triangle-up",
        "star-triangle-down",
        "star-diamond",
    ),
)
_LAZY_SHAPE = "diamond"
_GREY = "#808080"
_CROSS = "x-thin-open"
_MOST_TICKS = 8
_MOST_LENGTHS = 12  # that stand side by side, whatever lies between them
_STRIP = "y2"  # the axis of what has no height
# What the pictures draw too dark or too pale for a page that may be dark or light.
_ON_PAGE = {"#222222": "#7A5FB8", "#D8D8D8": "#A8A8A8", "#555555": "#808080"}


def library() -> str:
    """The JavaScript that draws the figures."""
    text: str = get_plotlyjs()
    return text


def boundary_figure(table: BoundaryTable) -> dict[str, Any]:
    """How far each cache type goes at each bpw: a mark for each way to run it, crosses at the bottom where none fits.

    Dotted and dashed lines only guide the eye: nothing between two widths was run, and their steps are not to scale.
    """
    ways = Ways(table.lines)
    curves: dict[tuple[str, str, Way], list[BoundaryRow]] = {}
    for line, cells in zip(table.lines, table.cells, strict=True):
        for cache, row in zip(table.caches, cells, strict=True):
            if row is not None and _has_an_end(row):
                curves.setdefault((f"{cache} cache", cache_colour(cache), ways.of(line)), []).append(row)
    return _ends_figure(table, curves, ways.all, ways.are_named)


def engine_figures(table: EnginesTable) -> Iterator[tuple[str, dict[str, Any]]]:
    """For each cache that several engines have, with that cache: how far it goes with each at each bpw."""
    ways = EngineWays([table])
    for cache in table.common_caches:
        curves: dict[tuple[str, str, Way], list[BoundaryRow]] = {}
        for line, cells in zip(table.lines, table.cells, strict=True):
            for column, row in zip(table.engine_columns, cells, strict=True):
                if row is not None and column.cache == cache and _has_an_end(row):
                    what = engine_of(column.engine).weights.quantised, engine_colour(column.engine)
                    curves.setdefault((*what, ways.of(line, column)), []).append(row)
        if curves:
            yield cache, _ends_figure(table, curves, ways.all, ways.are_named)


def _has_an_end(row: BoundaryRow) -> bool:
    return row["fits_at"] is not None or row["outcome"] == "oom"


def _ends_figure(
    table: BoundaryTable,
    curves: Mapping[tuple[str, str, Way], Sequence[BoundaryRow]],
    ways: Sequence[Way],
    are_named: bool,
) -> dict[str, Any]:
    """Curves by what they are of, their colour and their way; the axes are those of the whole table."""
    bits = bits_of(line["bpw"] for line in table.lines)
    widths = [bits[bpw] for bpw in sorted(bits)]
    shapes = dict(zip(ways, shapes_for(ways, _SHAPES, _LAZY_SHAPE), strict=True))
    traces: list[go.Scatter] = []
    for (what, colour, way), rows in curves.items():
        name = _named(what, way)
        points = [(bits[row["bpw"]], row["fits_at"] or 0, _end(row), row["fits_at"] is None) for row in rows]
        symbols = [shapes[way] + ("" if row["certified"] else "-open") for row in rows if row["fits_at"] is not None]
        outline = shapes[way] if are_named else None
        traces += _curve(name, points, colour, way.lazy, symbols, outline, joined=True)
    traces += _cross("nothing fits", traces)
    limit = table.own_limit
    longest = max((row["fits_at"] or 0 for cells in table.cells for row in cells if row), default=0)
    # Where the model's own limit is far above, all would lie flat at the bottom.
    top = (longest if limit is None or 0 < longest < limit / 3 else max(limit, longest)) or 256
    step = 2 ** math.ceil(math.log2(top / _MOST_TICKS))
    heights = list(range(0, int(1.1 * top) + 1, step))
    figure = _figure(table, traces)
    figure.update_layout(scattermode="group", scattergap=0.8)  # side by side: at the model's own limit there are many
    title = "bits per weight" if len(widths) < 2 else "bits per weight (those tried, not to scale)"
    figure.update_xaxes(title=title, type="category", categoryorder="array", categoryarray=widths)
    figure.update_yaxes(
        title="max_seq_len that fits, tokens",
        range=[-0.03 * top, 1.1 * top],
        tickvals=heights,
        ticktext=[in_k(height) for height in heights],
    )
    if limit is not None and limit <= top:
        _level(figure, limit, f"the model's own limit, {tokens(limit)}")
    return _plain(figure)


def memory_figure(table: BoundaryTable) -> dict[str, Any] | None:
    """What the memory goes to at each boundary, stacked under the card's limit; None where no row tells."""
    stacks: dict[str, dict[str, int]] = {}
    for line, cells in zip(table.lines, table.cells, strict=True):
        for cache, row in zip(table.caches, cells, strict=True):
            stack = stack_of(row) if row and row["fits_at"] is not None else {}
            if row and stack:
                setting = [f"{table.axes.bits(line)} bpw {cache} {how(line)}", _others(table, line)]
                stacks[", ".join(filter(None, setting))] = stack
    if not stacks:
        return None
    traces = [
        go.Bar(
            name=kind,
            x=list(stacks),
            y=[stack.get(kind, 0) / GIB for stack in stacks.values()],
            text=[size(stack.get(kind, 0)) for stack in stacks.values()],
            textposition="none",
            hovertemplate="%{text}",
            marker={"color": _ON_PAGE.get(colour, colour)},
        )
        for kind, colour in KIND_COLOURS.items()
        if any(kind in stack for stack in stacks.values())
    ]
    figure = _figure(table, traces)
    figure.update_layout(barmode="stack", bargap=0.25)
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=list(stacks), title="setting", dtick=1)
    figure.update_layout(legend_traceorder="normal")
    figure.update_yaxes(title="GiB", rangemode="tozero")
    if table.limit_bytes is not None:
        _level(figure, table.limit_bytes / GIB, f"{table.limit_name}, {size(table.limit_bytes)}")
    return _plain(figure)


def verdict_figures(table: VerdictTable) -> Iterator[tuple[str, dict[str, Any]]]:
    """Peak VRAM over max_seq_len for each cache type, with that type: marks for each bpw and way to run it, joined
    where lengths are close together, and crosses in a strip without a scale where memory ran out.
    """
    ways = Ways(table.lines)
    looks = _looks(sorted({line["bpw"] for line in table.lines}), ways)
    lines = list(zip(table.lines, table.cells, strict=True))
    few = len(table.lengths) <= _MOST_LENGTHS
    for cache in finest_first(line["cache"] for line in table.lines):
        traces: list[go.Scatter] = []
        for line, cells in (pair for pair in lines if pair[0]["cache"] == cache):
            points = [
                (tokens(n) if few else n, height, _verdict(row), row["outcome"] == "oom")
                for n, row in zip(table.lengths, cells, strict=True)
                if row and (height := _height(row)) is not None
            ]
            way = ways.of(line)
            name = _named(f"{table.axes.bits(line)} bpw", way)
            colour, shape = looks[line["bpw"], way]
            fitting = [n for n, row in zip(table.lengths, cells, strict=True) if row and row["outcome"] == "fits"]
            outline = shape if shape not in (_SHAPES[0], _LAZY_SHAPE) or ways.are_named else None
            traces += _curve(name, points, colour, way.lazy, shape, outline, close_together(fitting), apart=True)
        if not traces:
            continue
        figure = _figure(table, traces + _cross("out of memory", traces))
        if few:
            # Side by side, as many take nearly the same. Plotly does that on an axis of categories alone.
            figure.update_layout(scattermode="group", scattergap=0.5)
            named = [tokens(length) for length in table.lengths]
            figure.update_xaxes(type="category", categoryorder="array", categoryarray=named)
            figure.update_xaxes(range=[-0.5, len(named) - 0.5], title="max_seq_len, tokens (those tried, not to scale)")
        else:
            shown = table.lengths[:: math.ceil(len(table.lengths) / _MOST_TICKS)]
            figure.update_xaxes(title="max_seq_len, tokens", type="log")
            figure.update_xaxes(tickvals=shown, ticktext=[in_k(length) for length in shown])
        figure.update_yaxes(title="peak VRAM, GiB", rangemode="tozero")
        if any(trace.yaxis == _STRIP for trace in traces):
            _strip(figure)
        if table.limit_bytes is not None:
            _level(figure, table.limit_bytes / GIB, size(table.limit_bytes, 1))
        yield cache, _plain(figure)


def _strip(figure: go.Figure) -> None:
    """Room above the scale for what ran out of memory: how much it lacked no height tells."""
    figure.update_layout(
        yaxis={"domain": [0, 0.8]},
        yaxis2={"domain": [0.86, 1], "range": [0, 1], "fixedrange": True, "showgrid": False, "zeroline": False}
        | {"tickvals": [0.5], "ticktext": ["out of<br>memory"]},
        hoversubplots="axis",
    )
    figure.add_shape(
        type="rect", xref="paper", yref="paper", x0=0, x1=1, y0=0.86, y1=1, fillcolor=_GREY, opacity=0.12, line_width=0
    )


def _looks(widths: Sequence[float], ways: Ways) -> dict[tuple[float, Way], tuple[str, str]]:
    """A colour and a shape for each width and way, no two alike as long as there are shapes: where there are more
    widths than colours, those that share one have shapes of their own.
    """
    rounds = math.ceil(len(widths) / len(COLOURS))
    told = [(at, way) for at in range(rounds) for way in ways.all]
    shapes = dict(zip(told, shapes_for([way for _, way in told], _SHAPES, _LAZY_SHAPE), strict=True))
    return {
        (bpw, way): (COLOURS[i % len(COLOURS)], shapes[i // len(COLOURS), way])
        for i, bpw in enumerate(widths)
        for way in ways.all
    }


def _curve(
    name: str,
    points: Sequence[tuple[str | int, float, str, bool]],
    colour: str,
    lazy: bool,
    symbols: str | list[str],
    outline: str | None,
    joined: bool,
    apart: bool = False,
) -> Iterator[go.Scatter]:
    """The points (x, height, text, whether it failed) that fit, and apart from them the crosses of those that failed,
    in an `outline` where that tells whose they are: no line leads to a cross, as its height says nothing. With `apart`
    crosses stand in the strip. The legend has each curve once, by its shape.
    """
    fits, failed = ([point[:3] for point in points if point[3] is fails] for fails in (False, True))
    group = {"offsetgroup": name, "alignmentgroup": "all", "legendgroup": name}
    usual = {"name": name, "hovertemplate": "%{text}", **group}
    if fits:
        x, y, text = zip(*fits, strict=True)
        yield go.Scatter(
            x=x,
            y=y,
            text=text,
            mode="lines+markers" if joined else "markers",
            marker={"size": 8, "symbol": symbols, "color": colour},
            line={"color": colour, "dash": "dash" if lazy else "dot", "width": 1},
            showlegend=True,
            **usual,
        )
    if failed:
        x, y, text = zip(*failed, strict=True)
        place = {"yaxis": _STRIP} if apart else {}
        named = not fits and outline is None
        yield go.Scatter(x=x, y=y, text=text, showlegend=named, **usual, **place, **_crosses(colour))
        if outline is not None:
            marker = {"size": 11, "symbol": f"{outline}-open", "color": colour, "line": {"width": 1}}
            of_outline = {"mode": "markers", "marker": marker, "hoverinfo": "skip", "showlegend": not fits}
            yield go.Scatter(name=name, x=x, y=y, **of_outline, **group, **place)


def _crosses(colour: str) -> dict[str, Any]:
    marker = {"size": 7, "symbol": _CROSS, "color": colour, "line": {"width": 2}}
    return {"mode": "markers", "marker": marker}


def _cross(meaning: str, traces: Sequence[go.Scatter]) -> list[go.Scatter]:
    """What a cross means, for the legend, where there is one."""
    if all(trace.marker.symbol != _CROSS for trace in traces):
        return []
    return [go.Scatter(name=meaning, x=[None], y=[None], hoverinfo="skip", **_crosses(_GREY))]


def _figure(table: CardTable[Any], traces: Sequence[go.Scatter | go.Bar]) -> go.Figure:
    """Every figure says what kind of card it is of, as it may be saved without its page."""
    layout = go.Layout(
        template={},
        margin={"l": 62, "r": 12, "t": 26, "b": 46},
        font={"family": "system-ui, sans-serif", "size": 12},
        hovermode="x unified",
        dragmode="zoom",
        legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "tracegroupgap": 0},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": _GREY, "activecolor": COLOURS[0]},
        showlegend=True,
    )
    figure = go.Figure(data=list(traces), layout=layout)
    figure.update_xaxes(gridcolor=_GREY, zeroline=False, automargin=True, title_standoff=6)
    figure.update_xaxes(spikecolor=_GREY, spikethickness=1, spikedash="solid")
    figure.update_yaxes(gridcolor=_GREY, zeroline=False)
    kind = "simulated" if table.simulated else "measured"
    where = {"x": 0, "xref": "paper", "y": 1, "yref": "paper", "xanchor": "left", "yanchor": "bottom"}
    figure.add_annotation(text=f"<b>{kind}</b>", showarrow=False, name="kind", **where)
    return figure


def _level(figure: go.Figure, height: float, text: str) -> None:
    figure.add_hline(
        height, line={"color": _GREY, "width": 1}, annotation={"text": text, "font": {"size": 11}, "xanchor": "right"}
    )


def _plain(figure: go.Figure) -> dict[str, Any]:
    fields: dict[str, Any] = figure.to_plotly_json()
    return {"data": fields["data"], "layout": fields["layout"]}


def _others(table: CardTable[Any], line: Line) -> str:
    """What else tells a bar apart."""
    return _escaped(", ".join(table.axes.others(line)))


def _escaped(text: str) -> str:
    """Plotly takes some of HTML's tags."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _named(what: str, way: Way) -> str:
    return ", ".join(filter(None, [what, "lazy" if way.lazy else "load", _escaped(way.others)]))


def _end(row: BoundaryRow) -> str:
    if row["fits_at"] is None:
        return "nothing fits" if row["certified"] else "nothing fits, not certified"
    return reach(row) + ("" if row["certified"] or is_lower_bound(row) else ", not certified")


def _height(row: ShownCase) -> float | None:
    """Where a case stands, in the middle of the strip if it ran out of memory; None where it has no place."""
    if row["outcome"] == "oom":
        return 0.5
    if row["outcome"] != "fits" or row["peak_device_bytes"] is None:
        return None
    return row["peak_device_bytes"] / GIB


def _verdict(row: ShownCase) -> str:
    return size(row["peak_device_bytes"]) if row["outcome"] == "fits" else ended(row["outcome"], row["phase"])
