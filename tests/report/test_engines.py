"""Boundaries of several engines side by side: what a table says, and what the picture draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from bench.report.naming.models import CARD_AND_MODEL
from bench.report.plots.engines import draw_engines
from bench.report.plots.grid import MOST_ROWS
from bench.report.plots.panels import cards
from bench.report.tables.engines import engines_tables
from bench.report.text.render import as_markdown, as_rich
from bench.store.schema import BOUNDARIES
from tests.analysis.rows_as_read import boundary
from tests.conftest import Program
from tests.report.conftest import FrameOf, ends, no_answer, nothing

EXL2 = {"engine": "exllamav2", "attention": "flash", "allocator": "native"}
EXL3 = {"engine": "exllamav3", "attention": "triton", "allocator": "expandable", "max_attention_size": None}

MARKDOWN = """\
### EXL2 or EXL3: tiny on rtx_4090 (simulated), 24.00 GiB

The largest max_seq_len that fits. Certified by two runs: it fits there, and 256 tokens further it
fails. max: the model's own limit. none: not even 256 tokens. EXL2 runs with ExLlamaV2, EXL3 runs
with exllamav3. As many bits per weight are not the same quality in EXL2 and EXL3: memory alone is
compared. Q6 has keys and values of 8 and 4 bits with ExLlamaV2, 6 and 6 bits with exllamav3.

