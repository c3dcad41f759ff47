"""Several cards: what is predicted is what runs there, on each card to the byte; or nothing is predicted."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.allocator.limits import MachineLimits, case_limits
from bench.core.case import Case
from bench.engines.exllamav2.quantised_caches import with_cache
from bench.engines.exllamav2.spec import SPEC
from bench.engines.exllamav2.splits import split_replayer
from bench.forecast.predict import predict as forecast
from bench.trace.passes import NoPrediction
from bench.trace.split import SplitTrace
from bench.worker import recorder
from tests.worker.predicted_and_simulated import assert_as_it_ran, case_of, little_garbage, run, tensor_bytes_of

MIB = 1 << 20
KINDS = (("8.6", 28), ("8.9", 128), ("9.0", 132), ("7.5", 40))


@pytest.fixture(scope="module", autouse=True)
def fast() -> Iterator[None]:
    with little_garbage():
        yield


def trace_of(case: Case, layouts: Path) -> SplitTrace:
    """A search on several cards, as `bench.forecast.library` has it."""
    trace = recorder.make_trace(replace(case, cache=SPEC.caches[case.cache].recorded_as), layouts)
    assert isinstance(trace, SplitTrace)
    return trace.with_cache(with_cache, case.cache)


def on_cards(case: Case, sizes_mib: tuple[float, ...], split: str) -> Case:
    """The case on cards of these sizes, each of another kind."""
    devices = [
        replace(
            case.device,
            total_memory_bytes=int(size * MIB),
            compute_capability=kind,
            multi_processor_count=multiprocessors,
        )
        for size, (kind, multiprocessors) in zip(sizes_mib, KINDS, strict=False)
    ]
    return replace(case, device=devices[0], more_devices=tuple(devices[1:]), split=split)


def limits(case: Case) -> MachineLimits:
    return MachineLimits.of(case_limits(device, None, case) for device in case.devices)


def machines(need_mib: float, seed: int, count: int) -> Iterator[tuple[tuple[float, ...], str]]:
    """Cards that together have about what is needed, and what is kept free on them."""
    chosen = random.Random(seed)
    for number in range(count):
        shares = [chosen.uniform(0.3, 1) for _ in range(2 + number % 2)]
        total = need_mib * chosen.uniform(0.95, 1.3) + 300 * len(shares)
        reserve = ["0", "8", "24"][number % 3]
        sizes = tuple(total * share / sum(shares) for share in shares)
        yield sizes, f"auto({','.join([reserve] * len(shares))})"


@pytest.mark.parametrize(
    ("architecture", "axes"),
    [
        ("CohereForCausalLM", {"max_input_len": 256}),
        ("Qwen2ForCausalLM", {"cache": "Q4", "attention": "sdpa", "allocator": "expandable"}),
        ("LlamaForCausalLM", {"cache": "Q8", "scenario": "generator", "batch_size": 3}),
        # One card that is filled so is in test_generator.py, and several that are given as a gpu_split are below.
        pytest.param(
            "LlamaForCausalLM",
            {"cache": "Q4", "scenario": "generator", "batch_size": 2, "load_as": "tabbyapi"},
            marks=pytest.mark.thorough,
        ),
    ],
)
def test_cards_that_are_filled_one_after_the_other(layouts: Path, architecture: str, axes: dict[str, Any]) -> None:
    assert_predicted(layouts, architecture, axes, 3)


@pytest.mark.parametrize(("cache", "load_as"), [("FP16", None), ("Q4", "tabbyapi")])
def test_a_generator_takes_its_pages_on_every_card_that_has_keys_and_values(
    layouts: Path, cache: str, load_as: str | None
) -> None:
    """With a gpu_split nothing else is as large as the peak: what autosplit tries while it loads hides them."""
    axes = {"cache": cache, "scenario": "generator", "batch_size": 2, "load_as": load_as}
    split = "gpu_split(0.08,0.06,9)"
    search = on_cards(case_of("LlamaForCausalLM", 12, **axes), (1 << 20, 1 << 20, 1 << 20), split)
    replayer = split_replayer(trace_of(search, layouts), tensor_bytes_of(search, layouts), search)
    if load_as is not None:
        with pytest.raises(NoPrediction, match="makes chunks as short"):
            forecast(replayer, limits(search), 512)
    for length in (512, 2560) if load_as is None else (2304, 2560):
        case = replace(search, max_seq_len=length)
        predicted = replayer.replay(length, limits(case))
        assert sum(layers > 0 for layers in predicted.attention_layers) > 1
        assert_as_it_ran(predicted, run(case, layouts))


def assert_predicted(layouts: Path, architecture: str, axes: dict[str, Any], count: int) -> set[str]:
    """That some machines are predicted, and as they run; how they end."""
    search = on_cards(case_of(architecture, 12, lazy=True, **axes), (1 << 20, 1 << 20), "auto(0,0)")
    trace, tensor_bytes = trace_of(search, layouts), tensor_bytes_of(search, layouts)
    replayer = split_replayer(trace, tensor_bytes, search)
    seen: list[str] = []
    length = 2560
    need = replayer.replay(length, limits(search), endless=True).peak_allocated_bytes / MIB
    for sizes, split in machines(need, len(architecture), count):
        case = replace(on_cards(search, sizes, split), max_seq_len=length)
        replayer = split_replayer(trace, tensor_bytes, case)
        try:
            predicted = replayer.replay(length, limits(case))
        except NoPrediction as reason:
            seen.append(str(reason))
            continue
        ended = run(case, layouts)
        assert_as_it_ran(predicted, ended)
        seen.append(ended.failed_in or "fits")
    assert "fits" in seen
    return set(seen)
