"""The columns of every stored row: one explicit, versioned schema for each kind of table.

History: 1 (first), 2 (vram_limit_by), 3 (ids that leave out what has its default). A column that came later (`later`)
reads as null where a file does not have it yet, whatever its version.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

import pyarrow as pa

from bench.core.case import MAX_ATTENTION_SIZE
from bench.core.columns import SCHEMA_VERSION

# What was in use at the peak, part by part.
PARTS = (
    "weights_bytes",
    "cache_bytes",
    "scratch_bytes",
    "rope_bytes",
    "attention_bytes",
    "logits_bytes",
    "activations_bytes",
    "reserve_bytes",
    "workspace_bytes",
    "other_bytes",
)
_SIZES = (
    "peak_allocated_bytes",
    "peak_requested_bytes",
    "peak_reserved_bytes",
    "peak_device_bytes",
    "context_bytes",
    *PARTS,
    "predicted_peak_bytes",
)
_SPEEDS = (
    "load_s",
    "prefill_tokens_per_s",
    "decode_tokens_per_s",
    "decode_tokens_per_s_full",
    "estimated_decode_tokens_per_s",
    "wall_s",
)


def later(name: str, kind: pa.DataType, before: int | None = None) -> pa.Field[Any]:
    """A column that the first version did not have. Where a program did not know it, all of its rows had the value
    `before`: null, unless there was only one that they could have.
    """
    return pa.field(name, kind, metadata={"later": json.dumps(before)})


def is_later(column: pa.Field[Any]) -> bool:
    """Whether a file without this column is merely older; without any other, it is damaged."""
    return b"later" in (column.metadata or {})


def value_before(column: pa.Field[Any]) -> int | None:
    """What a column holds for rows of programs that did not know it."""
    value: int | None = json.loads((column.metadata or {}).get(b"later", b"null"))
    return value


_WHERE: list[pa.Field[Any]] = [
    pa.field("host", pa.string()),
    pa.field("device_name", pa.string(), nullable=False),
    pa.field("device_kind", pa.string(), nullable=False),
    pa.field("device_uuid", pa.string()),
    pa.field("device_total_bytes", pa.int64()),
    pa.field("vram_limit_bytes", pa.int64()),
    later("vram_limit_by", pa.string()),
    pa.field("compute_capability", pa.string()),
    later("device_context_bytes", pa.int64()),
    later("device_workspace_bytes", pa.int64()),
    later("device_multi_processor_count", pa.int32()),
    later("device_bandwidth_bytes_per_s", pa.float64()),
    pa.field("driver_version", pa.string()),
    pa.field("cuda_version", pa.string()),
    pa.field("torch_version", pa.string()),
    pa.field("exllamav2_version", pa.string()),
    pa.field("harness_version", pa.string()),
]
_WHAT: list[pa.Field[Any]] = [
    pa.field("model", pa.string(), nullable=False),
    pa.field("architecture", pa.string()),
    pa.field("model_fingerprint", pa.string()),
    pa.field("native_max_seq_len", pa.int64()),
    pa.field("native_max_seq_len_basis", pa.string()),
    pa.field("bpw", pa.float64(), nullable=False),
    pa.field("head_bits", pa.int32()),
    pa.field("cache", pa.string(), nullable=False),
    pa.field("lazy", pa.bool_(), nullable=False),
    pa.field("attention", pa.string()),
    pa.field("attention_requested", pa.string()),
]

_CASE_COLUMNS: list[pa.Field[Any]] = [
    pa.field("schema_version", pa.int32(), nullable=False),
    pa.field("run_id", pa.string(), nullable=False),
    pa.field("case_id", pa.string(), nullable=False),
    pa.field("started_at", pa.timestamp("us", tz="UTC"), nullable=False),
    *_WHERE,
    *_WHAT,
    pa.field("max_seq_len", pa.int64(), nullable=False),
    pa.field("batch_size", pa.int32()),
    pa.field("max_input_len", pa.int64()),
    later("max_attention_size", pa.int64(), MAX_ATTENTION_SIZE),
    pa.field("outcome", pa.string(), nullable=False),
    pa.field("phase", pa.string(), nullable=False),
    *[pa.field(name, pa.int64()) for name in _SIZES],
    *[pa.field(name, pa.float64()) for name in _SPEEDS],
    pa.field("decode_weights_bytes", pa.int64()),
    pa.field("decode_cache_bytes", pa.int64()),
    pa.field("prefill_samples_s", pa.list_(pa.float64())),
    pa.field("decode_samples_s", pa.list_(pa.float64())),
    pa.field("decode_full_samples_s", pa.list_(pa.float64())),
    pa.field("energy_j", pa.float64()),
    pa.field("exit_code", pa.int32()),
    pa.field("signal", pa.int32()),
    pa.field("error", pa.string()),
    pa.field("notes", pa.list_(pa.string())),
    pa.field("phases", pa.string()),  # JSON: seconds and memory after each phase
    pa.field("telemetry", pa.string()),  # JSON: NVML before, during and after
    pa.field("environment", pa.string()),  # JSON: the child's environment
]
_BOUNDARY_COLUMNS: list[pa.Field[Any]] = [
    pa.field("schema_version", pa.int32(), nullable=False),
    pa.field("run_id", pa.string(), nullable=False),
    pa.field("boundary_id", pa.string(), nullable=False),
    pa.field("finished_at", pa.timestamp("us", tz="UTC"), nullable=False),
    *_WHERE,
    *_WHAT,
    pa.field("batch_size", pa.int32()),
    pa.field("max_input_len", pa.int64()),
    later("max_attention_size", pa.int64(), MAX_ATTENTION_SIZE),
    pa.field("outcome", pa.string(), nullable=False),
    pa.field("fits_at", pa.int64()),
    pa.field("fails_at", pa.int64()),
    pa.field("predicted_fits_at", pa.int64()),
    pa.field("searched_up_to", pa.int64()),
    pa.field("certified", pa.bool_(), nullable=False),
    pa.field("contradictory", pa.bool_(), nullable=False),
    pa.field("probes", pa.int32()),
    pa.field("peak_device_bytes", pa.int64()),
    pa.field("headroom_bytes", pa.int64()),
    pa.field("predicted_peak_bytes", pa.int64()),
    pa.field("decode_tokens_per_s_full", pa.float64()),
    pa.field("estimated_decode_tokens_per_s", pa.float64()),
    pa.field("wall_s", pa.float64()),
    pa.field("error", pa.string()),
    pa.field("advice", pa.string()),
    pa.field("notes", pa.list_(pa.string())),
    pa.field("case_ids", pa.list_(pa.string())),
]


# Columns of cases that hold whole documents, by far the most bytes of a row; no table shows them.
DOCUMENTS = frozenset(
    {"phases", "telemetry", "environment", "prefill_samples_s", "decode_samples_s", "decode_full_samples_s"}
)


class Kind(StrEnum):
    """The kinds of rows; each has a file of its own in a run's folder."""

    CASES = "cases"
    BOUNDARIES = "boundaries"


def _schema(columns: list[pa.Field[Any]], kind: Kind) -> pa.Schema:
    return pa.schema(columns, metadata={"schema_version": str(SCHEMA_VERSION), "kind": kind})


CASES = _schema(_CASE_COLUMNS, Kind.CASES)
BOUNDARIES = _schema(_BOUNDARY_COLUMNS, Kind.BOUNDARIES)
SCHEMAS = {Kind.CASES: CASES, Kind.BOUNDARIES: BOUNDARIES}
