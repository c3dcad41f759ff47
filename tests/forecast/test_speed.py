"""The estimate of decoding speed: bytes by hand, what must grow with what, and how far it is from published speeds."""

from __future__ import annotations

import csv
import functools
import math
import re
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from safetensors import safe_open

from bench.analysis.recommend import ESTIMATE_ERROR
from bench.config import compose as catalogue
from bench.core.case import Case
from bench.engines.exllamav2.spec import SPEC
from bench.forecast import speed
from bench.forecast.speed import estimated_speed, step_of
from bench.worker import cards
from bench.worker.engines.exllamav2.checkpoint import write_checkpoint
from tests.worker.conftest import catalogue_case

DATA = Path(__file__).parent / "exllamav2_speeds.csv"
DOCS = Path(__file__).parents[2] / "docs" / "speed.md"
RTX_4090 = 1008e9  # bytes/s
CACHES = ["FP16", "Q8", "Q6", "Q4"]


def _llama(hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, vocab: int) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
    }


LLAMA_2_7B = _llama(4096, 11008, 32, 32, 32, 32000)
LLAMA_3_8B = _llama(4096, 14336, 32, 32, 8, 128256)
MIXTRAL = {**_llama(4096, 14336, 32, 32, 8, 32000), "num_local_experts": 8, "num_experts_per_tok": 2}
PUBLISHED = {
    "TinyLlama 1.1B": _llama(2048, 5632, 22, 32, 4, 32000),
    "Llama 2 7B": LLAMA_2_7B,
    "Llama 3 8B": LLAMA_3_8B,
    "CodeLlama 34B": _llama(8192, 22016, 48, 64, 8, 32000),
    "Llama 2 70B": _llama(8192, 28672, 80, 64, 8, 32000),
}


@dataclass(frozen=True)
class Published:
    """A row of the data file: a speed that somebody measured, in tokens/s."""

    source: str
    model: str
    bpw: float
    cache: str
    tokens_in_context: int
    device: str
    bandwidth: float
    measured: float

    @property
    def tiny(self) -> bool:
        return self.model == "TinyLlama 1.1B"

    def estimate(self, efficiency: float = SPEC.decode_efficiency) -> float:
        tokens_per_s = estimate(
            PUBLISHED[self.model], self.bpw, 6, self.cache, self.tokens_in_context, 1, self.bandwidth
        )
        assert tokens_per_s is not None
        return tokens_per_s * efficiency / SPEC.decode_efficiency

    @property
    def error(self) -> float:
        return self.estimate() / self.measured - 1

    def line(self) -> str:
        """The row in docs/speed.md."""
        return (
            f"| {self.model} | {self.bpw:g} | {self.cache} | {self.tokens_in_context:,} | {self.device} "
            f"| {self.measured:g} | {self.estimate():.1f} | {self.error:+.0%} |"
        ).replace("%", " %")


