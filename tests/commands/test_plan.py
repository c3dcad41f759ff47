"""`vram-bench plan` from the outside, and how long it says that a sweep would take."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from bench.answers.expected_time import ASSUMED_PROBE_S, expect
from bench.report.forecasts import Expectation, ForecastRow
from tests.conftest import Program
from tests.report.test_forecasts import forecast_row

TINY = ("model=tinyllama_1_1b", "device=rtx_3060_12gb")
ENTRY_KEYS = """
    device_name device_kind vram_limit_bytes model bpw head_bits cache lazy attention_requested batch_size max_input_len
    max_attention_size
    native_max_seq_len max_seq_len predicted_fits_at fits failed_in predicted_peak_bytes predicted_peak_reserved_bytes
    predicted_peak_device_bytes parts headroom_bytes estimated_decode_tokens_per_s probes stored reason
"""


def planned(in_process: Program, *overrides: str) -> dict[str, Any]:
    done = in_process("plan", *overrides, "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_a_plan_is_shown_and_nothing_is_written(in_process: Program, tmp_path: Path) -> None:
    done = in_process("plan", *TINY, "cache=FP16,Q4", "max_seq_len=auto,512")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 cells, 2 cases: 4 probes expected, about ")
    assert "4 predicted to fit" in done.stdout
    assert done.stdout.count("tinyllama_1_1b on rtx_3060_12gb (simulated)") == 2
    assert "2,048 max" in done.stdout
    assert "nothing here is" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert list(tmp_path.iterdir()) == []


def test_what_was_answered_before_is_shown_with_few_libraries(in_process: Program, tmp_path: Path) -> None:
    """Importing them takes several times as long as looking it up."""
    heavy = {"numpy", "numba", "pandas", "pyarrow", "hydra", "omegaconf", "matplotlib", "torch"}
    first = in_process("plan", *TINY)
    script = (
        "import sys; from bench.__main__ import main; "
        f"main({['plan', *TINY]}); sys.exit(', '.join({heavy} & {{*sys.modules}}))"
    )
    again = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.stderr.strip() == ""
    assert again.stdout == first.stdout


def test_json_has_all_of_it_and_nothing_else(in_process: Program) -> None:
    document = planned(in_process, *TINY, "max_seq_len=auto,512")
    assert {"cells", "cases", "probes", "expected_s", "expected_basis", "longest_probe_s"} == set(document)
    (search,), (case,) = document["cells"], document["cases"]
    for entry in (search, case):
        assert set(ENTRY_KEYS.split()) <= set(entry)
        assert entry["fits"] is True
        assert entry["failed_in"] is None
        assert entry["headroom_bytes"] > 0
        in_use = sum(entry["parts"].values()) - entry["parts"]["context_bytes"]
        assert entry["predicted_peak_bytes"] == in_use
    assert (search["max_seq_len"], search["predicted_fits_at"]) == (2048, 2048)
    assert (case["max_seq_len"], case["predicted_fits_at"]) == (512, None)
    assert (document["probes"], document["expected_basis"]) == (2, "assumed")
    assert document["expected_s"] > 0


def test_options_may_stand_among_the_overrides(in_process: Program) -> None:
    done = in_process("plan", "model=tinyllama_1_1b", "--json", "device=rtx_3060_12gb", "max_seq_len=512")
    assert [case["device_name"] for case in json.loads(done.stdout)["cases"]] == ["rtx_3060_12gb"]
    assert in_process("plan", "model=tinyllama_1_1b", "--jsn", "device=rtx_3060_12gb").returncode == 2
    assert in_process("doctor", "model=tinyllama_1_1b").returncode == 2


def test_a_plan_agrees_with_the_sweep_of_it(in_process: Program, tmp_path: Path) -> None:
    overrides = (*TINY, "bpw=8.0", "vram_limit=1.29GiB")
    before = planned(in_process, *overrides)["cells"][0]
    assert in_process("sweep", *overrides).returncode == 0
    results = tmp_path / "results"
    (found,) = [row for path in results.rglob("boundaries.parquet") for row in pq.read_table(path).to_pylist()]
    cases = [row for path in results.rglob("cases.parquet") for row in pq.read_table(path).to_pylist()]
    (case,) = [row for row in cases if row["max_seq_len"] == found["fits_at"]]
    assert found["fails_at"] is not None
    assert before["predicted_fits_at"] == found["fits_at"]
    assert before["probes"] == found["probes"]
    assert before["predicted_peak_bytes"] == case["peak_allocated_bytes"]
    assert before["predicted_peak_reserved_bytes"] == case["peak_reserved_bytes"]
    assert before["predicted_peak_device_bytes"] == case["peak_device_bytes"]
    assert before["headroom_bytes"] == found["headroom_bytes"]
    assert before["estimated_decode_tokens_per_s"] == case["estimated_decode_tokens_per_s"]
    after = planned(in_process, *overrides)
    assert (after["cells"][0]["stored"], after["probes"], after["expected_s"]) == (True, 0, 0.0)
    assert {**before, "stored": True, "probes": 0} == after["cells"][0]
    again = planned(in_process, *overrides, "rerun=true")
    assert (again["cells"][0]["stored"], again["probes"], again["expected_basis"]) == (False, 2, "stored rows")
    assert len(list(results.rglob("*.parquet"))) == 2  # as the sweep left it


def test_a_case_that_does_not_fit_has_its_phase_and_what_would_help(in_process: Program) -> None:
    overrides = ("model=llama_3_8b", "device=rtx_4060_8gb", "bpw=7.0", "max_seq_len=8192")
    (case,) = planned(in_process, *overrides)["cases"]
    assert (case["fits"], case["failed_in"]) == (False, "cache")
    assert case["headroom_bytes"] < 0
    assert (case["predicted_peak_reserved_bytes"], case["predicted_peak_device_bytes"]) == (None, None)
    in_use = sum(case["parts"].values())
    assert case["predicted_needed_bytes"] == in_use > case["device_total_bytes"]
    assert case["predicted_peak_bytes"] == in_use - case["parts"]["context_bytes"]
    assert case["estimated_decode_tokens_per_s"] is None
    assert {"setting": "bpw=6", "predicted_fits_at": 8192} in case["gains"]
    shown = in_process("plan", *overrides)
    assert "OOM cache" in shown.stdout
    assert "bpw=6: fits" in shown.stdout


def test_where_nothing_fits_it_says_what_is_missing(in_process: Program) -> None:
    done = planned(in_process, "model=llama_3_1_70b", "device=rtx_4060_8gb")
    (search,) = done["cells"]
    assert (search["fits"], search["predicted_fits_at"], search["failed_in"]) == (False, None, "load")
    assert "GiB more" in search["advice"]
    assert done["probes"] == 1


def test_what_of_an_engine_is_not_predicted_says_so(in_process: Program) -> None:
    """Its boundary is found by halving: a probe for each time that the pages of the model's limit are halved."""
    overrides = (
        "model=llama_3_1_8b,hunyuan_ocr",
        "engine=exllamav3",
        "device=rtx_3090",
        "cache=k8v5",
        "bpw=16",
    )
    searches = {each["model"]: each for each in planned(in_process, *overrides)["cells"]}
    known, unknown = searches["llama_3_1_8b"], searches["hunyuan_ocr"]
    assert (known["fits"], known["predicted_fits_at"], known["parts"]) == (None, None, None)
    assert "exllamav3 is predicted with EXL3 weights alone" in known["reason"]
    assert known["probes"] == 10
    assert known["estimated_decode_tokens_per_s"] is None
    assert "does not know the architecture HunYuanVLForConditionalGeneration" in unknown["reason"]
    assert unknown["probes"] == 0
    shown = in_process("plan", *overrides).stdout
    assert "1 unsupported, 1 not predictable" in shown
    assert "Nothing here is measured" in shown
    assert "Predicted from" not in shown


