"""What the plots of memory at the boundary draw, read off the figure; never its pixels."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report.plots.grid import MOST_ROWS
from bench.report.plots.memory import draw_memory
from bench.report.plots.panels import cards
from bench.report.plots.style import save
from bench.report.tables.boundaries import boundary_tables
from bench.report.tables.parts import stack_of, with_parts
from tests.report.conftest import GIB, FrameOf, ends, fits, no_answer, nothing, oom, open_end

PARTS = {"weights_bytes": 4 * GIB, "cache_bytes": 6 * GIB, "scratch_bytes": GIB, "rope_bytes": GIB // 2}
KNOWN = {"context_bytes": GIB // 4, "peak_allocated_bytes": 12 * GIB, **PARTS}


def _draw(boundaries: pd.DataFrame, cases: pd.DataFrame) -> Figure | None:
    """The picture of the only card."""
    drawn, _ = cards(with_parts(boundaries, cases), lambda rows: boundary_tables(rows, by_attention=True), MOST_ROWS)
    (card,) = drawn
    return draw_memory(card)


def _drawn(boundaries: pd.DataFrame, cases: pd.DataFrame) -> Figure:
    figure = _draw(boundaries, cases)
    assert figure is not None
    figure.draw_without_rendering()
    return figure


def _pieces(axes: Axes) -> dict[str, list[tuple[float, float, float]]]:
    """Of each kind, the middle of its bars, and where its pieces begin and end, in GiB."""
    pieces: dict[str, list[tuple[float, float, float]]] = {}
    for collection in axes.collections:
        for path in collection.get_paths():
            corners = np.asarray(path.vertices)
            (left, bottom), (right, top) = corners.min(axis=0), corners.max(axis=0)
            piece = (round((left + right) / 2, 6), float(bottom), float(top))
            pieces.setdefault(str(collection.get_label()), []).append(piece)
    return pieces


def _legend(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def _at(fits_at: int, case_id: str, **values: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A boundary, and the case there."""
    shared = {
        name: values[name]
        for name in ("bpw", "cache", "lazy", "model", "scenario", "allocator", "batch_size")
        if name in values
    }
    row = ends(fits_at, boundary_id=case_id, case_ids=[case_id], peak_device_bytes=13 * GIB, **shared)
    return row, fits(fits_at, 13.0, case_id=case_id, **{**KNOWN, **values})


def test_the_parts_of_the_case_at_the_boundary_are_stacked(frame_of: FrameOf, boundaries_of: FrameOf) -> None:
    row, case = _at(8192, "b")
    figure = _drawn(
        boundaries_of({**row, "case_ids": ["a", "b", "c"]}),
        frame_of(fits(4096, 9.0, case_id="a"), case, oom(8448, case_id="c")),
    )
    (axes,) = figure.axes
    assert _pieces(axes) == {
        "weights": [(0, 0, 4)],
        "cache": [(0, 4, 10)],
        "scratch": [(0, 10, 11)],
        "other": [(0, 11, 11.5)],
        "in use, not told apart": [(0, 11.5, 12)],
        "CUDA context": [(0, 12, 12.25)],
        "kept by PyTorch, unused": [(0, 12.25, 13)],
    }
    assert [text.get_text() for text in axes.texts] == ["8,192"]
    assert _legend(figure)[-2:] == ["load", "the card's limit, 24.00 GiB"]
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] > 24


def test_a_bar_for_each_width_and_way_of_loading_a_panel_for_each_cache(
    frame_of: FrameOf, boundaries_of: FrameOf
) -> None:
    settings = [
        {"bpw": bpw, "lazy": lazy, "cache": c} for bpw in (2.5, 6.0) for lazy in (False, True) for c in ("FP16", "Q4")
    ]
    rows, cases = zip(*(_at(4096, str(n), **setting) for n, setting in enumerate(settings)), strict=True)
    figure = _drawn(boundaries_of(*rows), frame_of(*cases))
    assert [axes.get_title() for axes in figure.axes] == ["FP16 cache", "Q4 cache"]
    for axes in figure.axes:
        middles = sorted(x for x, _, _ in _pieces(axes)["weights"])
        assert middles == sorted(set(middles))
        assert [round(x) for x in middles] == [0, 0, 1, 1]
        assert {bool(collection.get_hatch()) for collection in axes.collections} == {False, True}
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["2.5", "6"]


