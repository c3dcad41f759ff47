"""`vram-bench card`: the table for a model card, of every quantisation of a model."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench.answers.foreseen import forecaster_of, show_recorded
from bench.commands.display import display_for
from bench.config.cases import plan_sweep
from bench.config.checkpoints import Checkpoints, checkpoints_of, files_of
from bench.config.lengths import lengths_of_model
from bench.config.settings import Settings
from bench.core.case import UNQUANTISED_BPW, Case, Search
from bench.core.errors import BadInput, ExitCode
from bench.core.files import replaced
from bench.core.outcome import Outcome
from bench.engines.registry import engine_of, rules_of
from bench.forecast.forecaster import Forecast
from bench.launch.inspection import require_whole
from bench.launch.versions import installed_versions
from bench.report.model_card import Figure, ModelCard, Quantisation
from bench.run.resume import Stored

# A card of each size that people have. Its VRAM is told of the last, which has the most room.
CARDS = {
    "rtx_4060_8gb": "8 GB",
    "rtx_3060_12gb": "12 GB",
    "rtx_4060_ti_16gb": "16 GB",
    "rtx_3090": "24 GB",
    "rtx_5090": "32 GB",
    "rtx_a6000": "48 GB",
}
_ROOMY = "rtx_a6000"
_ROOM_BYTES = 1 << 40
_LENGTHS = (4096, 16384, 32768)
_CACHES = "FP16,Q4"
_OWN = ("model", "model.path", "model.repo", "model.revision", "device", "max_seq_len", "cache", "engine")


def run(arguments: argparse.Namespace) -> int:
    """`vram-bench card SOURCE [KEY=VALUE…] [--out FILE]`."""
    return card(arguments.source, arguments.overrides, arguments.out)


def card(source: str, typed: Sequence[str], out: Path | None = None) -> int:
    """Prints the table of `source`, or writes it to `out`; returns the exit code. Raises `BadInput`."""
    if out is not None and not out.absolute().parent.is_dir():
        raise BadInput(f"--out {out}: no such folder; make it first")
    found = checkpoints_of(source, typed)
    rest = [text for text in typed if text.partition("=")[0] not in _OWN]
    engine = _typed("engine", typed) or found.engine
    common = [*found.overrides, *([f"engine={engine}"] if engine else []), *rest]
    common.append(f"cache={_typed('cache', typed) or _CACHES}")
    cards = _typed("device", typed)
    planned = plan_sweep([*common, f"device={cards or ','.join(CARDS)}", "max_seq_len=auto"])
    require_whole(search.longest for search in planned.searches)
    lengths, native = _lengths(planned.searches, _typed("max_seq_len", typed))
    shown = [text for text in common if not text.startswith("auto_up_to=")]
    measured = plan_sweep([*shown, f"device={_ROOMY}", f"max_seq_len=[{','.join(map(str, lengths))}]"]).cases
    made = _Made(found, planned.searches, measured, planned.settings)
    lines = made.lines()
    names = list(dict.fromkeys(search.longest.machine.name for search in planned.searches))
    command = ["vram-bench", "sweep", *common, f"device={cards or ','.join(CARDS)}"]
    text = ModelCard(
        lines,
        lengths,
        native,
        {name: CARDS.get(name, name) for name in names},
        [shlex.join(part.replace('"', "") for part in command)],
        made.notes(names),
    ).markdown
    if out is None:
        print(text, end="")
    else:
        with replaced(out) as partial_file:
            partial_file.write_text(text, encoding="utf-8")
        print(f"vram-bench: written to {out}", file=sys.stderr)
    return ExitCode.DONE


def _typed(key: str, typed: Sequence[str]) -> str | None:
    """The value of a key as it was typed last; None where it was not."""
    return next((value for name, _, value in (text.partition("=") for text in reversed(typed)) if name == key), None)


def _lengths(searches: Sequence[Search], typed: str | None) -> tuple[list[int], int | None]:
    """The lengths to tell VRAM of: those that were `typed`, or the usual and the model's own, which is returned."""
    case = searches[0].longest
    step = engine_of(case.engine).context_step
    native = lengths_of_model(case.model, case.engine).limit
    if typed is not None:
        asked = plan_sweep(["model=tinyllama_1_1b", f"device={_ROOMY}", f"max_seq_len={typed}"]).cases
        return [each.max_seq_len for each in asked], native
    shorter = [length for length in _LENGTHS if native is None or length < native]
    own = None if native is None else native // step * step or step
    return [*shorter, *([own] if own is not None else [])], own


