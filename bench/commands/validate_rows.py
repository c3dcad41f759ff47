"""Measured cases run again on simulated cards that are these GPUs, and where the two agree: a Markdown document.

The cards are made of the rows: name, memory, compute capability, multiprocessors, context and cuBLAS workspace as
measured. The models are found by their fingerprint in directories of checkpoints; one of `vram-bench synth --sparse`
with the same model and bits is as good as the one that was measured. Simulated rows go to a folder of their own and are
not run twice. Where smaller cards inside a card were measured both ways (`vram_limit_by=process,allocator`), these two
are put side by side as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from bench.allocator.limits import limits_of
from bench.comparison.agreement import compare_kinds, compare_limits
from bench.config.models import resolve_model
from bench.config.settings import ModelSettings
from bench.core.case import Axis, Case, ModelSpec, Search
from bench.core.columns import BoundaryRow, CaseRow, ResultRow
from bench.core.errors import BadInput
from bench.core.identity import is_measured, settings_of
from bench.core.outcome import Outcome
from bench.forecast.measured_cards import MeasuredCard, card_key, measured_cards
from bench.report.tables.agreement import as_markdown
from bench.run.sweep import SweepOptions, new_run_id, run_sweep
from bench.store.schema import Kind
from bench.store.store import as_rows, read_boundaries, read_cases, to_be_shown

_TIMEOUT_S = 900.0
_NOT_YET = "a machine is not simulated again as it was measured yet"
_ANSWERS = (Outcome.FITS, Outcome.OOM)

_Row = TypeVar("_Row", CaseRow, BoundaryRow)


def agreement(
    results: Path, models: Sequence[Path], simulated: Path | None, out: Path | None, cards: Path | None
) -> int:
    """The exit code: 1 where a verdict differs or a measured row has no simulated one.

    `results` are the measured rows, `models` folders of checkpoints, `simulated` is where simulated rows go
    (RESULTS-simulated), `out` the document (standard output). With `cards` each measured card becomes a file of the
    catalogue there: from then on simulated cards of that name use what was measured, and their rows say so.
    """
    cases, left_out = _answered(as_rows(to_be_shown(read_cases(results))[0], CaseRow))
    boundaries, boundaries_left_out = _answered(as_rows(to_be_shown(read_boundaries(results))[0], BoundaryRow))
    left_out += boundaries_left_out
    if not cases and left_out:
        raise BadInput(f"{results}: all {left_out} measured rows are of several cards; {_NOT_YET}")
    if not cases:
        raise BadInput(f"{results}: no measured rows in it; give the folder that scripts/gpu_check.sh has filled")
    known = measured_cards(cases)
    if cards is not None:
        for card in known.values():
            (cards / f"{card.name}.yaml").write_text(card.as_catalogue_file())
    found: dict[str | None, ModelSpec] = {model.fingerprint: model for folder in models for model in _models(folder)}
    simulated = simulated or results.with_name(f"{results.name}-simulated")
    again = [_case(row, row["max_seq_len"], found, known) for row in cases]
    searches = [_search(row, found, known) for row in boundaries]
    finished = run_sweep(
        [case for case in again if case],
        [search for search in searches if search],
        SweepOptions(simulated, new_run_id(), _TIMEOUT_S),
    )
    ours = {*finished.case_ids, *finished.boundary_ids}  # not those of a card that was thought to be another
    made = [row for row in as_rows(to_be_shown(read_cases(simulated))[0], CaseRow) if row["case_id"] in ours]
    bounds = [
        row for row in as_rows(to_be_shown(read_boundaries(simulated))[0], BoundaryRow) if row["boundary_id"] in ours
    ]
    compared = [compare_kinds(cases, made, Kind.CASES), compare_kinds(boundaries, bounds, Kind.BOUNDARIES)]
    limits = [compare_limits(cases, Kind.CASES), compare_limits(boundaries, Kind.BOUNDARIES)]
    remarks = [_said(card) for card in known.values()]
    remarks += [f"left out, as of several cards: {left_out} measured rows; {_NOT_YET}"] if left_out else []
    text = as_markdown(compared, limits, remarks)
    if out is None:
        print(text, end="")
    else:
        out.write_text(text)
    agreed = all(each.same_verdicts == len(each.agreements) and not each.alone for each in compared)
    return 0 if agreed else 1


def _models(folder: Path) -> Iterable[ModelSpec]:
    for path in sorted({config.parent for config in [*folder.glob("config.json"), *folder.glob("*/config.json")]}):
        yield resolve_model(ModelSettings(name="local", path=str(path)))


def _answered(rows: Iterable[_Row]) -> tuple[list[_Row], int]:
    """The measured rows that say of memory what a simulated card can say too, and how many more are of several."""
    answered = [row for row in rows if is_measured(row) and row["outcome"] in _ANSWERS]
    of_one = [row for row in answered if row["device_cards"] is None]
    return of_one, len(answered) - len(of_one)


def _search(
    row: BoundaryRow, models: dict[str | None, ModelSpec], cards: dict[tuple[Any, ...], MeasuredCard]
) -> Search | None:
    """The search of a row on its simulated card; None as of `_case`."""
    axis, end = Axis(row["search_axis"] or Axis.MAX_SEQ_LEN), row["searched_up_to"] or row["native_max_seq_len"]
    longest = _case(row, row["max_seq_len"] if axis is Axis.CACHE_SIZE else end, models, cards)
    if longest is None:
        return None
    return Search(longest if axis is Axis.MAX_SEQ_LEN else replace(longest, cache_size=end), axis)


def _case(
    row: ResultRow,
    max_seq_len: int | None,
    models: dict[str | None, ModelSpec],
    cards: dict[tuple[Any, ...], MeasuredCard],
) -> Case | None:
    """The case of a row on its simulated card; None where its model or its length is not there.

    So with a draft model, which is not looked for.
    """
    model = models.get(row["model_fingerprint"])
    card = cards.get(card_key(row))
    if model is None or card is None or max_seq_len is None or row["draft_fingerprint"] is not None:
        return None
    asked = {"head_bits": None, **settings_of(row)}
    if row["attention"]:
        asked["attention"] = row["attention"]  # what ran there, not what `auto` would choose here
    return Case(
        # Rows are paired by what they call the model; the folder may have another name here.
        model=replace(model, name=row["model"]),
        device=card.as_simulated(capped=row["vram_limit_by"] == "allocator"),
        max_seq_len=max_seq_len,
        vram_limit_bytes=row["vram_limit_bytes"],
        vram_limit_by=row["vram_limit_by"],
        repeats=1,
        **asked,
    )


def _said(card: MeasuredCard) -> str:
    def count(number: int | None, unit: str = " B") -> str:
        return "unknown" if number is None else f"{number:,}{unit}"

    return (
        f"{card.name}: {count(card.total_bytes)}, compute capability {card.compute_capability}, "
        f"{count(card.multi_processor_count, '')} multiprocessors; {card.basis}: context "
        f"{count(card.initial_context_bytes)} at the start, {count(card.non_torch_bytes)} besides PyTorch's memory in "
        f"cases that fit, cuBLAS workspace {count(card.workspace_bytes)} (by PyTorch's rule: "
        f"{limits_of(replace(card.as_simulated(capped=False), workspace_bytes=None), None).workspace_bytes:,} B)"
    )
