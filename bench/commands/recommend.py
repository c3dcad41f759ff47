"""`vram-bench recommend`: which models of the catalogue, bits and caches to run on a card, the best first."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from bench.answers.foreseen import forecaster_of, show_recorded
from bench.commands.advice_options import headroom_of, quality_of
from bench.commands.choices import TOO_LARGE, Chooser, Pair
from bench.commands.display import display_for
from bench.config.candidates import Candidates, candidates_of
from bench.config.cases import Sweep, plan_sweep
from bench.config.lengths import lengths_of_model
from bench.config.model_size import weights_of
from bench.config.units import parse_tokens
from bench.core.case import PAGE, Search
from bench.core.errors import BadInput, ExitCode
from bench.core.files import replaced
from bench.launch.inspection import require_whole
from bench.report.choices import ChosenFor, as_document, as_text, show
from bench.run.resume import Stored

DEFAULTS = {"bpw": "3.0,4.0,5.0,6.0", "cache": "FP16,Q8,Q6,Q4"}
_MIN_TOKENS = "16384"
_OWN = ("min_tokens", "model", "max_seq_len")
_ANY_MODEL = "tinyllama_1_1b"  # with which keys are read before models are looked at
_AT_A_TIME = 6
_OF_FILES = ("local", "hub")
NOT_RECORDED = (
    "to be predicted they must be recorded first: --record does it, and takes minutes; or ask with model=NAME"
)


def run(arguments: argparse.Namespace) -> int:
    """`vram-bench recommend device=NAME [min_tokens=N] [KEY=VALUE…] [--top N] [--headroom SIZE] [--quality FILE]`."""
    output = (arguments.json, arguments.markdown, arguments.out)
    return recommend(
        arguments.overrides, arguments.top, arguments.headroom, arguments.quality, *output, records=arguments.record
    )


def recommend(
    typed: Sequence[str],
    top: int,
    headroom: str | None = None,
    quality: Path | None = None,
    as_json: bool = False,
    as_markdown: bool = False,
    out: Path | None = None,
    records: bool = False,
) -> int:
    """Prints, or writes to `out`, what to run; returns the exit code. Raises `BadInput`."""
    if top < 1:
        raise BadInput(f"--top {top}: how many models to name, at least 1")
    if out is not None and not out.absolute().parent.is_dir():
        raise BadInput(f"--out {out}: no such folder; make it first")
    asked = _Asked(typed)
    answers = list(_answers(asked, top, headroom_of(headroom), quality_of(quality), records))
    if as_json:
        text = json.dumps(as_document(answers, asked.min_tokens), indent=2) + "\n"
    elif as_markdown or out is not None:
        text = as_text(answers, asked.min_tokens, by_model=asked.by_model)
    else:
        show(answers, asked.min_tokens, by_model=asked.by_model)
        return ExitCode.DONE
    if out is None:
        print(text, end="")
        return ExitCode.DONE
    with replaced(out) as partial_file:
        partial_file.write_text(text, encoding="utf-8")
    print(f"vram-bench: written to {out}", file=sys.stderr)
    return ExitCode.DONE


class _Asked:
    """What was typed, and what is meant where nothing was."""

    def __init__(self, typed: Sequence[str]) -> None:
        given = {text.partition("=")[0]: text for text in typed}
        if "device" not in given:
            raise BadInput("which card? device=NAME (`vram-bench list devices`), with commas between, or device=all")
        if "max_seq_len" in given:
            raise BadInput(f"{given['max_seq_len']}: how long it must be able to get is min_tokens=N here")
        self.min_tokens = self._min_tokens(given.get("min_tokens", f"min_tokens={_MIN_TOKENS}").partition("=")[2])
        self.model = given.get("model")
        device = given["device"].partition("=")[2]
        if self.model is None and device.split(",")[0] in ("auto", "cuda"):
            raise BadInput(
                f"device={device}: the catalogue has no weights for a real GPU to run; name that card as a simulated "
                "one (`vram-bench list devices`), or your weights with model=local model.path=DIR"
            )
        is_of_files = self.model is not None and self.model.partition("=")[2] in _OF_FILES
        common = {} if is_of_files else {key: text for key, text in DEFAULTS.items() if key not in given}
        self.rest = [text for text in typed if text.partition("=")[0] not in _OWN]
        self.rest += [f"{key}={text}" for key, text in common.items()]
        self.searched = [text for text in typed if text.startswith("hydra.searchpath")]
        self._plan = self.plan(self.model or f"model={_ANY_MODEL}")
        self.settings = self._plan.settings
        machines = {search.longest.machine.name for search in self._plan.searches}
        self.by_model = self.model is not None and len(machines) > 1

    @staticmethod
    def _min_tokens(text: str) -> int:
        try:
            tokens = parse_tokens(text)
        except ValueError as error:
            raise BadInput(f"min_tokens={error}") from None
        if not 1 <= tokens < 1 << 40:
            raise BadInput(f"min_tokens={text}: a number of tokens, as 16384 or 16k")
        return -(-tokens // PAGE) * PAGE  # engines make caches of whole pages

    def plan(self, models: str) -> Sweep:
        """The searches and the cases of `models`, as they are typed."""
        return plan_sweep([*self.rest, models, f"max_seq_len=[auto,{self.min_tokens}]"])

    def pairs(self, sweep: Sweep) -> list[Pair]:
        """Of each setting its search, and its case of the wanted length. Raises `BadInput`."""
        cases = {search: search.at(self.min_tokens) for search in sweep.searches}
        if set(cases.values()) != set(sweep.cases):
            raise BadInput("a search is for max_seq_len here; leave cache_size out")
        require_whole(cases.values())
        return list(cases.items())

    @property
    def first_searches(self) -> list[Search]:
        """Of the models that were named, or of one that stands for all."""
        return self._plan.searches

    def named(self) -> list[Pair]:
        """Those of the models that were named."""
        return self.pairs(self._plan)


def _answers(asked: _Asked, top: int, headroom_bytes: int, quality: pd.DataFrame, records: bool) -> Iterator[ChosenFor]:
    """For each card and engine."""
    settings = asked.settings
    stored = Stored.read(Path(settings.results_dir), settings.rerun, settings.retry)
    jobs = settings.jobs or os.cpu_count() or 1
    engines = dict.fromkeys(search.longest.engine for search in asked.first_searches)
    with display_for(sys.stderr) as display, forecaster_of(stored, jobs) as forecaster:
        for engine in engines:
            searches = [search for search in asked.first_searches if search.longest.engine == engine]
            prepare = partial(forecaster.prepare, made=partial(show_recorded, display))
            chooser = Chooser(stored, forecaster, prepare, quality, headroom_bytes, jobs)
            for search in searches:
                chooser.add_card(search.longest)
            if asked.model is not None:
                _take_named(asked, chooser, engine, asked.named())
            else:
                candidates = candidates_of(engine, asked.min_tokens, asked.searched)
                least_bpw = min(search.longest.bpw for search in searches)
                _take_largest(asked, chooser, engine, candidates, top, least_bpw, records)
            yield from chooser.answers(top if asked.model is None else None)


def _take_named(asked: _Asked, chooser: Chooser, engine: str, pairs: Sequence[Pair]) -> None:
    """All that was asked for, but for models that are made for less."""
    long_enough = []
    for search, case in pairs:
        if case.engine != engine:
            continue
        if search.search_end < asked.min_tokens:
            limit = lengths_of_model(case.model, engine).limit
            chooser.leave_out(case.model.name, f"made for {limit or search.search_end:,} tokens")
        else:
            long_enough.append((search, case))
            chooser.weights[case.model.name] = weights_of(case.model.config)
    chooser.take(long_enough)


def _take_largest(
    asked: _Asked, chooser: Chooser, engine: str, candidates: Candidates, top: int, least_bpw: float, records: bool
) -> None:
    """The largest first, until each card has `top` models, or there are no more; those with rows or figures always.

    Of the others what is not recorded yet is left out, unless it `records`.
    """
    for reason, names in candidates.left_out.items():
        for name in names:
            chooser.leave_out(name, reason)
    chooser.weights |= candidates.weights
    large = [name for name in candidates.weights if not chooser.could_hold(name, least_bpw)]
    for name in large:
        chooser.leave_out(name, TOO_LARGE)
    left = [name for name in candidates.weights if name not in large]
    first = [name for name in left if chooser.is_known(name)]
    queue = [*first, *(name for name in left if name not in first)]
    while queue and (first or not chooser.have(top)):
        batch, queue = queue[:_AT_A_TIME], queue[_AT_A_TIME:]
        always, first = first[: len(batch)], first[len(batch) :]
        pairs = _planned(asked, chooser, engine, batch)
        missing = set() if records else {*chooser.not_recorded(pairs)} - {*always}
        for name in sorted(missing):
            chooser.leave_out(name, NOT_RECORDED)
        chooser.take([(search, case) for search, case in pairs if case.model.name not in missing])
    for name in queue:
        chooser.leave_out(name, f"smaller than the {top} that are named; --top N names more, model=NAME others")


def _planned(asked: _Asked, chooser: Chooser, engine: str, names: Sequence[str]) -> list[Pair]:
    """What is asked of these models; one that is refused is left out with the reason."""
    try:
        pairs = asked.pairs(asked.plan(f"model={','.join(names)}"))
    except BadInput as error:
        if len(names) > 1:
            return [pair for name in names for pair in _planned(asked, chooser, engine, [name])]
        chooser.leave_out(names[0], str(error))
        return []
    return [(search, case) for search, case in pairs if case.engine == engine]
