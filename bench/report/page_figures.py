"""Figures of the page, for a reader who hovers and zooms: the only door to plotly.

A figure's colours are for light and dark alike; text and grid take those of the page (assets/report.css).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from bench.report.boundaries import BoundaryTable
from bench.report.card_table import CACHES, CardTable, Row, how
from bench.report.format import GIB, size, tokens
from bench.report.tables import VerdictTable

# Okabe and Ito's palette as in the pictures, less what is too pale on white and what is lost on black.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C6D00", "#7A5FB8", "#808080")
_CACHE_COLOURS = dict(zip(CACHES, _COLOURS, strict=False))
_GREY = "#808080"
_MOST_TICKS = 8


def library() -> str:
    """The JavaScript that draws the figures."""
    text: str = get_plotlyjs()
    return text


def boundary_figure(table: BoundaryTable) -> dict[str, Any]:
    """How far each cache type goes over bpw: a curve for each way to run it, crosses at the bottom where none fits."""
    widths = [f"{bpw:g}" for bpw in sorted({line["bpw"] for line in table.lines})]
    curves: dict[tuple[str, bool, str], list[Row]] = {}
    for line, cells in zip(table.lines, table.cells, strict=True):
        for cache, row in zip(table.caches, cells, strict=True):
            if row is not None and (row["fits_at"] is not None or row["outcome"] == "oom"):
                curves.setdefault((cache, line["lazy"], _others(table, line)), []).append(row)
    traces = [
        go.Scatter(
            name=", ".join(filter(None, [f"{cache} cache", "lazy" if lazy else "load", others])),
            x=[f"{row['bpw']:g}" for row in rows],
            y=[row["fits_at"] or 0 for row in rows],
            text=[_end(row) for row in rows],
            hovertemplate="%{text}",
            line={"color": _CACHE_COLOURS[cache], "dash": "dash" if lazy else "solid", "width": 1.5},
            marker={"size": 9, "symbol": [_symbol(row, lazy) for row in rows]},
            mode="lines+markers",
        )
        for (cache, lazy, others), rows in curves.items()
    ]
    native = table.native_max_seq_len
    longest = max((row["fits_at"] or 0 for rows in curves.values() for row in rows), default=0)
    # Where the model's own limit is far above, all would lie flat at the bottom.
    top = (longest if native is None or 0 < longest < native / 3 else native) or 256
    step = 2 ** math.ceil(math.log2(top / _MOST_TICKS))
    heights = list(range(0, int(1.1 * top) + 1, step))
    figure = _figure(table, traces)
    figure.update_xaxes(title="bits per weight", type="category", categoryorder="array", categoryarray=widths)
    figure.update_yaxes(
        title="largest max_seq_len that fits, tokens",
        range=[-0.03 * top, 1.1 * top],
        tickvals=heights,
        ticktext=[_in_k(height) for height in heights],
    )
    if native == top:
        _level(figure, native, f"the model's own limit, {tokens(native)}")
    return _plain(figure)


def verdict_figures(table: VerdictTable) -> Iterator[tuple[str, dict[str, Any]]]:
    """Peak VRAM over max_seq_len for each cache type, with that type: a line for each bpw and way to run it, crosses
    above the card's edge where memory ran out.
    """
    widths = sorted({line["bpw"] for line in table.lines})
    colours = {bpw: _COLOURS[i % len(_COLOURS)] for i, bpw in enumerate(widths)}
    limit = None if table.limit_bytes is None else table.limit_bytes / GIB
    for cache in CACHES:
        traces = []
        for line, cells in zip(table.lines, table.cells, strict=True):
            points = [
                (n, height, _verdict(row), row["outcome"] == "oom")
                for n, row in zip(table.lengths, cells, strict=True)
                if line["cache"] == cache and row and (height := _height(row, limit, len(traces))) is not None
            ]
            if not points:
                continue
            lengths, heights, texts, ooms = zip(*points, strict=True)
            traces.append(
                go.Scatter(
                    name=", ".join(filter(None, [f"{line['bpw']:g} bpw", how(line), _others(table, line)])),
                    x=lengths,
                    y=heights,
                    text=texts,
                    hovertemplate="%{text}",
                    line={"color": colours[line["bpw"]], "dash": "dash" if line["lazy"] else "solid", "width": 1.5},
                    marker={"size": 8, "symbol": ["x-thin-open" if oom else "circle" for oom in ooms]},
                    mode="lines+markers",
                )
            )
        if not traces:
            continue
        figure = _figure(table, traces)
        shown = table.lengths[:: math.ceil(len(table.lengths) / _MOST_TICKS)]
        figure.update_xaxes(
            title="max_seq_len, tokens", type="log", tickvals=shown, ticktext=[_in_k(length) for length in shown]
        )
        figure.update_yaxes(title="peak VRAM, GiB", rangemode="tozero")
        if limit is not None:
            _level(figure, limit, size(table.limit_bytes, 1))
        yield cache, _plain(figure)


def _figure(table: CardTable, traces: list[go.Scatter]) -> go.Figure:
    """Every figure says what kind of card it is of, as it may be saved without its page."""
    layout = go.Layout(
        template={},
        margin={"l": 62, "r": 12, "t": 26, "b": 46},
        font={"family": "system-ui, sans-serif", "size": 12},
        hovermode="x unified",
        dragmode="zoom",
        legend={"orientation": "h", "y": -0.2, "yanchor": "top"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": _GREY, "activecolor": _COLOURS[0]},
        showlegend=True,
    )
    figure = go.Figure(data=traces, layout=layout)
    figure.update_xaxes(gridcolor=_GREY, zeroline=False, automargin=True)
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


def _others(table: CardTable, line: Row) -> str:
    """What else tells a curve apart; escaped, as plotly takes some of HTML's tags."""
    named = ", ".join(f"{key} {line[key]}" for key in table.varying if line[key] is not None)
    return named.replace("&", "&amp;").replace("<", "&lt;")


def _symbol(row: Row, lazy: bool) -> str:
    if row["fits_at"] is None:
        return "x-thin-open"
    return ("diamond" if lazy else "circle") + ("" if row["certified"] else "-open")


def _end(row: Row) -> str:
    if row["fits_at"] is None:
        return "nothing fits" if row["certified"] else "nothing fits, not certified"
    native = ", the model's own limit" if row["fits_at"] == row["native_max_seq_len"] else ""
    return tokens(row["fits_at"]) + native + ("" if row["certified"] else ", not certified")


def _height(row: Row, limit: float | None, above: int) -> float | None:
    """Where a case stands; None where it has no place. One row of crosses a line, so that none hides another."""
    if row["outcome"] == "oom":
        return None if limit is None else limit * (1.04 + 0.035 * above)
    if row["outcome"] != "fits" or row["peak_device_bytes"] is None:
        return None
    peak: float = row["peak_device_bytes"] / GIB
    return peak


def _verdict(row: Row) -> str:
    return f"OOM in {row['phase']}" if row["outcome"] == "oom" else size(row["peak_device_bytes"])


def _in_k(n: float) -> str:
    return f"{n / 1024:g}k" if n >= 1024 else f"{n:g}"
