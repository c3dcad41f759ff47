"""What the plots of peak VRAM draw, read off the figure; never its pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.report.plots.grid import MOST_ROWS
from bench.report.plots.panels import cards
from bench.report.plots.peaks import draw_peaks
from bench.report.plots.style import LAZY_SHAPE, MOST_WAYS, SHAPES
from bench.report.tables.verdicts import verdict_tables
from tests.report.conftest import GIB, FrameOf, fits, oom


def _draw(frame: pd.DataFrame) -> Figure:
    """The picture of the only card."""
    drawn, _ = cards(frame, lambda rows: verdict_tables(rows, by_attention=True), MOST_ROWS)
    (card,) = drawn
    return draw_peaks(card)


def _points(line: Line2D) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]  # type: ignore[arg-type]


def _curves(panel: Axes) -> list[Line2D]:
    marks = [line for line in panel.get_lines() if line.get_marker() in (*SHAPES, LAZY_SHAPE)]
    return [line for line in marks if line.get_markerfacecolor() != "none"]


def _crosses(panel: Axes) -> list[Line2D]:
    return [line for line in panel.get_lines() if line.get_marker() == "x"]


def _legend(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def _edges(panel: Axes) -> list[float]:
    """Where the panel has horizontal lines."""
    plain = [line for line in panel.get_lines() if line.get_marker() in ("None", "")]
    return [float(np.asarray(line.get_ydata())[0]) for line in plain]


def test_there_is_a_panel_for_each_cache_from_large_to_small(frame_of: FrameOf) -> None:
    figure = _draw(frame_of(*(fits(4096, 5.0, cache=cache) for cache in ("Q4", "FP16", "Q8"))))
    assert [panel.get_title() for panel in figure.axes] == ["FP16 cache", "Q8 cache", "Q4 cache"]


def test_a_curve_goes_through_the_peaks_that_fit(frame_of: FrameOf) -> None:
    figure = _draw(frame_of(fits(8192, 6.5), fits(2048, 5.25), oom(32768)))
    (curve,) = _curves(figure.axes[0])
    assert _points(curve) == [(2048, 5.25), (8192, 6.5)]


def test_each_width_has_its_own_colour_in_every_panel_and_in_the_legend(frame_of: FrameOf) -> None:
    rows = [fits(4096, 5.0, bpw=bpw, cache=cache) for bpw in (2.5, 4.0, 6.0) for cache in ("FP16", "Q4")]
    figure = _draw(frame_of(*rows))
    colours = [[to_hex(curve.get_color()) for curve in _curves(panel)] for panel in figure.axes]
    assert colours[0] == colours[1]
    assert len(set(colours[0])) == 3
    (legend,) = figure.legends
    labels = _legend(figure)
    assert labels[:3] == ["2.5 bpw", "4 bpw", "6 bpw"]
    handles = [handle for handle in legend.legend_handles if isinstance(handle, Line2D)]
    assert [to_hex(handle.get_color()) for handle in handles[:3]] == colours[0]


def test_lazy_loading_is_dashed_and_hollow(frame_of: FrameOf) -> None:
    figure = _draw(frame_of(fits(4096, 5.0), fits(4096, 5.5, lazy=True)))
    eager, lazy = _curves(figure.axes[0])
    assert (eager.get_linestyle(), lazy.get_linestyle()) == ("-", "--")
    assert eager.get_markerfacecolor() != lazy.get_markerfacecolor() == "white"


def test_only_lengths_that_are_close_together_are_joined(frame_of: FrameOf) -> None:
    lengths = {"sparse": (4096, 8192, 131072), "dense": range(4096, 8192, 512)}
    styles = {}
    for name, chosen in lengths.items():
        (curve,) = _curves(_draw(frame_of(*(fits(n, n / 1024) for n in chosen))).axes[0])
        styles[name] = curve.get_linestyle()
    assert styles == {"sparse": "None", "dense": "-"}


@pytest.mark.parametrize("lazy", [False, True])
def test_the_legend_speaks_only_of_what_is_there(frame_of: FrameOf, lazy: bool) -> None:
    labels = _legend(_draw(frame_of(fits(4096, 5.0, lazy=lazy))))
    assert labels == ["4 bpw", "lazy + load_autosplit" if lazy else "load", "the card's limit, 24.00 GiB"]
    assert "out of memory" in _legend(_draw(frame_of(fits(2048, 5.0), oom(4096))))


def test_what_ran_out_is_crossed_in_a_strip_without_a_scale(frame_of: FrameOf) -> None:
    """How much it lacked no row tells, and so no height may."""
    figure = _draw(frame_of(fits(2048, 5.0), oom(32768, "cache"), oom(131072)))
    (panel,) = figure.axes
    (crosses,) = _crosses(panel)
    assert [x for x, _ in _points(crosses)] == [32768, 131072]
    assert all(0.8 < y < 1 for _, y in _points(crosses))  # of the panel, wherever it ends
    assert crosses.get_transform() == panel.get_xaxis_transform()
    (*heights, strip), labels = panel.get_yticks(), [label.get_text() for label in panel.get_yticklabels()]
    bottom, top = panel.get_ylim()
    assert max(heights) <= bottom + 0.8 * (top - bottom) < strip
    assert labels[-1] == "out of\nmemory"
    assert not any("memory" in label.get_text() for label in _draw(frame_of(fits(2048, 5.0))).axes[0].get_yticklabels())


def test_the_crosses_of_two_lines_do_not_hide_each_other(frame_of: FrameOf) -> None:
    figure = _draw(frame_of(oom(32768, bpw=4.0), oom(32768, bpw=6.0)))
    points = [point for line in _crosses(figure.axes[0]) for point in _points(line)]
    assert len(set(points)) == 2


@pytest.mark.parametrize(("limit_bytes", "edge"), [(None, 24.0), (8 * GIB, 8.0)])
def test_the_cards_limit_is_a_line_with_its_size(frame_of: FrameOf, limit_bytes: int | None, edge: float) -> None:
    figure = _draw(frame_of(fits(4096, 5.0, vram_limit_bytes=limit_bytes)))
    (panel,) = figure.axes
    assert _edges(panel) == [edge]
    assert _legend(figure)[-1] == f"the card's limit, {edge:.2f} GiB"


def test_everything_drawn_lies_inside_the_axes(frame_of: FrameOf) -> None:
    figure = _draw(frame_of(fits(2048, 5.0), oom(131072), oom(131072, bpw=6.0)))
    (panel,) = figure.axes
    (left, right), (bottom, top) = panel.get_xlim(), panel.get_ylim()
    assert bottom == 0
    for line in _curves(panel):
        assert all(left <= x <= right and bottom <= y <= top for x, y in _points(line))
    for line in _crosses(panel):
        assert all(left <= x <= right and 0.8 < y < 1 for x, y in _points(line))
    assert bottom < 24 < top


def test_the_axes_carry_their_units(frame_of: FrameOf) -> None:
    (panel,) = _draw(frame_of(fits(512, 5.0), fits(2048, 5.0), fits(131072, 9.0))).axes
    assert panel.get_ylabel() == "peak VRAM, GiB"
    assert panel.get_xlabel() == "max_seq_len, tokens"
    assert panel.get_xscale() == "log"
    assert panel.get_xticks().tolist() == [512, 2048, 131072]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["512", "2k", "128k"]


@pytest.mark.parametrize(("kind", "words"), [("simulated", ["simulated"]), ("cuda", [])])
def test_a_simulated_plot_says_so_and_a_measured_one_does_not(frame_of: FrameOf, kind: str, words: list[str]) -> None:
    figure = _draw(frame_of(fits(4096, 5.0, device_kind=kind)))
    assert [text.get_text() for text in figure.texts if text.get_text() == "simulated"] == words
    assert figure.get_suptitle().startswith("tiny on rtx_4090 (")


def test_a_row_for_each_model_and_a_column_for_each_cache(frame_of: FrameOf) -> None:
    rows = [fits(2048, 5.0, model="a"), fits(2048, 6.0, model="b"), fits(4096, 7.0, cache="Q4", model="b")]
    figure = _draw(frame_of(*rows))
    assert [panel.get_ylabel() for panel in figure.axes] == ["a\npeak VRAM, GiB", "", "b\npeak VRAM, GiB", ""]
    drawn = [[_points(curve) for curve in _curves(panel)] for panel in figure.axes]
    assert drawn == [[[(2048, 5.0)]], [], [[(2048, 6.0)]], [[(4096, 7.0)]]]
    assert [text.get_text() for text in figure.axes[1].texts] == ["not run"]


def test_crosses_stay_in_the_picture_however_many_lines_ran_out(frame_of: FrameOf) -> None:
    figure = _draw(frame_of(*(oom(32768, bpw=2 + n / 8) for n in range(40))))
    (panel,) = figure.axes
    heights = {y for line in _crosses(panel) for _, y in _points(line)}
    assert len(heights) == 40
    assert 0.8 < min(heights) < max(heights) < 1


def test_ticks_are_at_lengths_that_were_tried(frame_of: FrameOf) -> None:
    lengths = [3000 * n for n in range(1, 60)]
    (panel,) = _draw(frame_of(*(fits(n, 5.0) for n in lengths))).axes
    ticks = panel.get_xticks().tolist()
    assert set(ticks) <= set(lengths)
    assert 3 <= len(ticks) <= 6
    assert ticks[-1] == lengths[-1]


def test_two_lengths_that_are_near_to_each_other_have_a_tick(frame_of: FrameOf) -> None:
    (panel,) = _draw(frame_of(fits(77824, 23.0), oom(81920, "cache"))).axes
    assert panel.get_xticks().tolist() == [81920]


@pytest.mark.parametrize(
    ("row", "points", "words"),
    [
        (fits(4096, None), [], ["no peak is known"]),
        (fits(4096, 5.0), [(4096, 5.0)], []),
        (oom(4096), [], []),
    ],
)
def test_a_single_row_of_nulls_is_drawn_or_it_is_said_why_not(
    bare_frame_of: FrameOf, row: dict[str, Any], points: list[tuple[float, float]], words: list[str]
) -> None:
    figure = _draw(bare_frame_of(row))
    figure.draw_without_rendering()
    (panel,) = figure.axes
    assert _edges(panel) == []
    assert [point for curve in _curves(panel) for point in _points(curve)] == points
    assert [text.get_text() for text in panel.texts] == words


def test_a_row_with_nulls_is_drawn_where_its_numbers_are_known(bare_frame_of: FrameOf) -> None:
    figure = _draw(bare_frame_of(fits(2048, 5.0), fits(4096, 6.0)))
    (curve,) = _curves(figure.axes[0])
    assert _points(curve) == [(2048, 5.0), (4096, 6.0)]


_KEYS: dict[str, tuple[Any, ...]] = {
    "head_bits": (6, 8),
    "batch_size": (1, 2),
    "max_input_len": (1024, 2048),
    "max_attention_size": (1048576, 4194304),
    "lazy": (False, True),
}


@pytest.mark.parametrize("name", _KEYS)
def test_whatever_varies_is_told_apart_by_shape_and_in_the_legend(frame_of: FrameOf, name: str) -> None:
    rows = [fits(n, 0.7, bpw=bpw, **{name: value}) for n in (512, 2048) for bpw in (3.0, 4.0) for value in _KEYS[name]]
    figure = _draw(frame_of(*rows))
    (panel,) = figure.axes
    looks = {(to_hex(curve.get_color()), curve.get_marker()) for curve in _curves(panel)}
    assert len(looks) == 4
    places = [point for curve in _curves(panel) for point in _points(curve)]
    assert len(set(places)) == len(rows)  # none hides another
    (legend,) = figure.legends
    told = {
        handle.get_marker(): str(handle.get_label()) for handle in legend.legend_handles if isinstance(handle, Line2D)
    }
    words = ["load", "lazy + load_autosplit"] if name == "lazy" else [f"load, {name} {value}" for value in _KEYS[name]]
    assert {told[shape] for _, shape in looks} == set(words)


def test_marks_of_one_length_stay_nearer_to_it_than_to_the_next(frame_of: FrameOf) -> None:
    rows = [fits(n, 0.7, bpw=2 + k / 8, head_bits=h) for n in (512, 1024) for k in range(20) for h in (6, 8)]
    (panel,) = _draw(frame_of(*rows)).axes
    xs = [sorted(x for curve in _curves(panel) for x, _ in _points(curve)[at : at + 1]) for at in (0, 1)]
    assert len(set(xs[0])) == len(set(xs[1])) == 40
    assert max(xs[0]) < 512 * 2**0.5 < min(xs[1])


def test_what_failed_is_told_apart_too(frame_of: FrameOf) -> None:
    (panel,) = _draw(frame_of(*(oom(32768, head_bits=bits) for bits in (6, 8)))).axes
    outlines = [line.get_marker() for line in panel.get_lines() if line.get_markerfacecolor() == "none"]
    assert outlines == ["o", "s"]
    assert len({point for cross in _crosses(panel) for point in _points(cross)}) == 2


def test_of_more_ways_than_shapes_some_are_drawn_and_it_is_said(frame_of: FrameOf) -> None:
    figure = _draw(frame_of(*(fits(2048, 0.7, max_input_len=256 * n) for n in range(1, 21))))
    shapes = [curve.get_marker() for curve in _curves(figure.axes[0])]
    assert len(set(shapes)) == len(shapes) == MOST_WAYS
    assert (
        f"{MOST_WAYS} of 20 ways to run it are drawn; all are in tables.md." in figure.legends[0].get_title().get_text()
    )
