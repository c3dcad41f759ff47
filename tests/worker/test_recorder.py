"""What is predicted from recordings equals the simulated run of the same case, to the byte; or nothing is predicted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest

from bench.allocator.limits import limits_of
from bench.allocator.parts import PARTS
from bench.core.case import Case
from bench.core.requests import Record, Recording, Wanted
from bench.engines.exllamav2.schedule import schedule
from bench.engines.exllamav2.setup import Setup
from bench.trace.passes import NoPrediction
from bench.trace.replay import Replay, Replayer
from bench.worker import cards, child, recorder
from bench.worker.engines.exllamav2.checkpoint import write_checkpoint
from bench.worker.interfaces.engine import Unsupported
from tests.trace import requests
from tests.worker.architectures import ARCHITECTURES, FOUR_EXPERTS
from tests.worker.predicted_and_simulated import (
    case_of,
    little_garbage,
    predict,
    simulate,
    tensor_bytes_of,
    trace_of,
)

MIB = 1 << 20
ROUTED: dict[str, dict[str, Any]] = {
    "MixtralForCausalLM": FOUR_EXPERTS,
    "Qwen3MoeForCausalLM": FOUR_EXPERTS,
    "GemmoeForCausalLM": FOUR_EXPERTS,
    "DbrxForCausalLM": {"ffn_config": {"ffn_hidden_size": 2816, "moe_num_experts": 4, "moe_top_k": 2}},
}
# Depths that end in the middle of a period, some layers beyond those that a recording shows.
SLIDING: dict[str, tuple[int, dict[str, Any]]] = {
    "Gemma2ForCausalLM": (11, {"sliding_window": 300}),
    "Gemma3ForConditionalGeneration": (16, {"sliding_window": 300, "sliding_window_pattern": 3}),
    "Cohere2ForCausalLM": (19, {"sliding_window": 300, "sliding_window_pattern": 4}),
}
ATTENTIONS = {
    "Gemma2ForCausalLM": ("flash", "matmul"),
    "Gemma3ForConditionalGeneration": ("flash", "sdpa", "matmul"),
    "Cohere2ForCausalLM": ("flash", "sdpa", "matmul"),
}
AXES: dict[str, tuple[Any, ...]] = {
    "attention": ("flash", "xformers", "sdpa", "matmul"),
    "cache": ("FP16", "Q8", "Q6", "Q4"),
    "bits": ((4.0, 6), (2.5, None), (16.0, None)),
    "batch_size": (1, 3),
    "allocator": ("native", "expandable"),
    "max_input_len": (1024, 256, 96),
    "max_attention_size": (2048**2, 300**2, 60_000),
    "length": range(6),
    "limit": range(5),
}


@pytest.fixture(scope="module", autouse=True)
def fast() -> Iterator[None]:
    with little_garbage():
        yield


def _covering() -> list[tuple[str, dict[str, Any]]]:
    """Every architecture loaded both ways, and with them pairs of values of two axes that have not been there yet."""
    open_pairs = {
        ((a, x), (b, y)) for a, b in combinations(["lazy", *AXES], 2) for x, y in product(_values(a), _values(b))
    }
    searches = []
    for architecture, lazy in product(ARCHITECTURES, (False, True)):
        chosen: dict[str, Any] = {"lazy": lazy}
        for axis, values in AXES.items():
            allowed = ATTENTIONS.get(architecture, values) if axis == "attention" else values
            if axis == "max_attention_size" and architecture in ROUTED:
                allowed = values[:1]  # a smaller one makes chunks of which experts get unequal shares
            chosen[axis] = max(
                allowed, key=lambda value: sum(((k, v), (axis, value)) in open_pairs for k, v in chosen.items())
            )
        open_pairs -= set(combinations(chosen.items(), 2))
        searches.append((architecture, chosen))
    return searches


def _is_tried_each_time(architecture: str, lazy: bool) -> bool:
    """Llama, one with windows and one with experts both ways, the others one way."""
    if architecture in ("LlamaForCausalLM", "Gemma2ForCausalLM", "MixtralForCausalLM"):
        return True
    return lazy == bool(list(ARCHITECTURES).index(architecture) % 2)


def _values(axis: str) -> tuple[Any, ...]:
    return (False, True) if axis == "lazy" else AXES[axis]


def _length(number: int, max_input_len: int, architecture: str) -> int:
    """Below a chunk, whole chunks, one token more, odd numbers; whole pages where experts get even shares of them."""
    if architecture in ROUTED:
        return (number + 1) * 256
    longer = 3 * max_input_len + 100
    return (max(64, max_input_len // 2 + 9), max_input_len + 5, 2 * max_input_len + 4, 777, longer, 1024)[number]


def _limit(number: int, need: Replay) -> int:
    """A card about as large as a case needs."""
    allocated, reserved = need.peak_allocated_bytes, need.peak_reserved_bytes
    return (reserved, reserved - 1, allocated, (allocated + reserved) // 2, allocated - 2 * MIB)[number]


@pytest.mark.parametrize(
    ("architecture", "chosen"),
    [
        pytest.param(
            architecture,
            chosen,
            marks=[] if _is_tried_each_time(architecture, chosen["lazy"]) else pytest.mark.thorough,
            id=f"{architecture}-{'lazy' if chosen['lazy'] else 'load'}",
        )
        for architecture, chosen in _covering()
    ],
)
def test_every_architecture_is_predicted_to_the_byte(layouts: Path, architecture: str, chosen: dict[str, Any]) -> None:
    axes = {
        axis: chosen[axis]
        for axis in ("lazy", "attention", "cache", "batch_size", "max_input_len", "max_attention_size", "allocator")
    }
    bpw, head_bits = chosen["bits"]
    layers, more = SLIDING.get(architecture, (7, ROUTED.get(architecture)))
    search = case_of(architecture, layers, more, bpw=bpw, head_bits=head_bits, **axes)
    trace = trace_of(search, layouts)
    if bpw != 16.0:  # widths that were not recorded
        search = replace(search, bpw=5.3, head_bits=None if head_bits is None else 8)
    replayer = Replayer(trace, tensor_bytes_of(search, layouts))
    case = replace(search, max_seq_len=_length(chosen["length"], search.max_input_len, architecture))
    need, _ = simulate(case, layouts)
    assert predict(replayer, case) == need
    limited = replace(case, vram_limit_bytes=_limit(chosen["limit"], need))
    assert predict(replayer, limited) == simulate(limited, layouts)[0]


@pytest.mark.parametrize(
    ("axes", "ends"),
    [
        ({}, {"load", "cache", "prefill", None}),
        ({"lazy": True}, {"load", None}),
        ({"attention": "matmul", "cache": "Q4"}, {"load", "prefill", "given back"}),
        ({"attention": "sdpa", "batch_size": 3}, {"load", "cache", "prefill", "given back"}),
        ({"attention": "sdpa", "allocator": "expandable"}, {"load", "cache", "prefill", None}),
    ],
    ids=["load", "lazy", "matmul", "sdpa", "expandable"],
)
def test_a_full_card_is_predicted_in_every_phase(layouts: Path, axes: dict[str, Any], ends: set[str | None]) -> None:
    """Cards from too small for the weights to just large enough: cached segments given back, and memory running out."""
    case = case_of("LlamaForCausalLM", 6, max_seq_len=5000, **axes)
    replayer = Replayer(trace_of(case, layouts), tensor_bytes_of(case, layouts))
    need = predict(replayer, case)
    allocated, reserved = need.peak_allocated_bytes, need.peak_reserved_bytes
    before_cache = allocated - need.parts_at_peak[PARTS.index("cache")]
    seen: set[str | None] = set()
    for limit_bytes in (
        before_cache // 2,
        before_cache,
        (before_cache + allocated) // 2,
        *range(allocated - 4 * MIB, reserved, max(MIB, (reserved - allocated) // 4)),
        reserved - 1,
        reserved,
    ):
        limited = replace(case, vram_limit_bytes=limit_bytes)
        simulated, retries = simulate(limited, layouts)
        assert predict(replayer, limited) == simulated
        seen.add("given back" if retries and simulated.failed_in is None else simulated.failed_in)
    assert ends <= seen


def test_a_cases_passes_are_those_of_the_engine(layouts: Path) -> None:
    asked = {("flash", 2048**2): (64, 1029, 2052), ("sdpa", 2048**2): (4096,), ("matmul", 2048**2): (7000, 300)}
    asked |= {("flash", 4096): (2052,), ("sdpa", 512**2): (1300,), ("matmul", 1000): (300, 1000)}
    for (attention, scores), lengths in asked.items():
        case = case_of("LlamaForCausalLM", 2, attention=attention, max_attention_size=scores)
        for length in lengths:
            sections = recorder.record(replace(case, max_seq_len=length), layouts).sections
            setup = Setup(False, case.max_input_len, 1, attention, 8192, max_attention_size=scores)
            passes = schedule(length, setup)
            assert [(each.q_len, each.k_len) for each in passes] == [(s.q_len, s.k_len) for s in sections]


# Where passes become others: chunks of one and two tokens, windows that begin to cut, RoPE that is made in another way,
# experts with unequal shares that all whole pages have in common.
YARN = {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 700}}
LONGROPE = {
    "rope_scaling": {"type": "longrope", "long_factor": [1.1] * 64, "short_factor": [1.0] * 64},
    "original_max_position_embeddings": 700,
}
UNEVEN = {"num_experts": 16, "num_experts_per_tok": 1}
SPECIAL: dict[str, tuple[Case, tuple[int, ...]]] = {
    "short-matmul": (case_of("LlamaForCausalLM", 6, attention="matmul", max_input_len=256), (261, 262, 263)),
    "short-routed": (case_of("MixtralForCausalLM", 2, max_input_len=256), (261, 264, 268)),
    "window-matmul": (
        case_of("Gemma2ForCausalLM", 11, SLIDING["Gemma2ForCausalLM"][1], attention="matmul", max_input_len=256),
        (299, 300, 301, 304, 305, 1000),
    ),
    "window-sdpa-lazy": (
        case_of("Cohere2ForCausalLM", 7, SLIDING["Cohere2ForCausalLM"][1], attention="sdpa", lazy=True),
        (200, 300, 301, 304, 1500),
    ),
    "yarn-lazy": (case_of("Qwen2ForCausalLM", 6, YARN, max_input_len=256, lazy=True), (100, 700, 701, 3000)),
    "longrope": (case_of("Phi3ForCausalLM", 6, LONGROPE, max_input_len=256), (700, 701)),
    "uneven": (case_of("Qwen3MoeForCausalLM", 2, UNEVEN, max_input_len=256), (256, 1024)),
    "positions": (case_of("GPT2LMHeadModel", 6, {"n_positions": 1024}, max_input_len=2048), (64, 777, 1024)),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_passes_that_are_unlike_others_are_predicted_event_by_event(layouts: Path, name: str) -> None:
    search, lengths = SPECIAL[name]
    trace, tensor_bytes = trace_of(search, layouts), tensor_bytes_of(search, layouts)
    limits = limits_of(search.device, None)
    for length in lengths:
        recorded = recorder.record(replace(search, max_seq_len=length), layouts)
        assert list(requests.of_program(trace, tensor_bytes, limits, length)) == list(
            requests.of_recording(recorded, limits)
        ), length


@pytest.mark.parametrize("lazy", [False, True])
def test_unequal_shares_of_experts_are_no_wrong_number(layouts: Path, lazy: bool) -> None:
    search = case_of("DbrxForCausalLM", 1, lazy=lazy, max_input_len=256)
    replayer = Replayer(trace_of(search, layouts), tensor_bytes_of(search, layouts))
    with pytest.raises(NoPrediction, match="unequal shares"):
        predict(replayer, replace(search, max_seq_len=777))
    even = replace(search, max_seq_len=1024)
    assert predict(replayer, even) == simulate(even, layouts)[0]


def test_a_prompt_that_is_split_is_unpredictable(layouts: Path) -> None:
    with pytest.raises(NoPrediction, match="passes at 36 tokens are not the expected ones"):
        trace_of(case_of("LlamaForCausalLM", 1, max_input_len=8), layouts)


def test_an_unknown_architecture_is_named(layouts: Path) -> None:
    case = case_of("LlamaForCausalLM", 1, {"architectures": ["NoSuchForCausalLM"]})
    with pytest.raises(Unsupported, match="NoSuchForCausalLM"):
        trace_of(case, layouts)


def test_what_this_machine_could_not_do_is_no_reason_to_keep(tmp_path: Path) -> None:
    wanted = [Wanted(kind, case_of("LlamaForCausalLM", 2), tmp_path / kind) for kind in Recording]
    (tmp_path / "file").touch()
    request = Record(wanted, tmp_path / "file" / "layouts")
    with open(os.devnull, "w") as nobody:
        assert child.run_request(request, nobody.fileno()) == child.EXIT_DONE
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Gemma3ForConditionalGeneration"])
@pytest.mark.parametrize("layers", [1, 3])
def test_models_that_are_shallower_than_a_recording(layouts: Path, architecture: str, layers: int) -> None:
    case = case_of(architecture, layers, max_seq_len=777)
    replayer = Replayer(trace_of(case, layouts), tensor_bytes_of(case, layouts))
    assert predict(replayer, case) == simulate(case, layouts)[0]


def test_weights_that_are_there_are_recorded_in_full_and_predict_the_same(layouts: Path, tmp_path: Path) -> None:
    search = case_of("LlamaForCausalLM", 8, cache="Q6", lazy=True)
    with cards.open_machine(search):
        write_checkpoint(tmp_path / "weights", search.model.config, search.bpw, search.head_bits)
    model = replace(search.model, path=str(tmp_path / "weights"), bpw=search.bpw, fingerprint="weights")
    there = replace(search, model=model)
    full = recorder.make_trace(there, layouts)
    shallow = recorder.make_trace(search, layouts)
    assert (shallow.num_layers, full.num_layers, full.depth) == (5, 8, 8)
    one, other = (Replayer(trace, tensor_bytes_of(there, layouts)) for trace in (full, shallow))
    for length in (64, 777, 1024, 5000):
        case = replace(there, max_seq_len=length)
        assert predict(one, case) == predict(other, case)
    assert predict(one, replace(there, max_seq_len=777)) == simulate(replace(there, max_seq_len=777), layouts)[0]


@pytest.mark.parametrize(("capability", "num_sms"), [("7.5", 40), ("8.0", 20), ("9.0", 132), ("12.0", 170)])
def test_cards_that_were_not_recorded(layouts: Path, capability: str, num_sms: int) -> None:
    """Other workspaces of cuBLAS, other numbers of multiprocessors over which flash-attn splits the keys."""
    search = case_of("LlamaForCausalLM", 6, max_seq_len=4096, cache="Q8")
    if capability == "7.5":
        search = replace(search, device=replace(search.device, compute_capability="7.0"))
    trace = trace_of(search, layouts)
    case = replace(search, device=replace(search.device, compute_capability=capability, multi_processor_count=num_sms))
    replayer = Replayer(trace, tensor_bytes_of(search, layouts))
    assert predict(replayer, case) == simulate(case, layouts)[0]
    assert replayer.attention == ("xformers" if capability == "7.5" else "flash")
