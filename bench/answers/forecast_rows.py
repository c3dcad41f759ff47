"""What is thought of a case or a search, put together from its forecast and from what is stored of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, replace
from typing import Any

from bench.config.lengths import lengths_of_model
from bench.core.case import Axis, Search
from bench.core.identity import identity_of
from bench.core.split import GAPS_NOTE, Split, gaps_note
from bench.engines.registry import engine_of
from bench.forecast.duration import probe_seconds
from bench.forecast.forecaster import Forecast, Forecaster
from bench.forecast.prediction import Prediction
from bench.notes.holes import pages_note
from bench.notes.rules import notes_of_cards, notes_of_case
from bench.report.forecasts import ForecastRow, Gain


def row_of(forecast: Forecast, stored: tuple[str, int | None] | None, seen: Collection[str | None]) -> ForecastRow:
    """A forecast in plain values; `stored` is what an earlier run has found, and `seen` are the real GPUs on which
    something was measured.
    """
    told = stored if stored is not None and forecast.prediction is None else (None, None)
    work, case, prediction = forecast.work, forecast.case, forecast.prediction
    limit_bytes = min(case.machine.total_memory_bytes, case.limit_bytes or case.machine.total_memory_bytes)
    is_search = isinstance(work, Search)
    is_of_caches = work.axis is Axis.CACHE_SIZE
    length = None if is_search and not is_of_caches else case.max_seq_len
    lengths = lengths_of_model(case.model, case.engine)
    return ForecastRow(
        identity={**identity_of(case), "cache_size": None} if is_of_caches else identity_of(case),
        search_axis=work.axis.value if is_search else None,
        native_max_seq_len=lengths.limit,
        native_max_seq_len_basis=lengths.basis,
        searched_up_to=work.search_end if isinstance(work, Search) else None,
        is_search=is_search,
        probes=forecast.probes if stored is None else 0,
        stored=stored is not None,
        stored_outcome=told[0],
        stored_fits_at=told[1],
        reason=forecast.reason,
        **({} if prediction is None else _predicted(prediction, limit_bytes, case.split)),
        max_seq_len=length if prediction is None or is_of_caches else prediction.length,
        cache_size=prediction.length if prediction is not None and is_of_caches else None,
        predicted_fits_at=forecast.fits_at or None,
        predicted_auto_fits_at=forecast.auto_fits_at,
        estimated_decode_tokens_per_s=forecast.estimated_decode_tokens_per_s,
        estimated_probe_s=probe_seconds(forecast.predicted_case),
        assumed=_notes(forecast, seen),
        notes=lengths.notes((forecast.fits_at or 0) if is_search and not is_of_caches else case.max_seq_len),
    )


def with_gains(row: ForecastRow, forecast: Forecast, forecaster: Forecaster) -> ForecastRow:
    """The row with what would change its answer, where something could."""
    if forecast.prediction is None or row.is_at_end or (row.fits and not row.is_search):
        return replace(row, gains=[])
    # Of a case: how far it would go, up to its own length.
    search = forecast.work if isinstance(forecast.work, Search) else Search(forecast.case)
    fits_at = forecast.fits_at if row.is_search else forecaster.fits_at(search)
    if not fits_at:
        return replace(row, gains=[], advice=forecaster.advise(search) or forecast.prediction.lack)
    gains = [Gain(setting, longer) for setting, longer in forecaster.gains(search) if longer > fits_at]
    return replace(row, gains=gains, advice=None if row.is_search else f"{fits_at:,} tokens would fit")


def _predicted(prediction: Prediction, limit_bytes: int, split: str | None) -> dict[str, Any]:
    """What is known where something can be predicted: a card that it does not fit has no peak."""
    return {
        "fits": prediction.fits,
        "failed_in": _phase(prediction.failed_in),
        "predicted_peak_bytes": prediction.peak_allocated_bytes,
        "predicted_peak_reserved_bytes": prediction.peak_reserved_bytes if prediction.fits else None,
        "predicted_peak_device_bytes": prediction.peak_device_bytes if prediction.fits else None,
        "parts": {f"{part}_bytes": size for part, size in prediction.parts.items()},
        "headroom_bytes": _headroom(prediction, limit_bytes, split),
        "best_split": prediction.best_split,
        "cards": prediction.cards and [asdict(card) for card in prediction.cards],
    }


def _headroom(prediction: Prediction, limit_bytes: int, split: str | None) -> int | None:
    """What is left, of several cards on the one that decides; where it does not fit, what is missing at least."""
    if not prediction.fits:
        return min(0, limit_bytes - sum(prediction.parts.values()))
    if prediction.cards and split is not None:
        left = [card.headroom_bytes for card in prediction.cards]
        number = Split.parse(split).deciding_card(left)
        return None if number is None else left[number]
    return limit_bytes - prediction.peak_device_bytes


def _phase(section: str | None) -> str | None:
    """The phase of a case that a section belongs to: the short exchange at the start is part of the prefill."""
    if section is None or section in ("load", "cache"):
        return section
    return "decode" if section.startswith("decode") else "prefill"


def _notes(forecast: Forecast, seen: Collection[str | None]) -> list[str]:
    """What the prediction takes for granted, and what the engine will get wrong: the notes that the row will have."""
    case, prediction = forecast.case, forecast.prediction
    if prediction is None:
        return []
    if case.device.is_simulated:
        notes = notes_of_cards(case.devices)
    else:
        unseen = ("context_bytes", "workspace_bytes") if case.device.uuid not in seen else ()
        notes = [f"{name} assumed until a case was measured on this GPU" for name in unseen]
    if forecast.reading is not None:
        notes += notes_of_case(forecast.predicted_case, forecast.reading)
    if isinstance(forecast.work, Search) and prediction.fits:
        at = forecast.predicted_case
        if engine_of(case.engine).layout_note in notes and prediction.length < forecast.work.search_end:
            notes.append(pages_note(case.model.name, case.cache, prediction.parts["cache"], at.cache_tokens))
        may_have_gaps = GAPS_NOTE in notes or prediction.gaps
        notes = [note for note in notes if note != GAPS_NOTE] + [gaps_note(prediction.gaps)] * bool(may_have_gaps)
    return notes
