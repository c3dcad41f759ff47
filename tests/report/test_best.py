"""The best setting of a card and model in a line, of what is predicted and of what was run; and notes in words."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bench.analysis.evidence import evidence
from bench.analysis.recommend import recommend
from bench.report.forecasts import ForecastRow
from bench.report.naming.axes import Axes
from bench.report.tables.assumptions import in_words
from bench.report.tables.best import best_answer, rule
from bench.report.tables.best import best_forecast as best_forecast_of
from tests.analysis.rows_as_read import GIB, boundaries_of, cases_of, fits, oom
from tests.report.test_forecasts import ends, holding, row


def best_forecast(rows: list[ForecastRow]) -> str:
    return best_forecast_of(rows, Axes([row.identity for row in rows]))


def _left(fits_at: int, left_gib: float, **values: Any) -> ForecastRow:
    return ends(fits_at, 3.0, 1.0, headroom_bytes=int(left_gib * GIB), **values)


def test_the_highest_bpw_that_goes_far_enough_with_something_to_spare() -> None:
    rows = [
        _left(131072, 2.0, bpw=2.5, cache="Q4"),
        _left(32768, 0.8, bpw=5.0, cache="Q4"),
        _left(32768, 0.1, bpw=6.0, cache="Q4"),  # leaves too little
        _left(16384, 3.0, bpw=8.0),  # not far enough
        holding(11.0, 1.0, 0.5, bpw=16.0, failed_in="load", max_seq_len=256),
        row(bpw=5.5, reason="unknown"),
    ]
    assert best_forecast(rows) == "best: 5 bpw, Q4 cache, load, 32,768 tokens, 0.8 GiB left (predicted)"
    finer = _left(32768, 0.8, bpw=5.0, cache="FP16")
    assert "5 bpw, FP16 cache" in best_forecast([*rows, finer])


def test_of_what_goes_further_the_cache_that_is_not_made_is_free() -> None:
    assert "32,768 tokens, 0.8 GiB left" in best_forecast([_left(131072, 0.0)])  # 3/4 of 1 GiB


def test_the_models_own_limit_is_far_enough() -> None:
    assert "2,048 tokens" in best_forecast([_left(2048, 1.0, native_max_seq_len=2048)])


def test_where_nothing_goes_far_enough_the_longest() -> None:
    rows = [_left(4096, 1.0, bpw=6.0), _left(8192, 0.0, bpw=2.5)]
    assert best_forecast(rows) == "best: 2.5 bpw, FP16 cache, load, 8,192 tokens, 0.0 GiB left (predicted)"
    assert best_forecast([row(reason="unknown")]) == "best: nothing is predicted to fit"


def test_of_what_was_run_it_is_what_the_recommendations_say() -> None:
    def best(*cases: dict[str, Any]) -> str:
        stored = cases_of(*cases)
        asked = pd.concat([stored, boundaries_of()])
        answers = recommend(evidence(stored, boundaries_of()), asked, headroom_bytes=GIB // 2)
        return best_answer(answers, Axes([answer.setting for answer in answers if answer.setting is not None]))

    rows = (fits(8192, bpw=5.0), fits(4096, bpw=6.0))
    assert best(*rows) == "best: 5 bpw, FP16 cache, load, 8,192 tokens, 11.0 GiB left (simulated)"
    assert "2.5 bpw, Q4 cache, load, 32,768 tokens" in best(*rows, fits(32768, bpw=2.5, cache="Q4"))
    assert best(oom(4096)).startswith("best: none: no row shows that anything fits")


def test_the_attention_that_ran_is_told_where_it_varies() -> None:
    stored = cases_of(fits(8192, attention="flash"), fits(8192, bpw=2.5, attention="matmul"))
    shown = evidence(stored, boundaries_of())
    answers = recommend(shown, pd.concat([stored, boundaries_of()]))
    axes = Axes(shown.to_dict("records"), ["attention"])
    assert "load, attention flash, 8,192 tokens" in best_answer(answers, axes)


def test_what_fits_and_leaves_too_little_is_not_said_not_to_fit() -> None:
    stored = cases_of(fits(8192, bpw=5.0))
    asked = pd.concat([stored, boundaries_of()])
    answers = recommend(evidence(stored, boundaries_of()), asked, (4096,), headroom_bytes=100 * GIB)
    assert best_answer(answers, Axes([]), 4096) == "best: none: nothing that was run leaves that headroom"


def test_the_length_and_the_headroom_are_those_that_were_asked_for() -> None:
    stored = cases_of(fits(8192, bpw=5.0), fits(32768, bpw=2.5, cache="Q4"))
    asked = pd.concat([stored, boundaries_of()])
    answers = recommend(evidence(stored, boundaries_of()), asked, (4096,), headroom_bytes=GIB)
    axes = Axes([answer.setting for answer in answers if answer.setting is not None])
    assert best_answer(answers, axes, 4096).startswith("best: 5 bpw, FP16 cache, load, 4,096 tokens")
    assert "fits 4,096 tokens" in rule(4096, GIB)
    assert "leaves 1.00 GiB" in rule(4096, GIB)


def test_notes_are_sentences() -> None:
    (both,) = in_words(["workspace_bytes assumed", "context_bytes assumed", "context_bytes assumed"])
    assert both.startswith("What the CUDA context takes (context_bytes) and what cuBLAS takes for its workspace (")
    assert in_words(["something else"]) == ["something else"]
    assert len(in_words(["context_bytes assumed until a case was measured on this GPU"])) == 1
