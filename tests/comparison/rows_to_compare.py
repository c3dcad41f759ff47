"""Rows to compare, as they are read from the disk: plain values, None for null."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from bench.core.columns import SCHEMA_VERSION
from bench.store.schema import BOUNDARIES, CASES

MIB, GIB = 1 << 20, 1 << 30
START = datetime(2026, 1, 1, tzinfo=UTC)

_SHARED: dict[str, Any] = {
    "schema_version": SCHEMA_VERSION,
    "run_id": "run",
    "device_name": "rtx_4090",
    "device_kind": "simulated",
    "device_total_bytes": 24 * GIB,
    "harness_version": "0.1.0",
    "exllamav2_version": "0.3.2",
    "model": "tiny",
    "model_fingerprint": "f1",
    "native_max_seq_len": 131_072,
    "bpw": 4.0,
    "head_bits": 6,
    "cache": "FP16",
    "lazy": False,
    "attention": "flash",
    "attention_requested": "auto",
    "batch_size": 1,
    "max_input_len": 2048,
    "max_attention_size": 2048**2,
}
_REAL = {"device_name": "nvidia_l4", "device_kind": "cuda", "device_uuid": "GPU-a", "driver_version": "550.54"}


def case(max_seq_len: int = 4096, outcome: str = "fits", minutes: int = 0, **values: Any) -> dict[str, Any]:
    """A case on a simulated card; one that fits has peaks."""
    sizes = ("peak_allocated_bytes", "peak_reserved_bytes", "peak_device_bytes")
    fits = outcome == "fits"
    return {
        **dict.fromkeys(CASES.names),
        **_SHARED,
        "case_id": f"case-{max_seq_len}",
        "started_at": START + timedelta(minutes=minutes),
        "max_seq_len": max_seq_len,
        "outcome": outcome,
        "phase": "done" if fits else "load",
        **({name: (5 + index) * GIB for index, name in enumerate(sizes)} if fits else {}),
        **values,
    }


def real_case(seconds: list[float] | None = None, max_seq_len: int = 4096, **values: Any) -> dict[str, Any]:
    """A case on a real GPU that decoded 128 tokens in each of `seconds`."""
    middle = sorted(seconds)[len(seconds) // 2] if seconds else None
    timed = {"decode_tokens_per_s": 128 / middle, "decode_samples_s": seconds} if middle else {}
    return case(max_seq_len, **{"case_id": f"real-{max_seq_len}", **_REAL, **timed, **values})


def boundary(fits_at: int | None = 8192, **values: Any) -> dict[str, Any]:
    """A certified boundary."""
    native = values.get("native_max_seq_len") or _SHARED["native_max_seq_len"]
    fails_at = None if fits_at == native else min(native, (fits_at or 0) + 256)
    return {
        **dict.fromkeys(BOUNDARIES.names),
        **_SHARED,
        "boundary_id": "boundary",
        "finished_at": START,
        "outcome": "oom" if fits_at is None else "fits",
        "fits_at": fits_at,
        "fails_at": fails_at,
        "certified": True,
        "contradictory": False,
        "case_ids": [],
        **values,
    }


def grown(row: dict[str, Any], by_bytes: int) -> dict[str, Any]:
    """The same case with larger peaks."""
    return {**row, **{name: row[name] + by_bytes for name in row if name.startswith("peak_") and row[name]}}