class _Made:
    """The lines of a table: predicted, and where a row is stored what that says."""

    def __init__(
        self, found: Checkpoints, searches: Sequence[Search], cases: Sequence[Case], settings: Settings
    ) -> None:
        self._found, self._searches, self._cases = found, searches, cases
        self._settings = settings
        self._stored = Stored.read(Path(settings.results_dir), settings.rerun, settings.retry)
        self._versions = installed_versions()
        self._reasons: dict[str, None] = {}
        self._shares_kind = False

    def lines(self) -> list[Quantisation]:
        """All of them, the fewest bits first."""
        jobs = self._settings.jobs or os.cpu_count() or 1
        alike: list[Search | Case] = [search.along(self._of_a_kind(search.longest)) for search in self._searches]
        roomy = [_with_room(case) for case in self._cases]
        works = [*alike, *self._cases, *roomy]
        with display_for(sys.stderr) as display, forecaster_of(self._stored, jobs) as forecaster:
            forecaster.prepare([work.longest for work in works], partial(show_recorded, display))
            display.begin("predicting")
            forecasts = iter(forecaster.forecast_all(works, jobs))
        lines: dict[tuple[str | None, float], Quantisation] = {}
        for search, forecast in zip(self._searches, forecasts, strict=False):
            line = lines.setdefault(_place(search.longest), self._line(search.longest))
            line.longest[search.longest.cache, search.longest.machine.name] = self._longest(search, forecast)
        here = [next(forecasts) for _ in self._cases]
        for case, forecast, with_room in zip(self._cases, here, forecasts, strict=True):
            lines[_place(case)].vram[case.cache, case.max_seq_len] = self._vram(case, forecast, with_room)
        return sorted(lines.values(), key=lambda line: line.bpw)

    def _of_a_kind(self, case: Case) -> Case:
        """The case with the multiprocessors of one card for all, where recordings would differ from card to card."""
        kind_of = rules_of(case.engine).prediction.kind_of_cards
        model = next((each.device for each in self._cases), case.device)
        if case.more_devices or kind_of(case) == kind_of(replace(case, device=model)):
            return case
        self._shares_kind = True
        alike = {name: getattr(model, name) for name in ("multi_processor_count", "compute_capability")}
        return replace(case, device=replace(case.device, **alike))

    def _line(self, case: Case) -> Quantisation:
        path = case.model.path if case.model.has_weights else None
        if path is None:
            bits = None if case.head_bits is None else float(case.head_bits)
            return Quantisation(f"{case.bpw:g} bpw", case.bpw, bits, None)
        size_bytes, head = files_of(case.model)
        named = [bits for bits in engine_of(case.engine).head_bits if head is not None and bits <= head]
        if named and head is not None and head < UNQUANTISED_BPW:
            head = float(max(named))  # as the converter's option is called: some rows have more bits
        return Quantisation(self._found.labels.get(path, case.model.name), case.bpw, head, size_bytes)

    def _longest(self, search: Search, forecast: Forecast) -> Figure:
        answer = self._stored.answer(search, self._versions)
        if answer is not None and answer[0] in (Outcome.FITS, Outcome.OOM):
            return Figure(answer[1], is_certified=True, is_end=answer[1] == search.search_end)
        if forecast.fits_at is None:
            return self._unknown(forecast)
        return Figure(forecast.fits_at or None, is_end=forecast.fits_at == search.search_end)

    def _vram(self, case: Case, forecast: Forecast, with_room: Forecast) -> Figure:
        row = self._stored.answers.get(case.case_id(self._versions))
        if row is not None and row["outcome"] == Outcome.FITS:
            return Figure(row["peak_device_bytes"], is_certified=True)
        told = forecast if forecast.prediction is not None and forecast.prediction.fits else with_room
        if told.prediction is None:
            return self._unknown(told)
        return Figure(told.prediction.peak_device_bytes if told.prediction.fits else None)

    def _unknown(self, forecast: Forecast) -> Figure:
        self._reasons[str(forecast.reason)] = None
        return Figure(None, is_unknown=True)

    def notes(self, cards: Sequence[str]) -> list[str]:
        """What a reader should know of how the figures came about."""
        return list(self._notes(cards))

    def _notes(self, cards: Sequence[str]) -> Iterator[str]:
        case = self._searches[0].longest
        engine = engine_of(case.engine)
        version = self._versions.get(engine.version_column) or "not installed"
        source = "config.json and the headers of its weights" if case.model.has_weights else "config.json alone"
        yield (
            f"Predicted by vram-bench {self._versions['harness_version']} for {engine.title} {version} from "
            f"{source}; nothing was measured on a card. ✓: run on a simulated card, boundaries with two runs."
        )
        yield (
            f"VRAM: the most that a card holds with one sequence of that length ({_ROOMY}, with as much memory as it "
            "takes), CUDA context and PyTorch's allocator included. k is 1,024 tokens."
        )
        yield (
            f"Longest context: on {', '.join(cards)} with nothing else on them; –: not even the shortest fits; all: as "
            "long as the model's own limit."
        )
        if self._shares_kind:
            yield (
                f"{engine.title} shares work out among a card's multiprocessors: for all cards those of {_ROOMY} were "
                "taken, so that a boundary may be a page of 256 tokens off; the command below takes each card's own."
            )
        if self._found.is_hub:
            commits = {each.longest.model.revision: each.longest.model for each in self._searches}
            told = ", ".join(
                f"{self._found.labels.get(model.path or '', model.name)} {(revision or '')[:8]}"
                for revision, model in commits.items()
            )
            yield f"Commits of [{self._found.title}](https://huggingface.co/{self._found.title}): {told}."
        elif not case.model.has_weights:
            yield engine.layout_note
        if self._found.left_out:
            yield f"Without weights, and left out: {', '.join(self._found.left_out)}."
        for reason in self._reasons:
            yield f"?: not predicted: {reason}."


def _with_room(case: Case) -> Case:
    return replace(case, device=replace(case.device, total_memory_bytes=_ROOM_BYTES))


def _place(case: Case) -> tuple[str | None, float]:
    return case.model.path if case.model.has_weights else None, case.bpw
