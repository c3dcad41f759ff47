"""What is written and printed for a set of rows: which files, in which order, and what is left to them."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from bench.core.errors import BadInput
from bench.report import echo
from bench.report.html import page
from bench.report.plots import write
from bench.report.publish import publish
from tests.report.conftest import FrameOf, ends, fits, no_answer, oom

NONE = pd.DataFrame()
TOLD = ("recommendations.md", "recommendations.csv")
ADVICE = (*TOLD, "tradeoffs.md")
FOUND = ("tables.md", *TOLD, "tradeoffs.md", "tradeoffs.csv")
PAGE = "report.html"
BOUNDARY_PLOT = ("rtx_4090-boundary.png", "rtx_4090-boundary.svg")
PEAK_PLOT = ("rtx_4090-peaks.png", "rtx_4090-peaks.svg")


def _names(files: list[Path]) -> list[str]:
    assert all(file.stat().st_size for file in files)
    return [file.name for file in files]


def test_cases_alone_make_what_they_always_made(frame_of: FrameOf, boundaries_of: FrameOf, tmp_path: Path) -> None:
    for nothing_found in (NONE, boundaries_of()):
        files = publish(frame_of(fits(4096, 5.0)), nothing_found, tmp_path, echo=False).files
        assert _names(files) == ["tables.md", *ADVICE, "tradeoffs.csv", "cases.csv", *PEAK_PLOT, PAGE]
        assert (tmp_path / "tables.md").read_text().startswith("# What fits\n\n## Case by case\n\n### tiny on rtx_4090")


def test_boundaries_alone_make_a_report(frame_of: FrameOf, boundaries_of: FrameOf, tmp_path: Path) -> None:
    for no_cases in (NONE, frame_of()):
        files = publish(no_cases, boundaries_of(ends(46336)), tmp_path, echo=False).files
        assert _names(files) == [*FOUND, "boundaries.csv", *BOUNDARY_PLOT, PAGE]
        text = (tmp_path / "tables.md").read_text()
        assert text.startswith("# What fits\n\n## How far it goes\n\n### tiny on rtx_4090")
        assert "| 4 | load | 46,336 |" in text


def test_both_make_one_report_with_the_boundaries_first(
    frame_of: FrameOf, boundaries_of: FrameOf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = publish(frame_of(fits(4096, 5.0)), boundaries_of(ends(46336)), tmp_path, echo=True).files
    assert _names(files) == [
        "tables.md",
        *TOLD,
        "tradeoffs.md",
        "tradeoffs.csv",
        "boundaries.csv",
        "cases.csv",
        *BOUNDARY_PLOT,
        *PEAK_PLOT,
        PAGE,
    ]
    text = (tmp_path / "tables.md").read_text()
    assert text.index("## How far it goes") < text.index("46,336") < text.index("## Case by case") < text.index("5.0")
    shown = capsys.readouterr().out
    assert shown.index("46,336") < shown.index("fits up to") < shown.index("report.html")
    *_, opened, beside = shown.splitlines()
    assert opened == f"open {tmp_path / 'report.html'}"
    assert beside.startswith(f"beside it in {tmp_path}: ")
    kinds = {"CSV": ".csv", "Markdown": ".md", "PNG": ".png", "SVG": ".svg"}
    counts = [f"{sum(file.suffix == end for file in files)} {kind}" for kind, end in kinds.items()]
    assert beside.removeprefix(f"beside it in {tmp_path}: ").split(", ") == counts


def test_probes_of_a_boundary_are_in_no_table_but_in_the_csv(
    frame_of: FrameOf, boundaries_of: FrameOf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = frame_of(
        fits(46336, 23.0, case_id="below"), oom(46592, case_id="above"), fits(4096, 5.0, case_id="asked", cache="Q4")
    )
    publish(cases, boundaries_of(ends(46336, case_ids=["above", "below"])), tmp_path, echo=True)
    for text in ((tmp_path / "tables.md").read_text(), capsys.readouterr().out):
        assert "46,592" not in text
        assert "4,096" in text
    assert pd.read_csv(tmp_path / "cases.csv")["case_id"].tolist() == ["below", "above", "asked"]


def test_cases_that_are_all_probes_make_no_verdicts(frame_of: FrameOf, boundaries_of: FrameOf, tmp_path: Path) -> None:
    cases = frame_of(fits(46336, 23.0, case_id="below"), oom(46592, case_id="above"))
    files = publish(cases, boundaries_of(ends(46336, case_ids=["above", "below"])), tmp_path, echo=False).files
    assert _names(files) == [*FOUND, "boundaries.csv", "cases.csv", *BOUNDARY_PLOT, PAGE]
    assert (tmp_path / "tables.md").read_text().startswith("# What fits\n\n## How far it goes\n\n### tiny")


def test_of_two_rows_for_one_boundary_the_later_counts_and_both_had_probes(
    frame_of: FrameOf, boundaries_of: FrameOf, tmp_path: Path
) -> None:
    early, late = (pd.Timestamp(f"2026-01-0{day}", tz="UTC") for day in (1, 2))
    searches = boundaries_of(
        ends(8192, boundary_id="same", finished_at=late, case_ids=["b"]),
        ends(4096, boundary_id="same", finished_at=early, case_ids=["a"]),
    )
    publish(frame_of(fits(4096, 5.0, case_id="a"), fits(8192, 6.0, case_id="b")), searches, tmp_path, echo=False)
    assert pd.read_csv(tmp_path / "boundaries.csv")["fits_at"].tolist() == [8192]
    assert "fits up to" not in (tmp_path / "tables.md").read_text()


def test_boundaries_without_an_answer_make_a_table_and_no_plot(
    boundaries_of: FrameOf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = publish(NONE, boundaries_of(no_answer("unsupported", case_ids=None)), tmp_path, echo=False).files
    assert _names(files) == ["tables.md", *ADVICE, "boundaries.csv", PAGE]
    assert "| n/a |" in (tmp_path / "tables.md").read_text()
    assert capsys.readouterr().err == "vram-bench: no plot for rtx_4090: no row has an answer\n"


def test_simulated_and_measured_boundaries_are_drawn_apart(boundaries_of: FrameOf, tmp_path: Path) -> None:
    measured = ends(4096, device_kind="cuda", device_name="NVIDIA GeForce RTX 4090", device_uuid="GPU-1234567")
    files = publish(NONE, boundaries_of(ends(8192), measured), tmp_path, echo=False).files
    assert len([file for file in files if file.suffix == ".png"]) == 2


def test_where_memory_is_known_it_is_drawn_and_where_not_it_is_said(
    frame_of: FrameOf, boundaries_of: FrameOf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(NONE, boundaries_of(ends(4096)), tmp_path, echo=False)
    assert capsys.readouterr().err == "vram-bench: no memory plot for rtx_4090: no row tells the memory\n"
    case = fits(4096, 5.0, case_id="a", weights_bytes=1 << 30)
    files = publish(frame_of(case), boundaries_of(ends(4096, case_ids=["a"])), tmp_path, echo=False).files
    assert [file.name for file in files if "memory" in file.name] == ["rtx_4090-memory.png", "rtx_4090-memory.svg"]
    assert capsys.readouterr().err == ""


def test_a_simulated_and_a_measured_card_of_one_name_keep_their_files_apart(
    boundaries_of: FrameOf, tmp_path: Path
) -> None:
    files = publish(NONE, boundaries_of(ends(4096), ends(8192, device_kind="cuda")), tmp_path, echo=False).files
    assert [file.name for file in files if file.suffix == ".svg"] == [
        "rtx_4090-measured-boundary.svg",
        "rtx_4090-simulated-boundary.svg",
    ]


def test_the_same_rows_make_the_same_pictures(boundaries_of: FrameOf, tmp_path: Path) -> None:
    made = [publish(NONE, boundaries_of(ends(4096)), tmp_path / name, echo=False).files for name in ("a", "b")]
    pictures = [[file.read_bytes() for file in files if file.suffix in (".png", ".svg")] for files in made]
    assert pictures[0] == pictures[1]
    assert b"max_seq_len" in pictures[0][1]  # text stays text


def test_pictures_that_another_process_draws_are_the_same_in_the_same_order(
    boundaries_of: FrameOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = boundaries_of(*(ends(4096, device_name=f"card_{n}") for n in range(3)))
    here = publish(NONE, rows, tmp_path / "here", echo=False).files
    drawn_by: list[int] = []
    monkeypatch.setattr(write, "_FEW", 2)
    monkeypatch.setattr(write, "save", lambda *_: drawn_by.append(os.getpid()))
    there = publish(NONE, rows, tmp_path / "there", echo=False).files
    assert not drawn_by  # the other process has a `save` of its own
    assert [file.name for file in there] == [file.name for file in here]
    pictures = [[file.read_bytes() for file in files if file.suffix in (".png", ".svg")] for files in (here, there)]
    assert pictures[0] == pictures[1]
    assert len(pictures[0]) == 6


def test_if_the_process_that_draws_is_killed_it_is_said_and_the_tables_are_there(
    boundaries_of: FrameOf, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "_FEW", 0)
    monkeypatch.setattr(write, "serve_parent", os.abort)
    files = publish(NONE, boundaries_of(ends(4096)), tmp_path, echo=False).files
    assert _names(files) == [*FOUND, "boundaries.csv", PAGE]
    assert "not all plots were drawn: the process that draws them was killed" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_bad_input_wherever_it_is_noticed(
    boundaries_of: FrameOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "_FEW", 0)
    (tmp_path / "rtx_4090-boundary.png").mkdir()
    with pytest.raises(BadInput, match="cannot be written"):
        publish(NONE, boundaries_of(ends(4096)), tmp_path, echo=False)


def test_of_very_many_tables_the_first_are_printed_and_it_is_said_where_the_others_are(
    frame_of: FrameOf,
    boundaries_of: FrameOf,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(page, "MOST_TABLES", 2)
    monkeypatch.setattr(echo, "MOST_TABLES", 2)
    models = [f"model_{n}" for n in range(5)]
    cases = frame_of(*(fits(4096, 5.0, model=model, bpw=3.0) for model in models))
    publish(cases, boundaries_of(*(ends(8192, model=model) for model in models)), tmp_path, echo=True)
    shown, written = capsys.readouterr().out, (tmp_path / "tables.md").read_text()
    assert shown.count(f"3 more of 5 tables are in {tmp_path / 'tables.md'}\n") == 2
    assert shown.count(f"3 more of 5 tables are in {tmp_path / 'recommendations.md'}\n") == 1
    assert [shown.count(f"{model} on ") for model in models] == [4, 4, 0, 0, 0]  # with the line of what is best
    assert [written.count(f"{model} on ") for model in models] == [2] * 5


def test_of_very_many_cards_some_are_drawn_and_it_is_said(
    boundaries_of: FrameOf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [ends(4096, device_name=f"card_{n:02d}") for n in range(22)]
    files = publish(NONE, boundaries_of(*rows), tmp_path, echo=False).files
    assert len([file for file in files if file.suffix == ".png"]) == 20
    assert "plots for 20 of 22 cards, not for card_20, card_21\n" in capsys.readouterr().err
