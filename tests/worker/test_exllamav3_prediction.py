"""exllamav3: what is predicted from recordings equals the simulated run, to the byte; or nothing is predicted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.allocator.limits import case_limits
from bench.core.case import PAGE, Axis, Case
from bench.engines.exllamav3.chunks import chunks
from bench.engines.exllamav3.setup import Setup, ring_tokens_after
from bench.engines.registry import rules_of
from bench.forecast.library import bound
from bench.forecast.predict import predict_fits_at
from bench.trace.passes import NoPrediction
from bench.trace.replay import Replayer
from bench.worker import recorder
from tests.worker.architectures import DENSE
from tests.worker.conftest import made_up_case
from tests.worker.predicted_and_simulated import ENDLESS_BYTES, little_garbage, predict, simulate
from tests.worker.test_exllamav3_architectures import KINDS, SHARED_EXPERTS

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
_RINGS = {
    **KINDS["GptOssForCausalLM"],
    "num_hidden_layers": 12,
    "layer_types": ["sliding_attention", "full_attention"] * 6,
}
_LINEAR = {**KINDS["Qwen3NextForCausalLM"], "num_hidden_layers": 24}
# The latents of a chunk are packed in buffers that are kept for each number of rows.
_LATENT = {**KINDS["DeepseekV3ForCausalLM"], "max_position_embeddings": 4096}
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
    # The first chunk makes tables of all experts, the last one of its own tokens; at first they are the same.
    "experts": (_ROUTED, {"cache": "k7v5", "bpw": 4.25, "allocator": "native"}, (512, 1280, 9472)),
    # Those of other sequences find the tables that the first has made.
    "experts of several sequences": (_ROUTED, {"batch_size": 3}, (768, 4352)),
    "latent attention": (_LATENT, {"cache": "Q4"}, (512, 3072, 9472)),
    "no graphs": (_EAGER, {"cache": "Q6", "head_bits": 8}, (4096, 6400)),
}
_SHARED = {"architectures": ["Glm4MoeForCausalLM"], **SHARED_EXPERTS}
THOROUGH = {
    "several sequences": ({"max_position_embeddings": 66560}, {"cache": "k6v5", "batch_size": 5}, (256, 66048)),
    "more sequences than decoding has kernels for": (_ROUTED, {"batch_size": 9}, (512, 1280, 4352)),
    "a dense layer before those with experts": (_SHARED, {"cache": "Q8", "bpw": 3.7}, (1280, 4352, 20480)),
    "no graphs, and no positions": (_WITHOUT_POSITIONS, {"allocator": "native"}, (4352, 8448)),
    "latent attention of several sequences": (_LATENT, {"batch_size": 3, "cache": "Q8"}, (512, 3072)),
    "rings by autosplit": (_RINGS, {"lazy": True, "cache": "Q6", "allocator": "native"}, (1536, 2304, 4864)),
    "linear attention by autosplit": (_LINEAR, {"lazy": True, "cache": "Q4"}, (1536, 2304, 4352)),
    "no graphs by autosplit": (_EAGER, {"lazy": True, "cache": "Q6"}, (4096, 6400)),
    "latent attention by autosplit": (_LATENT, {"lazy": True, "cache": "Q6"}, (2304, 3072)),
    # Tables that only the first of several sequences makes.
    "experts for several sequences": (_ROUTED, {"batch_size": 2, "bpw": 4.25}, (768, 2304)),
    # Rings that a prompt fills only in part, and such that are full; decoding comes to their end.
    "rings of windows": (_RINGS, {"cache": "Q6"}, (256, 512, 768, 2304, 4864)),
    "linear attention": (_LINEAR, {"bpw": 3.5}, (256, 768, 4352)),
}


@pytest.fixture(scope="module", autouse=True)
def fast() -> Iterator[None]:
    with little_garbage("exllamav3"):
        yield


def _case(config: dict[str, Any], **axes: Any) -> Case:
    told = {**DENSE, "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 6, "hidden_act": "silu", **config}
    return made_up_case(told, total_bytes=ENDLESS_BYTES, engine="exllamav3", **axes)


def _replayer(case: Case, layouts: Path) -> Replayer:
    """As `bench.forecast.library` has it."""
    rules = rules_of(case.engine).prediction
    assert rules.with_loading is not None
    trace = recorder.make_trace(replace(case, cache_size=None), layouts)
    assert not isinstance(trace, recorder.SplitTrace)
    trace = trace.deepened().within(*bound(case, Axis.MAX_SEQ_LEN))
    return Replayer(rules.with_loading(trace, recorder.make_loading(case, layouts)), {})


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
    assert ({"load"} if search.lazy else {None, "load", "prefill"}) <= ends  # autosplit keeps more free than is needed


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


def test_the_least_card_that_autosplit_loads_on_is_predicted(layouts: Path) -> None:
    """It keeps 0.5 GiB free while it loads, and room for the most that any module needed on a chunk."""
    search = _case({"max_position_embeddings": 4096}, lazy=True, bpw=4.25, cache="Q4", allocator="expandable")
    replayer = _replayer(search, layouts)
    case = replace(search, max_seq_len=2560)
    assert predict(replayer, case) == simulate(case, layouts)[0]
    step, least, most = 1 << 20, 0, 1 << 33
    while most - least > step:
        middle = (least + most) // 2
        fits = predict(replayer, replace(case, vram_limit_bytes=middle)).fits
        least, most = (least, middle) if fits else (middle, most)
    for limit_bytes, ended in ((most, None), (least, "load"), (least - (1 << 28), "load"), (least // 2, "load")):
        limited = replace(case, vram_limit_bytes=limit_bytes)
        ran, _ = simulate(limited, layouts)
        assert ran.failed_in == ended
        assert predict(replayer, limited) == ran
    assert most > predict(replayer, case).peak_held_bytes + (1 << 28)


def test_autosplit_with_a_cache_of_less_than_a_chunk_is_no_number(layouts: Path) -> None:
    """The engine raises an AssertionError."""
    setup = Setup("triton", 2048, 1, 8192, False, tried_tokens=2048)
    assert "less than a chunk" in str(setup.schedule(1792).endless)
    assert setup.schedule(2048).endless is None
    assert setup._replace(batch_size=2).schedule(1024).endless is None


@pytest.mark.parametrize("size", [768, 1024])
@given(pages=st.integers(1, 12), chunk=st.sampled_from([256, 512, 2048]))
def test_what_a_ring_holds_is_what_the_engine_s_arithmetic_leaves_there(size: int, pages: int, chunk: int) -> None:
    """As modules/sliding_attn.py (decode_flash_attn) goes on from chunk to chunk, with a window of 128."""
    tokens, held, window = pages * PAGE - 4, 0, 127
    for start, end in chunks(tokens, chunk, recurrent=True):
        if held + end - start <= size:
            held += end - start
            continue
        hot = held - max(held - window, 0) // PAGE * PAGE
        held = hot + end - start - (-(-(hot + end - start) // PAGE) * PAGE - size)
    assert ring_tokens_after(tokens, size) == held


@pytest.mark.parametrize(
    ("config", "axes", "said"),
    [
        (_RINGS, {"batch_size": 2}, "several sequences of layers with states or rings"),
        (_LINEAR, {"scenario": "generator"}, "jobs of layers with states or rings"),
    ],
)
def test_what_was_not_as_predicted_or_never_compared_is_refused(
    config: dict[str, Any], axes: dict[str, Any], said: str, layouts: Path
) -> None:
    with pytest.raises(NoPrediction, match=said):
        recorder.make_trace(_case(config, **axes), layouts)


def test_lengths_beyond_what_is_recorded_are_no_wrong_number(layouts: Path) -> None:
    """A quantised cache of more than 65,536 tokens is unpacked in pieces, of which each number is recorded."""
    search = _case({"max_position_embeddings": 2048}, cache="Q4")
    replayer = _replayer(search, layouts)
    with pytest.raises(NoPrediction, match="no recording shows"):
        predict(replayer, replace(search, max_seq_len=70144))
