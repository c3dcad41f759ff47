"""The stored row of a case, made of the case, the child's messages, NVML's readings and the verdict."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import cast

from bench.config.lengths import lengths_of
from bench.core.case import Case
from bench.core.columns import SCHEMA_VERSION, CaseRow
from bench.core.identity import identity_of
from bench.core.messages import Timings
from bench.core.outcome import Outcome
from bench.engines.registry import engine_of
from bench.forecast.forecaster import Forecast
from bench.forecast.speed import step_of
from bench.launch.supervise import Ending
from bench.run.telemetry import Telemetry
from bench.run.told import Told
from bench.run.verdict import Verdict


@dataclass(frozen=True)
class Measurement:
    """A case that was run: how its child ended, the verdict on that, and what was read of its cards meanwhile.

    `telemetry` is of each real GPU; `environment` was the child's.
    """

    case: Case
    case_id: str
    started_at: datetime
    ending: Ending
    verdict: Verdict
    telemetry: Sequence[Telemetry]
    environment: dict[str, str]


def make_row(run_id: str, measured: Measurement, versions: dict[str, str | None], forecast: Forecast) -> CaseRow:
    """One row; what is not known is None."""
    case, verdict, ending = measured.case, measured.verdict, measured.ending
    told = Told.by(ending.messages)
    timings, memory, facts = told.timings, told.memory, told.facts
    is_real, fits = not case.device.is_simulated, verdict.outcome is Outcome.FITS
    listed_bytes = None if is_real else case.device.total_memory_bytes
    telemetry = measured.telemetry[0] if measured.telemetry else None  # a case has one card
    step = step_of(case) if fits else None
    engine = engine_of(case.engine)
    engine_version = told.versions.engine_version if told.versions else versions[engine.version_column]
    lengths = lengths_of(case.model.config, case.engine)
    notes = [*(told.notes or []), *lengths.notes(case.max_seq_len)]
    row = {
        **dict.fromkeys(CaseRow.__annotations__),
        "schema_version": SCHEMA_VERSION,
        "run_id": run_id,
        "case_id": measured.case_id,
        "started_at": measured.started_at.isoformat(),
        "host": socket.gethostname(),
        **identity_of(case),
        # As CUDA reports it: NVML lists more for a real card.
        "device_total_bytes": listed_bytes if facts.device_total_bytes is None else facts.device_total_bytes,
        "driver_version": case.device.driver_version,
        "cuda_version": facts.cuda_version,
        "torch_version": told.versions.torch_version if told.versions else versions["torch_version"],
        engine.version_column: engine_version,
        "engine_version": engine_version,
        "harness_version": versions["harness_version"],
        "architecture": case.model.architecture,
        "native_max_seq_len": lengths.limit,
        "native_max_seq_len_basis": lengths.basis,
        "attention": told.attention,
        "max_seq_len": case.max_seq_len,
        "outcome": verdict.outcome,
        "phase": verdict.phase,
        "error": verdict.error,
        "peak_allocated_bytes": memory.peak_allocated_bytes if memory else None,
        "peak_requested_bytes": memory.peak_requested_bytes if memory else None,
        "peak_reserved_bytes": memory.peak_reserved_bytes if memory else None,
        "peak_device_bytes": _peak_device_bytes(case, told, telemetry),
        "predicted_peak_bytes": forecast.prediction and forecast.prediction.peak_allocated_bytes,
        "context_bytes": facts.context_bytes,
        **(told.result.parts if told.result else {}),
        "load_s": timings.load_s if is_real else None,
        **_speeds(timings),
        "estimated_decode_tokens_per_s": forecast.estimated_decode_tokens_per_s if fits else None,
        "decode_weights_bytes": step and round(step.weights_bytes),
        "decode_cache_bytes": step and round(step.cache_bytes),
        "energy_j": telemetry.energy_j if telemetry else None,
        "wall_s": ending.wall_s,
        "exit_code": ending.exit_code,
        "signal": ending.signal,
        "notes": notes or told.notes,
        "phases": json.dumps(told.documents()),
        "telemetry": _telemetry_document(told, telemetry),
        "environment": json.dumps(measured.environment),
    }
    return cast(CaseRow, row)


def _peak_device_bytes(case: Case, told: Told, telemetry: Telemetry | None) -> int | None:
    """The highest that the child or the driver saw the card hold."""
    told_bytes = told.memory.peak_device_bytes if told.memory else None
    sampled_bytes = telemetry.peak_used_bytes if telemetry else None
    if case.vram_limit_by == "process" and sampled_bytes is not None:
        # NVML also counts the ballast process that makes the card smaller: subtract it.
        held_bytes = told.facts.held_bytes
        sampled_bytes = None if held_bytes is None else sampled_bytes - held_bytes
    return max(filter(None, [told_bytes, sampled_bytes]), default=None)


def _speeds(timings: Timings) -> dict[str, float | list[float] | None]:
    """Tokens a second by the median of the samples, and the samples; None where nothing was timed."""
    return {
        "prefill_tokens_per_s": _rate(timings.prefill_tokens, timings.prefill_s),
        "decode_tokens_per_s": _rate(timings.decode_tokens, timings.decode_s),
        "decode_tokens_per_s_full": _rate(timings.decode_tokens, timings.decode_full_s),
        "prefill_samples_s": timings.prefill_s or None,
        "decode_samples_s": timings.decode_s or None,
        "decode_full_samples_s": timings.decode_full_s or None,
    }


def _rate(tokens: int | None, samples_s: list[float] | None) -> float | None:
    return tokens / median(samples_s) if tokens is not None and samples_s else None


def _telemetry_document(told: Told, telemetry: Telemetry | None) -> str | None:
    summary = telemetry.summary() if telemetry else None
    if told.facts.properties is not None:
        summary = {**(summary or {}), "properties": told.facts.properties}
    return json.dumps(summary) if summary else None


def now() -> datetime:
    """The time, with its zone: UTC."""
    return datetime.now(UTC)
