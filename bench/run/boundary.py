"""The boundary of one search: probes that the search asks for, until it is certified or cannot be."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from bench.config.lengths import Lengths, lengths_of_model
from bench.core.case import Axis, Case, Search
from bench.core.columns import IDENTITY, MACHINE, SCHEMA_VERSION, BoundaryRow, CaseRow
from bench.core.outcome import Outcome
from bench.core.split import GAPS_NOTE, gaps_note
from bench.forecast.forecaster import Forecaster
from bench.forecast.search import Bracket, Observation, found, next_probe
from bench.run.cards import headroom
from bench.run.row import now

# Verdicts on a length; a card that had to spill to the host did not hold it.
_ANSWERS = (Outcome.FITS, Outcome.OOM, Outcome.DEGRADED)
# Columns that a boundary has from its cases, and from the one at `fits_at`.
_SHARED = (
    *IDENTITY,
    *MACHINE,
    *("run_id", "attention", "native_max_seq_len", "native_max_seq_len_basis"),
)
_AT_THE_BOUNDARY = (
    *("peak_device_bytes", "predicted_peak_bytes", "decode_tokens_per_s_full", "estimated_decode_tokens_per_s"),
    *("tightest_card", "best_split"),
)


def find_boundary(
    search: Search,
    boundary_id: str,
    measure: Callable[[Case, bool], CaseRow | None],
    forecaster: Forecaster,
    known: Sequence[CaseRow] = (),
) -> BoundaryRow | None:
    """The row of the search's boundary; None where the sweep was stopped.

    `measure(case, again)` returns the row of a case; one that is stored will do, unless it is to be measured `again`.
    It has also passed the row to the forecaster. `known` are stored rows of the search's cases.
    """
    started_at = time.monotonic()
    known = [row for row in known if row["outcome"] in _ANSWERS]
    seen = [_observation(search, row) for row in known]
    rows: list[CaseRow] = []
    unanswered: CaseRow | None = None
    first_prediction = predicted = forecaster.fits_at(search)
    gaps = forecaster.gaps(search)
    while (length := next_probe(search.search_end, predicted, _without(gaps, seen), search.shortest)) is not None:
        row = measure(search.at(length), any(each.length == length for each in seen))
        if row is None:
            return None
        rows.append(row)
        if row["outcome"] not in _ANSWERS and not _is_of_its_length(row, length, predicted, gaps, seen):
            unanswered = row  # a verdict that any other length would have, too
            break
        seen.append(_observation(search, row))
        predicted, gaps = forecaster.fits_at(search), forecaster.gaps(search)
    bracket = found(search.search_end, _without(gaps, seen), search.shortest)
    last_above = next((row for row in reversed(rows) if _length_of(search, row) == bracket.fails_at), None)
    if last_above is not None and last_above["outcome"] not in _ANSWERS:
        unanswered = unanswered or last_above
        bracket = replace(bracket, fails_at=None, certified=False)
    lengths = lengths_of_model(search.longest.model, search.longest.engine)
    rows = [*(row for row in known if _matters(search, row, bracket)), *rows]
    there = Observation(bracket.fits_at or 0, True)
    at_fit = next((row for row in reversed(rows) if _observation(search, row) == there), None)
    is_of_caches = search.axis is Axis.CACHE_SIZE
    boundary = {
        **{name: _latest(rows, name) for name in _SHARED},
        **{name: _told(at_fit, name) if at_fit else None for name in _AT_THE_BOUNDARY},
        "search_axis": search.axis.value,
        "max_seq_len": search.longest.max_seq_len if is_of_caches else None,
        **({"cache_size": None} if is_of_caches else {}),
        "schema_version": SCHEMA_VERSION,
        "boundary_id": boundary_id,
        "finished_at": now().isoformat(),
        "fits_at": bracket.fits_at,
        "fails_at": bracket.fails_at,
        "predicted_fits_at": first_prediction,
        "predicted_auto_fits_at": forecaster.auto_fits_at(search),
        "searched_up_to": search.search_end,
        "certified": bracket.certified and not _is_cut_short(bracket, search, lengths),
        "contradictory": bracket.contradictory,
        "probes": len(rows),
        "outcome": unanswered["outcome"] if unanswered else Outcome.FITS if bracket.fits_at else Outcome.OOM,
        "headroom_bytes": _headroom(at_fit),
        "error": unanswered["error"] if unanswered else None,
        "advice": None if unanswered or bracket.fits_at else forecaster.advise(search),
        "notes": [
            *_notes(search, rows, bracket.fits_at, lengths, gaps if bracket.fits_at == predicted else None),
            *_by_runs_alone(rows, forecaster.why_unpredicted(search)),
        ],
        "case_ids": list(dict.fromkeys(row["case_id"] for row in rows)),
        "wall_s": time.monotonic() - started_at,
    }
    return cast(BoundaryRow, boundary)


def _by_runs_alone(rows: Sequence[CaseRow], reason: str | None) -> list[str]:
    """Why a boundary took so many runs; nothing of a single one, which no prediction would have spared."""
    return [] if reason is None or len(rows) < 2 else [f"found by runs alone, as it is not predicted: {reason}"]


def settled(boundary: BoundaryRow) -> bool:
    """Whether the search is over for good: it is certified, or would end the same way again."""
    is_at_its_end = boundary["fits_at"] is not None and boundary["fits_at"] == boundary["searched_up_to"]
    return bool(boundary["certified"] or is_at_its_end or boundary["outcome"] == Outcome.UNSUPPORTED)


def _is_cut_short(bracket: Bracket, search: Search, lengths: Lengths) -> bool:
    """Whether all fitted up to an end that is not the model's own limit: how far it goes is not known then."""
    is_of_lengths = search.axis is Axis.MAX_SEQ_LEN
    is_own_limit = is_of_lengths and lengths.is_limit_known and search.search_end == lengths.limit
    return bracket.fits_at == search.search_end and not is_own_limit


