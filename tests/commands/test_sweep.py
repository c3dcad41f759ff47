"""`vram-bench sweep` from the outside: exit codes, rows, resume, and what a user is told."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.conftest import Program

TINY = ("model=tinyllama_1_1b", "device=rtx_3060_12gb")
SHALLOW = (*TINY, "model.config.num_hidden_layers=2")  # where a test does not wait for what happens during a case
CONTRACT_COLUMNS = """
    schema_version run_id case_id started_at host device_name device_kind device_uuid device_total_bytes
    vram_limit_bytes compute_capability driver_version cuda_version torch_version exllamav2_version
    harness_version model architecture model_fingerprint bpw head_bits cache lazy attention max_seq_len
    batch_size max_input_len outcome phase peak_allocated_bytes peak_reserved_bytes peak_device_bytes
    context_bytes weights_bytes cache_bytes scratch_bytes predicted_peak_bytes load_s prefill_tokens_per_s
    decode_tokens_per_s decode_tokens_per_s_full estimated_decode_tokens_per_s wall_s exit_code signal error
"""


def rows(results: Path) -> list[dict[str, Any]]:
    return [row for path in results.rglob("cases.parquet") for row in pq.read_table(path).to_pylist()]


def boundaries(results: Path) -> list[dict[str, Any]]:
    found = [row for path in results.rglob("boundaries.parquet") for row in pq.read_table(path).to_pylist()]
    return sorted(found, key=lambda row: (row["model"], row["vram_limit_bytes"] or 0, row["cache"], row["finished_at"]))


def test_a_sweep_measures_every_combination_and_is_not_run_twice(in_process: Program, tmp_path: Path) -> None:
    overrides = (*SHALLOW, "cache=FP16,Q4", "lazy=true,false", "max_seq_len=512,1024")
    first = in_process("sweep", *overrides)
    assert first.returncode == 0, first.stderr
    assert "[8/8]" in first.stderr
    assert "tinyllama_1_1b on rtx_3060_12gb (simulated)" in first.stdout
    stored = rows(tmp_path / "results")
    assert len({row["case_id"] for row in stored}) == 8
    assert {row["outcome"] for row in stored} == {"fits"}
    again = in_process("sweep", *overrides)
    assert again.returncode == 0
    assert "8 of them stored already" in again.stderr
    assert len(rows(tmp_path / "results")) == 8
    assert len(_told_rows(again.stdout)) == 1
    more = in_process("sweep", *overrides[:-1], "max_seq_len=512,1024,2048")
    told = [tmp_path / name for name in _told_rows(more.stdout)]  # where all rows are, not only those of this run
    assert told == sorted((tmp_path / "results").rglob("cases.parquet"))
    assert len(told) == 2
    assert len(in_process("sweep", *SHALLOW, "max_seq_len=512", "rerun=true").stdout) > 0
    assert len(rows(tmp_path / "results")) == 13


def _told_rows(shown: str) -> list[str]:
    (line,) = [line for line in shown.splitlines() if line.startswith("rows: ")]
    return sorted(line.removeprefix("rows: ").split(", "))


def test_a_simulated_row_has_the_contract_s_columns_and_no_speeds(in_process: Program, tmp_path: Path) -> None:
    assert in_process("sweep", *SHALLOW, "max_seq_len=512").returncode == 0
    (row,) = rows(tmp_path / "results")
    assert set(CONTRACT_COLUMNS.split()) <= set(row)
    assert row["device_kind"] == "simulated"
    assert row["phase"] == "done"
    speeds = ("load_s", "prefill_tokens_per_s", "decode_tokens_per_s", "decode_tokens_per_s_full")
    assert [row[name] for name in speeds] == [None] * 4
    assert row["peak_device_bytes"] == row["peak_reserved_bytes"] + row["context_bytes"]
    environment = json.loads(str(row["environment"]))
    assert environment["CUDA_VISIBLE_DEVICES"] == ""


def test_running_out_is_a_verdict_with_its_phase(in_process: Program, tmp_path: Path) -> None:
    done = in_process(
        "sweep", "model=llama_3_8b", "device=rtx_4060_8gb", "bpw=8.0", "max_seq_len=8192", "lazy=true,false"
    )
    assert done.returncode == 0, done.stderr
    verdicts = {(row["lazy"], row["outcome"], row["phase"]) for row in rows(tmp_path / "results")}
    assert verdicts == {(True, "oom", "load"), (False, "oom", "load")}
    assert "OOM load" in done.stdout


def test_a_case_that_times_out_ends_with_1_and_is_recorded(in_process: Program, tmp_path: Path) -> None:
    done = in_process("sweep", "model=llama_3_1_70b", "device=h200_141gb", "max_seq_len=1024", "timeout_s=0.05")
    assert done.returncode == 1
    (row,) = rows(tmp_path / "results")
    assert row["outcome"] == "timeout"


def test_what_timed_out_is_tried_again(in_process: Program, tmp_path: Path) -> None:
    assert in_process("sweep", *SHALLOW, "max_seq_len=512", "timeout_s=0.01").returncode == 1
    again = in_process("sweep", *SHALLOW, "max_seq_len=512")
    assert again.returncode == 0
    assert "stored already" not in again.stderr
    assert [row["outcome"] for row in rows(tmp_path / "results")].count("fits") == 1


def test_unsupported_is_answered_in_a_row(in_process: Program, tmp_path: Path) -> None:
    done = in_process("sweep", "model=kimi_k2_thinking", "device=h200_141gb", "max_seq_len=1024")
    assert done.returncode == 0
    (row,) = rows(tmp_path / "results")
    assert row["outcome"] == "unsupported"
    assert "DeepseekV3ForCausalLM" in str(row["error"])


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("cache=Q5", "FP16, Q8, Q6, Q4"),
        ("bpw=99", "bpw=99"),
        ("max_seq_len=-3", "max_seq_len=-3"),
        ("max_seq_len=32", "from 64 to 16,777,216"),
        ("model=tinylama_1_1b", "tinyllama_1_1b"),
        ("device=rtx4090", "rtx_4090"),
        ("max_sequence_len=2048", "max_seq_len"),
        ("model.path=nowhere", "no such directory"),
        ("device=cuda", "no NVIDIA GPU"),
        ("vram_limit=lots", "24GiB"),
        ("vram_limit=90GiB", "t4 itself has"),
        ("batch_size=99999999999", "batch_size=99999999999"),
        ("timeout_s=1,2", "give one value"),
        ("max_attention_size=1", "max_attention_size=1"),
        ("run_id=../elsewhere", "run_id"),
        ("~model", "another value"),
        ("bpw=interval(2,4)", "bpw=a,b"),
    ],
)
def test_bad_input_is_told_in_two_lines_and_nothing_is_run(
    in_process: Program, tmp_path: Path, override: str, told: str
) -> None:
    if override == "device=cuda" and Path("/dev/nvidia0").exists():
        pytest.skip("this machine has a GPU")
    done = in_process("sweep", "model=tinyllama_1_1b", "device=t4", "max_seq_len=512", override)
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_case_that_the_engine_would_never_end_is_refused(in_process: Program) -> None:
    case = ("model=tinyllama_1_1b", "device=t4", "max_attention_size=1000")
    done = in_process("sweep", *case, "max_seq_len=1024", "attention=matmul")
    assert done.returncode == 2
    assert "less than max_seq_len=1024" in done.stderr
    assert "at least max_attention_size=1024" in done.stderr
    assert in_process("plan", *case, "max_seq_len=auto", "attention=sdpa").returncode == 2
    assert in_process("plan", *case, "max_seq_len=1024", "attention=xformers").returncode == 0


def test_a_smaller_attention_size_is_an_axis_and_the_prediction_is_the_run(in_process: Program, tmp_path: Path) -> None:
    axis = ("max_attention_size=1048576,4194304", "attention=matmul")
    case = ("model=tinyllama_1_1b", "device=rtx_3060_12gb", "max_seq_len=2048", *axis)
    done = in_process("sweep", *case)
    assert done.returncode == 0, done.stderr
    assert "max_attention_size" in done.stdout
    small, large = sorted(rows(tmp_path / "results"), key=lambda row: int(row["max_attention_size"]))
    assert (small["max_attention_size"], large["max_attention_size"]) == (1024**2, 2048**2)
    assert small["peak_allocated_bytes"] < large["peak_allocated_bytes"]
    for row in (small, large):
        assert row["predicted_peak_bytes"] == row["peak_allocated_bytes"]


def test_one_bad_value_among_good_ones_stops_all(in_process: Program, tmp_path: Path) -> None:
    assert in_process("sweep", *TINY, "max_seq_len=512", "bpw=4.0,99").returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_results_that_cannot_be_written_are_told_before_anything_runs(in_process: Program, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = in_process("sweep", *TINY, "max_seq_len=512", "results_dir=file/results")
    assert done.returncode == 2
    assert "results_dir=file/results" in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


def test_a_directory_with_only_a_config_is_laid_out(in_process: Program, tmp_path: Path) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 1024,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096,
    }
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text(json.dumps(config))
    done = in_process("sweep", "model=local", "model.path=mine", "device=t4", "max_seq_len=512")
    assert done.returncode == 0, done.stderr
    (row,) = rows(tmp_path / "results")
    assert (row["model"], row["outcome"]) == ("mine", "fits")


def test_ctrl_c_keeps_what_is_finished_and_the_same_command_goes_on(tmp_path: Path, in_process: Program) -> None:
    overrides = (*TINY, "cache=FP16,Q4", "max_seq_len=256,512,768,1024", "jobs=1")
    command = [sys.executable, "-m", "bench", "sweep", *overrides]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("[2/8]"):
            os.kill(process.pid, signal.SIGINT)
            break
    told = process.stderr.read()
    assert process.wait(60) == 130
    assert "the same command goes on" in told
    kept = len(rows(tmp_path / "results"))
    assert 2 <= kept < 8
    assert not list((tmp_path / "results").rglob("journal-*"))
    again = in_process("sweep", *overrides)
    assert again.returncode == 0
    assert f"{kept} of them stored already" in again.stderr
    stored = rows(tmp_path / "results")
    assert len(stored) == 8
    assert len({row["case_id"] for row in stored}) == 8


def test_a_power_cut_loses_no_finished_case(tmp_path: Path, in_process: Program) -> None:
    overrides = (*TINY, "cache=FP16,Q4", "max_seq_len=256,512,768,1024", "jobs=1")
    command = [sys.executable, "-m", "bench", "sweep", *overrides]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("[3/8]"):
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    again = in_process("sweep", *overrides)
    assert again.returncode == 0
    known = int(again.stderr.split("to measure, ")[1].split(" of them")[0])
    assert known >= 3
    assert "[8/8]" in again.stderr


def test_a_server_that_is_killed_costs_no_case(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "sweep", *TINY, "cache=FP16,Q4", "max_seq_len=256,512,768,1024"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("[2/8]"):
            os.kill(server_of(process.pid), signal.SIGKILL)
            break
    told = process.stderr.read()
    assert process.wait(60) == 0, told
    assert {row["outcome"] for row in rows(tmp_path / "results")} == {"fits"}
    assert len(rows(tmp_path / "results")) == 8


def server_of(parent: int) -> int:
    """The fork server that a sweep has started."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            mine = int(path.read_text().rsplit(")", 1)[1].split()[1]) == parent
            if mine and b"serve" in (path.parent / "cmdline").read_bytes().split(b"\0"):
                return int(path.parent.name)
        except OSError:
            continue
    raise AssertionError("no server")


