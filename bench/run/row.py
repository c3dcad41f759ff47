"""The stored row of a case, made of the case, the child's messages, NVML's readings and the verdict."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from statistics import median
from typing import cast

from bench.config.lengths import lengths_of_model
from bench.core.case import Case
from bench.core.columns import PARTS, SCHEMA_VERSION, CaseRow
from bench.core.identity import identity_of
from bench.core.messages import Timings
from bench.core.outcome import Outcome
from bench.core.split import GAPS_NOTE, Split
from bench.engines.registry import engine_of
from bench.forecast.forecaster import Forecast
from bench.forecast.speed import estimated_speed, step_of
from bench.launch.supervise import Ending
from bench.run.cards import CardOfCase, cards_of, tightest, total
from bench.run.place import place
from bench.run.telemetry import Telemetry
from bench.run.told import Told
from bench.run.turns import turns_of
from bench.run.verdict import Verdict


@dataclass(frozen=True)
class Measurement:
    """A case that was run: how its child ended, the verdict on that, and what was read of its cards meanwhile.

    `telemetry` is of each real GPU; `environment` was the child's; `best_split` is the split that was run where the
    best was asked for; `moved` says of which card others took or gave back memory meanwhile. What follows from these is
    worked out once.
    """

    case: Case
    case_id: str
    started_at: datetime
    ending: Ending
    verdict: Verdict
    telemetry: Sequence[Telemetry]
    environment: dict[str, str]
    best_split: str | None = None
    moved: Sequence[str] = ()

    @cached_property
    def told(self) -> Told:
        """What the child said."""
        return Told.by(self.ending.messages)

    @cached_property
    def cards(self) -> list[CardOfCase]:
        """What is known of each card."""
        return cards_of(self.case, self.told, self.telemetry)


def make_row(run_id: str, measured: Measurement, versions: dict[str, str | None], forecast: Forecast) -> CaseRow:
    """One row; what is not known is None."""
    case, verdict, ending = measured.case, measured.verdict, measured.ending
    told, cards = measured.told, measured.cards
    timings = told.timings
    is_real, fits = not case.device.is_simulated, verdict.outcome is Outcome.FITS
    memories, telemetry = [card.told.memory for card in cards], measured.telemetry
    tightest_card = tightest(case, cards)
    step = step_of(case) if fits else None
    engine = engine_of(case.engine)
    engine_version = told.versions.engine_version if told.versions else versions[engine.version_column]
    lengths = lengths_of_model(case.model, case.engine)
    notes = [*(told.notes or []), *lengths.notes(case.max_seq_len), *measured.moved]
    if measured.best_split is not None:  # each length has the split that is best for it
        notes = [note for note in notes if note != GAPS_NOTE]
    row = {
        **dict.fromkeys(CaseRow.__annotations__),
        "schema_version": SCHEMA_VERSION,
        "run_id": run_id,
        "case_id": measured.case_id,
        "started_at": measured.started_at.isoformat(),
        "host": socket.gethostname(),
        **identity_of(case),
        "device_total_bytes": total(card.total_bytes for card in cards),
        "driver_version": case.device.driver_version,
        "cuda_version": told.facts.cuda_version,
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
        "error": _error(verdict, forecast, told.turn if case.turns > 1 else None),
        **turns_of(case, told),
        "peak_allocated_bytes": total(memory.peak_allocated_bytes if memory else None for memory in memories),
        "peak_requested_bytes": total(memory.peak_requested_bytes if memory else None for memory in memories),
        "peak_reserved_bytes": total(memory.peak_reserved_bytes if memory else None for memory in memories),
        "peak_device_bytes": total(card.peak_device_bytes for card in cards),
        "host_buffers_bytes": told.result and told.result.host_buffers_bytes,
        "peak_host_bytes": told.result and told.result.peak_host_bytes,
        "generated_tokens": told.result and told.result.generated_tokens,
        "drafted_tokens": told.result and told.result.drafted_tokens,
        "predicted_peak_bytes": forecast.prediction and forecast.prediction.peak_allocated_bytes,
        "context_bytes": total(card.told.facts.context_bytes for card in cards),
        **_parts(case, cards),
        "tightest_card": tightest_card,
        "best_split": None if measured.best_split is None else Split.parse(measured.best_split).typed,
        "tightest_headroom_bytes": None if tightest_card is None else cards[tightest_card].headroom_bytes,
        "load_s": timings.load_s if is_real else None,
        **_speeds(timings),
        "estimated_decode_tokens_per_s": estimated_speed(case) if fits else None,
        "decode_weights_bytes": step and round(step.weights_bytes),
        "decode_cache_bytes": step and round(step.cache_bytes),
        "energy_j": _energy_j(telemetry),
        "wall_s": ending.wall_s,
        "exit_code": ending.exit_code,
        "signal": ending.signal,
        "notes": notes or (None if told.notes is None else []),
        "phases": json.dumps(told.documents()),
        "telemetry": _telemetry_document(told, telemetry),
        "environment": json.dumps(measured.environment),
        **place(),
    }
    return cast(CaseRow, row)


def _error(verdict: Verdict, forecast: Forecast, turn: int | None) -> str | None:
    """What went wrong, of several turns in which, and where a split holds not all modules, what it is short of."""
    if verdict.error is None:
        return None
    lack = forecast.prediction and forecast.prediction.lack
    where = "" if turn is None else f"; in turn {turn}"
    return f"{verdict.error}{where}; {lack}" if verdict.outcome is Outcome.OOM and lack else f"{verdict.error}{where}"


def _parts(case: Case, cards: Sequence[CardOfCase]) -> dict[str, int | None]:
    """The bytes of each part on all cards; none where a case did not come so far, nor those of no draft model."""
    told = [card.told.parts for card in cards]
    if any(parts is None for parts in told):
        return {}
    names = [name for name in PARTS if case.draft_model is not None or not name.startswith("draft_")]
    return {name: total((parts or {}).get(name) for parts in told) for name in names}


def _energy_j(telemetry: Sequence[Telemetry]) -> float | None:
    """Of all cards; None where that of one is unknown."""
    found = [each.energy_j for each in telemetry]
    return None if not found or None in found else sum(filter(None, found))


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


def _telemetry_document(told: Told, telemetry: Sequence[Telemetry]) -> str | None:
    """What NVML read and CUDA said, of several cards in a list."""
    cards = [each.facts.properties for each in told.cards()]
    cards += [None] * (len(telemetry) - len(cards))
    read = [each.summary() for each in telemetry] or [None] * len(cards)
    documents = [
        {**(summary or {}), **({} if properties is None else {"properties": properties})}
        for summary, properties in zip(read, cards, strict=True)
    ]
    if not any(documents):
        return None
    return json.dumps(documents[0] if len(documents) == 1 else {"cards": documents})


def now() -> datetime:
    """The time, with its zone: UTC."""
    return datetime.now(UTC)
