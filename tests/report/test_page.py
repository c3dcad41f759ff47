"""The page as a file: what it says, what it leaves out and says so, and that it needs nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.core.caches import CACHES
from bench.report.html import cases as page_cases
from bench.report.html import page as pages
from bench.report.publish import publish
from tests.report.conftest import FrameOf, ends, fits, no_answer, nothing, oom, open_end
from tests.report.parsed_page import Page

NONE = pd.DataFrame()
REAL = {"device_kind": "cuda", "device_name": "NVIDIA L4", "device_uuid": "GPU-123456"}


def page_of(cases: pd.DataFrame, boundaries: pd.DataFrame, folder: Path) -> Page:
    files = publish(cases, boundaries, folder, echo=False, plots=False).files
    assert files[-1].name == "report.html"
    return Page(files[-1].read_text(encoding="utf-8"))


def test_no_rows_are_told_in_every_part(frame_of: FrameOf, boundaries_of: FrameOf, tmp_path: Path) -> None:
    for cases, boundaries in ((NONE, NONE), (frame_of(), boundaries_of())):
        page = page_of(cases, boundaries, tmp_path)
        for words in ("there are no rows", "0 cases of ExLlamaV2 on 0 cards", "Nothing to recommend"):
            assert words in page.text
        assert "No case has a row here" in page.text
        assert not page.figures


def test_a_single_row_is_shown_everywhere(frame_of: FrameOf, tmp_path: Path) -> None:
    page = page_of(frame_of(fits(4096, 5.0, host="box", torch_version="2.13")), NONE, tmp_path)
    assert "1 case of ExLlamaV2 on 1 card." in page.text
    assert [(row["max_seq_len"], row["VRAM, GiB"], row["verdict"]) for row in page.cases] == [(4096, 5.0, "fits")]
    (figure,) = page.figures
    assert [trace["y"] for trace in figure["data"]] == [[5.0]]
    both = frame_of(fits(4096, 5.0, engine="exllamav3"), fits(4096, 6.0, engine="exllamav2"))
    assert "2 cases of ExLlamaV2 and exllamav3 on 1 card." in page_of(both, NONE, tmp_path).text
    assert "box simulated rtx_4090 – – 2.13" in page.text  # host, kind, card, each engine, torch


def test_rows_of_nulls_are_told_and_never_drawn_empty(
    bare_frame_of: FrameOf, bare_boundaries_of: FrameOf, tmp_path: Path
) -> None:
    page = page_of(bare_frame_of(fits(4096, None)), bare_boundaries_of(no_answer("error", None)), tmp_path)
    assert page.text.count("Nothing to draw: no row here says how much fits.") == 2
    assert not page.figures
    assert page.cases == [
        {"model": "tiny", "card": "rtx_4090", "kind": "simulated", "bpw": 4.0, "cache": "FP16", "how": "load"}
        | {"max_seq_len": 4096, "verdict": "fits"}
    ]


def test_a_boundary_is_drawn_as_its_table_says(boundaries_of: FrameOf, tmp_path: Path) -> None:
    found = boundaries_of(
        ends(46336, bpw=2.5), ends(131072, bpw=2.0), open_end(8192, bpw=4.0), nothing(bpw=6.0), ends(512, lazy=True)
    )
    (figure,) = page_of(NONE, found, tmp_path).figures
    plain, crosses, lazy, legend = figure["data"]
    assert plain["x"] == ["2", "2.5", "4"]
    assert plain["y"] == [131072, 46336, 8192]
    assert plain["text"] == ["131,072 max", "46,336", "8,192, not certified"]
    assert plain["marker"]["symbol"] == ["circle", "circle", "circle-open"]
    assert (crosses["x"], crosses["text"], crosses["mode"]) == (["6"], ["nothing fits"], "markers")
    assert (lazy["name"], lazy["line"]["dash"]) == ("FP16 cache, lazy", "dash")
    assert legend["name"] == "nothing fits"


@pytest.mark.parametrize("key", ["head_bits", "batch_size", "lazy"])
def test_no_two_curves_look_alike_whatever_varies_and_however_many_widths(
    frame_of: FrameOf, boundaries_of: FrameOf, tmp_path: Path, key: str
) -> None:
    values = (False, True) if key == "lazy" else (1024, 4096)
    widths = [2.0 + n / 2 for n in range(9)]
    cases = [fits(512 * n, 5.0, bpw=bpw, **{key: value}) for bpw in widths for value in values for n in (1, 4)]
    found = [ends(512 * n, cache="Q4", **{key: value}) for n, value in enumerate(values, 1)]
    far, lengths = (figure["data"] for figure in page_of(frame_of(*cases), boundaries_of(*found), tmp_path).figures)
    looks = [(curve["marker"]["color"], curve["marker"]["symbol"]) for curve in lengths]
    assert len(set(looks)) == len({curve["name"] for curve in lengths}) == len(looks) == 18
    assert len({(*curve["marker"]["symbol"], curve["name"]) for curve in far}) == len(far) == 2
    assert far[0]["marker"]["symbol"] != far[1]["marker"]["symbol"]


def test_no_line_leads_to_where_memory_ran_out(frame_of: FrameOf, tmp_path: Path) -> None:
    page = page_of(frame_of(fits(4096, 5.0), fits(8192, 9.0), oom(16384, "cache"), oom(32768)), NONE, tmp_path)
    (figure,) = page.figures
    line, crosses, legend = figure["data"]
    assert (line["x"], line["y"]) == (["4,096", "8,192"], [5.0, 9.0])
    assert (crosses["x"], crosses["y"], crosses["yaxis"]) == (["16,384", "32,768"], [0.5, 0.5], "y2")
    strip = figure["layout"]["yaxis2"]  # how much it lacked no row tells: no scale, above that of what fits
    assert strip["ticktext"] == ["out of<br>memory"]
    assert strip["domain"][0] > figure["layout"]["yaxis"]["domain"][1]
    assert figure["layout"]["xaxis"]["categoryarray"] == ["4,096", "8,192", "16,384", "32,768"]
    assert (crosses["mode"], crosses["text"]) == ("markers", ["OOM in cache", "OOM in load"])
    assert legend["name"] == "out of memory"


def test_every_card_table_and_plot_says_its_kind_and_none_mixes(
    frame_of: FrameOf, boundaries_of: FrameOf, tmp_path: Path
) -> None:
    cases = frame_of(fits(4096, 5.0), fits(4096, 6.0, **REAL))
    page = page_of(cases, boundaries_of(ends(8192), ends(4096, **REAL)), tmp_path)
    assert "Some cards are simulated , some were measured ;" in page.text
    assert len(page.figures) == 4
    for label, figure in zip(page.labels, page.figures, strict=True):
        (kind,) = [note["text"] for note in figure["layout"]["annotations"] if note.get("name") == "kind"]
        assert kind == ("<b>measured</b>" if "L4" in label else "<b>simulated</b>")
    for name, kind in (("rtx_4090", "simulated"), ("NVIDIA L4", "measured")):
        # A card, two tables with their plots, what to run, the trade-offs.
        assert len(re.findall(rf"{name} {kind} 24\.00 GiB", page.text)) == 5
    assert {(row["card"], row["kind"]) for row in page.cases} == {("rtx_4090", "simulated"), ("NVIDIA L4", "measured")}


def test_measured_and_estimated_speeds_have_columns_of_their_own(frame_of: FrameOf, tmp_path: Path) -> None:
    cases = frame_of(
        fits(4096, 5.0, estimated_decode_tokens_per_s=50.0), fits(4096, 6.0, decode_tokens_per_s_full=40.0, **REAL)
    )
    rows = {row["kind"]: row for row in page_of(cases, NONE, tmp_path).cases}
    assert (rows["simulated"]["tokens/s, measured"], rows["simulated"]["tokens/s, estimated"]) == (None, 50.0)
    assert (rows["measured"]["tokens/s, measured"], rows["measured"]["tokens/s, estimated"]) == (40.0, None)


def test_it_refers_to_nothing_outside_and_may_not(frame_of: FrameOf, boundaries_of: FrameOf, tmp_path: Path) -> None:
    page = page_of(frame_of(fits(4096, 5.0)), boundaries_of(ends(46336)), tmp_path)
    assert {link for link in page.links if not link.startswith("#")} == {"data:,"}
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "default-src &#39;none&#39;" in text
    assert "@import" not in text
    assert not re.search(r"url\((?!data:)[^)]*//", re.sub(r"<script.*?</script>", "", text, flags=re.S))


def test_names_are_text_wherever_they_stand(frame_of: FrameOf, boundaries_of: FrameOf, tmp_path: Path) -> None:
    name = "</script><img src=x onerror=alert(1)><b>'\"&"
    usual = page_of(frame_of(fits(4096, 5.0)), boundaries_of(ends(46336)), tmp_path / "usual")
    values = {"model": name, "device_name": name, "host": name}
    page = page_of(frame_of(fits(4096, 5.0, **values)), boundaries_of(ends(46336, **values)), tmp_path / "hostile")
    assert page.tags == usual.tags
    assert page.cases[0]["model"] == name
    assert name in " ".join(page.words)


def test_of_many_cases_the_last_are_shown_and_the_rest_is_told(
    frame_of: FrameOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_cases, "MOST_CASES", 2)
    moments = pd.date_range("2026-01-01", periods=3, tz="UTC")
    lengths = (4096, 8192, 16384)
    cases = frame_of(*(fits(n, 5.0, started_at=moment) for n, moment in zip(lengths, moments, strict=True)))
    page = page_of(cases, NONE, tmp_path)
    assert [row["max_seq_len"] for row in page.cases] == [16384, 8192]
    assert "The 2 that were run last, of 3; cases.csv beside this page has all." in page.text


def test_of_many_tables_the_first_are_shown_and_the_rest_is_told(
    frame_of: FrameOf, boundaries_of: FrameOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MOST_TABLES", 2)
    models = [{"model": f"model_{i}"} for i in range(4)]
    cases = frame_of(*(fits(4096, 5.0, **model) for model in models))
    page = page_of(cases, boundaries_of(*(ends(8192, **model) for model in models)), tmp_path)
    assert len(page.figures) == 4
    for file in ("tables.md", "recommendations.md", "tradeoffs.md"):
        assert f"The first 2 of 4 are on this page; {file} beside it has all." in page.text
    assert "2 more tables are in tables.md" in page.text


def test_a_grid_that_nobody_reads_is_left_to_the_markdown(
    frame_of: FrameOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MOST_CELLS", 1)
    page = page_of(frame_of(fits(4096, 5.0), fits(8192, 6.0)), NONE, tmp_path)
    assert not page.figures
    assert "1 more table is in tables.md" in page.text


def test_what_to_copy_is_on_the_page(boundaries_of: FrameOf, tmp_path: Path) -> None:
    page = page_of(NONE, boundaries_of(ends(46336, headroom_bytes=2 << 30, peak_device_bytes=22 << 30)), tmp_path)
    assert "config.max_seq_len = 46336" in page.text
    assert "vram-bench sweep model=local" in page.text
    assert "cache_mode: FP16" in page.text


def test_every_number_of_a_case_is_as_it_is_shown(frame_of: FrameOf, tmp_path: Path) -> None:
    """A filter looks at the value: what one reads must be what it finds."""
    widths = (2.5, 4.25, 3.0, 4.4832)
    known = {"peak_allocated_bytes": 5 * 10**9, "predicted_peak_bytes": 5 * 10**9, "wall_s": 1.23456}
    cases = frame_of(*(fits(4096, 5.123456, bpw=bpw, estimated_decode_tokens_per_s=9.8765, **known) for bpw in widths))
    page = page_of(cases, NONE, tmp_path)
    (columns,) = [data["columns"] for name, data in page.json if name == "case-rows"]
    assert sorted(row["bpw"] for row in page.cases) == sorted(widths)
    digits = {column["title"]: column["digits"] for column in columns if not column["isWord"]}
    assert digits["bpw"] is None
    for row in page.cases:
        for title, places in digits.items():
            assert places is None or row[title] == round(row[title], places), title
        assert row["in use, GiB"] == row["in use as predicted, GiB"] == 4.66


def test_what_ran_out_of_memory_has_no_use_to_compare_with(frame_of: FrameOf, tmp_path: Path) -> None:
    page = page_of(
        frame_of(fits(4096, 5.0, peak_allocated_bytes=4 << 30), oom(8192, peak_allocated_bytes=1)), NONE, tmp_path
    )
    assert {row["max_seq_len"]: row["in use, GiB"] for row in page.cases} == {4096: 4.0, 8192: None}
    assert "what the case would have needed in use" in page.text


def test_each_card_links_to_its_parts(frame_of: FrameOf, boundaries_of: FrameOf, tmp_path: Path) -> None:
    cases = frame_of(fits(4096, 5.0), fits(4096, 6.0, **REAL))
    page_of(cases, boundaries_of(ends(8192), ends(4096, **REAL), ends(4096, model="b")), tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    ids = set(re.findall(r'id="([\w-]+)"', text))
    links = re.findall(r'<a href="#([\w-]+)">', text)
    assert set(links) <= ids
    tiles = re.findall(r'<p class="ways">(.*?)</p>', text, flags=re.S)
    assert len(tiles) == 2
    for tile, card in zip(tiles, ("NVIDIA L4", "rtx_4090"), strict=True):
        targets = re.findall(r'href="#([\w-]+)"', tile)
        assert len(targets) == 4
        for target in targets:
            following = text[text.index(f'id="{target}"') :]
            assert following.index(card) < 400


def test_cards_are_the_rows_of_one_table(boundaries_of: FrameOf, tmp_path: Path) -> None:
    small = {"device_name": "small", "device_total_bytes": 8 << 30}
    found = boundaries_of(
        ends(8192, bpw=2.5),
        ends(131072, cache="Q4", bpw=2.5),
        ends(512, bpw=2.5, **small),
        nothing(cache="Q4", bpw=2.5, **small),
    )
    page = page_of(NONE, found, tmp_path)
    assert "All cards: tiny, 2.5 bpw, load" in page.text
    text = (tmp_path / "cards.md").read_text()
    assert "| card | FP16 | Q4 |" in text
    first, second = [line for line in text.splitlines() if "GiB |" in line]
    assert first == "| small (simulated), 8.00 GiB | 512 | none |"
    assert second == "| rtx_4090 (simulated), 24.00 GiB | 8,192 | 131,072 max |"
    frame = pd.read_csv(tmp_path / "cards.csv")
    assert frame["card"].tolist() == ["small (simulated), 8.00 GiB", "rtx_4090 (simulated), 24.00 GiB"]
    assert frame["tiny 2.5 bpw FP16 load"].tolist() == [512, 8192]


def test_a_card_that_runs_another_attention_by_itself_has_no_columns_of_its_own(
    boundaries_of: FrameOf, tmp_path: Path
) -> None:
    old = {"device_name": "t4", "device_total_bytes": 15 << 30, "attention": "xformers"}
    page_of(NONE, boundaries_of(ends(8192), ends(4096, **old)), tmp_path)
    text = (tmp_path / "cards.md").read_text()
    assert "| t4 (simulated), 15.00 GiB, xformers attention | 4,096 |" in text
    assert "| rtx_4090 (simulated), 24.00 GiB, matmul attention | 8,192 |" in text


def test_one_card_has_no_table_of_cards(boundaries_of: FrameOf, tmp_path: Path) -> None:
    page_of(NONE, boundaries_of(ends(8192), ends(4096, model="other")), tmp_path)
    assert not (tmp_path / "cards.md").exists()


def test_where_all_go_to_the_end_words_take_the_place_of_a_plot(boundaries_of: FrameOf, tmp_path: Path) -> None:
    page = page_of(NONE, boundaries_of(ends(131072), ends(131072, cache="Q4")), tmp_path)
    assert "All 2 settings go to 131,072 tokens" in page.text
    assert not page.figures


def test_what_only_failed_is_named_in_the_legend_by_its_shape(frame_of: FrameOf, tmp_path: Path) -> None:
    """Of more widths than colours some share one, and their crosses have an outline: the legend shows it."""
    rows = [fits(4096, 4.0 + n, bpw=2.0 + n) for n in range(4)] + [oom(4096, bpw=8.0), oom(8192, bpw=8.0)]
    (figure,) = page_of(frame_of(*rows), NONE, tmp_path).figures
    legend = {trace["name"]: trace["marker"]["symbol"] for trace in figure["data"] if trace.get("showlegend", True)}
    assert legend["8 bpw, load"] == "square-open"
    assert len(legend) == 6
    symbols = {trace["marker"]["symbol"] for trace in figure["data"]}
    assert symbols == set(legend.values())


def test_cards_of_many_settings_have_tables_that_are_not_cut(boundaries_of: FrameOf, tmp_path: Path) -> None:
    cards: list[dict[str, Any]] = [{}, {"device_name": "small", "device_total_bytes": 8 << 30}]
    rows = [ends(1024, bpw=bpw, cache=cache, **card) for card in cards for bpw in (2.0, 3.0, 4.0) for cache in CACHES]
    page_of(NONE, boundaries_of(*rows), tmp_path)
    text = (tmp_path / "cards.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        f"### All cards: tiny, {bpw} bpw, load" for bpw in (2, 3, 4)
    ]


def test_where_the_memory_goes_is_on_the_page(frame_of: FrameOf, boundaries_of: FrameOf, tmp_path: Path) -> None:
    parts = {
        "weights_bytes": 4 << 30,
        "cache_bytes": 3 << 30,
        "context_bytes": 1 << 29,
        "peak_allocated_bytes": 8 << 30,
    }
    cases = frame_of(fits(8192, 9.0, case_id="a", **parts))
    page = page_of(cases, boundaries_of(ends(8192, case_ids=["a"], peak_device_bytes=9 << 30)), tmp_path)
    memory = page.figures[1]
    assert {trace["name"]: trace["y"] for trace in memory["data"]} == {
        "weights": [4.0],
        "cache": [3.0],
        "in use, not told apart": [1.0],
        "CUDA context": [0.5],
        "kept by PyTorch, unused": [0.5],
    }
    assert memory["layout"]["xaxis"]["categoryarray"] == ["4 bpw FP16 load"]
