"""About how long a case takes on a simulated card: by layers, experts and chunks.

The engine's own code runs there, operator by operator, whatever the sizes of the tensors: time goes by how many modules
are loaded and how often each is called. The engine's `SimulatedSeconds` were measured on one machine; another may
take half or twice as long, which rows that are stored correct. Real cards are measured, and never estimated here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from statistics import median

from bench.core.case import UNQUANTISED_BPW, Case
from bench.core.columns import CaseRow
from bench.core.identity import is_simulated, settings_of
from bench.core.outcome import Outcome
from bench.engines.registry import engine_of, rules_of
from bench.engines.steps import steps_of
from bench.forecast.speed import layers_and_experts
from bench.scenarios.base import Act

_START_S = 0.4
_LAYERS_RUN = 2  # of every length of chunks, before the rest is known to repeat
_LENGTHS = 3  # of chunks in a case: a short prompt, whole ones, the last


def probe_seconds(case: Case) -> float | None:
    """About how long `case` takes, if all of it fits; None on a real card, and where nothing tells."""
    found = layers_and_experts(case.model)
    if not case.device.is_simulated or found is None:
        return None
    layers, experts = found
    engine = engine_of(case.engine)
    seconds_of, rules = engine.simulated_seconds, rules_of(case.engine).prediction
    if seconds_of is None:
        return None
    attention = next(iter(seconds_of.chunk_layer)) if case.attention == "auto" else case.attention
    setup = rules.unread_setup(case, attention)
    steps = steps_of(case)
    prompts = [step for step in steps if step.act in (Act.FILL, Act.BEGIN)]
    # A generator works off each job's prompt by itself, and decodes their first tokens together.
    decoded = sum(step.tokens for step in steps if step.act in (Act.DECODE, Act.GENERATE))
    decoded += sum(step.act is Act.BEGIN for step in prompts)
    chunks = sum(1 if step.name is not None else setup.chunk_count(step.tokens) * step.jobs for step in prompts)
    chunks += case.lazy + (case.load_as is not None)
    unquantised = case.bpw == UNQUANTISED_BPW
    seconds = _START_S + layers * (
        (seconds_of.load_unquantised_layer if unquantised else seconds_of.load_layer)
        + chunks * (seconds_of.chunk_layer[attention] + unquantised * seconds_of.unquantised_chunk_layer)
        + decoded * (seconds_of.decode_layer + unquantised * seconds_of.unquantised_chunk_layer)
    )
    if experts > 1:
        calls = chunks * layers
        run = calls if unquantised else min(calls, _LAYERS_RUN * min(_LENGTHS, chunks))
        seconds += layers * experts * seconds_of.load_expert
        seconds += experts * (run * seconds_of.expert + (calls - run) * seconds_of.repeated_expert)
    return seconds


def slowness(rows: Iterable[CaseRow], cases: Iterable[Case]) -> float | None:
    """How many times as long as estimated the cases took that are stored; None where none can be compared.

    `cases` have the configurations of models, by whose fingerprints the rows are known. Cases that ran out of memory
    ended early, and say nothing.
    """
    known: dict[str | None, Case] = {case.model.fingerprint: case for case in cases if case.device.is_simulated}
    ratios = []
    for row in rows:
        case = known.get(row["model_fingerprint"])
        if case is None or not is_simulated(row) or row["outcome"] != Outcome.FITS or not row["wall_s"]:
            continue
        ran = {**settings_of(row), "attention": row["attention"] or "auto"}
        estimated = probe_seconds(replace(case, max_seq_len=row["max_seq_len"], **ran))
        if estimated:
            ratios.append(row["wall_s"] / estimated)
    return median(ratios) if ratios else None
