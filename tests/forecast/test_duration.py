"""How long a simulated case is estimated to take: by what is done, and never for a real card."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.case import Case
from bench.core.outcome import Phase
from bench.engines.exllamav2.setup import unread_setup
from bench.forecast.duration import probe_seconds, slowness
from bench.scenarios.forward import DECODE_TOKENS
from tests.worker.architectures import ARCHITECTURES, DENSE
from tests.worker.conftest import catalogue_case, made_up_case

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


@pytest.mark.parametrize(
    ("of", "took_s"),
    [  # CPU seconds, the lesser of two, times what a case takes now of what it took then (two pairs on another machine)
        ("model=tinyllama_1_1b max_seq_len=2048", 0.93 * 0.80),
        ("model=llama_3_1_8b max_seq_len=8192", 1.39 * 0.67),
        ("model=llama_3_1_8b max_seq_len=8192 lazy=true", 1.76 * 0.68),
        ("model=llama_3_1_8b max_seq_len=32768 bpw=16", 2.19 * 0.41),
        ("model=llama_3_1_8b max_seq_len=131072", 5.70 * 0.22),
        ("model=llama_3_1_8b max_seq_len=131072 allocator=native", 7.08 * 0.22),
        ("model=llama_3_1_8b max_seq_len=131072 cache=Q4", 5.92 * 0.26),
        ("model=llama_3_1_70b max_seq_len=32768", 5.89 * 0.40),
        ("model=qwen3_30b_a3b max_seq_len=8192", 19.54 * 0.63),
    ],
)
def test_cases_of_exllamav3_that_were_measured_took_about_as_long(of: str, took_s: float) -> None:
    estimated = probe_seconds(catalogue_case("engine=exllamav3", "device=h200_141gb", *of.split()))
    assert estimated == pytest.approx(took_s, rel=0.25)


@given(
    tokens=st.integers(64, 20_000), max_input_len=st.integers(16, 4096), attention=st.sampled_from(["flash", "sdpa"])
)
@settings(max_examples=50, deadline=None)
def test_chunks_are_counted_as_they_are_split(tokens: int, max_input_len: int, attention: str) -> None:
    setup = unread_setup(case(max_input_len=max_input_len), attention)
    made = [each for each in setup.schedule(tokens + DECODE_TOKENS).passes() if each.phase == Phase.PREFILL]
    splits = [each for each in made if each.kind.startswith("prefill")]
    assert setup.chunk_count(tokens) == len(splits) > 0


@pytest.mark.parametrize(("attention", "jobs"), [("flash", 1), ("flash", 3), ("matmul", 1)])
def test_the_passes_of_a_generator_are_counted(attention: str, jobs: int) -> None:
    """A chunk of each job's prompt, one prompt after the other; matmul's scores bound none of them."""
    asked = case(scenario="generator", batch_size=jobs, max_input_len=512)
    setup = unread_setup(asked, attention)
    made = [each for each in setup.schedule(4096).passes() if each.kind.startswith("prefill_of_5")]
    assert setup.chunk_count(4096 - 6) * jobs == len(made) == 8 * jobs
    few, many = (probe_seconds(replace(asked, attention=attention, max_seq_len=tokens)) for tokens in (1024, 65_536))
    assert few is not None
    assert many is not None
    assert many > few