def test_what_cannot_be_predicted_has_its_reason_in_its_row(in_process: Program) -> None:
    overrides = ("model=kimi_k2_thinking", "device=h200_141gb", "max_seq_len=1024")
    (case,) = planned(in_process, *overrides)["cases"]
    assert (case["fits"], case["parts"], case["max_seq_len"], case["probes"]) == (None, None, 1024, 0)
    assert "DeepseekV3ForCausalLM" in case["reason"]
    done = in_process("plan", *overrides)
    assert done.returncode == 0
    assert "1 unsupported\n" in done.stdout
    assert "unknown" not in done.stdout
    assert "DeepseekV3ForCausalLM" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(("override", "told"), [("bpw=99", "bpw=99"), ("model=tinylama_1_1b", "tinyllama_1_1b")])
def test_bad_input_is_told_in_two_lines(in_process: Program, tmp_path: Path, override: str, told: str) -> None:
    done = in_process("plan", *TINY, override, "--json")
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def todo(probes: int, **values: Any) -> ForecastRow:
    usual: dict[str, Any] = {
        "device_name": "rtx_4090",
        "device_kind": "simulated",
        "device_uuid": None,
        "device_total_bytes": 1,
        "vram_limit_bytes": None,
        "vram_limit_by": None,
        "model": "tiny",
        "model_fingerprint": "f",
        "bpw": 4.0,
        "head_bits": 6,
        "cache": "FP16",
        "lazy": False,
        "attention_requested": "auto",
        "batch_size": 1,
        "max_input_len": 2048,
        "max_attention_size": 2048**2,
        "native_max_seq_len": 4096,
        "is_search": True,
        "stored": probes == 0,
    }
    return forecast_row(**{**usual, **values}, probes=probes)


