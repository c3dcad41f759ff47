"""`max_seq_len=auto` from the outside: what is found, what it costs, and what a user is told."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import main
from bench.launch import launchers
from tests.commands.test_sweep import boundaries, rows
from tests.conftest import Program
from tests.run.fake_card import FakeCard

MIB = 1 << 20
NOTHING, INSIDE, PLENTY = (
    700 * MIB,
    820 * MIB,
    4096 * MIB,
)  # of which tinyllama_1_1b takes none, some, all of its length
OVERRIDES = (
    "model=tinyllama_1_1b,phi_3_mini_128k,kimi_k2_thinking",
    "device=rtx_3060_12gb",
    "vram_limit=700MiB,820MiB,4GiB",
    "max_seq_len=auto,1024",
)


@dataclass
class Swept:
    """One sweep of nine searches and nine cases: what it printed, and what it stored."""

    done: subprocess.CompletedProcess[str]
    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def boundary(self, model: str, limit_bytes: int) -> dict[str, Any]:
        (row,) = [
            row for row in boundaries(self.results) if (row["model"], row["vram_limit_bytes"]) == (model, limit_bytes)
        ]
        return row

    def case(self, boundary: dict[str, Any], max_seq_len: int) -> dict[str, Any]:
        (row,) = [
            row
            for row in rows(self.results)
            if row["case_id"] in boundary["case_ids"] and row["max_seq_len"] == max_seq_len
        ]
        return row


@pytest.fixture(scope="module")
def swept(called: Program, tmp_path_factory: pytest.TempPathFactory) -> Swept:
    folder = tmp_path_factory.mktemp("swept")
    return Swept(called("sweep", *OVERRIDES, cwd=folder, COLUMNS="80"), folder)


# What is found


@pytest.mark.parametrize(
    ("model", "limit_bytes", "fits_at"), [("tinyllama_1_1b", INSIDE, 768), ("phi_3_mini_128k", PLENTY, 4608)]
)
def test_a_boundary_is_certified_by_two_cases(swept: Swept, model: str, limit_bytes: int, fits_at: int) -> None:
    row = swept.boundary(model, limit_bytes)
    assert (row["fits_at"], row["fails_at"], row["predicted_fits_at"]) == (fits_at, fits_at + 256, fits_at)
    assert (row["outcome"], row["certified"], row["contradictory"], row["probes"]) == ("fits", True, False, 2)
    assert row["vram_limit_bytes"] == limit_bytes
    fits, fails = swept.case(row, fits_at), swept.case(row, fits_at + 256)
    assert (fits["outcome"], fits["phase"]) == ("fits", "done")
    assert fails["outcome"] == "oom"
    assert row["peak_device_bytes"] == fits["peak_device_bytes"]
    assert row["headroom_bytes"] == limit_bytes - fits["peak_device_bytes"] >= 0
    assert row["estimated_decode_tokens_per_s"] == fits["estimated_decode_tokens_per_s"] > 0
    assert row["decode_tokens_per_s_full"] is None
    assert (row["advice"], row["error"]) == (None, None)


def test_predicted_peaks_are_those_of_the_cases_that_fit(swept: Swept) -> None:
    fitting = [row for row in rows(swept.results) if row["outcome"] == "fits"]
    assert len(fitting) >= 5
    assert [row["predicted_peak_bytes"] for row in fitting] == [row["peak_allocated_bytes"] for row in fitting]
    speeds = ("load_s", "prefill_tokens_per_s", "decode_tokens_per_s", "decode_tokens_per_s_full")
    assert {row[name] for row in fitting for name in speeds} == {None}


def test_the_model_s_own_limit_takes_one_case(swept: Swept) -> None:
    row = swept.boundary("tinyllama_1_1b", PLENTY)
    assert (row["fits_at"], row["fails_at"], row["certified"], row["probes"]) == (2048, None, True, 1)
    assert row["predicted_fits_at"] == 2048
    assert swept.case(row, 2048)["outcome"] == "fits"


def test_where_nothing_fits_the_advice_does(swept: Swept, in_process: Program, tmp_path: Path) -> None:
    row = swept.boundary("tinyllama_1_1b", NOTHING)
    assert (row["outcome"], row["fits_at"], row["fails_at"]) == ("oom", None, 256)
    assert (row["certified"], row["probes"], row["headroom_bytes"]) == (True, 1, None)
    advised = re.fullmatch(r"(.+) would fit ([0-9,]+) tokens \(predicted\)", row["advice"])
    assert advised is not None
    done = in_process("sweep", "model=tinyllama_1_1b", "device=rtx_3060_12gb", "vram_limit=700MiB", *advised[1].split())
    assert done.returncode == 0
    (found,) = boundaries(tmp_path / "results")
    assert (found["fits_at"], found["certified"]) == (int(advised[2].replace(",", "")), True)


def test_where_not_even_the_smallest_fits_it_is_named(swept: Swept) -> None:
    row = swept.boundary("phi_3_mini_128k", NOTHING)
    assert row["outcome"] == "oom"
    assert row["advice"].startswith("not even with lazy=false bpw=2 cache=Q4 max_input_len=256: the weights alone need")
    assert f"nothing fits; {row['advice']}" in swept.done.stderr


def test_what_the_engine_does_not_know_is_unsupported_after_one_case(swept: Swept) -> None:
    row = swept.boundary("kimi_k2_thinking", PLENTY)
    assert (row["outcome"], row["fits_at"], row["fails_at"], row["probes"]) == ("unsupported", None, None, 1)
    assert "DeepseekV3ForCausalLM" in row["error"]
    assert row["advice"] is None
    assert swept.done.returncode == 0  # an answer, too


def test_cases_beside_cells_have_their_rows(swept: Swept) -> None:
    asked = [row for row in rows(swept.results) if row["max_seq_len"] == 1024]
    verdicts = {(row["model"], row["vram_limit_bytes"]): row["outcome"] for row in asked}
    assert len(verdicts) == len(asked) == 9  # also where the search probed it, too
    assert verdicts["tinyllama_1_1b", INSIDE] == "oom"
    assert verdicts["phi_3_mini_128k", PLENTY] == "fits"


# What a user is told


def test_what_is_told_goes_from_the_plan_to_the_files(swept: Swept) -> None:
    told = swept.done.stderr
    assert "9 boundaries to find, 9 cases to measure\n" in told
    search = "tinyllama_1_1b 4 bpw FP16 load on rtx_3060_12gb limited to"
    assert f"{search} 0.80 GiB: fits up to 768, fails at 1,024; 2 probes\n" in told
    assert f"{search} 4.00 GiB: fits up to 2,048, the model's own limit; 1 probe\n" in told
    assert "[18/18] " in told
    assert re.search(
        r"^    phi_3_mini_128k 4 bpw FP16 load 4864 on rtx_3060_12gb limited to 4.00 GiB: oom in \w+, [\d.]+ s$",
        told,
        re.M,
    )
    assert "boundaries.parquet" in swept.done.stdout
    assert "4,608" in swept.done.stdout


# Once more


def test_the_same_command_runs_nothing(swept: Swept, in_process: Program) -> None:
    before = (len(rows(swept.results)), len(boundaries(swept.results)))
    again = in_process("sweep", *OVERRIDES, cwd=swept.folder)
    assert again.returncode == 0
    assert again.stderr == "9 boundaries to find, 9 cases to measure, 18 of them stored already\n"
    assert "4,608" in again.stdout
    assert (len(rows(swept.results)), len(boundaries(swept.results))) == before


def test_rerun_finds_it_again(swept: Swept, in_process: Program, tmp_path: Path) -> None:
    shutil.copytree(swept.results, tmp_path / "results")
    one = ("model=tinyllama_1_1b", "device=rtx_3060_12gb", "vram_limit=4GiB")
    done = in_process("sweep", *one, "rerun=true")
    assert done.returncode == 0
    assert "stored" not in done.stderr
    assert len(rows(tmp_path / "results")) == len(rows(swept.results)) + 1
    assert len(boundaries(tmp_path / "results")) == len(boundaries(swept.results)) + 1


def test_ctrl_c_in_a_search_keeps_its_probes_and_the_same_command_goes_on(tmp_path: Path, in_process: Program) -> None:
    overrides = ("model=tinyllama_1_1b", "device=rtx_3060_12gb", "vram_limit=820MiB", "cache=FP16,Q4", "jobs=1")
    command = [sys.executable, "-m", "bench", "sweep", *overrides]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("    "):
            os.kill(process.pid, signal.SIGINT)
            break
    told = process.stderr.read()
    assert process.wait(60) == 130
    # The second probe may have begun when the signal came; then it comes to its end, and the search with it.
    assert [row["max_seq_len"] for row in rows(tmp_path / "results")] in ([768], [768, 1024])
    done = len(boundaries(tmp_path / "results"))
    assert done == len(rows(tmp_path / "results")) - 1
    assert f"interrupted; {2 - done} of 2 are left, the same command goes on with them" in told
    again = in_process("sweep", *overrides)
    assert again.returncode == 0
    assert "2 boundaries to find" in again.stderr
    stored = rows(tmp_path / "results")
    assert sorted((row["cache"], row["max_seq_len"]) for row in stored) == [
        (cache, length) for cache in ("FP16", "Q4") for length in (768, 1024)
    ]
    found = boundaries(tmp_path / "results")
    assert [(row["fits_at"], row["probes"], row["certified"]) for row in found] == [(768, 2, True)] * 2
    assert len({row["run_id"] for row in stored}) == 2


@pytest.mark.usefixtures("nothing_shipped")
def test_a_crash_ends_the_search_with_its_verdict_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    command = ["sweep", "model=tinyllama_1_1b", "device=t4", "max_seq_len=auto,256", "jobs=1"]
    monkeypatch.setattr(launchers, "make_launcher", lambda *of: FakeCard(1500, ends={1536: "crash"}))
    assert main(command) == 1
    (row,) = boundaries(tmp_path / "results")
    assert (row["outcome"], row["certified"], row["fits_at"]) == ("crash", False, 1024)
    assert {found["max_seq_len"] for found in rows(tmp_path / "results")} == {256, 1024, 1536}
    assert "crash: died of SIGSEGV; 1,024 fits" in capsys.readouterr().err
    monkeypatch.setattr(launchers, "make_launcher", lambda *of: FakeCard(1500))
    assert main(command) == 0
    assert "1 boundary to find, 1 case to measure, 1 of them stored already" in capsys.readouterr().err
    assert boundaries(tmp_path / "results")[-1]["fits_at"] == 1280
