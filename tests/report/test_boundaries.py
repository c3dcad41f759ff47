"""The boundary tables over hand-made rows: what a reader sees in each cell, and what is said below."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from bench.report.rows import raw
from bench.report.tables.boundaries import as_frame, boundary_tables
from bench.report.text.render import as_markdown, as_rich
from tests.report.conftest import ANOTHER_CARD_OR_MODEL, GIB, FrameOf, ends, no_answer, nothing, open_end

MARKDOWN = """\
### tiny on rtx_4090 (simulated), 24.00 GiB, matmul attention

The largest max_seq_len that fits. Certified by two runs: it fits there, and 256 tokens further it
fails. max: the model's own limit. none: not even 256 tokens. ?: not certified, the end was not
found.

| bpw | how | FP16 | Q8 | Q6 | Q4 |
| ---: | --- | ---: | ---: | ---: | ---: |
| 2.5 | load | 46,336 | 92,672 | 121,344 | 131,072 max |
| 2.5 | lazy | 44,032 | 88,064 | 115,200 | 131,072 max |
| 4.25 | load | 11,776 | 12,288? | 30,720 | timed out |
| 16 | load | none | none |  |  |

- 4.25 bpw load (Q8): not certified, 12,288 fits, 24,064 fails, predicted to end at 23,552
- 4.25 bpw load (Q4): the reason
- 16 bpw load: nothing fits; bpw=4.25 cache=FP16 would, up to 11,776
- context size assumed
"""

TERMINAL_80 = """\
tiny on rtx_4090 (simulated), 24.00 GiB, matmul attention
 bpw  how     FP16       Q8       Q6           Q4
 2.5  load  46,336   92,672  121,344  131,072 max
 2.5  lazy  44,032   88,064  115,200  131,072 max
4.25  load  11,776  12,288?   30,720    timed out
  16  load    none     none
The largest max_seq_len that fits. Certified by two runs: it fits there, and 256
tokens further it fails. max: the model's own limit. none: not even 256 tokens.
?: not certified, the end was not found.
4.25 bpw load (Q8): not certified, 12,288 fits, 24,064 fails, predicted to end
at 23,552
4.25 bpw load (Q4): the reason
16 bpw load: nothing fits; bpw=4.25 cache=FP16 would, up to 11,776
context size assumed
"""

TERMINAL_120 = """\
tiny on rtx_4090 (simulated), 24.00 GiB, matmul attention
 bpw  how     FP16       Q8       Q6           Q4
 2.5  load  46,336   92,672  121,344  131,072 max
 2.5  lazy  44,032   88,064  115,200  131,072 max
4.25  load  11,776  12,288?   30,720    timed out
  16  load    none     none
