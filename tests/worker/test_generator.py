"""The engine's own generator on a simulated card: its passes, what it takes, and that it is predicted to the byte."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench.core.case import PAGE, Axis, Case, DraftModel, Search
from bench.core.messages import Result
from bench.engines.exllamav2.schedule import schedule
from bench.engines.exllamav2.setup import Setup
from bench.engines.steps import steps_of
from bench.trace.replay import Replayer
from bench.worker import recorder
from bench.worker.interfaces.engine import Unsupported
from tests.worker.architectures import FOUR_EXPERTS
from tests.worker.conftest import Run, catalogue_case
from tests.worker.predicted_and_simulated import (
    case_of,
    little_garbage,
    predict,
    simulate,
    tensor_bytes_of,
    trace_of,
)

MIB = 1 << 20
KV_BYTES = 2 * 8 * 128 * 2  # keys and values of a token in a layer of Llama-3.1-8B, FP16
SLIDING = {"sliding_window": 300}
again = partial(pytest.param, marks=pytest.mark.thorough)  # choices that others have one by one


@pytest.fixture(scope="module", autouse=True)
def fast() -> Iterator[None]:
    with little_garbage():
        yield


def served(architecture: str, layers: int = 6, more: dict[str, Any] | None = None, **axes: Any) -> Case:
    return case_of(architecture, layers, more, scenario="generator", **axes)


def drafted(
    case: Case,
    architecture: str = "LlamaForCausalLM",
    layers: int = 7,
    cache: str = "FP16",
    bpw: float = 4.0,
    **more: Any,
) -> Case:
    """The case with a draft model that is half as wide, and proposes three tokens."""
    half = {"hidden_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 1408, **more}
    model = case_of(architecture, layers, half).model
    draft_model = DraftModel(model, bpw, None if bpw == 16.0 else 6, cache)
    return replace(case, draft="model", num_draft_tokens=3, draft_model=draft_model)


@pytest.mark.parametrize(
    ("search", "lengths"),
    [
        (drafted(served("LlamaForCausalLM")), (256, 1280)),
        (drafted(served("LlamaForCausalLM", cache="Q4", batch_size=3, lazy=True), layers=9, cache="Q8"), (256, 1536)),
        (drafted(served("Gemma2ForCausalLM", 11, SLIDING), "Gemma2ForCausalLM", 10, bpw=16.0, **SLIDING), (1280,)),
        again(drafted(served("LlamaForCausalLM", attention="matmul", cache="Q6"), layers=5, cache="Q6"), (1280,)),
        (served("LlamaForCausalLM"), (256, 1024, 1280, 2304)),
        (served("LlamaForCausalLM", cache="Q4", batch_size=3), (256, 1792)),
        (served("LlamaForCausalLM", cache="Q8", cache_size=4096, batch_size=5), (256, 768, 4096)),
        (served("LlamaForCausalLM", lazy=True, max_input_len=256), (512, 1280)),
        (served("LlamaForCausalLM", attention="matmul", cache="Q4"), (256, 2304)),
        (served("Qwen2ForCausalLM", attention="sdpa", cache="Q6"), (1280,)),
        (served("MistralForCausalLM", more=SLIDING, batch_size=2), (256, 1536)),
        (served("Gemma2ForCausalLM", 11, SLIDING, batch_size=2), (1280,)),
        (served("MixtralForCausalLM", 7, FOUR_EXPERTS), (1024,)),
        (served("LlamaForCausalLM", bpw=16.0, head_bits=None, batch_size=2), (1280,)),
        (served("LlamaForCausalLM", allocator="expandable", batch_size=2), (2304,)),
        (served("LlamaForCausalLM", more={"max_position_embeddings": 1024}, max_input_len=2048), (256, 1024, 4096)),
        (served("LlamaForCausalLM", more={"max_position_embeddings": 1024}, batch_size=4, cache_size=4096), (4096,)),
        (served("LlamaForCausalLM", draft="ngram", num_draft_tokens=4), (256, 2560)),
        again(served("LlamaForCausalLM", draft="ngram", num_draft_tokens=7, batch_size=6, cache="Q6"), (512, 1280)),
        (served("LlamaForCausalLM", draft="ngram", num_draft_tokens=3, attention="matmul"), (1280,)),
        # Jobs of no whole pages: the one that goes first alone, or all of them.
        (served("LlamaForCausalLM", max_seq_len=1000, cache_size=4096, batch_size=2), (1000,)),
        (served("LlamaForCausalLM", max_seq_len=1001, cache_size=1024, batch_size=2, cache="Q6"), (1001,)),
        (served("LlamaForCausalLM", load_as="tabbyapi", cache="Q4", batch_size=2), (256, 1024, 2560)),
        (served("LlamaForCausalLM", load_as="tabbyapi", lazy=True, max_input_len=512), (256, 1280)),
        again(served("Qwen2ForCausalLM", load_as="tabbyapi", attention="sdpa", cache_size=4096), (512, 2304)),
        again(served("MixtralForCausalLM", 7, FOUR_EXPERTS, load_as="tabbyapi"), (512, 1024)),
    ],
    ids=lambda value: (
        "-".join(
            str(each)
            for each in (
                value.model.config["architectures"][0],
                value.cache,
                value.attention,
                value.batch_size,
                value.draft,
                value.load_as,
            )
        )
        if isinstance(value, Case)
        else ""
    ),
)
def test_it_is_predicted_to_the_byte(layouts: Path, search: Case, lengths: tuple[int, ...]) -> None:
    assert_predicted(layouts, Search(search), lengths)


@pytest.mark.parametrize(
    ("case", "lengths"),
    [
        (served("LlamaForCausalLM", max_seq_len=1024, batch_size=3), (1024, 1792, 4096)),
        again(served("LlamaForCausalLM", max_seq_len=1300, batch_size=2, cache="Q4"), (1536, 2048, 8192)),
        (served("LlamaForCausalLM", max_seq_len=900, lazy=True, attention="matmul"), (1024, 2304)),
    ],
    ids=str,
)
def test_it_is_predicted_by_the_length_of_the_cache(layouts: Path, case: Case, lengths: tuple[int, ...]) -> None:
    assert_predicted(layouts, Search(case, Axis.CACHE_SIZE), lengths)


def assert_predicted(layouts: Path, search: Search, lengths: tuple[int, ...]) -> None:
    """On cards where all fits, and where hardly or not all does."""
    trace = trace_of(search.longest, layouts, search.axis)
    if search.longest.bpw != 16.0 and search.longest.draft_bpw != 16.0:  # a width that was not recorded
        search = search.along(replace(search.longest, bpw=5.3))
    replayer = Replayer(trace, tensor_bytes_of(search.longest, layouts))
    for length in lengths:
        case = search.at(length)
        need, _ = simulate(case, layouts)
        assert predict(replayer, case, length) == need, length
        for limit_bytes in (need.peak_reserved_bytes - 1, need.peak_allocated_bytes - 2 * MIB):
            limited = replace(case, vram_limit_bytes=limit_bytes)
            assert predict(replayer, limited, length) == simulate(limited, layouts)[0], (length, limit_bytes)


@pytest.mark.parametrize(
    "axes",
    [
        {"max_seq_len": 2560},
        {"max_seq_len": 1024, "cache_size": 8192},
        {
            "max_seq_len": 4096,
            "cache_size": 4096,
            "batch_size": 3,
        },  # one job of the whole cache, then three that share it
        {"max_seq_len": 768, "batch_size": 4},
        {"max_seq_len": 2304, "attention": "matmul"},
        {"max_seq_len": 2560, "draft": "ngram", "num_draft_tokens": 4, "batch_size": 2},
        {"max_seq_len": 1536, "draft": "model"},
        {"max_seq_len": 768, "draft": "model", "batch_size": 3},
    ],
    ids=str,
)
def test_a_cases_passes_are_those_of_the_engine(layouts: Path, axes: dict[str, Any]) -> None:
    case = served("LlamaForCausalLM", 2, **{"attention": "flash", **axes})
    if axes.get("draft") == "model":
        case = drafted(case, layers=3)
    sections = recorder.record(case, layouts).sections
    setup = Setup(
        False,
        case.max_input_len,
        1,
        case.attention,
        8192,
        scenario=case.scenario,
        jobs=case.batch_size,
        cache_size=case.cache_size,
        draft_tokens=case.num_draft_tokens or 0,
        draft=None if case.draft_model is None else {},
    )
    passes = schedule(case.max_seq_len, setup)
    assert [(each.q_len, each.k_len) for each in passes] == [(s.q_len, s.k_len) for s in sections]
    scattered = [each.kind for each in passes if each.kind.endswith("_scattered")]
    # The last of the jobs that fill the whole cache has its last pages around its end, and is decoded with the others.
    fills = case.attention == "flash" and case.cache_tokens == case.max_seq_len * case.batch_size
    assert bool(scattered) == (fills or case.batch_size == 3)


def test_what_it_takes_beside_the_forward_pass(run: Callable[[Case], Run]) -> None:
    """K and V of a chunk on scattered pages, a page to defragment the cache with, and a block table."""
    four = ("model=llama_3_1_8b", "model.config.num_hidden_layers=4", "max_seq_len=8192")
    forward, generator = (run(catalogue_case(*four, f"scenario={name}")) for name in ("forward", "generator"))
    more = {name: (generator.parts[name] or 0) - (forward.parts[name] or 0) for name in forward.parts}
    page = PAGE * KV_BYTES // 2
    assert more.pop("cache_bytes") == page  # keys and values are of one shape, and share it
    assert 0 <= 2048 * KV_BYTES - more.pop("attention_bytes") <= 64 << 10  # the last chunk is five tokens shorter
    assert set(more.values()) == {0}


def test_a_draft_model_has_weights_and_a_cache_of_its_own(run: Callable[[Case], Run]) -> None:
    """Beside those: its own scratch and RoPE tables, as large as the model's of the same shape."""
    four = ("model=llama_3_1_8b", "model.config.num_hidden_layers=4", "scenario=generator", "max_seq_len=2048")
    itself = ("draft.model=llama_3_1_8b", "draft.model.config.num_hidden_layers=2", "draft.cache=Q4")
    alone, with_draft = run(catalogue_case(*four)), run(catalogue_case(*four, *itself))
    parts = {name: (with_draft.parts[name] or 0, alone.parts[name] or 0) for name in alone.parts}
    both, own = parts.pop("draft_weights_bytes")
    assert (both > 2 * parts["weights_bytes"][1] / 5, own) == (True, 0)
    pages = 2048 * KV_BYTES // 2  # of FP16 keys or values of a layer
    assert parts.pop("draft_cache_bytes")[0] == pytest.approx(4 * pages * 9 / 32 + 2 * pages, abs=4096)
    for part in ("scratch_bytes", "rope_bytes"):
        both, own = parts.pop(part)
        assert both == 2 * own
    assert parts["weights_bytes"][0] == parts["weights_bytes"][1]


