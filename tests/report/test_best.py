"""The best setting of a card and model in a line, of what is predicted and of what was run; and notes in words."""

from __future__ import annotations

from typing import Any, cast

import pandas as pd

from bench.analysis.evidence import evidence
from bench.analysis.recommend import recommend
from bench.report.forecasts import ForecastRow
from bench.report.naming.axes import Axes
from bench.report.tables.assumptions import in_words
from bench.report.tables.best import best_answer, best_forecasts
from bench.report.tables.best_rule import rule
from tests.analysis.rows_as_read import GIB, boundaries_of, cases_of, fits, oom
from tests.report.test_forecasts import ends, holding, row


def best_forecast(rows: list[ForecastRow]) -> str:
    (line,) = best_forecasts(rows, Axes([row.identity for row in rows]))
    return line


def _left(fits_at: int, left_gib: float, **values: Any) -> ForecastRow:
    headroom_bytes = int(left_gib * GIB)
    told = {"headroom_bytes": headroom_bytes, "predicted_peak_device_bytes": 8 * GIB - headroom_bytes}
    return ends(fits_at, 3.0, 1.0, **{**told, **values})


SMALL = _left(1024, 2.0, bpw=2.0, cache="Q4")  # something else to choose


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
    assert "32,768 tokens, 0.8 GiB left" in best_forecast([_left(131072, 0.0), SMALL])  # 3/4 of 1 GiB


def test_the_models_own_limit_is_far_enough() -> None:
    assert "2,048 tokens" in best_forecast(
        [_left(2048, 1.0, native_max_seq_len=2048), _left(1024, 1.0, bpw=2.0, native_max_seq_len=2048)]
    )


def test_where_nothing_goes_far_enough_the_longest() -> None:
    rows = [_left(4096, 1.0, bpw=6.0), _left(8192, 0.6, bpw=2.5)]
    assert best_forecast(rows) == "best: 2.5 bpw, FP16 cache, load, 8,192 tokens, 0.6 GiB left (predicted)"
    unknown = [row(reason="unknown"), row(bpw=2.5, reason="unknown")]
    assert best_forecast(unknown) == "best: nothing is predicted to fit"


def test_the_longest_that_is_predicted_leaves_as_much_as_the_rule_says() -> None:
    """Of a search, whose end leaves next to nothing, so much less that the cache that is not made is free."""
    rows = [_left(8192, 0.1, bpw=2.5), _left(4096, 0.1, bpw=6.0)]
    assert best_forecast(rows) == "best: 2.5 bpw, FP16 cache, load, 4,864 tokens, 0.5 GiB left (predicted)"
    tight = [_left(8192, 0.1, bpw=2.5, parts={}), _left(4096, 0.1, bpw=6.0, parts={})]
    assert best_forecast(tight) == "best: none: nothing that is predicted to fit leaves 0.50 GiB"


def test_what_is_predicted_and_what_was_run_are_judged_alike() -> None:
    """The same numbers, once as predictions and once as rows."""
    sizes = [(131072, 2.5, "Q4", 6.0), (32768, 5.0, "Q4", 7.4), (32768, 6.0, "FP16", 7.9), (16384, 7.0, "FP16", 4.0)]
    for kept in (sizes, sizes[2:], sizes[3:] + sizes[:1]):
        rows, forecasts = [], []
        for length, bpw, cache, held in kept:
            device_bytes = int(held * GIB)
            forecasts.append(_left(length, 8 - held, bpw=bpw, cache=cache, predicted_peak_device_bytes=device_bytes))
            told = {**forecasts[-1].identity, "cache_bytes": GIB, "peak_device_bytes": device_bytes}
            rows.append(fits(length, **told))
        stored = cases_of(*rows)
        answers = recommend(evidence(stored, boundaries_of()), stored)
        axes = Axes([forecast.identity for forecast in forecasts])
        assert best_forecasts(forecasts, axes) == [best_answer(answers, axes, basis="predicted")]


def test_where_there_is_nothing_to_choose_from_nothing_is_best() -> None:
    lengths = [_left(length, 1.0, is_search=False) for length in (2048, 8192)]
    assert best_forecasts(lengths, Axes([])) == []
    batches = [_left(8192, 1.0, bpw=bpw, batch_size=batch) for bpw in (3.0, 4.0) for batch in (1, 2)]
    lines = best_forecasts(batches, Axes([row.identity for row in batches]))
    assert [line.partition(",")[0] for line in lines] == ["batch of 1: best: 4 bpw", "batch of 2: best: 4 bpw"]


def test_engines_are_not_ranked_among_each_other() -> None:
    """As many bits per weight are not the same quality with both."""
    both = [
        _left(8192, 1.0, bpw=bpw, engine=engine, allocator=allocator)
        for bpw, engine, allocator in (
            (3.0, "exllamav2", "native"),
            (4.0, "exllamav2", "native"),
            (5.0, "exllamav3", "expandable"),
            (6.0, "exllamav3", "expandable"),
        )
    ]
    lines = best_forecasts(both, Axes([row.identity for row in both]))
    assert [line.partition(", 8,192")[0] for line in lines] == [
        "ExLlamaV2: best: 4 bpw, FP16 cache, load",
        "exllamav3: best: 6 bpw, FP16 cache, load",
    ]


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


def test_who_shares_a_cache_of_its_own_size_is_told_apart_from_who_does_not() -> None:
    """None of a cache_size is a value: as large as max_seq_len for each of the batch."""
    line = {"bpw": 4.0, "cache": "FP16", "lazy": False, "scenario": "generator", "draft": None}
    lines = [{**line, "batch_size": 1, "cache_size": None}, {**line, "batch_size": 3, "cache_size": 16384}]
    axes = Axes(cast(Any, lines), ["scenario", "batch_size", "cache_size", "draft"])
    assert axes.varying == ["batch_size", "cache_size"]
    assert [axes.cells(cast(Any, each)) for each in lines] == [["1", "–"], ["3", "16384"]]
