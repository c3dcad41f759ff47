"""What the plots of boundaries draw, read off the figure; never its pixels."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.report import plots
from bench.report.boundaries import boundary_tables
from tests.report.conftest import FrameOf, ends, no_answer, nothing, open_end

NATIVE = 131072


def _draw(frame: pd.DataFrame) -> Figure:
    (table,) = boundary_tables(frame, by_attention=True)
    return plots.draw_boundaries(table)


def _points(line: Line2D) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]  # type: ignore[arg-type]


def _unmarked(axes: Axes) -> list[Line2D]:
    return [line for line in axes.get_lines() if line.get_marker() in ("None", "")]


def _curves(axes: Axes) -> list[Line2D]:
    """The lines from width to width."""
    return [line for line in _unmarked(axes) if line.get_transform() == axes.transData]


def _limits(axes: Axes) -> list[float]:
    """Where a line goes across the whole picture."""
    return [_points(line)[0][1] for line in _unmarked(axes) if line.get_transform() != axes.transData]


def _marks(axes: Axes, *shapes: str) -> list[Line2D]:
    return [line for line in axes.get_lines() if line.get_marker() in (shapes or ("o", "D", "x"))]


def _shown_at(axes: Axes, line: Line2D) -> tuple[float, float]:
    """The pixel where a mark is drawn."""
    x, y = line.get_transform().transform(_points(line)[0])
    return round(float(x), 3), round(float(y), 3)


def _legend(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_a_curve_for_each_cache_goes_through_how_far_it_goes(boundaries_of: FrameOf) -> None:
    rows = [ends(4096, bpw=6.0), ends(20480, bpw=2.5), ends(11776, bpw=4.0)]
    rows += [ends(n, bpw=bpw, cache="Q4") for bpw, n in ((2.5, NATIVE), (4.0, 46336), (6.0, 15872))]
    (axes,) = _draw(boundaries_of(*rows)).axes
    assert [_points(curve) for curve in _curves(axes)] == [
        [(0, 20480), (1, 11776), (2, 4096)],
        [(0, NATIVE), (1, 46336), (2, 15872)],
    ]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2.5", "4", "6"]


def test_each_cache_has_its_own_colour_on_curve_marks_and_in_the_legend(boundaries_of: FrameOf) -> None:
    (axes,) = _draw(boundaries_of(*(ends(4096 * k, cache=c) for k, c in enumerate(("Q4", "Q8", "FP16"), 1)))).axes
    colours = [to_hex(curve.get_color()) for curve in _curves(axes)]
    assert len(set(colours)) == 3
    assert [to_hex(mark.get_color()) for mark in _marks(axes)] == colours
    legend = axes.get_legend()
    assert legend is not None
    handles = [handle for handle in legend.legend_handles if isinstance(handle, Line2D)]
    assert [to_hex(handle.get_color()) for handle in handles[:3]] == colours
    assert _legend(axes) == ["FP16 cache", "Q8 cache", "Q4 cache", "load"]


def test_a_cache_has_the_same_colour_whichever_others_there_are(boundaries_of: FrameOf) -> None:
    (alone,) = _draw(boundaries_of(ends(4096, cache="Q4"))).axes
    (beside,) = _draw(boundaries_of(ends(4096), ends(8192, cache="Q4"))).axes
    assert _curves(alone)[0].get_color() == _curves(beside)[1].get_color()


def test_lazy_loading_is_dashed_with_marks_of_its_own(boundaries_of: FrameOf) -> None:
    (axes,) = _draw(boundaries_of(ends(8192), ends(4096, lazy=True))).axes
    assert [curve.get_linestyle() for curve in _curves(axes)] == ["-", "--"]
    assert [(mark.get_marker(), _points(mark)) for mark in _marks(axes)] == [("o", [(0, 8192)]), ("D", [(0, 4096)])]
    assert _legend(axes)[-2:] == ["load", "lazy + load_autosplit"]


def test_what_is_certified_is_filled_and_the_rest_hollow(boundaries_of: FrameOf) -> None:
    (axes,) = _draw(boundaries_of(ends(8192), open_end(4096, 9216, bpw=6.0))).axes
    filled, hollow = _marks(axes, "o")
    assert filled.get_markerfacecolor() == filled.get_color()
    assert hollow.get_markerfacecolor() == "white"
    assert _legend(axes)[-1] == "not certified"


def test_only_uncertified_boundaries_can_be_drawn(boundaries_of: FrameOf) -> None:
    (axes,) = _draw(boundaries_of(open_end(8192), open_end(4096, 9216, bpw=6.0, lazy=True))).axes
    assert {mark.get_markerfacecolor() for mark in _marks(axes)} == {"white"}
    assert "nothing fits" not in _legend(axes)


def test_where_nothing_fits_there_is_a_cross_at_the_bottom_and_no_curve_leads_there(boundaries_of: FrameOf) -> None:
    (axes,) = _draw(boundaries_of(ends(8192, bpw=2.5), nothing(bpw=6.0))).axes
    assert [_points(curve) for curve in _curves(axes)] == [[(0, 8192)]]
    assert [_points(cross) for cross in _marks(axes, "x")] == [[(1, 0)]]
    assert _legend(axes)[-1] == "nothing fits"


def test_nothing_that_fits_anywhere_can_be_drawn(boundaries_of: FrameOf) -> None:
    figure = _draw(boundaries_of(nothing(), nothing(bpw=6.0, cache="Q4", lazy=True)))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert [_points(cross) for cross in _marks(axes)] == [[(0, 0)], [(1, 0)]]
    assert _limits(axes) == [NATIVE]


@pytest.mark.parametrize("row", [no_answer("timeout"), nothing(fails_at=4096, certified=False)])
def test_what_has_no_answer_has_no_mark(boundaries_of: FrameOf, row: dict[str, Any]) -> None:
    (axes,) = _draw(boundaries_of(ends(8192), {"bpw": 6.0, **row})).axes
    assert [_points(mark) for mark in _marks(axes)] == [[(0, 8192)]]


def test_marks_of_one_place_stand_side_by_side_at_the_same_height(boundaries_of: FrameOf) -> None:
    figure = _draw(
        boundaries_of(*(ends(NATIVE, cache=cache, lazy=lazy) for cache in ("Q8", "Q4") for lazy in (False, True)))
    )
    figure.draw_without_rendering()
    (axes,) = figure.axes
    shown = [_shown_at(axes, mark) for mark in _marks(axes)]
    assert len({x for x, _ in shown}) == 4
    assert len({y for _, y in shown}) == 1
    assert {tuple(_points(mark)) for mark in _marks(axes)} == {((0.0, float(NATIVE)),)}


def test_a_mark_alone_stands_on_its_curve(boundaries_of: FrameOf) -> None:
    figure = _draw(boundaries_of(ends(8192), ends(4096, cache="Q4")))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    for curve, mark in zip(_curves(axes), _marks(axes), strict=True):
        assert _shown_at(axes, mark) == _shown_at(axes, curve)


def test_many_marks_of_one_width_stay_clear_of_the_next(boundaries_of: FrameOf) -> None:
    caches, widths = ("FP16", "Q8", "Q6", "Q4"), [2.0 + 0.25 * k for k in range(20)]
    rows = [
        ends(NATIVE, bpw=bpw, cache=cache, lazy=lazy) for bpw in widths for cache in caches for lazy in (False, True)
    ]
    figure = _draw(boundaries_of(*rows))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    marks = sorted(((_points(mark)[0][0], _shown_at(axes, mark)[0]) for mark in _marks(axes)), key=lambda mark: mark[1])
    assert [x for x, _ in marks] == sorted(x for x, _ in marks)


def test_the_models_own_limit_is_a_line_with_its_number(boundaries_of: FrameOf) -> None:
    (axes,) = _draw(boundaries_of(ends(46336))).axes
    assert _limits(axes) == [NATIVE]
    assert [text.get_text() for text in axes.texts] == ["the model's own limit, 131,072"]
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] > NATIVE


def test_where_all_stay_far_below_the_limit_it_is_told_instead(boundaries_of: FrameOf) -> None:
    (axes,) = _draw(boundaries_of(ends(2048), ends(1024, bpw=6.0))).axes
    assert _limits(axes) == []
    assert [text.get_text() for text in axes.texts] == ["the model's own limit, 131,072, is far above"]
    assert 2048 < axes.get_ylim()[1] < 4096


def test_the_axes_carry_their_units(boundaries_of: FrameOf) -> None:
    (axes,) = _draw(boundaries_of(ends(46336))).axes
    assert axes.get_xlabel() == "bits per weight"
    assert axes.get_ylabel() == "largest max_seq_len that fits, tokens"
    labels = [axes.yaxis.get_major_formatter()(y, 0) for y in (0, 512, 16384, NATIVE)]
    assert labels == ["0", "512", "16k", "128k"]


@pytest.mark.parametrize(("kind", "words"), [("simulated", ["simulated"]), ("cuda", [])])
def test_a_simulated_plot_says_so_and_a_measured_one_does_not(
    boundaries_of: FrameOf, kind: str, words: list[str]
) -> None:
    figure = _draw(boundaries_of(ends(4096, device_kind=kind)))
    texts = [text.get_text() for text in figure.texts if text is not figure._suptitle]  # type: ignore[attr-defined]
    assert texts == words
    assert figure.get_suptitle().startswith("tiny on rtx_4090 (")


def test_each_attention_has_a_plot_of_its_own(boundaries_of: FrameOf) -> None:
    tables = boundary_tables(boundaries_of(ends(4096), ends(8192, attention="flash")), by_attention=True)
    drawn = {table.slug: _curves(plots.draw_boundaries(table).axes[0]) for table in tables}
    points = {slug: [_points(curve) for curve in curves] for slug, curves in drawn.items()}
    assert points == {"tiny-rtx_4090-flash": [[(0, 8192)]], "tiny-rtx_4090-matmul": [[(0, 4096)]]}


def test_curves_that_another_key_tells_apart_are_named(boundaries_of: FrameOf) -> None:
    rows = [ends(n // batch, batch_size=batch, bpw=bpw) for batch in (1, 4) for bpw, n in ((2.5, 81920), (6.0, 40960))]
    (axes,) = _draw(boundaries_of(*rows)).axes
    assert [_points(curve) for curve in _curves(axes)] == [[(0, 81920), (1, 40960)], [(0, 20480), (1, 10240)]]
    assert [text.get_text() for text in axes.texts][:2] == ["batch_size 1", "batch_size 4"]


@pytest.mark.parametrize(
    ("row", "drawn"),
    [(ends(4096), [(0, 4096)]), (open_end(4096), [(0, 4096)]), (nothing(), [(0, 0)]), (no_answer("crash"), [])],
)
def test_a_single_row_of_nulls_can_be_drawn(
    bare_boundaries_of: FrameOf, row: dict[str, Any], drawn: list[tuple[float, float]]
) -> None:
    figure = _draw(bare_boundaries_of(row))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert [point for mark in _marks(axes) for point in _points(mark)] == drawn
    assert _limits(axes) == []
