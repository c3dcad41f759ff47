"""The verdict tables over hand-made rows: what a reader sees in each cell."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest
from rich.console import Console

from bench.report.rows import raw
from bench.report.tables.verdicts import as_frames, verdict_tables
from bench.report.text.plain_table import PlainTable
from bench.report.text.render import as_markdown, as_rich
from tests.report.columns_shown import broken_within_words
from tests.report.conftest import ANOTHER_CARD_OR_MODEL, GIB, FrameOf, fits, oom

GOLDEN = """\
### tiny on rtx_4090 (simulated), 24.00 GiB, matmul attention

Peak VRAM in GiB, or the phase that ran out. max: the model's own limit. ≥: the longest of the
lengths tried that fits, and no more than that: max_seq_len=auto finds how far it goes. <: none of
the lengths tried fits, and this is the shortest of them.

| bpw | cache | how | 2,048 | 32,768 | 131,072 | fits up to |
| ---: | --- | --- | ---: | ---: | ---: | ---: |
| 2.5 | FP16 | load | 5.7 | 12.3 | OOM cache | ≥ 32,768 |
| 2.5 | FP16 | lazy | 5.8 | 12.4 | OOM load | ≥ 32,768 |
| 2.5 | Q4 | load | 5.1 |  | 9.0 | 131,072 max |
| 4.25 | FP16 | load | 8.0 | 15.0 |  | ≥ 32,768 |
| 16 | FP16 | load | OOM load | OOM load | OOM load | < 2,048 |

