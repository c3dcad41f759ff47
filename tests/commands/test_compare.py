"""`compare` from the outside: what it says, and the exit code that a pull request depends on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.core.columns import SCHEMA_VERSION
from bench.store.journal import Journal
from bench.store.schema import SCHEMAS, Kind
from tests.comparison.rows_to_compare import MIB, boundary, case, grown, real_case
from tests.conftest import Program


@pytest.fixture
def program(in_process: Program) -> Program:
    return in_process


def write(
    results_dir: Path,
    cases: Sequence[dict[str, Any]] = (),
    boundaries: Sequence[dict[str, Any]] = (),
    **metadata: str,
) -> Path:
    """A run with these rows."""
    run_dir = results_dir / "run"
    run_dir.mkdir(parents=True, exist_ok=True)
    for kind, rows in ((Kind.CASES, cases), (Kind.BOUNDARIES, boundaries)):
        if rows:
            schema = SCHEMAS[kind]
            table = pa.Table.from_pylist(list(rows), schema=schema.with_metadata(_metadata(schema, metadata)))
            pq.write_table(table, run_dir / f"{kind}.parquet")
    return results_dir


def _metadata(schema: pa.Schema, changed: dict[str, str]) -> dict[bytes, bytes]:
    return {**schema.metadata, **{name.encode(): value.encode() for name, value in changed.items()}}


def told(done: subprocess.CompletedProcess[str]) -> str:
    """What was said on stderr: one or two lines, and no traceback."""
    assert len(done.stderr.strip().splitlines()) <= 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_a_reader_who_leaves_changes_no_verdict(tmp_path: Path, how: list[str]) -> None:
    base = write(tmp_path / "base", [case()])
    head = write(tmp_path / "head", [grown(case(), 1000 * MIB)])
    command = [sys.executable, "-m", "bench", "compare", str(base), str(head), *how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert (process.wait(), process.stderr.read()) == (1, "")


def test_the_same_rows_pass(program: Program, tmp_path: Path) -> None:
    write(tmp_path / "base", [case(), real_case([1.0, 1.1, 1.2])], [boundary()])
    done = program("compare", "base", "base")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("✓ passed (measured and simulated): nothing worse\n")
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_a_failing_gate_is_exit_code_1_and_is_written(program: Program, tmp_path: Path) -> None:
    write(tmp_path / "base", [case()])
    write(tmp_path / "head", [grown(case(), MIB)])
    done = program("compare", "base", "head", "--out", "deep/report.md")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("✗ failed (simulated): 1 peak of VRAM higher\n")
    assert done.stdout.rstrip().endswith("deep/report.md")
    written = (tmp_path / "deep" / "report.md").read_text(encoding="utf-8")
    assert written.startswith("**✗ vram-bench failed (simulated): 1 peak of VRAM higher**\n")
    better = program("compare", "head", "base")
    assert better.returncode == 0


@pytest.mark.parametrize(
    ("gates", "code"),
    [
        (["--max-vram-growth", "1MiB"], 0),
        (["--max-vram-growth", "1048575B"], 1),
        (["--max-vram-growth", "1%"], 0),
        (["--max-vram-growth=0.001%"], 1),
    ],
)
def test_the_vram_gate_takes_bytes_and_percent(program: Program, tmp_path: Path, gates: list[str], code: int) -> None:
    write(tmp_path / "base", [case()])
    write(tmp_path / "head", [grown(case(), MIB)])
    assert program("compare", "base", "head", *gates).returncode == code


@pytest.mark.parametrize(
    ("gates", "code"), [([], 1), (["--max-boundary-loss", "2"], 0), (["--max-boundary-loss=1%"], 1)]
)
def test_the_boundary_gate_takes_pages_and_percent(
    program: Program, tmp_path: Path, gates: list[str], code: int
) -> None:
    base = write(tmp_path / "base", boundaries=[boundary(8192)])
    head = write(tmp_path / "head", boundaries=[boundary(7680)])
    assert program("compare", str(base), str(head), *gates).returncode == code


def test_json_is_one_document(program: Program, tmp_path: Path) -> None:
    write(tmp_path / "base", [case(), case(8192)])
    write(tmp_path / "head", [grown(case(), MIB)])
    done = program("compare", "base", "head", "--json", "--out", "report.md", "--allow-missing")
    document = json.loads(done.stdout)
    assert (done.returncode, document["passed"], document["skipped"]) == (1, False, [])
    assert {finding["column"] for finding in document["findings"]} >= {"peak_allocated_bytes", "peak_reserved_bytes"}
    assert [row["max_seq_len"] for row in document["missing"]] == [8192]
    assert (tmp_path / "report.md").exists()


def test_files_are_compared_by_their_kind_alone(program: Program, tmp_path: Path) -> None:
    base = write(tmp_path / "base", [case()], [boundary(8192)])
    head = write(tmp_path / "head", [grown(case(), MIB)], [boundary(8192)])
    assert program("compare", f"{base}/run/boundaries.parquet", str(head)).returncode == 0
    assert program("compare", str(base), f"{head}/run/cases.parquet").returncode == 1
    done = program("compare", f"{base}/run/cases.parquet", f"{head}/run/boundaries.parquet")
    assert done.returncode == 2
    assert "files of one kind" in told(done)


def test_rows_of_a_sweep_that_still_runs_are_compared(program: Program, tmp_path: Path) -> None:
    write(tmp_path / "base", [case()])
    journal = Journal(tmp_path / "head" / "run")
    row = case()
    journal.append({**row, "started_at": row["started_at"].isoformat()})
    journal.close()
    assert program("compare", "base", "head").returncode == 0


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"device_name": "nvidia_a10"}, "another card"),
        ({"device_kind": "simulated"}, "simulated against measured"),
        ({"driver_version": "560.1"}, "--allow-driver-change"),
        ({"model_fingerprint": "f2"}, "another model under the same name"),
        ({"model": "other", "model_fingerprint": "f2"}, "no case is in both"),
    ],
)
def test_where_nothing_can_be_compared_it_says_why(
    program: Program, tmp_path: Path, changed: dict[str, Any], reason: str
) -> None:
    write(tmp_path / "base", [real_case()])
    write(tmp_path / "head", [real_case(**changed)])
    done = program("compare", "base", "head")
    assert done.returncode == 2
    assert reason in told(done)


def test_another_driver_can_be_allowed(program: Program, tmp_path: Path) -> None:
    write(tmp_path / "base", [real_case()])
    write(tmp_path / "head", [real_case(driver_version="560.1")])
    done = program("compare", "base", "head", "--allow-driver-change")
    assert done.returncode == 0
    assert "driver (changed): 550.54 → 560.1" in done.stdout


def test_foreign_and_truncated_files_are_named_and_skipped(program: Program, tmp_path: Path) -> None:
    write(tmp_path / "base", [case()])
    head = write(tmp_path / "head", [case()])
    whole = (head / "run" / "cases.parquet").read_bytes()
    (head / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    pq.write_table(pa.table({"a": [1]}), head / "foreign.parquet")
    done = program("compare", "base", "head", "--out", "report.md")
    assert done.returncode == 1
    assert told(done).count("cut.parquet") == told(done).count("foreign.parquet") == 1
    assert "✓ passed" in done.stdout
    assert "foreign.parquet" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_a_newer_schema_says_which_program_reads_it(program: Program, tmp_path: Path) -> None:
    write(tmp_path / "base", [case()])
    rows = [case(harness_version="0.9.0"), case(8192, harness_version="0.10.0")]
    write(tmp_path / "head", rows, schema_version=str(SCHEMA_VERSION + 1))
    done = program("compare", "base", "head")
    assert done.returncode == 2
    assert f"this program reads up to {SCHEMA_VERSION}: install vram-bench 0.10.0 or newer" in told(done)


def test_an_older_schema_is_read_and_what_it_lacks_is_null(program: Program, tmp_path: Path) -> None:
    head = write(tmp_path / "head", [case()])
    path = head / "run" / "cases.parquet"
    table = pq.read_table(path).drop_columns(["predicted_peak_bytes", "energy_j"]).append_column("gone", [["x"]])
    metadata = {**table.schema.metadata, b"schema_version": b"0"}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "old.parquet")
    done = program("compare", "old.parquet", "head")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("version", ["", "two", "-1"])
def test_a_schema_version_that_is_none_is_no_traceback(program: Program, tmp_path: Path, version: str) -> None:
    write(tmp_path / "base", [case()], schema_version=version)
    done = program("compare", "base", "base")
    assert done.returncode in (0, 2)
    told(done)


def test_rows_of_nulls_and_a_single_row(program: Program, tmp_path: Path) -> None:
    schema = SCHEMAS[Kind.CASES]
    bare = {column.name: case()[column.name] for column in schema if not column.nullable}
    write(tmp_path / "base", [bare])
    write(tmp_path / "head", [{**bare, "outcome": "timeout", "phase": "load"}])
    assert program("compare", "base", "base").returncode == 0
    done = program("compare", "base", "head")
    assert (done.returncode, done.stderr) == (1, "")
    assert "fits → timeout in load" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["base", "nowhere"], "HEAD nowhere: no such file or directory"),
        (["empty", "base"], "BASE empty: no rows in it"),
        (["text.parquet", "base"], "text.parquet: not a readable parquet file"),
        (["base", "base", "--max-vram-growth", "much"], "--max-vram-growth much"),
        (["base", "base", "--max-vram-growth", "16"], "did you mean 16MiB?"),
        (["base", "base", "--max-vram-growth", "inf%"], "--max-vram-growth inf%"),
        (["base", "base", "--max-boundary-loss=-1"], "--max-boundary-loss -1"),
        (["base", "base", "--max-slowdown", "nan"], "--max-slowdown nan"),
        (["base", "base", "--out", "text.parquet/report.md"], "cannot be written"),
    ],
)
def test_bad_input_is_told_in_a_line(program: Program, tmp_path: Path, arguments: list[str], reason: str) -> None:
    write(tmp_path / "base", [case()])
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("no parquet")
    done = program("compare", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in told(done)


def test_compare_imports_no_torch(tmp_path: Path) -> None:
    write(tmp_path / "base", [case()])
    script = (
        "import sys; from bench.__main__ import main; main(['compare', 'base', 'base']);"
        "assert not {'torch', 'exllamav2', 'matplotlib', 'hydra'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_times_of_rows_are_those_of_the_file(program: Program, tmp_path: Path) -> None:
    early = datetime.fromisoformat("2026-01-01T23:59:00+00:00")
    write(tmp_path / "base", [case(started_at=early), case(8192)])
    assert "measured: 2026-01-01 00:00 to 23:59 UTC" in program("compare", "base", "base").stdout


ALPHA, BETA = ({"model": "4.0bpw", "model_fingerprint": name} for name in ("alpha", "beta"))


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_models_of_one_name_a_regression_of_one_fails(program: Program, tmp_path: Path, order: int) -> None:
    alpha, beta = case(minutes=order, **ALPHA), case(minutes=2 * order, **BETA)
    write(tmp_path / "base", [alpha, beta])
    write(tmp_path / "head", [grown(alpha, 100 * MIB), beta])
    done = program("compare", "base", "head")
    assert done.returncode == 1, done.stderr
    assert "1 peak of VRAM higher" in done.stdout
    assert "2 cases compared" in done.stdout
    assert "4.0bpw [alpha]" in done.stdout
    assert "4.0bpw [beta" not in done.stdout
    assert program("compare", "base", "base").returncode == 0


def test_a_model_that_changed_is_another_under_the_same_name_unless_that_is_allowed(
    program: Program, tmp_path: Path
) -> None:
    write(tmp_path / "base", [case(**ALPHA)])
    write(tmp_path / "head", [case(**BETA)])
    done = program("compare", "base", "head")
    assert done.returncode == 2
    assert "another model under the same name" in told(done)
    assert "--allow-model-change" in told(done)
    assert program("compare", "base", "head", "--allow-model-change").returncode == 0


def test_what_differs_first_is_told_where_nothing_can_be_compared(program: Program, tmp_path: Path) -> None:
    write(tmp_path / "base", [case(bpw=3.98, **ALPHA)])
    write(tmp_path / "head", [case(bpw=4.48, **BETA)])
    done = program("compare", "base", "head")
    assert done.returncode == 2
    assert "no case is in both; bpw is 3.98 in BASE base, 4.48 in HEAD head; --allow-model-change" in told(done)
    assert "both have device_name" in told(done)
    assert "`vram-bench report --results head` shows what one of them has" in told(done)
    both = program("compare", "base", "head", "--allow-model-change")
    assert both.returncode == 0, both.stderr
    assert "bpw (changed)" in both.stdout
    assert "3.98 → 4.48" in both.stdout


@pytest.mark.parametrize(
    ("limit", "shown"), [(11 << 30, "11.00 GiB"), ((24 << 30) + 4096, "24.00 GiB"), (None, "null")]
)
def test_what_differs_is_told_in_units_and_words(
    program: Program, tmp_path: Path, limit: int | None, shown: str
) -> None:
    write(tmp_path / "base", [case(vram_limit_bytes=limit)])
    write(tmp_path / "head", [case(vram_limit_bytes=12 << 30)])
    done = program("compare", "base", "head")
    assert done.returncode == 2
    assert f"vram_limit_bytes is {shown} in BASE base, 12.00 GiB in HEAD head" in told(done)


def test_a_failure_is_a_document_too(program: Program, tmp_path: Path) -> None:
    write(tmp_path / "base", [case()])
    write(tmp_path / "head", [case(cache="Q4")])
    for arguments in (("base", "head"), ("base", "nowhere"), ("base", "base", "--max-slowdown", "fast")):
        done = program("compare", *arguments, "--json")
        assert done.returncode == 2
        document = json.loads(done.stdout)
        assert document["passed"] is False
        assert document["error"] in told(done)


def test_a_card_that_has_another_context_by_now_is_told(program: Program, tmp_path: Path) -> None:
    write(tmp_path / "base", [case(device_context_bytes=400 * MIB)])
    write(tmp_path / "head", [case(device_context_bytes=500 * MIB)])
    done = program("compare", "base", "head")
    assert done.returncode == 0, done.stderr
    assert "What was compared; changed: CUDA context" in done.stdout
    assert "CUDA context (changed): 419,430,400 B → 524,288,000 B" in done.stdout
