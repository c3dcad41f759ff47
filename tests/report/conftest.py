from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from bench.core.columns import SCHEMA_VERSION
from bench.store.schema import BOUNDARIES, CASES

GIB = 1 << 30

_REQUIRED: dict[str, Any] = {
    "schema_version": SCHEMA_VERSION,
    "run_id": "run",
    "started_at": datetime(2026, 1, 1, tzinfo=UTC),
    "device_name": "rtx_4090",
    "device_kind": "simulated",
    "model": "tiny",
    "bpw": 4.0,
    "cache": "FP16",
    "lazy": False,
    "max_seq_len": 4096,
    "outcome": "fits",
    "phase": "done",
}
_USUAL: dict[str, Any] = {
    "device_total_bytes": 24 * GIB,
    "model_fingerprint": "f1",
    "native_max_seq_len": 131072,
    "head_bits": 6,
    "attention": "matmul",
    "attention_requested": "auto",
    "batch_size": 1,
    "max_input_len": 2048,
    "max_attention_size": 2048**2,
}

_BOUNDARY: dict[str, Any] = {"finished_at": datetime(2026, 1, 1, tzinfo=UTC), "certified": True, "contradictory": False}

# Rows that differ in one of these never stand together.
ANOTHER_CARD_OR_MODEL = pytest.mark.parametrize(
    "difference",
    [
        {"device_name": "l4"},
        {"device_uuid": "GPU-2"},
        {"device_total_bytes": 24 * GIB - (128 << 20)},
        {"compute_capability": "8.9"},
        {"device_context_bytes": 500 << 20},
        {"device_bandwidth_bytes_per_s": 1e12},
        {"vram_limit_bytes": 8 * GIB},
        {"model": "other"},
        {"model_fingerprint": "f2"},
    ],
    ids=lambda difference: next(iter(difference)),
)

FrameOf = Callable[..., pd.DataFrame]


def _frame(rows: tuple[dict[str, Any], ...], defaults: dict[str, Any]) -> pd.DataFrame:
    numbered = [{"case_id": str(index), **defaults, **row} for index, row in enumerate(rows)]
    return pa.Table.from_pylist(numbered, schema=CASES).to_pandas()


def _boundary_frame(rows: tuple[dict[str, Any], ...], defaults: dict[str, Any]) -> pd.DataFrame:
    numbered = [{"boundary_id": str(index), **defaults, **_BOUNDARY, **row} for index, row in enumerate(rows)]
    return pa.Table.from_pylist(numbered, schema=BOUNDARIES).to_pandas()


@pytest.fixture
def frame_of() -> FrameOf:
    """Rows as they are read from the disk; what a row does not say is as in the usual case."""
    return lambda *rows: _frame(rows, {**_REQUIRED, **_USUAL})


@pytest.fixture
def bare_frame_of() -> FrameOf:
    """Rows with a null in every column that may hold one, but for what they say."""
    return lambda *rows: _frame(rows, _REQUIRED)


@pytest.fixture
def boundaries_of() -> FrameOf:
    """Boundaries as they are read from the disk; what a row does not say is as in the usual case."""
    return lambda *rows: _boundary_frame(rows, {**_REQUIRED, **_USUAL})


@pytest.fixture
def bare_boundaries_of() -> FrameOf:
    """Boundaries with a null in every column that may hold one, but for what they say."""
    return lambda *rows: _boundary_frame(rows, _REQUIRED)


def fits(max_seq_len: int, peak_gib: float | None, **values: Any) -> dict[str, Any]:
    peak = None if peak_gib is None else int(peak_gib * GIB)
    return {"max_seq_len": max_seq_len, "outcome": "fits", "phase": "done", "peak_device_bytes": peak, **values}


def oom(max_seq_len: int, phase: str = "load", **values: Any) -> dict[str, Any]:
    return {"max_seq_len": max_seq_len, "outcome": "oom", "phase": phase, "error": "CUDA out of memory", **values}


def ends(fits_at: int, **values: Any) -> dict[str, Any]:
    """A certified boundary."""
    fails_at = None if fits_at == _USUAL["native_max_seq_len"] else fits_at + 256
    return {"outcome": "fits", "fits_at": fits_at, "fails_at": fails_at, **values}


def open_end(fits_at: int, fails_at: int | None = None, **values: Any) -> dict[str, Any]:
    """A boundary that was not closed in on."""
    return {"outcome": "fits", "fits_at": fits_at, "fails_at": fails_at, "certified": False, **values}


def nothing(**values: Any) -> dict[str, Any]:
    """A boundary below the first page."""
    return {"outcome": "oom", "fails_at": 256, **values}


def no_answer(outcome: str, error: str | None = "the reason", **values: Any) -> dict[str, Any]:
    return {"outcome": outcome, "error": error, "certified": False, **values}