def test_one_run_has_one_writer_and_being_told_to_end_is_like_ctrl_c(tmp_path: Path, in_process: Program) -> None:
    command = [sys.executable, "-m", "bench", "sweep", *TINY, "cache=FP16,Q4", "max_seq_len=256,512,768,1024", "jobs=1"]
    process = subprocess.Popen([*command, "run_id=mine"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    process.stderr.readline()
    second = in_process("sweep", *TINY, "max_seq_len=1280", "run_id=mine")
    for line in process.stderr:
        if line.startswith("[2/8]"):
            process.terminate()
            break
    process.stderr.read()
    assert process.wait(60) == 130
    assert 2 <= len(rows(tmp_path / "results")) < 8
    assert second.returncode == 2
    assert "another sweep is writing" in second.stderr


def test_hydra_s_own_launchers_run_the_same_sweep(program: Program, in_process: Program, tmp_path: Path) -> None:
    overrides = (*TINY, "vram_limit=820MiB", "cache=FP16,Q4", "max_seq_len=auto,256")
    done = program("sweep", "hydra/launcher=basic", *overrides)
    assert done.returncode == 0, done.stderr
    measured, found = rows(tmp_path / "results"), boundaries(tmp_path / "results")
    assert sorted((row["cache"], row["max_seq_len"]) for row in measured) == [
        (cache, length) for cache in ("FP16", "Q4") for length in (256, 768, 1024)
    ]
    assert [(row["cache"], row["fits_at"]) for row in found] == [("FP16", 768), ("Q4", 768)]
    assert len({row["run_id"] for row in [*measured, *found]}) == 1
    assert "tinyllama_1_1b on rtx_3060_12gb (simulated)" in done.stdout
    again = in_process("sweep", *overrides)
    assert "2 boundaries to find, 2 cases to measure, 4 of them stored already" in again.stderr
    # What a launcher of Hydra's logs is no part of the answer.
    as_json = in_process("sweep", "hydra/launcher=basic", "--json", *overrides)
    assert [case["max_seq_len"] for case in json.loads(as_json.stdout)["cases"]] == [256, 256]
    assert "Launching 2 jobs" in done.stderr
    assert "Launching" not in done.stdout
    assert len(rows(tmp_path / "results")) == 6


def test_a_terminal_gets_a_bar_that_leaves_nothing_behind(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "bench", "sweep", *SHALLOW, "max_seq_len=256,512", "cache=FP16,Q4"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs, text=True)
    os.close(theirs)
    seen = b""
    while True:
        try:
            data = os.read(ours, 4096)
        except OSError:  # Linux says so when the last writer is gone
            break
        if not data:
            break
        seen += data
    assert process.wait(60) == 0
    assert b"/4 cases" in seen
    assert b"fits" in seen
    assert b"tinyllama_1_1b 4 bpw" in seen


def test_a_pipe_that_closes_early_is_no_error(tmp_path: Path) -> None:
    sweep = f"{sys.executable} -m bench sweep {' '.join(SHALLOW)} max_seq_len=256,512"
    shell = f"set -o pipefail; {sweep} 2>&1 | head -1; {sys.executable} -m bench report | head -1"
    done = subprocess.run(["bash", "-c", shell], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0
    assert done.stderr == ""
    assert len(rows(tmp_path / "results")) == 2


@pytest.mark.parametrize("unbuffered", ["", pytest.param("1", marks=pytest.mark.thorough)])
def test_a_reader_who_leaves_changes_no_exit_code(tmp_path: Path, unbuffered: str) -> None:
    sweep = [sys.executable, "-m", "bench", "sweep", *TINY, "max_seq_len=512", "timeout_s=0.01"]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(sweep, cwd=tmp_path, env=environment, stdout=write, stderr=write, timeout=120, check=False)
    os.close(write)
    assert done.returncode == 1
    assert [row["outcome"] for row in rows(tmp_path / "results")] == ["timeout"]
    assert list(tmp_path.rglob("report.html"))


def test_the_parent_of_a_sweep_never_imports_torch(tmp_path: Path) -> None:
    script = (
        "import sys; from bench.__main__ import main; "
        f"assert main(['sweep', *{SHALLOW!r}, 'max_seq_len=256']) == 0; "
        "loaded = [m for m in ('torch', 'exllamav2', 'tokenizers') if m in sys.modules]; assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
