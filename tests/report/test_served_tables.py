"""The largest caches, how many users those are, and the speed over the batch size: tables and pictures."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bench.core.columns import PARTS
from bench.report.naming.models import Names
from bench.report.plots.jobs import draw_users
from bench.report.plots.panels import Most, cards
from bench.report.plots.speeds import draw_speeds
from bench.report.tables.boundaries import boundary_tables
from bench.report.tables.caches import cache_tables, of_caches, of_lengths, of_several_lengths
from bench.report.tables.speeds import of_several_sizes, speed_tables
from bench.report.tables.users import users_tables
from tests.report.conftest import FrameOf

GENERATOR = {"scenario": "generator", "cache": "FP16", "bpw": 4.0, "lazy": False}


def _cache(max_seq_len: int, fits_at: int | None, **values: Any) -> dict[str, Any]:
    ends = {"fits_at": fits_at, "fails_at": 256 + (fits_at or 0), "searched_up_to": 1 << 24}
    return {**GENERATOR, "search_axis": "cache_size", "max_seq_len": max_seq_len, "batch_size": 1, **ends, **values}


def _jobs(batch_size: int, fits_at: int, **values: Any) -> dict[str, Any]:
    ends = {"fits_at": fits_at, "fails_at": fits_at + 256, "searched_up_to": 131072}
    return {**GENERATOR, "search_axis": "max_seq_len", "batch_size": batch_size, **ends, **values}


def _users(frame: pd.DataFrame) -> list[dict[str, str]]:
    return [
        dict(zip(table.header(), line, strict=True))
        for table in users_tables(frame, Names.of_frames(frame))
        for line in table.body()
    ]


def test_a_cache_is_told_with_its_users_and_is_no_length(boundaries_of: FrameOf) -> None:
    frame = boundaries_of(_cache(8192, 151_552), _cache(32_768, 151_552), _cache(32_768, 98_304, bpw=6.0))
    (table,) = cache_tables(of_caches(frame))
    assert table.header() == ["bpw", "how", "max_seq_len", "FP16"]
    assert table.body() == [
        ["4", "load", "8,192", "151,552 (18 users)"],
        ["4", "load", "32,768", "151,552 (4 users)"],
        ["6", "load", "32,768", "98,304 (3 users)"],
    ]
    assert "a page of 256 tokens more" in table.legend
    assert boundary_tables(of_lengths(frame)) == []


def test_users_have_whole_pages(boundaries_of: FrameOf) -> None:
    (table,) = cache_tables(boundaries_of(_cache(1000, 4096)))
    assert table.body()[0][-1] == "4,096 (4 users)"


def test_what_only_the_search_has_ended_may_be_larger(boundaries_of: FrameOf) -> None:
    row = _cache(8192, 16_384, fails_at=None, searched_up_to=16_384, certified=False)
    frame = boundaries_of(row)
    (table,) = cache_tables(frame)
    assert table.body()[0][-1] == "≥ 16,384 (2 users)"
    assert _users(frame)[0]["8,192"] == "2+"


def test_users_are_told_by_the_search_that_found_them(boundaries_of: FrameOf) -> None:
    frame = boundaries_of(_cache(8192, 151_552, batch_size=4), _jobs(1, 131_072), _jobs(8, 18_688), _jobs(9, 16_128))
    by_cache, by_jobs = sorted(_users(frame), key=lambda line: line["found by"])
    assert (by_cache["8,192"], by_cache["16,384"], by_cache["found by"]) == ("18", "–", "cache, 4 jobs ran")
    assert (by_jobs["8,192"], by_jobs["16,384"], by_jobs["32,768"]) == ("9+", "8", "1+")


def test_one_number_of_jobs_says_nothing_of_users(boundaries_of: FrameOf) -> None:
    assert _users(boundaries_of(_jobs(8, 18_688))) == []
    assert _users(boundaries_of({**_jobs(1, 4096), "scenario": "forward"}, {**_jobs(2, 2048), "scenario": None})) == []


def test_users_are_drawn_over_several_lengths_alone(boundaries_of: FrameOf) -> None:
    assert of_several_lengths(boundaries_of(_cache(8192, 151_552), _cache(8192, 98_304, bpw=6.0))).empty
    frame = of_several_lengths(boundaries_of(_cache(8192, 151_552), _cache(32_768, 151_552)))
    (card,), _ = cards(frame, lambda part: cache_tables(part, by_attention=True), Most(4, 14))
    figure = draw_users(card)
    assert figure is not None
    (line,) = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 2 and line.get_linestyle() == ":"]
    assert sorted(zip(line.get_xdata(), line.get_ydata(), strict=True)) == [(8192, 18), (32_768, 4)]


def _speed(batch_size: int, estimated: float | None, measured: float | None = None, **values: Any) -> dict[str, Any]:
    speeds = {"decode_tokens_per_s_full": measured, "estimated_decode_tokens_per_s": estimated}
    return {
        "batch_size": batch_size,
        "max_seq_len": 2048,
        "outcome": "fits",
        **dict.fromkeys(PARTS),
        **speeds,
        **values,
    }


def test_speeds_are_told_over_the_batch_size_and_never_mixed(frame_of: FrameOf) -> None:
    frame = frame_of(
        _speed(1, 100.0),
        _speed(4, 320.0),
        _speed(1, 50.0, max_seq_len=8192),  # alone
        _speed(8, None, max_seq_len=8192, outcome="oom"),
        _speed(1, None, 90.0, device_kind="cuda", device_uuid="GPU-1"),
        _speed(4, None, 250.0, device_kind="cuda", device_uuid="GPU-1"),
    )
    measured, simulated = sorted(speed_tables(of_several_sizes(frame)), key=lambda table: table.simulated)
    assert [line[-2:] for line in measured.body()] == [["90", "250 (62)"]]
    assert [line[-3:] for line in simulated.body()] == [["2,048", "100", "320 (80)"]]
    assert "measured" in measured.legend
    assert "estimated" in simulated.legend
    found, _ = cards(of_several_sizes(frame), lambda part: speed_tables(part, by_attention=True), Most(4, 14))
    labels = {card.simulated: draw_speeds(card).axes[0].get_ylabel() for card in found}  # type: ignore[union-attr]
    assert labels[True].endswith("est. tokens/s of all")
    assert labels[False].endswith("\ntokens/s of all") or labels[False] == "tokens/s of all"