- context size assumed
"""


def test_a_small_table_reads_as_expected(frame_of: FrameOf) -> None:
    frame = frame_of(
        oom(131072, bpw=16.0),
        oom(2048, bpw=16.0),
        oom(32768, bpw=16.0),
        fits(32768, 15.0, bpw=4.25),
        fits(2048, 8.0, bpw=4.25),
        fits(2048, 5.1, bpw=2.5, cache="Q4"),
        fits(131072, 9.0, bpw=2.5, cache="Q4"),
        fits(2048, 5.8, bpw=2.5, lazy=True),
        fits(32768, 12.4, bpw=2.5, lazy=True),
        oom(131072, bpw=2.5, lazy=True),
        fits(2048, 5.7, bpw=2.5, notes=["context size assumed"]),
        fits(32768, 12.3, bpw=2.5, notes=["context size assumed"]),
        oom(131072, "cache", bpw=2.5),
    )
    (table,) = verdict_tables(frame)
    assert as_markdown(table) == GOLDEN


@pytest.mark.parametrize("phase", ["load", "cache", "prefill", "decode"])
def test_an_oom_names_its_phase(frame_of: FrameOf, phase: str) -> None:
    (table,) = verdict_tables(frame_of(oom(4096, phase)))
    assert table.body()[0][3] == f"OOM {phase}"


@pytest.mark.parametrize(
    ("outcome", "shown"),
    [
        ("timeout", "timed out"),
        ("unsupported", "n/a"),
        ("degraded", "spilled"),
        ("crash", "crash"),
        ("error", "error"),
    ],
)
def test_other_outcomes_are_named_and_explained(frame_of: FrameOf, outcome: str, shown: str) -> None:
    (table,) = verdict_tables(frame_of({"outcome": outcome, "phase": "load", "error": "the reason"}))
    assert table.body()[0][3] == shown
    assert table.fits_up_to(0) == "–"
    assert table.notes == ["the reason"]


@pytest.mark.parametrize(
    ("rows", "shown"),
    [
        ([fits(2048, 5.0), oom(8192)], "≥ 2,048"),
        ([fits(2048, 5.0), oom(2304)], "2,048"),
        ([fits(2048, 5.0), fits(8192, 6.0)], "≥ 8,192"),
        ([fits(2048, 5.0), {"max_seq_len": 8192, "outcome": "timeout", "phase": "prefill"}], "≥ 2,048"),
        ([fits(2048, 5.0), fits(131072, 6.0)], "131,072 max"),
        ([oom(2048), oom(8192)], "< 2,048"),
        ([oom(8192)], "not at 8,192"),
        ([oom(256), oom(8192)], "none"),
        ([oom(2048), {"max_seq_len": 8192, "outcome": "crash", "phase": "load"}], "not at 2,048"),
        ([{"max_seq_len": 8192, "outcome": "crash", "phase": "load"}], "–"),
    ],
)
def test_the_last_column_says_how_far_a_line_was_seen_to_fit(
    frame_of: FrameOf, rows: list[dict[str, Any]], shown: str
) -> None:
    (table,) = verdict_tables(frame_of(*rows))
    assert table.fits_up_to(0) == table.body()[0][-1] == shown


def test_simulated_and_measured_rows_never_share_a_table(frame_of: FrameOf) -> None:
    simulated = fits(4096, 5.0)
    measured = fits(4096, 5.5, device_kind="cuda")
    tables = list(verdict_tables(frame_of(simulated, measured)))
    assert [(table.simulated, table.body()[0][3]) for table in tables] == [(False, "5.5"), (True, "5.0")]
    assert "(measured)" in tables[0].title
    assert "(simulated)" in tables[1].title


@ANOTHER_CARD_OR_MODEL
def test_another_card_or_model_is_another_table_with_a_file_of_its_own(
    frame_of: FrameOf, difference: dict[str, Any]
) -> None:
    tables = list(verdict_tables(frame_of(fits(2048, 5.0), fits(4096, 6.0, **difference))))
    assert sorted(table.lengths for table in tables) == [[2048], [4096]]
    assert len({table.title for table in tables}) == 2


def test_attention_is_one_table_for_reading_and_several_for_plots(frame_of: FrameOf) -> None:
    frame = frame_of(fits(4096, 5.0), fits(4096, 4.0, attention="flash"))
    (both,) = verdict_tables(frame)
    assert both.header()[3] == "attention"
    assert [row[3:5] for row in both.body()] == [["flash", "4.0"], ["matmul", "5.0"]]
    apart = list(verdict_tables(frame, by_attention=True))
    assert [table.title.split(", ")[-1] for table in apart] == ["flash attention", "matmul attention"]
    assert len({table.title for table in apart}) == 2


def test_where_no_attention_was_chosen_the_one_asked_for_is_shown(frame_of: FrameOf) -> None:
    (table,) = verdict_tables(frame_of(oom(4096, attention=None, attention_requested="flash")))
    assert table.title.endswith("flash attention")


@pytest.mark.parametrize(
    ("name", "values"), [("head_bits", [6, 8]), ("batch_size", [1, 2]), ("max_input_len", [512, 2048])]
)
def test_what_differs_between_lines_gets_a_column(frame_of: FrameOf, name: str, values: list[int]) -> None:
    rows = [fits(4096, 5.0 + index, **{name: value}) for index, value in enumerate(values)]
    (table,) = verdict_tables(frame_of(*rows))
    assert table.header() == ["bpw", "cache", "how", name, "4,096", "fits up to"]
    assert {(row[3], row[4]) for row in table.body()} == {(str(values[0]), "5.0"), (str(values[1]), "6.0")}


def test_lines_are_sorted_by_bits_then_by_cache_from_large_to_small(frame_of: FrameOf) -> None:
    rows = [fits(4096, 5.0, bpw=bpw, cache=cache) for bpw in (16.0, 4.0) for cache in ("Q4", "Q6", "Q8", "FP16")]
    (table,) = verdict_tables(frame_of(*rows))
    caches = ["FP16", "Q8", "Q6", "Q4"]
    assert [(row[0], row[1]) for row in table.body()] == [(bpw, cache) for bpw in ("4", "16") for cache in caches]


def test_a_limit_is_in_the_title_and_is_the_cards_edge(frame_of: FrameOf) -> None:
    (table,) = verdict_tables(frame_of(fits(4096, 5.0, vram_limit_bytes=8 * GIB)))
    assert "24.00 GiB limited to 8.00 GiB" in table.title
    assert table.limit_bytes == 8 * GIB


def test_of_two_rows_for_one_cell_the_later_is_shown(frame_of: FrameOf) -> None:
    late, early = (datetime(2026, 1, day, tzinfo=UTC) for day in (2, 1))
    (table,) = verdict_tables(frame_of(fits(4096, 7.0, started_at=late), fits(4096, 5.0, started_at=early)))
    assert table.body()[0][3] == "7.0"


def test_a_note_that_many_rows_share_is_shown_once(frame_of: FrameOf) -> None:
    frame = frame_of(fits(2048, 5.0, notes=["a", "b"]), fits(4096, 5.0, notes=["a"]), fits(8192, 5.0))
    (table,) = verdict_tables(frame)
    assert table.assumptions == ["a", "b"]


@pytest.mark.parametrize("row", [fits(4096, None), oom(4096), {"outcome": "crash", "phase": "load"}])
def test_a_single_row_of_nulls_still_shows_its_verdict(bare_frame_of: FrameOf, row: dict[str, Any]) -> None:
    (table,) = verdict_tables(bare_frame_of(row))
    shown = {"fits": "–", "oom": "OOM load", "crash": "crash"}[row["outcome"]]
    assert table.body()[0][3] == shown
    assert table.limit_bytes is None
    assert "nan" not in as_markdown(table).lower()
    assert "none attention" not in as_markdown(table).lower()


def test_nulls_in_some_rows_do_not_lose_the_verdict_of_any(frame_of: FrameOf) -> None:
    (table,) = verdict_tables(frame_of(fits(2048, 5.0), fits(2048, 6.0, head_bits=None, bpw=5.0)))
    assert sorted(cell for row in table.body() for cell in row if cell in ("5.0", "6.0")) == ["5.0", "6.0"]


def test_a_whole_number_stays_whole_beside_a_null(frame_of: FrameOf) -> None:
    rows = [fits(2048, 5.0, batch_size=1), fits(2048, 6.0, batch_size=2), fits(2048, 7.0, batch_size=None)]
    (table,) = verdict_tables(frame_of(*rows))
    assert {"1", "2"} <= {row[3] for row in table.body()}


def test_the_terminal_shows_every_cell_in_80_columns(frame_of: FrameOf) -> None:
    lengths = (2048, 8192, 32768, 131072)
    (table,) = verdict_tables(frame_of(*(fits(n, 5.5, cache="Q4") for n in lengths), oom(131072, "prefill")))
    console = Console(width=80)
    with console.capture() as captured:
        console.print(as_rich(table))
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= 80
    text = captured.get()
    for row in (table.header(), *table.body()):
        assert [cell for cell in row if cell not in text] == []


def test_the_csv_has_raw_bytes_and_no_documents(frame_of: FrameOf) -> None:
    frame = raw(next(as_frames(frame_of(fits(8192, 6.0, telemetry="{}"), fits(2048, 5.0, environment="{}")), 2)))
    assert frame["peak_device_bytes"].tolist() == [5 * GIB, 6 * GIB]
    assert frame["max_seq_len"].tolist() == [2048, 8192]
    assert {"telemetry", "environment", "phases"}.isdisjoint(frame.columns)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_number_is_cut_however_little_room_there_is(width: int) -> None:
    columns = ["for", "bpw", "cache", "how", "attention", "max_seq_len", "left, GiB", "tokens/s", "rests on"]
    line = ["quality, 131,072", "4.25", "FP16", "load", "xformers", "131,072", "32.9 est.", "182 est.", "131,072+"]
    table = PlainTable(title="t", legend="", columns=columns, lines=[line])
    console = Console(file=io.StringIO(), width=width)
    console.print(as_rich(table))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(cell in text for cell in line)
    assert max(map(len, text.splitlines())) <= width


_EVERY_KEY = {
    "head_bits": (6, 8),
    "attention_requested": ("flash", "matmul"),
    "batch_size": (1, 16),
    "max_input_len": (1024, 2048),
    "max_attention_size": (1048576, 4194304),
}


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("varying", [list(_EVERY_KEY)[:n] for n in range(len(_EVERY_KEY) + 1)], ids=len)
def test_names_of_columns_break_at_their_words_alone(frame_of: FrameOf, width: int, varying: list[str]) -> None:
    rows = [
        fits(n, 10.5, bpw=4.25, **dict(zip(varying, values, strict=True)), attention="xformers")
        for values in product(*(_EVERY_KEY[name] for name in varying))
        for n in (512, 131072)
    ]
    (table,) = verdict_tables(frame_of(*rows))
    console = Console(file=io.StringIO(), width=width)
    console.print(as_rich(table))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    shown = text.splitlines()
    assert max(map(len, shown)) <= width
    assert broken_within_words(table.header(), shown, "4.25") == []
    told = set(text.split())
    for line in table.body():
        assert set(" ".join(line).split()) <= told
