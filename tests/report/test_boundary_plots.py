"""What the plots of boundaries draw, read off the figure; never its pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.report.plots.boundary import MOST_PANELS, draw_boundaries
from bench.report.plots.panels import Card, cards
from bench.report.tables.boundaries import BoundaryTable, boundary_tables
from tests.report.conftest import FrameOf, ends, no_answer, nothing, open_end

NATIVE = 131072


def _cards(frame: pd.DataFrame) -> list[Card[BoundaryTable]]:
    drawn, _ = cards(frame, lambda rows: boundary_tables(rows, by_attention=True), MOST_PANELS)
    return list(drawn)


def _draw(frame: pd.DataFrame) -> Figure:
    """The picture of the only card."""
    (card,) = _cards(frame)
    return draw_boundaries(card)


def _points(line: Line2D) -> list[tuple[float, float]]:
    """At their widths: marks of one place stand a little aside."""
    xs, ys = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
    return [(float(round(x)), float(y)) for x, y in zip(xs, ys, strict=True)]


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


def _places(axes: Axes, *shapes: str) -> list[tuple[float, float]]:
    """Where marks stand exactly."""
    drawn = [zip(line.get_xdata(), line.get_ydata(), strict=True) for line in _marks(axes, *shapes)]  # type: ignore[arg-type]
    return [(float(x), float(y)) for marks in drawn for x, y in marks]


def _gaps(axes: Axes) -> list[tuple[float, float, float]]:
    """Where, from where and to where the end is not known."""
    found = [np.asarray(part) for bars in axes.collections for part in bars.get_segments()]  # type: ignore[attr-defined]
    return [(round(ends[0][0]), float(ends[0][1]), float(ends[1][1])) for ends in found]


def _legend(figure: Figure) -> list[str]:
    (legend,) = figure.legends
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
    figure = _draw(boundaries_of(*(ends(4096 * k, cache=c) for k, c in enumerate(("Q4", "Q8", "FP16"), 1))))
    (axes,) = figure.axes
    colours = [to_hex(curve.get_color()) for curve in _curves(axes)]
    assert len(set(colours)) == 3
    assert [to_hex(mark.get_color()) for mark in _marks(axes)] == colours
    (legend,) = figure.legends
    handles = [handle for handle in legend.legend_handles if isinstance(handle, Line2D)]
    assert [to_hex(handle.get_color()) for handle in handles[:3]] == colours
    assert _legend(figure) == ["FP16 cache", "Q8 cache", "Q4 cache", "load", "certified"]


def test_a_cache_has_the_same_colour_whichever_others_there_are(boundaries_of: FrameOf) -> None:
    (alone,) = _draw(boundaries_of(ends(4096, cache="Q4"))).axes
    (beside,) = _draw(boundaries_of(ends(4096), ends(8192, cache="Q4"))).axes
    assert _curves(alone)[0].get_color() == _curves(beside)[1].get_color()


def test_lazy_loading_is_dashed_with_marks_of_its_own(boundaries_of: FrameOf) -> None:
    figure = _draw(boundaries_of(ends(8192), ends(4096, lazy=True)))
    (axes,) = figure.axes
    assert [curve.get_linestyle() for curve in _curves(axes)] == [":", "--"]
    assert [(mark.get_marker(), _points(mark)) for mark in _marks(axes)] == [("o", [(0, 8192)]), ("D", [(0, 4096)])]
    assert _legend(figure)[1:3] == ["load", "lazy + load_autosplit"]


def test_what_is_certified_is_filled_and_the_rest_hollow(boundaries_of: FrameOf) -> None:
    figure = _draw(boundaries_of(ends(8192), open_end(4096, 9216, bpw=6.0)))
    (axes,) = figure.axes
    filled, hollow = _marks(axes, "o")
    assert filled.get_markerfacecolor() == filled.get_color()
    assert hollow.get_markerfacecolor() == "white"
    assert _legend(figure)[-3:] == ["certified", "not certified", "the end lies in here"]


def test_only_uncertified_boundaries_can_be_drawn(boundaries_of: FrameOf) -> None:
    figure = _draw(boundaries_of(open_end(8192), open_end(4096, 9216, bpw=6.0, lazy=True)))
    (axes,) = figure.axes
    assert {mark.get_markerfacecolor() for mark in _marks(axes)} == {"white"}
    assert not {"nothing fits", "certified"} & set(_legend(figure))


def test_where_nothing_fits_there_is_a_cross_at_the_bottom_and_no_curve_leads_there(boundaries_of: FrameOf) -> None:
    figure = _draw(boundaries_of(ends(8192, bpw=2.5), nothing(bpw=6.0)))
    (axes,) = figure.axes
    assert [_points(curve) for curve in _curves(axes)] == [[(0, 8192)]]
    assert [_points(cross) for cross in _marks(axes, "x")] == [[(1, 0)]]
    assert _legend(figure)[-1] == "nothing fits"


def test_nothing_that_fits_anywhere_can_be_drawn(boundaries_of: FrameOf) -> None:
    figure = _draw(boundaries_of(nothing(), nothing(bpw=6.0, cache="Q4", lazy=True)))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert [_points(cross) for cross in _marks(axes)] == [[(0, 0)], [(1, 0)]]
    assert _limits(axes) == [NATIVE]


@pytest.mark.parametrize("row", [no_answer("timeout"), nothing(fails_at=4096, certified=False)])
def test_what_is_not_known_to_fit_has_no_mark(boundaries_of: FrameOf, row: dict[str, Any]) -> None:
    (axes,) = _draw(boundaries_of(ends(8192), {"bpw": 6.0, **row})).axes
    assert [_points(mark) for mark in _marks(axes)] == [[(0, 8192)]]


@pytest.mark.parametrize(
    ("row", "gaps"),
    [
        (ends(4096), []),
        (open_end(4096, 4352), []),
        (open_end(4096, 65536), [(0, 4096, 65536)]),
        (open_end(65536), [(0, 65536, NATIVE)]),
        (nothing(fails_at=65536, certified=False), [(0, 0, 65536)]),
        (nothing(), []),
    ],
)
def test_the_gap_between_what_fits_and_what_fails_is_a_bar(
    boundaries_of: FrameOf, row: dict[str, Any], gaps: list[tuple[float, float, float]]
) -> None:
    figure = _draw(boundaries_of(row))
    (axes,) = figure.axes
    assert _gaps(axes) == gaps
    assert ("the end lies in here" in _legend(figure)) is bool(gaps)
    assert all(high <= axes.get_ylim()[1] for _, _, high in gaps)


def test_only_a_seen_failure_closes_a_gap(boundaries_of: FrameOf) -> None:
    closed, open_above = (_draw(boundaries_of(row)).axes[0] for row in (open_end(4096, 65536), open_end(4096)))
    assert [_points(line) for line in _marks(closed, "_")] == [[(0, 65536)]]
    assert _marks(open_above, "_") == []


def test_gaps_of_one_width_do_not_hide_each_other(boundaries_of: FrameOf) -> None:
    figure = _draw(boundaries_of(open_end(8192, 65536), open_end(4096, 32768, lazy=True)))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert len({x for x, _ in _places(axes, "o", "D")}) == 2


def test_marks_of_one_place_stand_side_by_side_at_the_same_height(boundaries_of: FrameOf) -> None:
    rows = (ends(NATIVE, cache=cache, lazy=lazy) for cache in ("Q8", "Q4") for lazy in (False, True))
    (axes,) = _draw(boundaries_of(*rows)).axes
    assert len({x for x, _ in _places(axes)}) == 4
    assert {y for _, y in _places(axes)} == {NATIVE}
    assert all(abs(x) < 0.5 for x, _ in _places(axes))


def test_a_mark_alone_stands_on_its_curve(boundaries_of: FrameOf) -> None:
    (axes,) = _draw(boundaries_of(ends(8192), ends(4096, cache="Q4"))).axes
    assert _places(axes) == [(0, 8192), (0, 4096)]


def test_many_marks_of_one_width_stay_clear_of_the_next(boundaries_of: FrameOf) -> None:
    caches, widths = ("FP16", "Q8", "Q6", "Q4"), [2.0 + 0.25 * k for k in range(20)]
    rows = [
        ends(NATIVE, bpw=bpw, cache=cache, lazy=lazy) for bpw in widths for cache in caches for lazy in (False, True)
    ]
    (axes,) = _draw(boundaries_of(*rows)).axes
    assert len(_places(axes)) == len(rows)
    assert len({x for x, _ in _places(axes)}) == len(rows)
    assert all(abs(x - round(x)) < 0.45 for x, _ in _places(axes))


def test_the_models_own_limit_is_a_line_with_its_number(boundaries_of: FrameOf) -> None:
    (axes,) = _draw(boundaries_of(ends(46336))).axes
    assert _limits(axes) == [NATIVE]
    assert [text.get_text() for text in axes.texts] == ["the model's own limit, 131,072"]
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] > NATIVE


def test_where_all_stay_far_below_the_limit_it_is_told_instead(boundaries_of: FrameOf) -> None:
    (axes,) = _draw(boundaries_of(ends(2048), ends(1024, bpw=6.0))).axes
    assert _limits(axes) == []
    assert [text.get_text() for text in axes.texts] == ["the model's own limit, 131,072,\nis far above"]
    assert 2048 < axes.get_ylim()[1] < 4096


def test_the_axes_carry_their_units(boundaries_of: FrameOf) -> None:
    figure = _draw(boundaries_of(ends(46336)))
    (axes,) = figure.axes
    assert axes.get_xlabel() == "bits per weight"
    assert figure.get_supylabel() == "largest max_seq_len that fits, tokens"
    labels = [axes.yaxis.get_major_formatter()(y, 0) for y in (0, 512, 16384, NATIVE)]
    assert labels == ["0", "512", "16k", "128k"]


@pytest.mark.parametrize(("kind", "words"), [("simulated", ["simulated"]), ("cuda", [])])
def test_a_simulated_plot_says_so_and_a_measured_one_does_not(
    boundaries_of: FrameOf, kind: str, words: list[str]
) -> None:
    figure = _draw(boundaries_of(ends(4096, device_kind=kind)))
    assert [text.get_text() for text in figure.texts if text.get_text() == "simulated"] == words
    assert figure.get_suptitle().startswith("tiny on rtx_4090 (")


def test_each_attention_has_a_panel_of_its_own(boundaries_of: FrameOf) -> None:
    figure = _draw(boundaries_of(ends(4096), ends(8192, attention="flash")))
    points = {axes.get_title(loc="left"): [_points(curve) for curve in _curves(axes)] for axes in figure.axes}
    assert points == {"flash attention": [[(0, 8192)]], "matmul attention": [[(0, 4096)]]}
    assert figure.get_suptitle() == "tiny on rtx_4090 (simulated), 24.00 GiB"


def test_each_model_has_a_panel_and_all_have_the_same_widths(boundaries_of: FrameOf) -> None:
    rows = [ends(8192, model="b"), ends(4096, model="a", bpw=2.5), ends(2048, model="c", native_max_seq_len=2048)]
    figure = _draw(boundaries_of(*rows))
    assert figure.get_suptitle() == "rtx_4090 (simulated), 24.00 GiB, matmul attention"
    points = {axes.get_title(loc="left"): [_points(curve) for curve in _curves(axes)] for axes in figure.axes}
    assert points == {"a": [[(0, 4096)]], "b": [[(1, 8192)]], "c": [[(1, 2048)]]}
    assert {tuple(label.get_text() for label in axes.get_xticklabels()) for axes in figure.axes} == {("2.5", "4")}


def test_models_of_one_name_are_told_apart(boundaries_of: FrameOf) -> None:
    figure = _draw(boundaries_of(ends(4096), ends(8192, model_fingerprint="f2")))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["tiny [f1]", "tiny [f2]"]


def test_cards_are_drawn_apart(boundaries_of: FrameOf) -> None:
    rows = [ends(4096), ends(8192, vram_limit_bytes=1 << 30), ends(2048, device_kind="cuda", device_uuid="GPU-1234567")]
    titles = {
        card.slug: draw_boundaries(card).get_suptitle().partition(",")[0] for card in _cards(boundaries_of(*rows))
    }
    assert titles == {
        "rtx_4090": "tiny on rtx_4090 (simulated)",
        "rtx_4090-1024mib": "tiny on rtx_4090 (simulated)",
        "rtx_4090-234567": "tiny on rtx_4090 (measured)",
    }


def test_of_very_many_models_some_are_drawn_and_it_is_said(boundaries_of: FrameOf) -> None:
    figure = _draw(boundaries_of(*(ends(4096, model=f"model_{n:02d}") for n in range(15))))
    assert len(figure.axes) == 12
    assert figure.legends[0].get_title().get_text() == "12 of 15 models are drawn; all are in tables.md."


def test_a_model_without_an_answer_is_named_and_has_no_panel(boundaries_of: FrameOf) -> None:
    figure = _draw(boundaries_of(ends(4096), no_answer("crash", model="broken")))
    assert len(figure.axes) == 1
    assert figure.legends[0].get_title().get_text() == "No answer for broken."


def test_a_panel_in_which_nothing_can_be_drawn_says_so(boundaries_of: FrameOf) -> None:
    (axes,) = _draw(boundaries_of({"outcome": "fits", "fits_at": None})).axes
    assert "no length is known" in [text.get_text() for text in axes.texts]


def test_curves_that_another_key_tells_apart_have_shapes_and_are_in_the_legend(boundaries_of: FrameOf) -> None:
    rows = [ends(n // batch, batch_size=batch, bpw=bpw) for batch in (1, 4) for bpw, n in ((2.5, 81920), (6.0, 40960))]
    figure = _draw(boundaries_of(*rows))
    (axes,) = figure.axes
    assert [_points(curve) for curve in _curves(axes)] == [[(0, 81920), (1, 40960)], [(0, 20480), (1, 10240)]]
    assert _places(axes, "o") == [(0, 81920), (1, 40960)]
    assert _places(axes, "s") == [(0, 20480), (1, 10240)]
    assert _legend(figure)[1:3] == ["load, batch_size 1", "load, batch_size 4"]


def test_where_nothing_fits_it_is_told_of_which(boundaries_of: FrameOf) -> None:
    (axes,) = _draw(boundaries_of(*(nothing(head_bits=bits) for bits in (6, 8)))).axes
    assert len(_places(axes, "o")) == len(_places(axes, "s")) == 1
    assert len(set(_places(axes, "x"))) == 2


@pytest.mark.parametrize(
    ("row", "drawn"), [(ends(4096), [(0, 4096)]), (open_end(4096), [(0, 4096)]), (nothing(), [(0, 0)])]
)
def test_a_single_row_of_nulls_can_be_drawn(
    bare_boundaries_of: FrameOf, row: dict[str, Any], drawn: list[tuple[float, float]]
) -> None:
    figure = _draw(bare_boundaries_of(row))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert [point for mark in _marks(axes) for point in _points(mark)] == drawn
    assert _limits(axes) == []
