"""What is answered where only the core is installed: no torch, no engine, no numba, nothing that reports need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.config.cases import plan_sweep
from bench.core.case import DEFAULT_ENGINE
from bench.forecast.forecaster import Forecaster
from bench.forecast.library import TraceLibrary
from bench.forecast.shipped import Shipped
from bench.launch.launcher import Launcher

ROOT = Path(__file__).parents[2]
CELLS = {
    "lengths": ["model=phi_3_medium_128k", "bpw=6", "cache=FP16,Q4", "max_seq_len=16384", "device=rtx_3060_12gb"],
    "cards": ["model=qwen3_8b", "bpw=5", "device=rtx_2080_ti,b200", "max_seq_len=8000", "allocator=expandable"],
    "lazy": ["model=llama_3_1_8b", "bpw=6", "device=rtx_3060_12gb", "lazy=true", "cache=Q6", "max_seq_len=40960"],
    "search": ["model=phi_3_medium_128k", "bpw=4", "device=rtx_3060_12gb"],
    "two cards": ["model=llama_3_1_70b", "bpw=3", "device=2xrtx_3090", "max_seq_len=16384"],
    "weights of the other engine": [
        *("model=llama_3_1_8b", "bpw=5", "engine=exllamav3", "cache=Q4", "max_seq_len=32768", "device=rtx_3090")
    ],
}
PLANS = {name: ["plan", *cells, "--json"] for name, cells in CELLS.items()}
MORE = {
    "table": ["plan", "model=llama_3_1_8b", "bpw=4,6", "device=rtx_3060_12gb", "max_seq_len=8192"],
    "list": ["list", "models"],
    "help": ["--help"],
    "doctor": ["doctor", "--json"],
    "report": ["report", "results"],
    "compare": ["compare", "a", "b"],
    "sweep": ["sweep", "model=llama_3_1_8b", "device=rtx_4090"],
    "unrecorded": ["plan", "model=llama_3_1_8b", "bpw=4.123", "device=rtx_4090"],
    "another engine": ["plan", "model=phi_3_medium_128k", "engine=exllamav3", "device=rtx_4090"],
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, str]]:
    """Exit code, output and errors of each command."""
    commands = PLANS | MORE
    folder = tmp_path_factory.mktemp("light")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "without_extras.py"), json.dumps([*commands.values()])],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(commands, json.loads(done.stdout), strict=True))


def _never(engine: str) -> Launcher:
    raise AssertionError("a worker was started")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Forecaster:
    """Predictions by what numba has compiled, from the same recordings."""
    folder = tmp_path_factory.mktemp("compiled")
    return Forecaster(TraceLibrary(_never, folder, shipped=Shipped(any_origin=True)))


@pytest.mark.parametrize("name", CELLS)
def test_predictions_are_those_of_compiled_replays(
    name: str, told: dict[str, tuple[int, str, str]], compiled: Forecaster
) -> None:
    code, out, err = told[name]
    assert (code, err) == (0, "")
    document = json.loads(out)
    planned = plan_sweep(CELLS[name])
    rows: list[dict[str, Any]] = [*document["cells"], *document["cases"]]
    works = [*planned.searches, *planned.cases]
    assert len(rows) == len(works) > 0
    for row, work in zip(rows, works, strict=True):
        prediction = compiled.predict(work) if work in planned.cases else compiled.forecast(work).prediction
        assert prediction is not None
        assert row["fits"] == prediction.fits
        assert row["max_seq_len"] == prediction.length
        assert row["predicted_peak_bytes"] == prediction.peak_allocated_bytes
        assert row["parts"] == {f"{part}_bytes": size for part, size in prediction.parts.items()}
        if prediction.fits:
            assert row["predicted_peak_reserved_bytes"] == prediction.peak_reserved_bytes
            assert row["predicted_peak_device_bytes"] == prediction.peak_device_bytes


def test_a_boundary_of_the_readme_and_what_would_change_it(told: dict[str, tuple[int, str, str]]) -> None:
    (cell,) = json.loads(told["search"][1])["cells"]
    assert cell["predicted_fits_at"] == 22784
    assert {gain["setting"] for gain in cell["gains"]} == {"cache=Q8", "bpw=3.5", "max_input_len=1024"}


def test_commands_that_need_no_more_answer(told: dict[str, tuple[int, str, str]]) -> None:
    for name in ("table", "list", "help", "doctor"):
        assert told[name][0] == 0, told[name]
    assert "phi_3_medium_128k" in told["list"][1]
    findings = {each["what"]: each for each in json.loads(told["doctor"][1])["findings"]}
    assert f"vram-bench[{DEFAULT_ENGINE}]" in findings[DEFAULT_ENGINE]["remedy"]


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("report", "report"),
        ("compare", "report"),
        ("sweep", DEFAULT_ENGINE),
        ("unrecorded", DEFAULT_ENGINE),
        ("another engine", "exllamav3"),
    ],
)
def test_a_command_that_needs_more_names_the_extra_in_a_line(
    name: str, extra: str, told: dict[str, tuple[int, str, str]]
) -> None:
    code, out, err = told[name]
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert f'pip install "vram-bench[{extra}]"' in line
