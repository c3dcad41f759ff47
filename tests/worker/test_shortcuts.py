"""Matrices and experts that are done by their requests end in the same bytes as those that are run."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.worker.engines.exllamav2.engine import EXLLAMAV2
from bench.worker.simulated.attention import FlashAttention
from tests.worker.predicted_and_simulated import case_of, little_garbage, simulate

# Layers and experts enough that most are left out.
EXPERTS = {
    "Qwen3MoeForCausalLM": {"num_experts": 16, "num_experts_per_tok": 2},
    "MixtralForCausalLM": {"num_local_experts": 8, "num_experts_per_tok": 2},
}


def _run_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(EXLLAMAV2), "shortcuts", lambda engine, cuda: contextlib.nullcontext())


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
    """Where all fits, and on cards that are full in loading, in the cache, and in a chunk."""
    case = case_of(architecture, 5, EXPERTS.get(architecture), max_seq_len=900, max_input_len=256, **axes)
    with little_garbage():
        endless, _ = simulate(case, tmp_path)
        peak = endless.peak_reserved_bytes + (case.device.context_bytes or 0)
        sizes = [peak - (2 << 20), int(peak * 0.9), int(peak * 0.5)]
        cases = [case, *(replace(case, device=replace(case.device, total_memory_bytes=size)) for size in sizes)]
        short = [simulate(each, tmp_path) for each in cases]
        _run_in_full(monkeypatch)
        assert short == [simulate(each, tmp_path) for each in cases]
    assert {figures.failed_in for figures, _ in short} >= {None, "load"}


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