def took(wall_s: float | None, **values: Any) -> dict[str, Any]:
    return {**todo(1).identity, "outcome": "fits", **values, "wall_s": wall_s}


REAL: dict[str, Any] = {"device_kind": "cuda", "device_name": "nvidia_l4", "device_uuid": "GPU-1"}
ESTIMATED: dict[str, Any] = {"estimated_probe_s": 3.0}
GUESS = ASSUMED_PROBE_S


@pytest.mark.parametrize(
    ("rows", "measured", "jobs", "slow", "expected"),
    [
        ([todo(2, **ESTIMATED)], [], 1, None, Expectation(2, 6.0, True, 3.0)),
        ([todo(2, **ESTIMATED)], [took(1.0), took(8.0)], 1, 2.0, Expectation(2, 12.0, False, 6.0)),
        ([todo(2, **ESTIMATED)], [took(9.0, **REAL)], 1, None, Expectation(2, 6.0, True, 3.0)),
        ([todo(1, **ESTIMATED)] * 8, [], 4, 1.0, Expectation(8, 6.0, False, 3.0)),
        ([todo(2, **ESTIMATED)], [], 4, 1.0, Expectation(2, 6.0, False, 3.0)),
        ([todo(2)], [took(1.0), took(3.0), took(8.0)], 1, None, Expectation(2, 6.0, False, 3.0)),
        ([todo(2)], [took(9.0, outcome="timeout"), took(None)], 1, None, Expectation(2, 2 * GUESS, True, GUESS)),
        ([todo(0)], [], 4, None, Expectation(0, 0.0)),
        ([], [], 4, None, Expectation(0, 0.0)),
        ([todo(2, **REAL)], [], 4, None, Expectation(2, None)),
        ([todo(2, **REAL), todo(2, **ESTIMATED)], [], 4, 1.0, Expectation(4, None)),
        ([todo(0, **REAL), todo(2, **ESTIMATED)], [], 4, 1.0, Expectation(2, 6.0, False, 3.0)),
        ([todo(2, **REAL)] * 3, [took(10.0, **REAL)], 4, None, Expectation(6, 60.0, False, 10.0)),
        ([todo(2, **REAL), todo(1, **ESTIMATED)], [took(10.0, **REAL)], 4, 1.0, Expectation(3, 20.0, False, 10.0)),
        (
            [todo(2, **REAL), todo(1, **{**REAL, "device_uuid": "GPU-2"})],
            [took(10.0, **REAL)],
            4,
            None,
            Expectation(3, 20.0, False, 10.0),
        ),
    ],
)
def test_how_long_a_sweep_would_take(
    rows: Sequence[ForecastRow],
    measured: Sequence[dict[str, Any]],
    jobs: int,
    slow: float | None,
    expected: Expectation,
) -> None:
    assert expect(rows, measured, jobs, slow) == expected


def test_a_probe_that_may_come_near_its_timeout_is_told(in_process: Program) -> None:
    """Thousands of chunks of a few hundred tokens."""
    long = ["model=llama_3_1_8b", "attention=matmul", "max_seq_len=131072", "device=a100_80gb"]
    assert "timeout_s=60 ends it" in " ".join(in_process("plan", *long, "timeout_s=60").stdout.split())
    document = json.loads(in_process("plan", "--json", *long, "timeout_s=60").stdout)
    assert document["longest_probe_s"] > 60
    assert "ends it" not in in_process("plan", *long, "timeout_s=80000").stdout
