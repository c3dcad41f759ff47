"""Cases of several turns: predicted to the byte, and other lengths in each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.core.case import PAGE, Axis
from bench.engines.steps import steps_of
from bench.forecast.library import bound
from bench.scenarios.base import Act
from bench.scenarios.turns import lengths_of_turns
from bench.trace.replay import Replayer
from tests.worker.predicted_and_simulated import case_of, predict, simulate, tensor_bytes_of, trace_of

SERVED = {"scenario": "generator", "batch_size": 2}


@pytest.mark.parametrize(
    "axes",
    [{"attention": "matmul"}, {"attention": "flash", "cache": "Q4"}, {"attention": "flash", **SERVED}],
    ids=lambda axes: "-".join(map(str, axes.values())),
)
def test_the_prediction_is_the_simulation(tmp_path: Path, axes: dict[str, Any]) -> None:
    case = case_of("LlamaForCausalLM", 2, max_input_len=512, max_seq_len=3328, turns=5, **axes)
    trace = trace_of(replace(case, turns=1), tmp_path).within(*bound(case, Axis.MAX_SEQ_LEN))
    replayer = Replayer(trace, tensor_bytes_of(case, tmp_path))
    assert predict(replayer, case) == simulate(case, tmp_path)[0]


def test_turns_have_other_lengths_in_whole_pages_and_the_last_is_as_long_as_the_first() -> None:
    lengths = lengths_of_turns(8000, 16, 12)
    assert len(lengths) == 11
    assert lengths[-1] == 8000
    assert len(set(lengths)) == 11
    assert {(8000 - length) % PAGE for length in lengths} == {0}
    assert min(lengths) < 1000 < 7000 < max(lengths[:-1])
    assert lengths_of_turns(100, 16, 4) == [100, 100, 100]
    assert lengths_of_turns(8000, 16, 1) == []


@pytest.mark.parametrize("axes", [{}, SERVED], ids=["forward", "generator"])
def test_the_first_turn_is_as_without_others(axes: dict[str, Any]) -> None:
    one = steps_of(case_of("LlamaForCausalLM", 2, max_seq_len=4096, **axes))
    several = steps_of(case_of("LlamaForCausalLM", 2, max_seq_len=4096, turns=3, **axes))
    assert several[: len(one)] == one
    more = [(step.turn, step.act, step.tokens) for step in several[len(one) :]]
    assert [turn for turn, _, _ in more] == [2, 2, 3, 3]
    assert {act for _, act, _ in more} == ({Act.BEGIN, Act.GENERATE} if axes else {Act.FILL, Act.DECODE})
