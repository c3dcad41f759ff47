"""A sweep in whose cases everything goes wrong that an engine can do: each has its verdict, and none ends the sweep.

The program's own command line, with an engine that does it (`tests/engines/faulty`).
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bench.store.store import read_cases
from tests.faulty_program import faulty_program
from tests.launch.test_fork_server import dies


class Expected(NamedTuple):
    """How the case of a fault in some phase ends, and what its row says of that."""

    fault: str
    phase: str
    outcome: str
    said: str = ""
    ends_in: str | None = None  # where that is another phase


TABLE = [
    *(Expected("oom_of_torch", phase, "oom", "CUDA out of memory") for phase in ("load", "cache", "prefill", "decode")),
    Expected("oom_exllamav2_load", "load", "oom", "Insufficient VRAM for model and cache"),
    Expected("oom_exllamav2_split", "load", "oom", "Insufficient space in device allocation"),
    Expected("oom_exllamav3_load", "load", "oom", "Insufficient VRAM in split"),
    Expected("oom_exllamav3_buffers", "prefill", "oom", "exl3 workspace allocation failed"),
    Expected("oom_cuda_error", "prefill", "oom", "CUDA error: out of memory"),
    Expected("oom_driver", "cache", "oom", "CUDA driver error: out of memory"),
    Expected("oom_cublas", "decode", "oom", "CUBLAS_STATUS_ALLOC_FAILED"),
    Expected("oom_cudnn", "load", "oom", "CUDNN_STATUS_ALLOC_FAILED"),
    Expected("oom_abort", "decode", "oom", "CUDA out of memory"),
    Expected("cublas_on_a_full_card", "decode", "oom", "CUBLAS_STATUS_NOT_INITIALIZED"),
    Expected("cublas_on_an_empty_card", "decode", "error", "CUBLAS_STATUS_NOT_INITIALIZED"),
    Expected("leaks_1_mib", "prefill", "fits"),
    Expected("leaks_5_gib", "prefill", "oom", "; in turn 2"),
    Expected("memory_error", "load", "error", "HostMemoryExceeded"),
    Expected("host_oom_of_torch", "load", "error", "HostMemoryExceeded"),
    Expected("host_enomem", "cache", "error", "HostMemoryExceeded"),
    Expected("host_abort", "load", "crash", "died of SIGABRT; last words: what(): std::bad_alloc"),
    Expected("eats_host_memory", "prefill", "error", "HostMemoryExceeded: more than 0.6 GiB"),
    Expected("disk_full", "load", "error", "TMPDIR"),
    Expected("no_descriptors", "load", "error", "Too many open files"),
    Expected("value_error", "load", "error", "ValueError: no such rope"),
    Expected("recursion", "prefill", "error", "RecursionError"),
    Expected("system_exit", "cache", "crash", "exit code 3; last words: SystemExit"),
    Expected("interrupt", "cache", "crash", "exit code 3; last words: KeyboardInterrupt"),
    Expected("long_text", "decode", "error", "RuntimeError: many words"),
    Expected("odd_text", "decode", "error", r"\x1b[2J"),
    Expected("no_text", "decode", "error", "TypeError"),
    Expected("segfault", "load", "crash", "died of SIGSEGV"),
    Expected("segfault", "decode", "crash", "died of SIGSEGV"),
    Expected("killed", "cache", "crash", "died of SIGKILL (from outside"),
    Expected("terminated", "cache", "crash", "died of SIGTERM"),
    Expected("bus_error", "prefill", "crash", "died of SIGBUS"),
    Expected("abort", "prefill", "crash", "died of SIGABRT"),
    Expected("exit_1", "load", "crash", "exit code 1 without a word"),
    Expected("exit_0", "decode", "crash", "ended without a result"),
    Expected("exit_3_after_done", "decode", "crash", "exit code 3 after its result", "done"),
    Expected("segfault_after_done", "decode", "crash", "died after its result of SIGSEGV", "done"),
    Expected("hang", "prefill", "timeout", "still in phase prefill"),
    Expected("stopped", "load", "timeout", "still in phase load"),
    Expected("hang_with_grandchildren", "cache", "timeout", "still in phase cache"),
    Expected("grandchild", "load", "fits"),
    Expected("daemon", "decode", "fits"),
    Expected("grandchild_and_segfault", "decode", "crash", "died of SIGSEGV"),
    Expected("garbage_stdout", "load", "fits"),
    Expected("garbage_stderr", "decode", "fits"),
    Expected("megabytes_stdout", "cache", "fits"),
    Expected("megabytes_stderr", "prefill", "fits"),
    Expected("endless_output", "prefill", "timeout", "still in phase prefill"),
    Expected("garbage_messages", "prefill", "fits"),
    Expected("megabytes_messages", "cache", "fits"),
    Expected("endless_messages", "cache", "timeout", "still in phase cache"),
    Expected("unended_message", "load", "fits"),
    Expected("cut_off_message", "decode", "crash", "ended without a result; a line of it was not understood (cut off"),
    Expected("closed_messages", "prefill", "crash", "Bad file descriptor"),
    Expected("closed_output", "load", "fits"),
    Expected("none", "load", "fits"),
]


class Swept(NamedTuple):
    """A sweep of all of them."""

    code: int
    said: str
    rows: dict[str, dict[str, Any]]  # by the name of the model
    logs: list[Path]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    folder = tmp_path_factory.mktemp("faults")
    faults = [(expected.fault, expected.phase) for expected in TABLE]
    program = faulty_program(folder, faults)
    command = program.sweep(faults, "max_seq_len=1024", "jobs=4", "phase_timeout_s=4", "turns=3")
    done = subprocess.run(
        command, env=program.environment, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    cases, problems = read_cases(folder / "results")
    assert not problems
    assert cases.num_rows == len(TABLE), done.stderr
    rows = {str(row["model"]): row for row in cases.to_pylist()}
    return Swept(done.returncode, done.stderr, rows, sorted((folder / "results").glob("*/logs/*.log")))


@pytest.mark.parametrize("expected", TABLE, ids=lambda expected: f"{expected.fault}-{expected.phase}")
def test_each_fault_has_its_verdict(expected: Expected, swept: Swept) -> None:
    row = swept.rows[f"{expected.fault}_in_{expected.phase}"]
    fits = expected.outcome == "fits"
    ends_in = expected.ends_in or ("done" if fits else expected.phase)
    assert (row["outcome"], row["phase"]) == (expected.outcome, ends_in), row["error"]
    assert fits == (row["error"] is None)
    assert expected.said in (row["error"] or "")


def test_the_sweep_goes_on_to_its_end(swept: Swept) -> None:
    assert swept.code == 1  # some crashed
    assert f"[{len(TABLE)}/{len(TABLE)}]" in swept.said
    assert "Traceback" not in swept.said


def test_no_grandchild_is_left(swept: Swept) -> None:
    said = "".join(path.read_bytes().decode(errors="replace")[:4096] for path in swept.logs)
    left = [int(pid) for pid in re.findall(r"grandchild (\d+)", said)]
    assert len(left) == 8  # one daemon in each of two turns that come to the end of the context
    assert all(dies(pid) for pid in left)


def test_no_log_is_longer_than_its_bound(swept: Swept) -> None:
    """Of what is printed without end, too; what is long, and within it, is kept whole."""
    sizes = {path.stem: path.stat().st_size for path in swept.logs}
    assert max(sizes.values()) < 1 << 29
    for name, times in (("megabytes_stdout_in_cache", 1), ("megabytes_stderr_in_prefill", 4)):  # in each pass
        written = times * (12 << 20)
        assert written <= sizes[str(swept.rows[name]["case_id"])] < written + (1 << 20)


def test_a_row_tells_what_grows_from_turn_to_turn_and_in_which_it_ended(swept: Swept) -> None:
    names = ("turns", "turn", "growth_allocated_bytes", "growth_device_bytes")
    assert [swept.rows["none_in_load"][name] for name in names] == [3, 3, 0, 0]
    assert [swept.rows["leaks_1_mib_in_prefill"][name] for name in names[:3]] == [3, 3, 2 << 20]
    assert [swept.rows["leaks_5_gib_in_prefill"][name] for name in names] == [3, 2, None, None]
    assert [swept.rows["segfault_in_load"][name] for name in names] == [3, 1, None, None]


def test_what_was_measured_before_a_fault_is_kept(swept: Swept) -> None:
    assert swept.rows["segfault_in_decode"]["peak_allocated_bytes"] == (16 + 1 + 1) * (1 << 20) - 4 * 1024
    assert swept.rows["none_in_load"]["peak_allocated_bytes"] > 16 << 20
    assert swept.rows["segfault_in_load"]["peak_allocated_bytes"] is None
