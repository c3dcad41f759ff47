"""exllamav3: what is predicted from recordings equals the simulated run, to the byte; or nothing is predicted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.core.case import Case
from bench.engines.registry import rules_of
from bench.trace.passes import NoPrediction
from bench.trace.replay import Replayer
from bench.worker import recorder
from tests.worker.architectures import DENSE
from tests.worker.conftest import made_up_case
from tests.worker.predicted_and_simulated import ENDLESS_BYTES, little_garbage, predict, simulate

# Every other layer looks back over a window, and its keys are in a whole cache all the same.
_WINDOWED = {
    "architectures": ["Gemma3ForCausalLM"],
    "hidden_act": "gelu_pytorch_tanh",
    "sliding_window": 1024,
    "layer_types": [*["sliding_attention", "full_attention"] * 5, "sliding_attention"],
    "num_hidden_layers": 11,
    "query_pre_attn_scalar": 128,
    "rope_local_base_freq": 1e4,
}
# Bits that differ from layer to layer, and more layers than a recording shows; keys that are unpacked in two pieces.
SEARCHES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[int, ...]]] = {
    "mixed bits and windows": (_WINDOWED, {"bpw": 5.3, "allocator": "expandable"}, (768, 8448)),
    "quantised cache": ({"max_position_embeddings": 66560}, {"cache": "k6v5"}, (1280, 66048)),
}


@pytest.fixture(scope="module", autouse=True)
def fast() -> Iterator[None]:
    with little_garbage():
        yield


def _case(config: dict[str, Any], **axes: Any) -> Case:
    told = {**DENSE, "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 6, **config}
    return made_up_case(told, total_bytes=ENDLESS_BYTES, engine="exllamav3", **axes)


def _replayer(case: Case, layouts: Path) -> Replayer:
    """As `bench.forecast.library` has it."""
    rules = rules_of(case.engine).prediction
    assert rules.with_loading is not None
    trace = recorder.make_trace(case, layouts)
    assert not isinstance(trace, recorder.SplitTrace)
    return Replayer(rules.with_loading(trace.deepened(), recorder.make_loading(case, layouts)), {})


@pytest.mark.parametrize("name", SEARCHES)
def test_what_exllamav3_takes_is_predicted_to_the_byte(name: str, layouts: Path) -> None:
    config, axes, lengths = SEARCHES[name]
    search = _case(config, **axes)
    replayer = _replayer(search, layouts)
    for length in lengths:
        case = replace(search, max_seq_len=length)
        need, _ = simulate(case, layouts)
        assert predict(replayer, case) == need, length
    # Cards on which memory runs out at the end of a phase, or amid it; on the first all goes through.
    beside = need.peak_held_bytes - need.peak_reserved_bytes
    ends = set()
    for limit_bytes in (
        need.peak_held_bytes,
        need.peak_allocated_bytes + beside,
        need.peak_allocated_bytes,
        need.peak_allocated_bytes // 2,
    ):
        limited = replace(case, vram_limit_bytes=limit_bytes)
        assert predict(replayer, limited) == simulate(limited, layouts)[0]
        ends.add(predict(replayer, limited).failed_in)
    assert {None, "load", "prefill"} <= ends


def test_experts_are_no_wrong_number(layouts: Path) -> None:
    """The first long chunk makes tables for all of them, and is unlike those that follow."""
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 512}
    search = _case({"architectures": ["Qwen3MoeForCausalLM"], "max_position_embeddings": 2048, **experts})
    replayer = _replayer(search, layouts)
    with pytest.raises(NoPrediction, match="differ in more than their sizes"):
        predict(replayer, replace(search, max_seq_len=1792))


def test_lengths_beyond_what_is_recorded_are_no_wrong_number(layouts: Path) -> None:
    """A quantised cache of more than 65,536 tokens is unpacked in pieces, of which each number is recorded."""
    search = _case({"max_position_embeddings": 2048}, cache="Q4")
    replayer = _replayer(search, layouts)
    with pytest.raises(NoPrediction, match="no recording shows"):
        predict(replayer, replace(search, max_seq_len=70144))