def test_a_row_for_each_model(frame_of: FrameOf, boundaries_of: FrameOf) -> None:
    rows, cases = zip(*(_at(4096, model, model=model) for model in ("a", "b")), strict=True)
    figure = _drawn(boundaries_of(*rows), frame_of(*cases))
    assert [axes.get_ylabel() for axes in figure.axes] == ["a\nGiB", "b\nGiB"]


def test_the_cards_limit_is_a_line(frame_of: FrameOf, boundaries_of: FrameOf) -> None:
    row, case = _at(4096, "a")
    figure = _drawn(boundaries_of({**row, "vram_limit_bytes": 16 * GIB}), frame_of(case))
    (axes,) = figure.axes
    assert [np.asarray(line.get_ydata()).tolist() for line in axes.get_lines()] == [[16, 16]]
    assert _legend(figure)[-1] == "the card's limit, 16.00 GiB"


def test_the_limit_of_several_cards_is_no_wall_of_one(frame_of: FrameOf, boundaries_of: FrameOf) -> None:
    row, case = _at(4096, "a")
    figure = _drawn(boundaries_of({**row, "device_cards": "[]"}), frame_of({**case, "device_cards": "[]"}))
    assert _legend(figure)[-1] == "all cards' limits together, 24.00 GiB"


def test_what_has_no_bar_says_why_in_its_place(frame_of: FrameOf, boundaries_of: FrameOf) -> None:
    row, case = _at(4096, "a")
    others = [
        nothing(bpw=5.0),
        no_answer("timeout", bpw=6.0),
        open_end(2048, bpw=7.0),
        nothing(bpw=8.0, certified=False),
    ]
    figure = _drawn(boundaries_of(row, *others), frame_of(case))
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["4,096", "none", "timed out", "2,048?", "?"]
    assert "Where there is a length and no bar" in figure.legends[0].get_title().get_text()


def test_without_the_case_the_boundarys_own_peak_is_drawn(frame_of: FrameOf, boundaries_of: FrameOf) -> None:
    for cases in (frame_of(), frame_of(fits(4096, 5.0, case_id="foreign"))):
        figure = _drawn(boundaries_of(ends(4096, peak_device_bytes=9 * GIB, case_ids=["gone"])), cases)
        assert _pieces(figure.axes[0]) == {"held, not told apart": [(0, 0, 9)]}


@pytest.mark.parametrize("row", [ends(4096), nothing(), open_end(4096)])
def test_where_no_memory_is_known_there_is_no_picture(
    bare_boundaries_of: FrameOf, bare_frame_of: FrameOf, row: dict[str, Any]
) -> None:
    assert _draw(bare_boundaries_of(row), bare_frame_of()) is None


def test_a_row_of_nulls_with_a_peak_can_be_drawn(bare_boundaries_of: FrameOf, bare_frame_of: FrameOf) -> None:
    figure = _drawn(bare_boundaries_of(ends(4096, peak_device_bytes=GIB)), bare_frame_of())
    assert _pieces(figure.axes[0]) == {"held, not told apart": [(0, 0, 1)]}
    assert not any("limit" in label for label in _legend(figure))


def test_a_stack_is_as_high_as_the_card_held_and_never_below_zero() -> None:
    empty = dict.fromkeys((*PARTS, "attention_bytes", "logits_bytes", "activations_bytes", "reserve_bytes"))
    row = {**empty, "workspace_bytes": None, "other_bytes": None, **KNOWN, "peak_device_bytes": 13 * GIB}
    assert sum(stack_of(row).values()) == 13 * GIB
    less = stack_of({**row, "peak_device_bytes": GIB, "peak_allocated_bytes": None})
    assert "kept by PyTorch, unused" not in less
    assert sum(less.values()) == sum(PARTS.values()) + KNOWN["context_bytes"]


def test_long_names_below_the_bars_have_room(frame_of: FrameOf, boundaries_of: FrameOf, tmp_path: Path) -> None:
    """As high as the figure was, there was none, and legend and bars lay on each other."""
    told = [
        _at(4096, f"{scenario}-{size}", scenario=scenario, allocator=allocator, batch_size=size, lazy=lazy)
        for scenario, size in (("forward", 1), ("generator", 1), ("generator", 12))
        for allocator in ("native", "expandable")
        for lazy in (True, False)
    ]
    figure = _drawn(boundaries_of(*(end for end, _ in told)), frame_of(*(case for _, case in told)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(figure, tmp_path / "memory")
