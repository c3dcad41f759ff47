"""Matrices, experts and layers that are done by their requests end in the same bytes as those that are run."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.core.case import Case
from bench.worker.cards import preload
from bench.worker.engines.exllamav2.engine import EXLLAMAV2
from bench.worker.engines.exllamav3.engine import EXLLAMAV3
from bench.worker.simulated.attention import FlashAttention
from tests.worker.architectures import DENSE
from tests.worker.conftest import made_up_case
from tests.worker.predicted_and_simulated import case_of, little_garbage, simulate

# Layers and experts enough that most are left out.
EXPERTS = {
    "Qwen3MoeForCausalLM": {"num_experts": 16, "num_experts_per_tok": 2},
    "MixtralForCausalLM": {"num_local_experts": 8, "num_experts_per_tok": 2},
}


# With exllamav3: matrices of more than 16 MiB are in no slab, and the head is one of them.
LARGE = {"intermediate_size": 24576, "hidden_size": 2048, "num_hidden_layers": 6, "vocab_size": 65536}
LINEAR = {
    "architectures": ["Qwen3NextForCausalLM"],
    "full_attention_interval": 4,
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 8,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
    "num_hidden_layers": 12,
    "num_experts": 16,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 256,
    "shared_expert_intermediate_size": 256,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "partial_rotary_factor": 0.25,
    "norm_topk_prob": True,
}
ROUTED = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "num_experts": 16,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 512,
    "decoder_sparse_step": 1,
    "norm_topk_prob": True,
}
WINDOWED = {
    "architectures": ["Gemma3ForCausalLM"],
    "hidden_act": "gelu_pytorch_tanh",
    "sliding_window": 512,
    "layer_types": [*["sliding_attention"] * 3, "full_attention"] * 3,
    "query_pre_attn_scalar": 128,
    "num_hidden_layers": 12,
}


def _run_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    for engine in (EXLLAMAV2, EXLLAMAV3):
        monkeypatch.setattr(type(engine), "shortcuts", lambda engine, cuda: contextlib.nullcontext())


def _assert_same_in_full(case: Case, layouts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all fits, and on cards that are full in loading, in the cache, and in a chunk."""
    with little_garbage():
        endless, _ = simulate(case, layouts)
        peak = endless.peak_held_bytes + (case.device.context_bytes or 0)
        sizes = [peak - (2 << 20), int(peak * 0.9), int(peak * 0.5)]
        cases = [case, *(replace(case, device=replace(case.device, total_memory_bytes=size)) for size in sizes)]
        short = [simulate(each, layouts) for each in cases]
        _run_in_full(monkeypatch)
        assert short == [simulate(each, layouts) for each in cases]
    assert {figures.failed_in for figures, _ in short} >= {None, "load"}


@pytest.mark.parametrize(
    "architecture",
    [
        "Qwen3MoeForCausalLM",
        pytest.param("MixtralForCausalLM", marks=pytest.mark.thorough),
        "LlamaForCausalLM",
    ],
)
@pytest.mark.parametrize(
    "axes",
    [
        {"bpw": 4.1},
        {"bpw": 3.3, "lazy": True, "cache": "Q6"},
        {"bpw": 5.0, "attention": "matmul", "batch_size": 2},
        {"bpw": 16.0, "head_bits": None, "lazy": True},
    ],
    ids=["exl2", "lazy", "batch", "unquantised"],
)
def test_shortcuts_change_no_byte(
    architecture: str, axes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = case_of(architecture, 5, EXPERTS.get(architecture), max_seq_len=900, max_input_len=256, **axes)
    _assert_same_in_full(case, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("config", "axes"),
    [
        (ROUTED, {"bpw": 3.3, "cache": "k6v5"}),
        # More rows than decoding has kernels for: the last layer's experts first run when the first token is decoded.
        (ROUTED, {"batch_size": 9}),
        (LARGE, {"bpw": 4.6, "allocator": "native"}),
        (LINEAR, {"batch_size": 2}),
        pytest.param(WINDOWED, {"lazy": True}, marks=pytest.mark.thorough),
        pytest.param(ROUTED, {"bpw": 16.0, "head_bits": None}, marks=pytest.mark.thorough),
        pytest.param({"attention_bias": True}, {"bpw": 2.5, "lazy": True, "cache": "Q4"}, marks=pytest.mark.thorough),
    ],
    ids=["experts", "many rows of experts", "large", "linear attention", "windows", "unquantised", "biases"],
)
def test_shortcuts_of_exllamav3_change_no_byte(
    config: dict[str, Any], axes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {**DENSE, "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 5, "hidden_act": "silu", **config}
    case = made_up_case(told, total_bytes=1 << 50, engine="exllamav3", max_seq_len=2560, max_input_len=512, **axes)
    _assert_same_in_full(case, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("architecture", "more"), [("LlamaForCausalLM", {}), ("Gemma2ForCausalLM", {"sliding_window": 128})]
)
def test_of_the_layers_of_a_pass_a_few_are_run(
    architecture: str, more: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of a pass makes what all need, the two after it show that they are alike; of each kind of window."""
    calls = 0
    take = FlashAttention.take_temporaries

    def counted(*given: Any, **named: Any) -> None:
        nonlocal calls
        calls += 1
        take(*given, **named)

    monkeypatch.setattr(FlashAttention, "take_temporaries", counted)
    case = case_of(architecture, 20, more, max_seq_len=300, max_input_len=2048)
    with little_garbage():
        short, _ = simulate(case, tmp_path)
        run, calls = calls, 0
        _run_in_full(monkeypatch)
        assert simulate(case, tmp_path)[0] == short
    assert run * 2 <= calls


def test_of_the_matrices_of_a_kind_two_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first makes what all need, the second shows that nothing else is asked for."""
    told = {**DENSE, **ROUTED, "num_hidden_layers": 5, "hidden_act": "silu"}
    case = made_up_case(told, total_bytes=1 << 50, engine="exllamav3", max_seq_len=512)
    preload("simulated", "exllamav3")
    from exllamav3.modules.linear import Linear

    calls = 0
    load = Linear.load_exl3

    def counted(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        return load(*given)

    monkeypatch.setattr(Linear, "load_exl3", counted)
    simulate(case, tmp_path)
    run, calls = calls, 0
    _run_in_full(monkeypatch)
    simulate(case, tmp_path)
    assert run * 10 <= calls
