"""What rows say of cases that ran out of memory, against what is replayed up to the request that failed."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bench.allocator.limits import limits_of
from bench.config.cases import plan_sweep
from bench.forecast.library import TraceLibrary
from bench.launch.launcher import Launcher
from tests.conftest import Program

CELLS = ("model=tinyllama_1_1b", "device=rtx_3060_12gb", "bpw=4.0", "max_seq_len=2048")


def _never_started(engine: str) -> Launcher:
    raise AssertionError("what the sweep needed is recorded")


@pytest.mark.parametrize(
    ("more", "phase"),
    [
        (("vram_limit=700MiB",), "load"),
        (("vram_limit=860MiB", "cache=FP16,Q4"), None),
        (("vram_limit=900MiB", "lazy=true"), "load"),
        (("vram_limit=1GiB", "attention=matmul"), None),
    ],
)
def test_what_was_asked_for_until_memory_ran_out_is_what_was_predicted(
    in_process: Program, tmp_path: Path, more: tuple[str, ...], phase: str | None
) -> None:
    overrides = (*CELLS, *more)
    assert in_process("sweep", *overrides).returncode == 0
    rows = [row for path in (tmp_path / "results").rglob("cases.parquet") for row in pq.read_table(path).to_pylist()]
    planned = plan_sweep(overrides).cases
    failed = [(case, row) for case in planned for row in rows if row["cache"] == case.cache and row["outcome"] == "oom"]
    assert failed
    library = TraceLibrary(_never_started, tmp_path / "scratch")
    for case, row in failed:
        replay = library.replayer(case).replay(case.max_seq_len, limits_of(case.device, case.vram_limit_bytes))
        assert replay.failed_in == row["phase"]
        assert phase in (None, row["phase"])
        assert replay.peak_requested_bytes == row["peak_requested_bytes"]
        assert replay.peak_allocated_bytes == row["peak_allocated_bytes"]
        assert replay.peak_reserved_bytes == row["peak_reserved_bytes"]
        assert row["predicted_peak_bytes"] > row["peak_allocated_bytes"]  # of a card without a limit
