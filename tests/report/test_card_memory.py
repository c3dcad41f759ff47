"""What each of several cards held, over hand-made rows."""

from __future__ import annotations

import io
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from bench.report.naming.models import Names
from bench.report.tables.card_memory import memory_tables
from bench.report.text.plain_table import PlainTable
from bench.report.text.render import as_markdown, as_rich
from tests.report.conftest import GIB, FrameOf, fits, oom

ON_TWO: dict[str, Any] = {
    "device_name": "2xrtx_3090",
    "device_cards": "[]",
    "lazy": True,
    "split": "auto",
    "tightest_card": 1,
}


def _card(case_id: str, card: int, *, ran_out: bool = False, layers: int | None = 16) -> dict[str, Any]:
    sizes = {"weights_bytes": 8 * GIB, "cache_bytes": GIB, "peak_device_bytes": 20 * GIB, "headroom_bytes": 3 * GIB}
    named = {"run_id": "run", "case_id": case_id, "card": card, "device_name": "rtx_3090"}
    return {**named, **sizes, "ran_out": ran_out, "layers": layers}


def _table(cases: pd.DataFrame, *cards: dict[str, Any]) -> PlainTable:
    (table,) = memory_tables(cases, pd.DataFrame(cards).astype({"layers": "Int32"}), Names.of_frames(cases))
    return table


def test_a_case_that_does_not_fit_says_so_below_its_length(frame_of: FrameOf) -> None:
    cases = frame_of(fits(2048, 40.0, **ON_TWO), oom(4096, "load", **ON_TWO))
    cards = [_card("0", 0), _card("0", 1), _card("1", 0, layers=None), _card("1", 1, layers=None)]
    table = _table(cases, *cards)
    lengths = [row[table.header().index("max_seq_len")] for row in table.body()]
    assert lengths == ["2,048", "", "4,096", "OOM load"]
    assert "‡ decides" in table.legend
    assert "*" not in table.legend


def test_the_card_that_ran_out_is_marked_and_explained(frame_of: FrameOf) -> None:
    cases = frame_of(oom(4096, "cache", **(ON_TWO | {"split": "gpu_split(20,24)", "tightest_card": 0})))
    table = _table(cases, _card("0", 0, ran_out=True), _card("0", 1))
    assert [row[table.header().index("card")] for row in table.body()] == ["0: rtx_3090 *", "1: rtx_3090"]
    assert table.legend.endswith(" * ran out of memory.")
    assert "‡" not in table.legend


@pytest.mark.parametrize("width", [72, 80])
def test_each_piece_of_a_wide_table_says_which_length_and_card(frame_of: FrameOf, width: int) -> None:
    splits = ("auto", "gpu_split(20,24)")
    cases = frame_of(*(fits(length, 40.0, **(ON_TWO | {"split": by})) for by in splits for length in (2048, 4096)))
    table = _table(cases, *(_card(str(number), card) for number in range(4) for card in (0, 1)))
    out = io.StringIO()
    Console(file=out, width=width).print(as_rich(table))
    pieces = out.getvalue().split("\n\n")
    assert len(pieces) > 1
    for piece in pieces:
        assert piece.count("0: rtx_3090") == 4
        assert piece.count("4,096") == 2


def test_splits_are_words_and_aligned_as_such(frame_of: FrameOf) -> None:
    cases = frame_of(*(fits(2048, 40.0, **(ON_TWO | {"split": by})) for by in ("auto", "tensor_parallel")))
    table = _table(cases, *(_card(str(number), card) for number in range(2) for card in (0, 1)))
    assert "| ---: | --- | --- | --- | ---: | --- |" in as_markdown(table)
