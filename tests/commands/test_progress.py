"""What a sweep says while it runs, in a terminal and anywhere else."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from bench.commands import progress as commands_progress
from bench.commands.progress import _Bar, _Lines, describe_boundary
from bench.config.cases import plan_sweep
from bench.core.case import Search
from bench.core.columns import BoundaryRow
from bench.core.messages import PhaseProgress
from bench.core.outcome import Phase
from bench.report.naming.work import WorkNames

(CELL,) = plan_sweep(["model=phi_3_medium_128k", "device=rtx_4060_ti_16gb", "lazy=true"]).searches
NAMES = WorkNames([CELL])
FITS = {"outcome": "fits", "phase": "done", "peak_device_bytes": 5 << 30, "wall_s": 1.25, "error": None}
FAR = PhaseProgress(Phase.PREFILL, 12_288, 40_956, "tokens")
FOUND = {
    **dict.fromkeys(BoundaryRow.__annotations__),
    "outcome": "fits",
    "fits_at": 4096,
    "fails_at": 4352,
    "contradictory": False,
    "probes": 2,
    "advice": None,
    "error": None,
}


def console(width: int = 80, terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)


def lines_of(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


# Plain lines


@pytest.mark.parametrize(
    ("searches", "cases", "known", "said"),
    [
        (1, 0, 0, "1 boundary to find"),
        (96, 0, 0, "96 boundaries to find"),
        (0, 1, 0, "1 case to measure"),
        (2, 8, 3, "2 boundaries to find, 8 cases to measure, 3 of them stored already"),
    ],
)
def test_it_begins_with_what_there_is_to_do(searches: int, cases: int, known: int, said: str) -> None:
    out = console()
    _Lines(out, NAMES).begin(searches, cases, known)
    assert lines_of(out) == [said]


def test_of_many_recordings_some_lines_tell() -> None:
    out = console()
    progress = _Lines(out, NAMES)
    for done in range(41):
        progress.prepare(done, 40)
    assert lines_of(out) == [
        "10 of 40 recordings made to predict with",
        "20 of 40 recordings made to predict with",
        "30 of 40 recordings made to predict with",
        "40 recordings made to predict with",
    ]
    one = console()
    for done in range(2):
        _Lines(one, NAMES).prepare(done, 1)
    assert lines_of(one) == ["1 recording made to predict with"]


def test_probes_are_indented_above_their_boundary_and_long_lines_are_not_wrapped() -> None:
    out = console(width=40)
    progress = _Lines(out, NAMES)
    progress.begin(1, 1, 0)
    progress.probe(CELL.at(4096), FITS)
    progress.probe(CELL.at(4352), {**FITS, "outcome": "oom", "phase": "cache"})
    progress.find(CELL, FOUND)
    progress.finish(CELL.at(256), FITS)
    name = "phi_3_medium_128k 4 bpw FP16 lazy"
    assert lines_of(out)[1:] == [
        f"    {name} 4096 on rtx_4060_ti_16gb: fits, peak 5.00 GiB, 1.2 s",
        f"    {name} 4352 on rtx_4060_ti_16gb: oom in cache, 1.2 s",
        f"[1/2] {name} on rtx_4060_ti_16gb: fits up to 4,096, fails at 4,352; 2 probes",
        f"[2/2] {name} 256 on rtx_4060_ti_16gb: fits, peak 5.00 GiB, 1.2 s",
    ]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "fits up to 4,096, fails at 4,352; 2 probes"),
        (
            {"fails_at": None, "probes": 1, "native_max_seq_len": 4096},
            "fits up to 4,096, the model's own limit; 1 probe",
        ),
        (
            {"fails_at": None, "native_max_seq_len": 131072, "searched_up_to": 4096},
            "fits up to 4,096 at least, where the search ended; 2 probes",
        ),
        (
            {"fails_at": None, "native_max_seq_len": 4096, "native_max_seq_len_basis": "engine default"},
            "fits up to 4,096 at least, where the search ended; 2 probes",
        ),
        ({"contradictory": True, "probes": 5}, "fits up to 4,096, fails at 4,352; 5 probes; contradictory"),
        ({"outcome": "oom", "fits_at": None, "advice": "bpw=2 would fit"}, "nothing fits; bpw=2 would fit"),
        ({"outcome": "oom", "fits_at": None}, "nothing fits"),
        ({"outcome": "crash", "error": "died", "fails_at": None}, "crash: died; 4,096 fits"),
        ({"outcome": "timeout", "error": "still"}, "timeout: still; 4,096 fits; 4,352 fails"),
        ({"outcome": "unsupported", "error": "unknown", "fits_at": None, "fails_at": None}, "unsupported: unknown"),
    ],
)
def test_a_boundary_in_a_few_words(changed: dict[str, Any], said: str) -> None:
    assert describe_boundary({**FOUND, **changed}) == said


# The bar


def shown(bar: _Bar, width: int) -> list[str]:
    out = console(width, terminal=True)
    out.print(bar.display.get_renderable())
    return [line.rstrip() for line in lines_of(out)]


@pytest.mark.parametrize("width", [80, 120])
def test_the_bar_says_what_it_is_about_and_wraps_nowhere(width: int) -> None:
    bar = _Bar(console(width, terminal=True), NAMES)
    assert shown(bar, width) == ["⠋ getting ready"]
    bar.prepare(3, 400)
    (line,) = shown(bar, width)
    assert line.strip("━╸╺ ").startswith("3/400 recordings, ")
    bar.begin(400, 0, 100)
    (line,) = shown(bar, width)
    assert line.strip("━╸╺ ").startswith("100/400 boundaries, 0.0 s so far")
    cases = [CELL.at(4096), Search(replace(CELL.longest, lazy=False)).at(131_072)]
    for case in cases:
        bar.start(case)
    bar.enter(cases[0], "prefill")
    bar.probe(CELL.at(256), FITS)
    bar.find(CELL, FOUND)
    bar.find(CELL, {**FOUND, "outcome": "unsupported"})
    head, counts, *running = shown(bar, width)
    assert " 102/400 boundaries, " in head
    assert head.endswith(" left")
    assert counts == "1 fits  1 unsupported  1 probe"
    assert running == [
        "prefill phi_3_medium_128k 4 bpw FP16 lazy 4096 on rtx_4060_ti_16gb",
        "start   phi_3_medium_128k 4 bpw FP16 load 131072 on rtx_4060_ti_16gb",
    ]
    bar.probe(cases[0], FITS)
    bar.finish(cases[1], FITS)
    assert len(shown(bar, width)) == 2


def test_the_bar_says_how_far_the_phase_of_a_case_is_until_the_next_begins() -> None:
    bar = _Bar(console(120, terminal=True), NAMES)
    bar.begin(1, 0, 0)
    case = CELL.at(40_960)
    bar.start(case)
    bar.enter(case, "prefill")
    bar.advance(case, FAR)
    name = "phi_3_medium_128k 4 bpw FP16 lazy 40960 on rtx_4060_ti_16gb"
    assert shown(bar, 120)[-1] == f"prefill 12,288 of 40,956 tokens  {name}"
    assert shown(bar, 80)[-1].startswith("prefill 12,288 of 40,956 tokens  phi_3_medium")
    bar.enter(case, "decode")
    assert shown(bar, 120)[-1] == f"decode  {name}"


def test_where_lines_stay_a_long_case_gets_one_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = [0.0]
    monkeypatch.setattr(commands_progress.time, "monotonic", lambda: seconds[0])
    out = console()
    progress = _Lines(out, NAMES)
    case = CELL.at(40_960)
    progress.start(case)
    for tokens in range(0, 40_956, 256):  # one a second
        progress.advance(case, replace(FAR, done=tokens))
        seconds[0] += 1
    name = "phi_3_medium_128k 4 bpw FP16 lazy 40960 on rtx_4060_ti_16gb"
    assert lines_of(out) == [
        f"    {name}: prefill, 15,360 of 40,956 tokens",
        f"    {name}: prefill, 30,720 of 40,956 tokens",
    ]


@pytest.mark.parametrize(("searches", "cases", "named"), [(2, 0, "boundaries"), (0, 2, "cases"), (1, 1, "done")])
def test_the_bar_names_what_it_counts(searches: int, cases: int, named: str) -> None:
    bar = _Bar(console(terminal=True), NAMES)
    bar.begin(searches, cases, 0)
    assert f" 0/2 {named}, " in shown(bar, 80)[0]


def test_in_a_narrow_terminal_the_names_are_cut() -> None:
    bar = _Bar(console(40, terminal=True), NAMES)
    bar.begin(1, 0, 0)
    bar.start(CELL.at(4096))
    *_, running = shown(bar, 40)
    assert running.endswith("…")
    assert len(running) == 40