def _published() -> list[Published]:
    lines = [line for line in DATA.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return [
        Published(
            row["source"],
            row["model"],
            float(row["bpw"]),
            row["cache"],
            int(row["tokens_in_context"]),
            row["device"],
            float(row["memory_bandwidth_bytes_per_s"]),
            float(row["tokens_per_s"]),
        )
        for row in csv.DictReader(lines)
    ]


ROWS = _published()
CALIBRATION = [row for row in ROWS if row.source == "readme" and not row.tiny]
TINY = [row for row in ROWS if row.source == "readme" and row.tiny]


@functools.cache
@functools.cache
def _case(*keys: str) -> Case:
    return catalogue_case(*keys)


def _of(
    config: dict[str, Any],
    bpw: float,
    head_bits: int | None,
    cache: str = "FP16",
    tokens: int = 0,
    batch_size: int = 1,
    bandwidth: float | None = None,
) -> Case:
    """A case of a model with `config` and flash attention, on a simulated card."""
    case = _case("model=llama_3_1_8b", "device=rtx_4090", "attention=flash")
    model, device = replace(case.model, config=config), replace(case.device, memory_bandwidth_bytes_per_s=bandwidth)
    changed = {"bpw": bpw, "head_bits": head_bits, "cache": cache, "max_seq_len": tokens, "batch_size": batch_size}
    return replace(case, model=model, device=device, **changed)


def estimate(*of: Any) -> float | None:
    return estimated_speed(_of(*of))


def weights_of(config: dict[str, Any], bpw: float, head_bits: int | None, batch_size: int = 1) -> float | None:
    step = step_of(_of(config, bpw, head_bits, batch_size=batch_size))
    return step and step.weights_bytes


# Bytes, by hand


def test_the_weights_of_llama_2_7b() -> None:
    layer = 4 * 4096 * 4096 + 3 * 4096 * 11008
    assert 32 * layer == 6_476_005_376
    assert weights_of(LLAMA_2_7B, 4.0, 6) == 6_476_005_376 * 4 / 8 + 131_072_000 * 6 / 8 == 3_336_306_688
    assert weights_of(LLAMA_2_7B, 16.0, None) == 2 * (6_476_005_376 + 131_072_000)


def test_the_weights_of_llama_3_8b() -> None:
    layer = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336
    assert 32 * layer == 6_979_321_856
    assert weights_of(LLAMA_3_8B, 4.0, 6) == 6_979_321_856 / 2 + 525_336_576 * 6 / 8 == 3_883_663_360
    assert weights_of(LLAMA_3_8B, 4.0, 8) == 6_979_321_856 / 2 + 525_336_576


def test_weights_with_a_head_of_their_own_are_taken_to_have_the_converters_default() -> None:
    assert weights_of(LLAMA_3_8B, 4.0, None) == weights_of(LLAMA_3_8B, 4.0, 6)


def test_a_token_reads_its_experts_and_no_others() -> None:
    attention, expert, router = 41_943_040, 176_160_768, 4096 * 8 * 2
    head = 131_072_000 * 6 / 8
    for batch_size, experts in ((1, 2.0), (2, 3.5), (1000, 8.0)):
        expected = 32 * ((attention + experts * expert) * 4 / 8 + router) + head
        assert weights_of(MIXTRAL, 4.0, 6, batch_size) == pytest.approx(expected)


def test_experts_may_have_a_size_and_a_key_of_their_own() -> None:
    renamed = {**MIXTRAL, "intermediate_size": 1, "moe_intermediate_size": 14336, "num_experts": 8}
    del renamed["num_local_experts"]
    assert weights_of(renamed, 4.0, 6) == weights_of(MIXTRAL, 4.0, 6)


def test_an_mlp_without_a_gate_has_two_matrices() -> None:
    ungated = {**LLAMA_3_8B, "architectures": ["Starcoder2ForCausalLM"]}
    assert weights_of(ungated, 8.0, 8) == 32 * (41_943_040 + 2 * 4096 * 14336) + 525_336_576


def _cache_bytes(config: dict[str, Any], cache: str, tokens: int, attention: str = "flash") -> float | None:
    """The bytes that `attention` moves for the cache of one sequence; None where the config lacks a size."""
    case = catalogue_case("model=llama_3_1_8b", f"attention={attention}")
    step = step_of(replace(case, model=replace(case.model, config=config), cache=cache, max_seq_len=tokens))
    return None if step is None else step.cache_bytes


def test_another_engine_has_an_efficiency_a_head_and_caches_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(SPEC, decode_efficiency=0.5, default_head_bits=8, caches={"Q4": SPEC.caches["Q8"]})
    monkeypatch.setattr(speed, "engine_of", lambda name: other if name == "another" else SPEC)
    case = _of(LLAMA_3_8B, 4.0, None, "Q8", 8192, 1, RTX_4090)
    its = replace(case, engine="another", cache="Q4")
    step, its_step = step_of(case), step_of(its)
    assert step is not None
    assert its_step is not None
    assert its_step.weights_bytes - step.weights_bytes == 525_336_576 * 2 / 8
    assert its_step.cache_bytes == step.cache_bytes
    assert estimated_speed(its) == pytest.approx(0.5 * RTX_4090 / (its_step.weights_bytes + its_step.cache_bytes))


@pytest.mark.parametrize(
    ("cache", "token_bytes"),
    [
        ("FP16", 131_072),
        ("Q8", 65_536 + 4_096 + 2 * 131_072),
        ("Q6", 49_152 + 4_096 + 2 * 131_072),
        ("Q4", 32_768 + 4_096 + 2 * 131_072),
    ],
)
def test_the_cache_of_llama_3_8b(cache: str, token_bytes: int) -> None:
    assert _cache_bytes(LLAMA_3_8B, cache, 1) == token_bytes
    assert _cache_bytes(LLAMA_3_8B, cache, 8192) == 8192 * token_bytes
    assert _cache_bytes(LLAMA_3_8B, cache, 0) == 0


def test_the_cache_of_llama_2_7b() -> None:
    assert _cache_bytes(LLAMA_2_7B, "FP16", 4096) == 2 << 30


def test_heads_may_have_a_size_of_their_own() -> None:
    narrow = {**LLAMA_3_8B, "head_dim": 64}
    assert _cache_bytes(narrow, "FP16", 1) == 131_072 / 2
    assert weights_of(narrow, 8.0, 8) == 6_979_321_856 - 32 * 41_943_040 / 2 + 525_336_576


def test_the_language_model_may_be_nested() -> None:
    nested = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": LLAMA_3_8B}
    assert weights_of(nested, 4.0, 6) == weights_of(LLAMA_3_8B, 4.0, 6)


@pytest.mark.parametrize("model", ["tinyllama_1_1b", "gemma_2_9b", "mixtral_8x7b"])
def test_the_layout_of_a_checkpoint_has_as_many_bytes(tmp_path: Path, model: str) -> None:
    case = catalogue_case(f"model={model}", "max_seq_len=512")
    with cards.open_machine(case):
        write_checkpoint(tmp_path / "m", case.model.config, bpw=4.0, head_bits=6)
    with safe_open(tmp_path / "m" / "model.safetensors", framework="numpy") as file:
        slices = [file.get_slice(name) for name in file.keys() if "embed_tokens" not in name]
        laid_out = sum(math.prod(s.get_shape()) * {"I32": 4}.get(s.get_dtype(), 2) for s in slices)
    assert weights_of(case.model.config, 4.0, 6, batch_size=1000) == pytest.approx(laid_out, rel=0.01)


# The estimate


def test_the_estimate_of_llama_3_8b_on_an_rtx_4090() -> None:
    tokens_per_s = estimate(LLAMA_3_8B, 4.0, 6, "FP16", 8192, 1, RTX_4090)
    assert tokens_per_s == pytest.approx(0.71 * 1008e9 / (3_883_663_360 + 8192 * 131_072))


def test_a_batch_reads_the_weights_once_and_each_cache() -> None:
    tokens_per_s = estimate(LLAMA_3_8B, 4.0, 6, "FP16", 8192, 3, RTX_4090)
    assert tokens_per_s == pytest.approx(3 * 0.71 * 1008e9 / (3_883_663_360 + 3 * 8192 * 131_072))


def test_jobs_that_share_a_cache_read_no_more_than_is_in_it() -> None:
    given = ("model=llama_3_1_8b", "device=rtx_4090", "scenario=generator", "batch_size=8")
    shared = estimated_speed(_case(*given, "max_seq_len=32k", "cache_size=64k"))
    assert shared == estimated_speed(_case(*given, "max_seq_len=8k", "cache_size=64k"))
    assert shared == estimated_speed(_case(*given, "max_seq_len=8k"))


@given(
    tokens=st.tuples(st.integers(0, 1 << 20), st.integers(0, 1 << 20)).map(sorted),
    bpws=st.tuples(st.floats(2, 8), st.floats(2, 8)).map(sorted),
    cache=st.sampled_from(CACHES),
    batch_size=st.integers(1, 64),
    config=st.sampled_from([LLAMA_2_7B, LLAMA_3_8B, MIXTRAL]),
)
def test_more_context_and_more_bits_are_never_faster(
    tokens: list[int], bpws: list[float], cache: str, batch_size: int, config: dict[str, Any]
) -> None:
    speeds = [
        estimate(config, bpw, 6, cache, length, batch_size, RTX_4090)
        for bpw, length in ((bpws[0], tokens[0]), (bpws[0], tokens[1]), (bpws[1], tokens[1]))
    ]
    assert all(speed is not None and speed > 0 for speed in speeds)
    assert speeds == sorted(speeds, key=lambda speed: -(speed or 0))


def test_a_quantised_cache_is_not_faster_than_fp16() -> None:
    speeds = [estimate(LLAMA_3_8B, 4.0, 6, cache, 8192, 1, RTX_4090) or 0 for cache in ("FP16", "Q4", "Q6", "Q8")]
    assert speeds == sorted(speeds, reverse=True)


def test_other_attention_copies_what_heads_share() -> None:
    shared = _cache_bytes(LLAMA_3_8B, "FP16", 1, "sdpa")
    assert shared == 131_072 + 2 * 4 * 131_072  # read; written and read for each of 32 heads, of 8
    assert _cache_bytes(LLAMA_3_8B, "Q4", 1, "sdpa") == 32_768 + 4_096 + 2 * 131_072 + 2 * 4 * 131_072
    assert _cache_bytes(LLAMA_2_7B, "FP16", 1, "sdpa") == _cache_bytes(LLAMA_2_7B, "FP16", 1)


@given(
    attention=st.sampled_from(["auto", "xformers", "sdpa", "matmul"]),
    device=st.sampled_from(["t4", "rtx_4090", "a100_40gb"]),
    model=st.sampled_from(["tinyllama_1_1b", "llama_3_1_8b", "gemma_2_9b"]),
    cache=st.sampled_from(CACHES),
    length=st.integers(1, 8192),
)
def test_no_attention_is_estimated_to_be_faster_than_flash(
    attention: str, device: str, model: str, cache: str, length: int
) -> None:
    case = replace(_case(f"model={model}", f"device={device}"), cache=cache, max_seq_len=length)
    flash = estimated_speed(replace(case, attention="flash"))
    other = estimated_speed(replace(case, attention=attention))
    assert flash is not None
    assert other is not None
    # What `auto` runs depends on the card; more query heads than key heads make the difference.
    assert other == flash if attention == "auto" and device != "t4" else other < flash


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_case_is_estimated_by_the_bytes_that_its_step_moves(batch_size: int) -> None:
    case = _case("model=llama_3_1_8b", "device=rtx_4090", "max_seq_len=8192", f"batch_size={batch_size}")
    step, bandwidth = step_of(case), case.device.memory_bandwidth_bytes_per_s
    assert step is not None
    assert bandwidth is not None
    moved_bytes = step.weights_bytes + step.cache_bytes
    assert estimated_speed(case) == pytest.approx(batch_size * SPEC.decode_efficiency * bandwidth / moved_bytes)


@pytest.mark.parametrize("bandwidth", [None, 0.0])
def test_without_a_bandwidth_there_is_no_estimate(bandwidth: float | None) -> None:
    assert estimate(LLAMA_3_8B, 4.0, 6, "FP16", 64, 1, bandwidth) is None


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"model_type": "spark"},
        {"architectures": ["GPT2LMHeadModel"], "n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257},
        *({key: value for key, value in LLAMA_2_7B.items() if key != left_out} for left_out in list(LLAMA_2_7B)[1:5]),
        {**LLAMA_2_7B, "intermediate_size": [11008, 5504]},
        {**LLAMA_2_7B, "num_local_experts": 8},
        {**LLAMA_2_7B, "kv_lora_rank": 512},
        {**LLAMA_2_7B, "text_config": {"n_routed_experts": 64}},
    ],
)
def test_without_the_sizes_there_is_no_estimate(config: dict[str, Any]) -> None:
    assert weights_of(config, 4.0, 6) is None
    assert _cache_bytes(config, "FP16", 64) is None
    assert estimate(config, 4.0, 6, "FP16", 64, 1, RTX_4090) is None