| bpw | how | FP16 EXL2 | FP16 EXL3 | Q6 EXL2 | Q6 EXL3 | k4v3 EXL3 |
| ---: | --- | ---: | ---: | ---: | ---: | ---: |
| 4 | load | 8,192 | 9,216 | 20,480 | 22,528 |  |
| 4 | lazy | 7,168 |  |  |  |  |
| 6 | load | none | 1,024 |  |  | 131,072 max |
"""


@pytest.fixture
def both(boundaries_of: FrameOf) -> pd.DataFrame:
    return boundaries_of(
        ends(8192, **EXL2),
        ends(7168, lazy=True, **{**EXL2, "engine": None}),  # a row of before there was a choice
        ends(20480, cache="Q6", **EXL2),
        nothing(bpw=6.0, **EXL2),
        ends(9216, **EXL3),
        ends(22528, cache="Q6", **EXL3),
        ends(1024, bpw=6.0, **EXL3),
        ends(131072, bpw=6.0, cache="k4v3", **EXL3),
    )


def _drawn(frame: pd.DataFrame) -> Figure:
    drawn, words = cards(frame, engines_tables, MOST_ROWS, panel=CARD_AND_MODEL)
    (card,) = drawn
    assert not words
    return draw_engines(card)


def test_each_cache_has_the_engines_side_by_side(both: pd.DataFrame) -> None:
    (table,) = engines_tables(both)
    assert as_markdown(table) == MARKDOWN


@pytest.mark.parametrize("width", [80, 120])
def test_it_is_at_home_in_a_terminal(both: pd.DataFrame, width: int) -> None:
    (table,) = engines_tables(both)
    console = Console(width=width)
    with console.capture() as captured:
        console.print(as_rich(table))
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= width
    assert next(line.split() for line in lines if line.split()[:2] == ["4", "load"])[2:4] == ["8,192", "9,216"]


@pytest.mark.parametrize(
    "other",
    [
        ends(9216, **EXL3, model="other"),
        ends(9216, **EXL3, model_fingerprint="f2"),
        ends(9216, **EXL3, device_name="l4"),
        ends(9216, **EXL3, device_kind="cuda"),
        no_answer("unsupported", **EXL3),
        ends(9216, **{**EXL2, "attention": "sdpa"}, attention_requested="sdpa"),
    ],
)
def test_nothing_stands_beside_what_is_of_another_model_or_card(boundaries_of: FrameOf, other: dict[str, Any]) -> None:
    assert engines_tables(boundaries_of(ends(8192, **EXL2), other)) == []


def test_what_one_engine_varies_alone_names_its_columns(boundaries_of: FrameOf) -> None:
    sdpa = {**EXL2, "attention": "sdpa", "attention_requested": "sdpa"}
    frame = boundaries_of(ends(8192, **EXL2), ends(4096, **sdpa), ends(9216, **EXL3), ends(2048, **EXL3, head_bits=8))
    (table,) = engines_tables(frame)
    assert table.header() == ["bpw", "how", "head_bits", "FP16 EXL2 flash", "FP16 EXL2 sdpa", "FP16 EXL3"]
    assert table.body() == [["4", "load", "6", "8,192", "4,096", "9,216"], ["4", "load", "8", "", "", "2,048"]]
    (axes,) = _drawn(frame).axes
    assert len({line.get_marker() for line in axes.get_lines() if line.get_marker() not in ("None", "")}) == 4


def test_the_picture_has_a_panel_for_each_cache_of_both_and_a_colour_for_each_engine(both: pd.DataFrame) -> None:
    figure = _drawn(both)
    assert [axes.get_title() for axes in figure.axes] == ["FP16 cache", "Q6 cache"]
    assert figure.get_suptitle() == "EXL2 or EXL3: tiny on rtx_4090 (simulated), 24.00 GiB"
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[:4] == ["EXL2, ExLlamaV2", "EXL3, exllamav3", "load", "lazy + load_autosplit"]
    assert "not the same quality" in figure.legends[0].get_title().get_text()
    marks = {line.get_color() for line in figure.axes[1].get_lines() if line.get_marker() == "o"}
    assert len(marks) == 2
    assert len({axes.get_ylim() for axes in figure.axes}) == 1


def _stored(folder: Path, *rows: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    numbered = [{"boundary_id": f"b{number}", **row} for number, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(numbered, schema=BOUNDARIES), folder / "boundaries.parquet")
    return folder


def test_a_report_compares_engines_where_both_have_rows_and_ranks_none_by_bits(
    in_process: Program, tmp_path: Path
) -> None:
    one = [boundary(length, bpw=bpw, **EXL2) for bpw, length in ((4.0, 65536), (5.0, 49152))]
    other = [boundary(length, bpw=bpw, **EXL3) for bpw, length in ((3.0, 131072), (4.0, 81920))]
    headroom = {"headroom_bytes": 1 << 30}
    _stored(tmp_path / "both", *(row | headroom for row in (*one, *other)))
    _stored(tmp_path / "one", *(row | headroom for row in one))
    both = in_process("report", "both", "--out", "out", plots=True)
    assert both.returncode == 0, both.stderr
    lines = [" ".join(line.split()) for line in both.stdout.splitlines()]
    assert "EXL2 or EXL3: tiny on card (simulated), 24.00 GiB" in lines
    assert "4 load 65,536 81,920" in lines
    assert [line.partition(":")[0] for line in lines if "best: " in line and " on card" in line] == [
        "tiny with ExLlamaV2 on card (simulated), 24.00 GiB",
        "tiny with exllamav3 on card (simulated), 24.00 GiB",
    ]
    assert [line.split()[2] for line in lines if line.startswith("quality, 32,768")] == ["5", "4"]
    text = (tmp_path / "out" / "tables.md").read_text()
    parts = [text.index(part) for part in ("## How far it goes", "## Engine by engine", "| FP16 EXL2 | FP16 EXL3 |")]
    assert parts == sorted(parts)
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.index('id="found-1"') < page.index('id="engines-1"') < page.index('id="advice-1"')
    assert "each have answers of their own" in page
    assert (tmp_path / "out" / "card-engines.png").stat().st_size
    alone = in_process("report", "one", "--out", "out", plots=True)
    assert alone.returncode == 0, alone.stderr
    assert not list((tmp_path / "out").glob("*engines*"))
    assert "EXL2" not in alone.stdout
    assert "Engine by engine" not in (tmp_path / "out" / "report.html").read_text()
