"""`allocator=native,expandable` from the command line to rows, plans and tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from bench.config.cases import plan_sweep
from tests.conftest import Program

CELLS = ("model=tinyllama_1_1b", "device=rtx_3060_12gb", "bpw=4.0", "vram_limit=860MiB")


def test_segments_that_grow_are_run_predicted_and_named(in_process: Program, tmp_path: Path) -> None:
    done = in_process("sweep", *CELLS, "max_seq_len=auto", "allocator=native,expandable")
    assert done.returncode == 0, done.stderr
    found = {
        row["allocator"]: row
        for path in tmp_path.rglob("boundaries.parquet")
        for row in pq.read_table(path).to_pylist()
    }
    assert set(found) == {"native", "expandable"}
    assert all(row["certified"] and row["predicted_fits_at"] == row["fits_at"] for row in found.values())
    assert found["expandable"]["fits_at"] > found["native"]["fits_at"]

    rows = [row for path in tmp_path.rglob("cases.parquet") for row in pq.read_table(path).to_pylist()]
    fitting = [row for row in rows if row["outcome"] == "fits"]
    assert {row["allocator"] for row in fitting} == set(found)
    assert all(row["predicted_peak_bytes"] == row["peak_allocated_bytes"] for row in fitting)
    for row in rows:
        settings = json.loads(row["environment"])["PYTORCH_CUDA_ALLOC_CONF"]
        assert settings == f"expandable_segments:{row['allocator'] == 'expandable'}"

    planned = _planned(in_process, "max_seq_len=auto", "allocator=native,expandable")
    assert {cell["allocator"]: cell["predicted_fits_at"] for cell in planned} == {
        name: row["fits_at"] for name, row in found.items()
    }
    again = in_process("sweep", *CELLS, "max_seq_len=auto")  # ExLlamaV2's own, which has its row
    assert "stored already" in again.stdout + again.stderr


def _planned(program: Program, *overrides: str) -> list[dict[str, Any]]:
    done = program("plan", *CELLS, *overrides, "--json")
    assert done.returncode == 0, done.stderr
    cells: list[dict[str, Any]] = json.loads(done.stdout)["cells"]
    return cells


def test_what_is_no_allocator_is_refused_with_what_is(in_process: Program) -> None:
    done = in_process("plan", *CELLS, "allocator=async")
    assert done.returncode == 2
    assert (
        "allocator=async: allowed are auto, native, expandable; cudaMallocAsync's pool is the driver's" in done.stderr
    )


@pytest.mark.parametrize("name", ["max_split_size_mb", "roundup_power2_divisions", "garbage_collection_threshold"])
def test_settings_that_are_not_simulated_are_refused_by_name(in_process: Program, name: str) -> None:
    for typed in (f"allocator={name}:128", f"{name}=128"):
        done = in_process("plan", *CELLS, typed)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{name} (" in done.stderr
        assert "is not simulated, and a real card is measured without it" in done.stderr


def test_segments_are_named_as_pytorch_reads_them() -> None:
    asked = ["max_seq_len=512", "allocator=native,expandable_segments:True,backend:native"]
    assert {case.allocator for case in plan_sweep([*CELLS, *asked]).cases} == {"native", "expandable"}
