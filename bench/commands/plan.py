"""`vram-bench plan`: what a sweep is expected to find and to take, without running it."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from bench.commands.display import Display, display_for
from bench.commands.setups import answers_of, show_setup
from bench.config.cases import plan_sweep
from bench.config.lengths import lengths_of_model
from bench.core.case import Axis, Case, Search
from bench.core.columns import CARD, MODEL, CaseRow
from bench.core.errors import ExitCode
from bench.core.identity import identity_of, is_simulated, key_of
from bench.core.identity_columns import NamedColumns
from bench.core.outcome import ANSWERS, Outcome
from bench.core.scratch import scratch_folder
from bench.core.split import GAPS_NOTE, Split, gaps_note
from bench.engines.registry import engine_of
from bench.forecast.duration import probe_seconds, slowness
from bench.forecast.forecaster import Forecast, Forecaster
from bench.forecast.library import TraceLibrary
from bench.forecast.predict import Prediction
from bench.launch.inspection import require_whole
from bench.launch.launchers import Launchers
from bench.launch.versions import installed_versions
from bench.notes.holes import pages_note
from bench.notes.rules import notes_of_cards, notes_of_case
from bench.report.forecasts import Expectation, ForecastRow, Gain, document, in_lines
from bench.run.resume import Stored
from bench.setups.beside import beside
from bench.setups.setup import Setup

ASSUMED_PROBE_S = 1.0  # of a model whose config.json does not tell how many layers it has
_FEW = 16  # searches and cases for which it is also said what would change the answer


def run(arguments: argparse.Namespace) -> int:
    """`vram-bench plan KEY=VALUE… [--json]`."""
    return plan(arguments.overrides, arguments.json, arguments.setup)


def plan(overrides: Sequence[str], as_json: bool, setup: Setup | None = None) -> int:
    """Says what `sweep` would do with the same `overrides`; returns the exit code.

    Where they are a `setup`, another program's, it is said what was made of that, and how far it could go.
    """
    planned = plan_sweep(overrides)
    require_whole([*(search.longest for search in planned.searches), *planned.cases])
    settings = planned.settings
    jobs = settings.jobs or os.cpu_count() or 1
    asked = [] if setup is None else [beside(case, setup.frontend) for case in planned.cases]
    works: list[Case | Search] = [
        *planned.searches,
        *planned.cases,
        *(work for each in asked for work in each.works[1:]),
    ]
    own = len(planned.searches) + len(planned.cases)
    stored = Stored.read(Path(settings.results_dir), settings.rerun, settings.retry)
    with display_for(sys.stderr) as display, forecaster_of(stored, jobs) as forecaster:
        forecaster.prepare([work.longest for work in works], partial(_recorded, display))
        display.begin("predicting")
        forecasts = forecaster.forecast_all(works, jobs)
        versions = installed_versions()
        seen = {row["device_uuid"] for row in stored.rows if row["outcome"] == Outcome.FITS}
        rows = [_row(forecast, stored.answer(forecast.work, versions), seen) for forecast in forecasts]
        if own <= _FEW:
            display.begin("what would change the answer", own)
            for index, forecast in enumerate(forecasts[:own]):
                display.reach(index, f"what would change the answer, {index}/{own}")
                rows[index] = _with_gains(rows[index], forecast, forecaster)
    slow = slowness(stored.rows, [work.longest for work in works])
    answers = [] if setup is None else answers_of(asked, rows[len(planned.searches) :])
    rows = rows[:own]
    expectation = expect(
        [*rows, *(row for each in answers for row in each.searches)],
        stored.rows,
        jobs,
        slow,
        settings.timeout_s,
        {device.uuid: 1 + len(device.equals) for device in (work.longest.device for work in works)},
    )
    if as_json:
        told = {} if setup is None else {"setup": {**setup.to_json(), "answers": [each.to_json() for each in answers]}}
        sys.stdout.writelines(in_lines(document(rows, expectation) | told))
        return ExitCode.DONE
    if setup is not None:
        show_setup(setup, answers)
    _show(rows, expectation)
    return ExitCode.DONE


def _show(rows: Sequence[ForecastRow], expectation: Expectation) -> None:
    from bench.report.tables.forecasts import show  # with pandas, which takes as long as a thousand searches
    from bench.report.text.console import console_for

    show(rows, expectation, console_for())


def _recorded(display: Display, done: int, total: int) -> None:
    """Shows how many of the recordings that predictions need are there."""
    if done == 0:
        display.begin(f"0/{total} recordings", total)
    display.reach(done, f"{done}/{total} recordings")
    if done == total:
        display.say(f"{total} recording{'' if total == 1 else 's'} made to predict with")


def expect(
    rows: Sequence[ForecastRow],
    measured: Iterable[CaseRow],
    jobs: int,
    slow: float | None = None,
    timeout_s: float | None = None,
    cards: Mapping[str | None, int] | None = None,
) -> Expectation:
    """How long the probes of `rows` would take.

    On a simulated card that is estimated from the work, times `slow`: by how much stored cases took longer than that
    (None: there are none). Elsewhere a probe takes the median of the rows `measured` on the same card with the same
    model, else of those on the same kind of card. Simulated cards run `jobs` cases at a time, a real GPU one, and the
    probes of a search come one after the other. `cards` are how many equal GPUs share the work of one.
    """
    times: dict[tuple[Any, ...], list[float]] = {}
    for seen in measured:
        if seen["outcome"] in ANSWERS and seen["wall_s"] is not None:
            times.setdefault((seen["device_kind"],), []).append(seen["wall_s"])
            times.setdefault(_card_and_model(seen), []).append(seen["wall_s"])
    probe_s = {key: median(values) for key, values in times.items()}
    probes, assumed, longest = sum(row.probes for row in rows), False, 0.0
    lanes: dict[str | None, list[float]] = {}
    for row in rows:
        if not row.probes:
            continue
        seconds = probe_s.get(_card_and_model(row.identity), probe_s.get((row.identity["device_kind"],)))
        if row.estimated_probe_s is not None:
            seconds, assumed = row.estimated_probe_s * (slow or 1.0), assumed or slow is None
        elif seconds is None:
            if not is_simulated(row.identity):
                return Expectation(probes, None, timeout_s=timeout_s)
            seconds, assumed = ASSUMED_PROBE_S, True
        longest = max(longest, seconds)
        lanes.setdefault(row.identity["device_uuid"], []).append(row.probes * seconds)
    at_once = {uuid: (cards or {}).get(uuid, 1) if uuid else jobs for uuid in lanes}
    total = max((max(sum(lane) / at_once[uuid], max(lane)) for uuid, lane in lanes.items()), default=0.0)
    return Expectation(probes, total, assumed, longest or None, timeout_s)


def _card_and_model(row: NamedColumns) -> tuple[Any, ...]:
    """A real card is known by its number: CUDA and the driver do not agree on how much memory it has."""
    return key_of(row, (*(CARD if row["device_uuid"] is None else ("device_uuid",)), *MODEL))


def _row(forecast: Forecast, stored: tuple[str, int | None] | None, seen: Collection[str | None]) -> ForecastRow:
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


def _with_gains(row: ForecastRow, forecast: Forecast, forecaster: Forecaster) -> ForecastRow:
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


@contextlib.contextmanager
def forecaster_of(stored: Stored, jobs: int) -> Iterator[Forecaster]:
    """A forecaster with a folder of its own; a worker starts when a recording is missing, and ends with it."""
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(scratch_folder())
        launchers = Launchers()
        stack.callback(launchers.close)
        yield Forecaster(TraceLibrary(launchers.simulated, scratch, jobs), stored.rows)