def test_without_key_value_heads_there_are_as_many_as_heads() -> None:
    config = {key: value for key, value in LLAMA_2_7B.items() if key != "num_key_value_heads"}
    assert _cache_bytes(config, "FP16", 1) == _cache_bytes(LLAMA_2_7B, "FP16", 1)


def test_the_catalogue_has_estimates_but_where_the_docs_say() -> None:
    without = set()
    for name in set(catalogue.names("model")) - {"local", "hub"}:
        plain: Any = OmegaConf.to_container(OmegaConf.load(catalogue.config_dir() / "model" / f"{name}.yaml"))
        if estimate(plain["config"], 4.0, 6, "FP16", 64, 1, RTX_4090) is None:
            without.add(name)
    named = DOCS.read_text(encoding="utf-8").partition("In the catalogue these are")[2].partition(".\n")[0]
    assert without == set(re.findall(r"`(\w+)`", named))


# Calibration, and the published speeds


def test_the_efficiency_is_the_readmes() -> None:
    assert len(CALIBRATION) == 10
    ratios = [row.measured / row.estimate(efficiency=1.0) for row in CALIBRATION]
    assert statistics.median(ratios) == pytest.approx(0.706, abs=0.0005)
    assert round(statistics.median(ratios), 2) == SPEC.decode_efficiency
    assert [round(min(ratios), 2), round(max(ratios), 2)] == [0.55, 0.83]


