"""The stored row of a case: what was asked, what the child reported, what the parent saw and decided."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime
from statistics import median
from typing import Any

from bench.config.lengths import lengths_of
from bench.core.case import Case
from bench.core.columns import SCHEMA_VERSION
from bench.core.identity import identity_of
from bench.core.outcome import Outcome
from bench.forecast.forecaster import Forecast
from bench.forecast.speed import step_of
from bench.launch.isolate import Ending
from bench.run.verdict import Verdict


def make_row(
    case: Case,
    case_id: str,
    run_id: str,
    started_at: datetime,
    ending: Ending,
    verdict: Verdict,
    versions: dict[str, str | None],
    telemetry: dict[str, Any] | None,
    energy_j: float | None,
    environment: dict[str, str],
    forecast: Forecast,
) -> dict[str, Any]:
    """One row in the columns of `results.schema.CASES`; what is not known is left out and becomes null."""
    reported: dict[str, Any] = {}
    phases = []
    for report in ending.reports:
        if report.event == "phase":
            phases.append(report.data)
            reported.update(report.data)
        elif report.event in ("start", "versions", "result", "failure"):
            reported.update({name: value for name, value in report.data.items() if value is not None})
    memory = reported.get("memory") or {}
    total_bytes = case.device.total_memory_bytes
    sampled_bytes = (telemetry or {}).get("peak_used_bytes")
    if case.vram_limit_by == "process" and sampled_bytes is not None:
        # Of a card that others hold the rest of, only what they left is the card.
        held_bytes = reported.get("held_bytes")
        sampled_bytes = None if held_bytes is None else sampled_bytes - held_bytes
    if "properties" in reported:
        telemetry = {**(telemetry or {}), "properties": reported["properties"]}
    step = step_of(case) if verdict.outcome is Outcome.FITS else None
    peak_device_bytes = max(filter(None, [memory.get("peak_device_bytes"), sampled_bytes]), default=None)
    lengths = lengths_of(case.model.config)
    notes = [*(reported.get("notes") or []), *lengths.notes(case.max_seq_len)]
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": run_id,
        "case_id": case_id,
        "started_at": started_at.isoformat(),
        "host": socket.gethostname(),
        **identity_of(case),
        # CUDA's word: what the driver lists of a real card is more.
        "device_total_bytes": reported.get("device_total_bytes", None if case.device.kind == "cuda" else total_bytes),
        "driver_version": case.device.driver_version,
        "cuda_version": reported.get("cuda_version"),
        "torch_version": reported.get("torch_version", versions["torch_version"]),
        "exllamav2_version": versions["exllamav2_version"],
        "harness_version": versions["harness_version"],
        "architecture": case.model.architecture,
        "native_max_seq_len": lengths.limit,
        "native_max_seq_len_basis": lengths.basis,
        "attention": reported.get("attention"),
        "max_seq_len": case.max_seq_len,
        "outcome": verdict.outcome,
        "phase": verdict.phase,
        "error": verdict.error,
        **{name: memory.get(name) for name in ("peak_allocated_bytes", "peak_requested_bytes", "peak_reserved_bytes")},
        "peak_device_bytes": peak_device_bytes,
        "predicted_peak_bytes": forecast.prediction and forecast.prediction.peak_allocated_bytes,
        "context_bytes": reported.get("context_bytes"),
        **(reported.get("parts") or {}),
        "load_s": reported.get("load_s") if case.device.kind == "cuda" else None,
        "prefill_tokens_per_s": _rate(reported, "prefill_tokens", "prefill_s"),
        "decode_tokens_per_s": _rate(reported, "decode_tokens", "decode_s"),
        "decode_tokens_per_s_full": _rate(reported, "decode_tokens", "decode_full_s"),
        "estimated_decode_tokens_per_s": forecast.estimated_decode_tokens_per_s
        if verdict.outcome is Outcome.FITS
        else None,
        "decode_weights_bytes": step and round(step.weights_bytes),
        "decode_cache_bytes": step and round(step.cache_bytes),
        "prefill_samples_s": reported.get("prefill_s") or None,
        "decode_samples_s": reported.get("decode_s") or None,
        "decode_full_samples_s": reported.get("decode_full_s") or None,
        "energy_j": energy_j,
        "wall_s": ending.wall_s,
        "exit_code": ending.exit_code,
        "signal": ending.signal,
        "notes": notes or reported.get("notes"),
        "phases": json.dumps(phases),
        "telemetry": telemetry and json.dumps(telemetry),
        "environment": json.dumps(environment),
    }


def _rate(reported: dict[str, Any], tokens: str, samples: str) -> float | None:
    """Tokens a second by the median of the samples; None where nothing was timed."""
    seconds = reported.get(samples)
    return reported[tokens] / median(seconds) if seconds else None


def now() -> datetime:
    return datetime.now(UTC)
