"""How long a simulated case is estimated to take: by what is done, and never for a real card."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench.core.case import Case
from bench.forecast.duration import probe_seconds, slowness
from tests.worker.architectures import ARCHITECTURES, DENSE
from tests.worker.conftest import made_up_case

EXPERTS = {**ARCHITECTURES["Qwen3MoeForCausalLM"], "num_experts": 128, "num_experts_per_tok": 8}


def case(config: dict[str, Any] | None = None, **axes: Any) -> Case:
    return made_up_case({**DENSE, "architectures": ["LlamaForCausalLM"], **(config or {})}, **axes)


def seconds(config: dict[str, Any] | None = None, **axes: Any) -> float:
    found = probe_seconds(case(config, **axes))
    assert found is not None
    return found


def test_it_goes_by_layers_experts_and_chunks() -> None:
    """Each alone makes it longer; the sizes of tensors don't."""
    usual = seconds()
    assert seconds({"num_hidden_layers": 80}) > 2 * usual
    assert seconds(EXPERTS) > usual
    assert seconds({**EXPERTS, "num_hidden_layers": 48}) > 2 * seconds({**EXPERTS, "num_hidden_layers": 4})
    assert seconds(max_seq_len=65536) > seconds(max_seq_len=4096) > 0
    assert seconds(max_seq_len=65536, max_input_len=256) > seconds(max_seq_len=65536)
    assert seconds({"hidden_size": 8192, "intermediate_size": 28672}) == usual


def test_without_flash_attention_chunks_shrink_and_time_grows_with_the_square() -> None:
    short, long = (seconds(max_seq_len=tokens, attention="matmul") for tokens in (1 << 16, 1 << 18))
    assert long > 10 * short
    assert short > 5 * seconds(max_seq_len=1 << 16)
    assert seconds(max_seq_len=1 << 18, attention="matmul", max_attention_size=2048**2 * 16) < long / 3


def test_a_real_card_is_measured_and_what_has_no_layers_is_not_estimated() -> None:
    simulated = case()
    assert probe_seconds(replace(simulated, device=replace(simulated.device, kind="cuda"))) is None
    assert probe_seconds(case({"num_hidden_layers": None})) is None


def test_stored_cases_correct_it() -> None:
    """By the median of how much longer those of the same models took; what failed ended early and says nothing."""
    known = case()
    row = {
        "model_fingerprint": known.model.fingerprint,
        "device_kind": "simulated",
        "outcome": "fits",
        **{name: getattr(known, name) for name in ("max_seq_len", "bpw", "lazy", "batch_size", "max_input_len")},
        "max_attention_size": known.max_attention_size,
        "attention": "flash",
    }
    took = [{**row, "wall_s": seconds() * times} for times in (1.5, 2.0, 9.0)]
    other = {**row, "wall_s": 100.0}
    ignored = [{**other, "outcome": "oom"}, {**other, "model_fingerprint": "?"}, {**other, "device_kind": "cuda"}]
    assert slowness([*took, *ignored, {**row, "wall_s": None}], [known]) == pytest.approx(2.0)
    assert slowness(ignored, [known]) is None