def test_jobs_share_the_cache_that_they_are_given(run: Callable[[Case], Run]) -> None:
    four = ("model=llama_3_1_8b", "model.config.num_hidden_layers=4", "scenario=generator")
    one = run(catalogue_case(*four, "max_seq_len=8192"))
    shared = run(catalogue_case(*four, "max_seq_len=2048", "batch_size=4", "cache_size=8192"))
    each = run(catalogue_case(*four, "max_seq_len=2048", "batch_size=4"))
    assert one.parts["cache_bytes"] == shared.parts["cache_bytes"] == each.parts["cache_bytes"]
    assert (one.parts["rope_bytes"] or 0) > (shared.parts["rope_bytes"] or 0)  # as long as one job


def test_every_job_gets_its_tokens() -> None:
    case = catalogue_case("model=llama_3_1_8b", "scenario=generator", "max_seq_len=1024", "batch_size=3")
    steps = steps_of(case)
    begun = [step for step in steps if step.new_tokens]
    assert [step.jobs for step in begun] == [1, 3, 3]
    assert begun[1].tokens + begun[1].new_tokens == 1024


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["batch_size=2", "attention=matmul"], "takes one job at a time; give batch_size=1"),
        (["max_input_len=1000"], "whole pages of 256 tokens; give 768"),
        (["batch_size=300"], "takes 256 jobs at a time; give max_batch_size=300 and max_input_len=2560"),
        (["max_batch_size=300"], "give max_input_len=2560, or fewer jobs"),
    ],
)
def test_what_the_generator_asserts_is_told_before(run: Callable[[Case], Run], overrides: list[str], told: str) -> None:
    case = catalogue_case("model=llama_3_1_8b", "scenario=generator", "max_seq_len=4096", *overrides)
    with pytest.raises(Unsupported, match=told):
        run(case)


def test_what_it_reserves_on_the_host_is_told(run: Callable[[Case], Run]) -> None:
    """By default it has room for the logits of 256 jobs, 8 tokens each, as fp32: 1.05 GB of Llama-3's vocabulary."""
    two = ("model=llama_3_1_8b", "model.config.num_hidden_layers=2", "scenario=generator", "max_seq_len=1024")
    (result,) = run(catalogue_case(*two)).of(Result)
    assert result.host_buffers_bytes == 256 * 8 * 128_256 * 4 + 1024 * 8
    (result,) = run(catalogue_case(*two, "max_batch_size=4")).of(Result)
    assert result.host_buffers_bytes == 4 * 8 * 128_256 * 4 + 1024 * 8
    (result,) = run(catalogue_case(*two[:2], "max_seq_len=1024")).of(Result)
    assert result.host_buffers_bytes is None
