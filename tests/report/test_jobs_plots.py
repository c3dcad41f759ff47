"""What the plot of jobs draws, read off the figure: how many of which length, and where more may fit."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from bench.report.plots.grid import MOST_ROWS
from bench.report.plots.jobs import draw_jobs, of_several_jobs
from bench.report.plots.panels import cards
from bench.report.tables.boundaries import boundary_tables
from bench.report.tables.parts import with_parts
from tests.report.conftest import FrameOf, ends, nothing


def of_jobs(jobs: int, fits_at: int | None, **more: Any) -> dict[str, Any]:
    row = nothing() if fits_at is None else ends(fits_at)
    return {**row, "scenario": "generator", "batch_size": jobs, "boundary_id": f"{jobs} {more}", **more}


def drawn(frame_of: FrameOf, *rows: dict[str, Any]) -> Figure | None:
    boundaries = with_parts(of_several_jobs(frame_of(*rows)), frame_of())
    found, _ = cards(boundaries, lambda frame: boundary_tables(frame, by_attention=True), MOST_ROWS)
    figures = [draw_jobs(card) for card in found]
    return figures[0] if figures else None


def marks(figure: Figure) -> dict[str, set[tuple[float, float, bool]]]:
    """By cache the tokens and the jobs of each mark, and whether it is filled."""
    return {
        axes.get_title(): {
            (float(x), float(y), line.get_markerfacecolor() != "white")
            for line in axes.get_lines()
            if line.get_marker() not in ("None", "", None)
            for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)  # type: ignore[arg-type]
        }
        for axes in figure.axes
    }


def test_each_number_of_jobs_stands_at_the_length_that_fits(boundaries_of: FrameOf) -> None:
    figure = drawn(
        boundaries_of,
        of_jobs(1, 131_072, native_max_seq_len=131_072, certified=True, fails_at=None),
        of_jobs(4, 32_768),
        of_jobs(8, 16_384, cache="Q4"),
        of_jobs(16, None),
    )
    assert figure is not None
    fp16, q4 = marks(figure)["FP16 cache"], marks(figure)["Q4 cache"]
    assert (32_768.0, 4.0, True) in fp16
    assert (131_072.0, 1.0, False) in fp16  # the model's own limit: more jobs of that length may fit
    assert q4 == {(16_384.0, 8.0, True)}


def test_it_is_drawn_of_a_generator_with_several_numbers_of_jobs_alone(boundaries_of: FrameOf) -> None:
    assert drawn(boundaries_of, of_jobs(4, 32_768)) is None
    forward = [of_jobs(jobs, 4096, scenario="forward") for jobs in (1, 2)]
    assert drawn(boundaries_of, *forward) is None
    assert drawn(boundaries_of, *(of_jobs(jobs, None) for jobs in (1, 2))) is None
