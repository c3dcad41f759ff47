"""The columns of every stored row: one explicit, versioned schema for each kind of table.

History: 1 (first).
"""

from __future__ import annotations

import pyarrow as pa

from bench.records import SCHEMA_VERSION

_SIZES = (
    "peak_allocated_bytes",
    "peak_requested_bytes",
    "peak_reserved_bytes",
    "peak_device_bytes",
    "context_bytes",
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

CASES = pa.schema(
    [
        pa.field("schema_version", pa.int32(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("case_id", pa.string(), nullable=False),
        pa.field("started_at", pa.timestamp("us", tz="UTC"), nullable=False),
        ("host", pa.string()),
        pa.field("device_name", pa.string(), nullable=False),
        pa.field("device_kind", pa.string(), nullable=False),
        ("device_uuid", pa.string()),
        ("device_total_bytes", pa.int64()),
        ("vram_limit_bytes", pa.int64()),
        ("compute_capability", pa.string()),
        ("driver_version", pa.string()),
        ("cuda_version", pa.string()),
        ("torch_version", pa.string()),
        ("exllamav2_version", pa.string()),
        ("harness_version", pa.string()),
        pa.field("model", pa.string(), nullable=False),
        ("architecture", pa.string()),
        ("model_fingerprint", pa.string()),
        ("native_max_seq_len", pa.int64()),
        pa.field("bpw", pa.float64(), nullable=False),
        ("head_bits", pa.int32()),
        pa.field("cache", pa.string(), nullable=False),
        pa.field("lazy", pa.bool_(), nullable=False),
        ("attention", pa.string()),
        ("attention_requested", pa.string()),
        pa.field("max_seq_len", pa.int64(), nullable=False),
        ("batch_size", pa.int32()),
        ("max_input_len", pa.int64()),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("phase", pa.string(), nullable=False),
        *[(name, pa.int64()) for name in _SIZES],
        *[(name, pa.float64()) for name in _SPEEDS],
        ("prefill_samples_s", pa.list_(pa.float64())),
        ("decode_samples_s", pa.list_(pa.float64())),
        ("decode_full_samples_s", pa.list_(pa.float64())),
        ("energy_j", pa.float64()),
        ("exit_code", pa.int32()),
        ("signal", pa.int32()),
        ("error", pa.string()),
        ("notes", pa.list_(pa.string())),
        ("phases", pa.string()),  # JSON: seconds and memory after each phase
        ("telemetry", pa.string()),  # JSON: NVML before, during and after
        ("environment", pa.string()),  # JSON: the child's environment
    ],
    metadata={"schema_version": str(SCHEMA_VERSION), "kind": "cases"},
)