def _is_of_its_length(
    row: CaseRow,
    length: int,
    predicted: int | None,
    gaps: Sequence[tuple[int, int]] | None,
    seen: Sequence[Observation],
) -> bool:
    """Whether the engine ended with an exception of its own at a length that is to blame for it.

    So it is where a shorter one fits, or where nothing was expected to fit. The search goes on below it.
    """
    is_beyond = predicted is not None and length > predicted
    was_expected = is_beyond or any(first <= length <= end for first, end in gaps or ())
    return row["outcome"] == Outcome.ERROR and (
        was_expected or any(each.fits and each.length < length for each in seen)
    )


def _without(gaps: Sequence[tuple[int, int]] | None, seen: Sequence[Observation]) -> list[Observation]:
    """What was seen, but for failures in predicted gaps below the boundary, which say nothing of it."""
    return [each for each in seen if each.fits or not any(a <= each.length <= b for a, b in gaps or ())]


def _notes(
    search: Search,
    rows: Sequence[CaseRow],
    fits_at: int | None,
    lengths: Lengths,
    gaps: Sequence[tuple[int, int]] | None,
) -> list[str]:
    """The notes of the rows, without those on lengths other than the boundary's; where gaps are, if it is predicted."""
    noted = {note for row in rows for note in row["notes"] or []}
    if (GAPS_NOTE in noted or gaps) and fits_at is not None:
        noted = noted - {GAPS_NOTE} | {gaps_note(gaps)}
    of_lengths = {note for row in rows for note in lengths.notes(row["max_seq_len"])}
    of_jobs = search.longest.max_seq_len if search.axis is Axis.CACHE_SIZE else fits_at or 0
    return sorted(noted - of_lengths | set(lengths.notes(of_jobs)))


def _length_of(search: Search, row: CaseRow) -> int:
    """How far along the search's axis a case is, by its row."""
    return int(_told(row, search.axis))


def _observation(search: Search, row: CaseRow) -> Observation:
    return Observation(_length_of(search, row), row["outcome"] == Outcome.FITS)


def _matters(search: Search, row: CaseRow, bracket: Bracket) -> bool:
    """Whether an earlier case is at the boundary, or contradicts it."""
    length = _length_of(search, row)
    if row["outcome"] == Outcome.FITS:
        return bool(bracket.fits_at is None or length >= bracket.fits_at)
    return bool(bracket.fails_at is None or length <= bracket.fails_at)


def _latest(rows: Sequence[CaseRow], name: str) -> Any:
    """The last value that is known of a column: a child that dies early does not tell its attention."""
    return next((value for row in reversed(rows) if (value := _told(row, name)) is not None), None)


def _told(row: Mapping[str, object], name: str) -> Any:
    return row.get(name)


def _headroom(row: CaseRow | None) -> int | None:
    """What the card, or the smaller one inside it, had left at the peak; of several the tightest."""
    if row is None:
        return None
    if row["tightest_card"] is not None:
        return row["tightest_headroom_bytes"]
    return headroom(
        total_bytes=row["device_total_bytes"],
        limit_bytes=row["vram_limit_bytes"],
        limit_by=row["vram_limit_by"],
        peak_device_bytes=row["peak_device_bytes"],
        peak_reserved_bytes=row["peak_reserved_bytes"],
        context_bytes=row["context_bytes"],
    )