def test_the_documented_errors_hold() -> None:
    errors = [abs(row.error) for row in CALIBRATION]
    assert statistics.median(errors) <= 0.07
    assert round(max(errors), 2) == ESTIMATE_ERROR
    assert all(0.90 <= row.error <= 1.65 for row in TINY)


def test_the_docs_have_the_table_that_the_code_computes() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for row in ROWS:
        assert row.line() in text
    assert sum(line.count("|") == ROWS[0].line().count("|") for line in text.splitlines()) == len(ROWS) + 3 * 2
    errors = [abs(row.error) for row in CALIBRATION]
    assert f"Median error {statistics.median(errors):.1%}, worst {max(errors):.0%}.".replace("%", " %") in text
    assert f"`decode_efficiency` = {SPEC.decode_efficiency}" in text


def test_what_the_docs_say_of_a_second_constant() -> None:
    def with_a_time_for_each_layer(row: Published) -> float:
        layers: int = PUBLISHED[row.model]["num_hidden_layers"]
        seconds = 1 / row.estimate(efficiency=0.89) + 42e-6 * layers
        return 1 / seconds / row.measured - 1

    assert max(abs(with_a_time_for_each_layer(row)) for row in CALIBRATION + TINY) < 0.105
    at_length = [with_a_time_for_each_layer(row) for row in ROWS if row.source == "issue 499"]
    assert [round(min(at_length), 2), round(max(at_length), 2)] == [0.16, 0.34]
