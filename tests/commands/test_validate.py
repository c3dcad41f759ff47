"""`vram-bench validate`, on rows that only say of themselves that they were measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench.store.schema import CASES
from bench.store.store import read_cases
from tests.conftest import Program
from tests.worker.test_scenario import TINY

CARD = "rtx_3060_12gb"


def as_measured(row: dict[str, Any], **changed: Any) -> dict[str, Any]:
    telemetry = json.dumps({"properties": {"multi_processor_count": 28}})
    real = {"device_kind": "cuda", "device_uuid": "GPU-1", "driver_version": "1.0", "telemetry": telemetry}
    return {**row, **real, "workspace_bytes": 8_519_680, **changed}


def test_rows_are_held_against_a_simulation_of_their_own_card(in_process: Program, tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text(json.dumps(TINY))
    made = in_process("synth", "model=local", "model.path=tiny", "bpw=4.0", "--out", "models/tiny4", "--sparse")
    assert made.returncode == 0, made.stderr
    lengths = "max_seq_len=512,1024"
    in_process("sweep", "model=local", "model.path=models/tiny4", f"device={CARD}", lengths, "results_dir=first")
    rows = read_cases(tmp_path / "first")[0].sort_by("max_seq_len").to_pylist()
    more_bytes = rows[1]["peak_reserved_bytes"] + (2 << 20)
    rows = [as_measured(rows[0]), as_measured(rows[1], peak_reserved_bytes=more_bytes)]
    rows.append({**rows[0], "case_id": "of two", "device_cards": "[{}, {}]", "device_uuid": "GPU-1+GPU-2"})
    (tmp_path / "measured").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, CASES), tmp_path / "measured" / "cases.parquet")

    done = in_process("validate", "rows", "measured", "--models", "models", "--cards", ".")
    assert done.returncode == 0, done.stderr
    assert "the verdict is the same in 2 of 2" in done.stdout
    assert "- left out, as of several cards: 1 measured rows; " in done.stdout
    assert "| peak allocated | 2 | 2 | 0 | 0 |" in done.stdout
    assert "| peak reserved | 1 | 2 | -2.0 MiB |" in done.stdout
    assert (
        f"- {CARD}: 12,489,588,736 B, compute capability 8.6, 28 multiprocessors; measured: driver 1.0" in done.stdout
    )
    (simulated, _) = read_cases(tmp_path / "measured-simulated")[0].to_pylist()
    assert simulated["device_kind"] == "simulated"
    assert any(note.startswith("context_bytes measured: driver 1.0, torch ") for note in simulated["notes"])
    assert 'context_basis: "measured: driver 1.0' in (tmp_path / f"{CARD}.yaml").read_text()

    alone = in_process("validate", "rows", "measured", "--models", "first")
    assert alone.returncode == 1
    assert "0 of 2 measured rows have a simulated one" in alone.stdout
    assert "Measured, without a simulated row beside it:" in alone.stdout


def test_a_folder_without_measured_rows_is_refused(in_process: Program) -> None:
    done = in_process("validate", "rows", "nowhere", "--models", ".")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == "vram-bench: nowhere: no measured rows in it; give the folder that scripts/gpu_check.sh has filled\n"
    )


def test_recordings_of_a_simulated_card_are_refused(in_process: Program, tmp_path: Path) -> None:
    """There is nothing to hold against the model of the allocator: it would be held against itself."""
    done = in_process("validate", "record", "kept", "model=tinyllama_1_1b", "device=rtx_4090", "max_seq_len=512")
    assert (done.returncode, done.stdout) == (2, "")
    assert "a recording is of a real GPU at given lengths: device=cuda max_seq_len=" in done.stderr
    assert not (tmp_path / "kept").exists()


def test_what_is_to_be_validated_must_be_named(in_process: Program) -> None:
    done = in_process("validate")
    assert done.returncode == 2
    assert "WHAT" in done.stderr
