"""About how long a case takes on a simulated card: by layers, experts and chunks.

The engine's own code runs there, operator by operator, whatever the sizes of the tensors: time goes by how many modules
are loaded and how often each is called. The constants were measured on two cores of a server, 2026; another machine may
take half or twice as long, which rows that are stored correct. Real cards are measured, and never estimated here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from statistics import median

import numpy as np

from bench.core.case import UNQUANTISED_BPW, Case
from bench.core.columns import CaseRow
from bench.core.identity import is_simulated, settings_of
from bench.core.outcome import Outcome, Phase
from bench.engines.registry import rules_of
from bench.forecast.speed import layers_and_experts
from bench.scenarios.base import Act
from bench.scenarios.registry import scenario_of

_START_S = 0.4
_LOAD_LAYER_S = 0.013
_LOAD_UNQUANTISED_LAYER_S = 0.045
_LOAD_EXPERT_S = 0.0007  # three matrices: their entries in the checkpoint, and loading them by requests alone
# A layer works off a chunk: by what its attention is made of.
_CHUNK_LAYER_S = {"flash": 0.0006, "xformers": 0.0007, "sdpa": 0.0009, "matmul": 0.0024}
_UNQUANTISED_CHUNK_LAYER_S = 0.003  # more than that
_DECODE_LAYER_S = 0.0005
# A layer's expert, run by the engine's code, or by its requests alone where that was shown to repeat.
_EXPERT_S = 0.0022
_REPEATED_EXPERT_S = 0.000011
_LAYERS_RUN = 2  # of every length of chunks, before the rest is known to repeat
_LENGTHS = 3  # of chunks in a case: a short prompt, whole ones, the last


def probe_seconds(case: Case) -> float | None:
    """About how long `case` takes, if all of it fits; None on a real card, and where config.json doesn't tell."""
    found = layers_and_experts(case.model.config)
    if not case.device.is_simulated or found is None:
        return None
    layers, experts = found
    attention = "flash" if case.attention == "auto" else case.attention
    schedule = rules_of(case.engine).unread_setup(case, attention).schedule(case.max_seq_len)
    scenario = scenario_of(case.scenario)
    steps = scenario.steps(case.max_seq_len, scenario.simulated_pace)
    decoding = [step for step in steps if step.act is Act.DECODE]
    decoded = sum(step.tokens for step in decoding)
    filling = [index for index, each in enumerate(schedule.distinct) if each.phase == Phase.PREFILL]
    chunks = int(np.isin(schedule.which, filling).sum()) + case.lazy
    chunks -= sum(step.tokens for step in decoding if step.phase is Phase.PREFILL)
    unquantised = case.bpw == UNQUANTISED_BPW
    seconds = _START_S + layers * (
        (_LOAD_UNQUANTISED_LAYER_S if unquantised else _LOAD_LAYER_S)
        + chunks * (_CHUNK_LAYER_S[attention] + unquantised * _UNQUANTISED_CHUNK_LAYER_S)
        + decoded * (_DECODE_LAYER_S + unquantised * _UNQUANTISED_CHUNK_LAYER_S)
    )
    if experts > 1:
        calls = chunks * layers
        run = calls if unquantised else min(calls, _LAYERS_RUN * min(_LENGTHS, chunks))
        seconds += layers * experts * _LOAD_EXPERT_S
        seconds += experts * (run * _EXPERT_S + (calls - run) * _REPEATED_EXPERT_S)
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
