"""Tensor parallelism: the parts of each card are the engine's, and what is predicted is what runs, to the byte."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.core.case import Case
from bench.core.split import Split, SplitBy
from bench.engines.exllamav2.splits import split_replayer
from bench.engines.exllamav2.tensor_split import DividedSizes, TensorSplit
from bench.trace.passes import NoPrediction
from bench.worker.cards import open_machine
from bench.worker.engines.exllamav2.choices import cache_class
from bench.worker.engines.exllamav2.divisions import sizes_of
from bench.worker.engines.exllamav2.session import ExLlamaV2Session
from bench.worker.engines.registry import worker_engine
from tests.worker.predicted_and_simulated import assert_as_it_ran, case_of, little_garbage, run, tensor_bytes_of
from tests.worker.test_split_prediction import limits, on_cards, trace_of

PLENTY_MIB = 1 << 15
LAYERS = 7
CHOICES: list[tuple[str, int, dict[str, Any]]] = [
    ("LlamaForCausalLM", 2, {"cache": "FP16"}),
    ("Qwen2ForCausalLM", 3, {"cache": "Q4", "max_input_len": 512, "batch_size": 2}),
    ("LlamaForCausalLM", 2, {"cache": "Q4", "scenario": "generator", "batch_size": 2}),
    ("LlamaForCausalLM", 2, {"cache": "Q6", "scenario": "generator", "load_as": "tabbyapi"}),
]


@pytest.fixture(scope="module", autouse=True)
def fast() -> Iterator[None]:
    with little_garbage():
        yield


def on_plenty(architecture: str, count: int, axes: dict[str, Any]) -> Case:
    case = case_of(architecture, LAYERS, {"num_key_value_heads": 8, "num_attention_heads": 8}, **axes)
    return on_cards(case, (PLENTY_MIB,) * count, str(Split(SplitBy.TENSOR_PARALLEL)))


@pytest.mark.parametrize(("architecture", "count", "axes"), CHOICES)
def test_a_case_is_predicted_as_it_runs_however_the_cards_differ(
    layouts: Path, architecture: str, count: int, axes: dict[str, Any]
) -> None:
    search = on_plenty(architecture, count, axes)
    trace, tensor_bytes = trace_of(search, layouts), tensor_bytes_of(search, layouts)
    chosen, ends = random.Random(architecture), set()
    length = 2304
    replayer = split_replayer(trace, tensor_bytes, search)
    need = replayer.replay(length, limits(search), endless=True).peak_allocated_bytes / (1 << 20)
    for room in (1.4, 0.9):
        shares = [chosen.uniform(0.7, 1.0) for _ in range(count)]
        sizes = tuple(need * room * share / sum(shares) for share in shares)
        case = replace(on_cards(search, sizes, str(search.split)), max_seq_len=length)
        replayer = split_replayer(trace, tensor_bytes, case)
        try:
            predicted = replayer.replay(length, limits(case))
        except NoPrediction:
            continue
        ended = run(case, layouts)
        assert_as_it_ran(predicted, ended)
        ends.add(ended.failed_in)
    assert None in ends
    assert len(ends) > 1


def test_each_card_has_the_parts_that_the_engine_gives_it(layouts: Path) -> None:
    case = on_plenty("LlamaForCausalLM", 3, {"max_input_len": 512})
    tensor_bytes = tensor_bytes_of(case, layouts)
    chosen, kinds = random.Random(2), set()
    with open_machine(case) as machine:
        session = ExLlamaV2Session(case, machine)
        session.open(worker_engine(case.engine).layout_of(case, layouts))
        session.build()
        model: Any = session._model
        from exllamav2.tensor_p import TPContext

        sizes = DividedSizes(**sizes_of(model).to_plain())
        for number in range(120):
            cache = ("FP16", "Q8", "Q6", "Q4")[number % 4]
            given = [chosen.uniform(0.02, 0.4) for _ in range(3)]
            tokens = chosen.randrange(1, 40_000)
            ours = TensorSplit(sizes, LAYERS, tensor_bytes, cache)
            parts = ours.parts(given, tokens)
            try:
                context = TPContext(model, given, tokens, cache_class(cache))
            except ZeroDivisionError:
                assert parts is None
                kinds.add("nothing is left")
                continue
            assert parts is not None
            splits = context.kv_split, context.id_split, context.rs_split, context.vc_split
            for part, split in zip(parts, splits, strict=True):
                assert [(index, size) for index, size in enumerate(part) if size] == [(d, b - a) for d, a, b in split]
            kinds.add("all have parts" if all(map(all, parts)) else "one has no part")
            model.tp_context = context
            wanted = zip(*(module.scratch_space_tp() for module in model.modules[1:]), strict=True)
            theirs = [max(scratch) // 2 * 2 for scratch in wanted]
            assert ours.scratch_bytes(parts) == theirs
    assert kinds == {"nothing is left", "all have parts", "one has no part"}
