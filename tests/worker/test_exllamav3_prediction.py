"""exllamav3: what is predicted from recordings equals the simulated run, to the byte; or nothing is predicted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.allocator.limits import case_limits
from bench.core.case import Case
from bench.engines.registry import rules_of
from bench.forecast.predict import predict_fits_at
from bench.trace.passes import NoPrediction
from bench.trace.replay import Replayer
from bench.worker import recorder
from tests.worker.architectures import DENSE
from tests.worker.conftest import made_up_case
from tests.worker.predicted_and_simulated import ENDLESS_BYTES, little_garbage, predict, simulate
from tests.worker.test_exllamav3_architectures import SHARED_EXPERTS

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
# Norms of all heads together: decoded tokens are no graph, and the keys of few tokens are shared out among few blocks.
_EAGER = {
    "architectures": ["Olmo3ForCausalLM"],
    "sliding_window": 1024,
    "layer_types": [*["sliding_attention"] * 3, "full_attention"] * 3,
    "num_hidden_layers": 12,
}
# No RoPE, and norms nonetheless, in every fourth layer.
_WITHOUT_POSITIONS = {**_EAGER, "architectures": ["Exaone4ForCausalLM"], "sliding_window_pattern": "LLLG"}
_ROUTED = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 512,
    "max_position_embeddings": 2048,
}
# Bits that differ from layer to layer, and more layers than a recording shows; keys that are unpacked in two pieces.
SEARCHES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[int, ...]]] = {
    "mixed bits and windows": (_WINDOWED, {"bpw": 5.3, "allocator": "expandable"}, (768, 8448)),
    "quantised cache": ({"max_position_embeddings": 66560}, {"cache": "k6v5"}, (1280, 66048)),
    # The first chunk makes tables of all experts, the last one of its own tokens.
    "experts": (_ROUTED, {"cache": "k7v5", "bpw": 4.25, "allocator": "native"}, (512, 1280, 9472)),
    # Those of other sequences find the tables that the first has made.
    "experts of several sequences": (_ROUTED, {"batch_size": 3}, (768, 4352)),
    "no graphs": (_EAGER, {"cache": "Q6", "head_bits": 8}, (4096, 6400)),
}
_SHARED = {"architectures": ["Glm4MoeForCausalLM"], **SHARED_EXPERTS}
THOROUGH = {
    "several sequences": ({"max_position_embeddings": 66560}, {"cache": "k6v5", "batch_size": 5}, (256, 66048)),
    "more sequences than decoding has kernels for": (_ROUTED, {"batch_size": 9}, (512, 1280, 4352)),
    "a dense layer before those with experts": (_SHARED, {"cache": "Q8", "bpw": 3.7}, (1280, 4352, 20480)),
    "no graphs, and no positions": (_WITHOUT_POSITIONS, {"allocator": "native"}, (4352, 8448)),
}


@pytest.fixture(scope="module", autouse=True)
def fast() -> Iterator[None]:
    with little_garbage():
        yield


def _case(config: dict[str, Any], **axes: Any) -> Case:
    told = {**DENSE, "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 6, "hidden_act": "silu", **config}
    return made_up_case(told, total_bytes=ENDLESS_BYTES, engine="exllamav3", **axes)


def _replayer(case: Case, layouts: Path) -> Replayer:
    """As `bench.forecast.library` has it."""
    rules = rules_of(case.engine).prediction
    assert rules.with_loading is not None
    trace = recorder.make_trace(case, layouts)
    assert not isinstance(trace, recorder.SplitTrace)
    return Replayer(rules.with_loading(trace.deepened(), recorder.make_loading(case, layouts)), {})


@pytest.mark.parametrize("name", [*SEARCHES, *(pytest.param(name, marks=pytest.mark.thorough) for name in THOROUGH)])
def test_what_exllamav3_takes_is_predicted_to_the_byte(name: str, layouts: Path) -> None:
    config, axes, lengths = {**SEARCHES, **THOROUGH}[name]
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


def test_a_process_that_has_simulated_a_card_does_the_same_on_the_next(layouts: Path) -> None:
    """What the engine keeps for the life of a process, such as tiles that it has picked, begins anew."""
    case = _case(_EAGER, max_seq_len=768)
    first, second = (recorder.record(case, layouts, None, apart=True) for _ in range(2))
    assert [section.events for section in first.sections] == [section.events for section in second.sections]


def test_short_tables_outside_of_graphs_are_no_wrong_number(layouts: Path) -> None:
    """Their keys are shared out among fewer blocks, by how many there are."""
    search = _case(_EAGER)
    replayer = _replayer(search, layouts)
    with pytest.raises(NoPrediction, match="no recording shows a prefill of 16 tokens"):
        predict(replayer, replace(search, max_seq_len=2048))
    # A boundary beyond is predicted all the same.
    needed = predict(replayer, replace(search, max_seq_len=7936)).peak_held_bytes
    limits = case_limits(search.device, needed, search)
    assert 7936 <= predict_fits_at(replayer, limits, 32768) < 32768


def test_latent_attention_is_not_predicted() -> None:
    search = _case({**_SHARED, "architectures": ["DeepseekV3ForCausalLM"], "kv_lora_rank": 512})
    assert "latent attention" in str(rules_of(search.engine).prediction.unpredicted(search))


def test_lengths_beyond_what_is_recorded_are_no_wrong_number(layouts: Path) -> None:
    """A quantised cache of more than 65,536 tokens is unpacked in pieces, of which each number is recorded."""
    search = _case({"max_position_embeddings": 2048}, cache="Q4")
    replayer = _replayer(search, layouts)
    with pytest.raises(NoPrediction, match="no recording shows"):
        predict(replayer, replace(search, max_seq_len=70144))