The largest max_seq_len that fits. Certified by two runs: it fits there, and 256 tokens further it fails. max: the
model's own limit. none: not even 256 tokens. ?: not certified, the end was not found.
4.25 bpw load (Q8): not certified, 12,288 fits, 24,064 fails, predicted to end at 23,552
4.25 bpw load (Q4): the reason
16 bpw load: nothing fits; bpw=4.25 cache=FP16 would, up to 11,776
context size assumed
"""


@pytest.fixture
def usual(boundaries_of: FrameOf) -> pd.DataFrame:
    advice = "bpw=4.25 cache=FP16 would, up to 11,776"
    return boundaries_of(
        nothing(bpw=16.0, cache="Q8", head_bits=None, advice=advice),
        nothing(bpw=16.0, head_bits=None, advice=advice),
        no_answer("timeout", bpw=4.25, cache="Q4"),
        ends(30720, bpw=4.25, cache="Q6"),
        open_end(12288, 24064, bpw=4.25, cache="Q8", predicted_fits_at=23552),
        ends(11776, bpw=4.25),
        *(ends(n, bpw=2.5, lazy=True, cache=c) for c, n in {"FP16": 44032, "Q8": 88064, "Q6": 115200}.items()),
        ends(131072, bpw=2.5, lazy=True, cache="Q4"),
        *(ends(n, bpw=2.5, cache=c) for c, n in {"Q4": 131072, "Q8": 92672, "Q6": 121344}.items()),
        ends(46336, bpw=2.5, notes=["context size assumed"]),
    )


def _terminal(frame: pd.DataFrame, width: int) -> str:
    """What the console shows, without the blanks at the ends of wrapped lines."""
    (table,) = boundary_tables(frame)
    console = Console(width=width)
    with console.capture() as captured:
        console.print(as_rich(table))
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def _body(frame: pd.DataFrame) -> list[list[str]]:
    (table,) = boundary_tables(frame)
    return table.body()


def test_a_small_table_reads_as_expected_in_markdown(usual: pd.DataFrame) -> None:
    (table,) = boundary_tables(usual)
    assert as_markdown(table) == MARKDOWN


@pytest.mark.parametrize(("width", "shown"), [(80, TERMINAL_80), (120, TERMINAL_120)])
def test_a_small_table_reads_as_expected_in_the_terminal(usual: pd.DataFrame, width: int, shown: str) -> None:
    assert _terminal(usual, width) == shown


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        (ends(46336), "46,336"),
        (ends(131072), "131,072 max"),
        (ends(130816, fails_at=131072), "130,816"),
        (open_end(12288), "12,288?"),
        (open_end(12288, 16384), "12,288?"),
        (nothing(), "none"),
        (nothing(fails_at=4096, certified=False), "none?"),
        (no_answer("timeout"), "timed out"),
        (no_answer("unsupported"), "n/a"),
        (no_answer("degraded"), "spilled"),
        (no_answer("crash"), "crash"),
        (no_answer("error"), "error"),
    ],
)
def test_a_cell_says_how_far_it_goes_or_why_that_is_not_known(
    boundaries_of: FrameOf, row: dict[str, Any], shown: str
) -> None:
    assert _body(boundaries_of(row)) == [["4", "load", shown]]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (ends(46336), "Certified by two runs: it fits there, and 256 tokens further it fails."),
        (ends(131072), "max: the model's own limit."),
        (nothing(), "none: not even 256 tokens."),
        (open_end(12288), "?: not certified, the end was not found."),
    ],
)
def test_the_legend_speaks_only_of_what_is_there(boundaries_of: FrameOf, row: dict[str, Any], said: str) -> None:
    (table,) = boundary_tables(boundaries_of(row))
    assert table.legend == f"The largest max_seq_len that fits. {said}"


def test_what_is_certified_is_called_so_only_with_both_runs(boundaries_of: FrameOf) -> None:
    (table,) = boundary_tables(boundaries_of(open_end(12288, 16384)))
    assert "Certified" not in table.legend


def test_advice_that_many_cells_share_is_given_once(boundaries_of: FrameOf) -> None:
    frame = boundaries_of(
        ends(4096, bpw=2.5),
        nothing(bpw=4.0, advice="take less"),
        ends(2048, bpw=4.0, cache="Q4"),
        nothing(bpw=6.0, advice="take less"),
        nothing(bpw=6.0, cache="Q4", advice="take less"),
        nothing(bpw=8.0),
    )
    (table,) = boundary_tables(frame)
    assert table.notes == ["4 bpw load (FP16), 6 bpw load: nothing fits; take less"]


def test_where_nothing_fits_anywhere_the_advice_is_for_all(boundaries_of: FrameOf) -> None:
    rows = [
        nothing(bpw=bpw, cache=cache, advice="take a larger card") for bpw in (4.0, 6.0) for cache in ("FP16", "Q4")
    ]
    (table,) = boundary_tables(boundaries_of(*rows))
    assert table.body() == [["4", "load", "none", "none"], ["6", "load", "none", "none"]]
    assert table.notes == ["nothing fits; take a larger card"]


def test_only_uncertified_cells_say_what_is_known_of_each(boundaries_of: FrameOf) -> None:
    frame = boundaries_of(open_end(12288, error="timed out"), open_end(2048, 8192, bpw=6.0))
    (table,) = boundary_tables(frame)
    assert table.body() == [["4", "load", "12,288?"], ["6", "load", "2,048?"]]
    assert table.notes == [
        "4 bpw load: not certified, 12,288 fits, timed out",
        "6 bpw load: not certified, 2,048 fits, 8,192 fails",
    ]


def test_a_contradiction_is_told(boundaries_of: FrameOf) -> None:
    (table,) = boundary_tables(boundaries_of(ends(4096), ends(2048, bpw=6.0, contradictory=True)))
    assert table.notes == ["6 bpw load: contradictory, a length fitted at or above one that failed"]


def test_an_error_that_all_cells_share_is_told_once_and_for_all(boundaries_of: FrameOf) -> None:
    rows = [no_answer("unsupported", "no such architecture", cache=cache) for cache in ("FP16", "Q4")]
    (table,) = boundary_tables(boundaries_of(*rows))
    assert table.notes == ["no such architecture"]


def test_simulated_and_measured_boundaries_never_share_a_table(boundaries_of: FrameOf) -> None:
    tables = boundary_tables(boundaries_of(ends(4096), ends(2048, device_kind="cuda")))
    assert [(table.simulated, table.body()[0][2]) for table in tables] == [(False, "2,048"), (True, "4,096")]
    assert "(measured)" in tables[0].title
    assert "(simulated)" in tables[1].title


@ANOTHER_CARD_OR_MODEL
def test_another_card_or_model_is_another_table_with_a_file_of_its_own(
    boundaries_of: FrameOf, difference: dict[str, Any]
) -> None:
    tables = boundary_tables(boundaries_of(ends(2048), ends(4096, **difference)))
    assert sorted(table.body()[0][2] for table in tables) == ["2,048", "4,096"]
    assert len({table.title for table in tables}) == 2


def test_a_models_cards_stand_together_small_ones_first(boundaries_of: FrameOf) -> None:
    cards = {"a100": 40, "b": 24, "c": 80}
    rows = [
        ends(4096, model=model, device_name=name, device_total_bytes=gib * GIB)
        for name, gib in cards.items()
        for model in ("two", "one")
    ]
    names = [table.title.split(" (")[0] for table in boundary_tables(boundaries_of(*rows))]
    assert names == [f"{model} on {name}" for model in ("one", "two") for name in ("b", "a100", "c")]


def test_a_limit_counts_as_the_size_of_the_card(boundaries_of: FrameOf) -> None:
    limited = {"vram_limit_bytes": 8 * GIB, "device_total_bytes": 80 * GIB, "device_name": "large"}
    tables = boundary_tables(boundaries_of(ends(4096), ends(2048, **limited)))
    assert "80.00 GiB limited to 8.00 GiB" in tables[0].title


def test_attention_is_one_table_for_reading_and_several_for_plots(boundaries_of: FrameOf) -> None:
    frame = boundaries_of(ends(4096), ends(8192, attention="flash"))
    assert _body(frame) == [["4", "load", "flash", "8,192"], ["4", "load", "matmul", "4,096"]]
    apart = boundary_tables(frame, by_attention=True)
    assert [table.title.split(", ")[-1] for table in apart] == ["flash attention", "matmul attention"]
    assert len({table.title for table in apart}) == 2


@pytest.mark.parametrize(
    ("name", "values"), [("head_bits", [6, 8]), ("batch_size", [2, 16]), ("max_input_len", [512, 2048])]
)
def test_what_differs_between_lines_gets_a_column_in_the_order_of_numbers(
    boundaries_of: FrameOf, name: str, values: list[int]
) -> None:
    rows = [ends(256 * value, **{name: value}) for value in reversed(values)]
    (table,) = boundary_tables(boundaries_of(*rows))
    assert table.header() == ["bpw", "how", name, "FP16"]
    assert [row[2] for row in table.body()] == [str(value) for value in values]


def test_unquantised_weights_without_head_bits_make_no_column(boundaries_of: FrameOf) -> None:
    (table,) = boundary_tables(boundaries_of(ends(4096), ends(2048, bpw=16.0, head_bits=None)))
    assert table.header() == ["bpw", "how", "FP16"]


def test_of_two_searches_for_one_cell_the_later_is_shown(boundaries_of: FrameOf) -> None:
    late, early = (datetime(2026, 1, day, tzinfo=UTC) for day in (2, 1))
    assert _body(boundaries_of(ends(4096, finished_at=late), ends(2048, finished_at=early)))[0][2] == "4,096"


@pytest.mark.parametrize(
    ("row", "shown"),
    [(ends(4096), "4,096"), (nothing(fails_at=None), "none"), (no_answer("crash", None), "crash"), (open_end(9), "9?")],
)
def test_a_single_row_of_nulls_still_says_what_it_can(
    bare_boundaries_of: FrameOf, row: dict[str, Any], shown: str
) -> None:
    (table,) = boundary_tables(bare_boundaries_of(row))
    assert table.body() == [["4", "load", shown]]
    assert table.own_limit is None
    text = as_markdown(table).lower()
    assert "nan" not in text
    assert "none attention" not in text


def test_no_rows_make_no_tables(boundaries_of: FrameOf) -> None:
    assert boundary_tables(boundaries_of()) == boundary_tables(pd.DataFrame()) == []


def test_numbers_are_whole_in_80_columns_however_many_keys_differ(boundaries_of: FrameOf) -> None:
    rows = [
        ends(131072, cache=cache, attention=attention, head_bits=bits, batch_size=bits, max_input_len=bits)
        for cache in ("FP16", "Q8", "Q6", "Q4")
        for attention, bits in (("xformers", 6), ("matmul", 8))
    ]
    shown = _terminal(boundaries_of(*rows), 80)
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.count("131,072 max") == 8


def test_the_csv_has_raw_numbers(boundaries_of: FrameOf) -> None:
    frame = raw(as_frame(boundaries_of(ends(4096, bpw=6.0, case_ids=["a", "b"]), nothing(case_ids=[], notes=None))))
    assert list(frame["fails_at"]) == [256, 4352]
    lines = frame[["bpw", "fits_at", "notes", "case_ids"]].to_csv(index=False).splitlines()
    assert lines == ["bpw,fits_at,notes,case_ids", "4.0,,,[]", '6.0,4096,,"[""a"", ""b""]"']


@pytest.mark.parametrize(
    ("cache_sizes", "told"),
    [
        ((None,), "auto_up_to=N goes further."),
        ((16384,), "a job has the whole cache there, and a larger cache_size goes further."),
        ((None, 16384), "auto_up_to=N goes further, where a job has the whole cache with a larger cache_size."),
    ],
)
def test_what_goes_further_is_a_key_that_can(
    boundaries_of: FrameOf, cache_sizes: tuple[int | None, ...], told: str
) -> None:
    """No job is longer than the cache, so that auto_up_to is refused there."""
    open_ends = [
        ends(16384, fails_at=None, certified=False, searched_up_to=16384, scenario="generator", cache_size=size)
        for size in cache_sizes
    ]
    (table,) = boundary_tables(boundaries_of(*open_ends))
    assert table.legend.endswith(f"≥: all fits up to where the search ended; {told}")
