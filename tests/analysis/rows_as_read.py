"""Rows as they are read from the disk, with round numbers: 1 GiB of weights a bit, 1 MiB of cache a token by FP16."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pyarrow as pa

from bench.core.columns import SCHEMA_VERSION
from bench.store.schema import BOUNDARIES, CASES

GIB, MIB = 1 << 30, 1 << 20
# Bytes of the cache that are stored, and that decoding moves, for each of FP16's (docs/speed.md).
STORED = {"FP16": 2 / 2, "Q8": 1.0625 / 2, "Q6": 0.8125 / 2, "Q4": 0.5625 / 2}
MOVED = {"FP16": 2 / 2, "Q8": 5.0625 / 2, "Q6": 4.8125 / 2, "Q4": 4.5625 / 2}

USUAL: dict[str, Any] = {
    "schema_version": SCHEMA_VERSION,
    "run_id": "run",
    "started_at": datetime(2026, 1, 1, tzinfo=UTC),
    "finished_at": datetime(2026, 1, 1, tzinfo=UTC),
    "device_name": "card",
    "device_kind": "simulated",
    "device_total_bytes": 24 * GIB,
    "model": "tiny",
    "model_fingerprint": "f1",
    "native_max_seq_len": 131072,
    "bpw": 4.0,
    "head_bits": 6,
    "cache": "FP16",
    "lazy": False,
    "attention": "flash",
    "attention_requested": "auto",
    "batch_size": 1,
    "max_input_len": 2048,
    "max_attention_size": 2048**2,
    "max_seq_len": 4096,
    "outcome": "fits",
    "phase": "done",
    "certified": True,
    "contradictory": False,
}


def fits(max_seq_len: int, **values: Any) -> dict[str, Any]:
    row = {**USUAL, "max_seq_len": max_seq_len, **values}
    weights, cache = int(row["bpw"] * GIB), int(max_seq_len * MIB * STORED[row["cache"]])
    speed = 1000 * GIB / (weights + max_seq_len * MIB * MOVED[row["cache"]])
    known = {"weights_bytes": weights, "cache_bytes": cache, "peak_device_bytes": weights + cache}
    known["estimated_decode_tokens_per_s"] = speed
    return {**known, **row}


def oom(max_seq_len: int, **values: Any) -> dict[str, Any]:
    return {**USUAL, "max_seq_len": max_seq_len, "outcome": "oom", "phase": "cache", **values}


def boundary(fits_at: int | None, **values: Any) -> dict[str, Any]:
    """Certified; the model's own limit where it is that."""
    fails_at = 256 if fits_at is None else None if fits_at == USUAL["native_max_seq_len"] else fits_at + 256
    outcome = "oom" if fits_at is None else "fits"
    return {**USUAL, "outcome": outcome, "fits_at": fits_at, "fails_at": fails_at, **values}


def cases_of(*rows: dict[str, Any]) -> pd.DataFrame:
    return pa.Table.from_pylist([{"case_id": f"c{i}", **row} for i, row in enumerate(rows)], schema=CASES).to_pandas()


def boundaries_of(*rows: dict[str, Any]) -> pd.DataFrame:
    numbered = [{"boundary_id": f"b{i}", **row} for i, row in enumerate(rows)]
    return pa.Table.from_pylist(numbered, schema=BOUNDARIES).to_pandas()
