"""What the parent computes of ExLlamaV2: which passes it makes, what it will get wrong, what to copy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bench.allocator.limits import supports_flash_attention
from bench.core.case import Case
from bench.core.split import Split, SplitBy
from bench.engines.base import EngineRules, PredictionRules
from bench.engines.exllamav2.notes import notes
from bench.engines.exllamav2.refusals import refusal
from bench.engines.exllamav2.setup import Setup, unread_setup
from bench.engines.exllamav2.snippets import snippets

if TYPE_CHECKING:
    from bench.engines.exllamav2.splits import AnySplitReplayer
    from bench.trace.parametric import ParametricTrace
    from bench.trace.split import SplitTrace

_SAMPLED_IN_THREADS = 3  # jobs, generator/dynamic.py: min_sampling_threads


def _kind_of_cards(case: Case) -> object:
    """Whether flash-attn runs, and where every layer is divided among them, how many there are."""
    supported = all(map(supports_flash_attention, case.devices))
    is_divided = case.split is not None and Split.parse(case.split).by is SplitBy.TENSOR_PARALLEL
    return [supported, len(case.devices)] if is_divided else supported


def _unpredicted(case: Case) -> str | None:
    if case.more_devices and case.cache_size is not None:  # one of three cases differed
        return "jobs that share a cache_size on several cards are not predicted: a sweep finds how far it goes, by runs"
    if case.turns > 1 and (case.more_devices or case.draft_model is not None):
        return "several turns on several cards, or with a draft model, are not predicted: a sweep finds it, by runs"
    if case.vision and case.more_devices:
        return "a vision tower before a model on several cards is not predicted: a sweep finds how far it goes, by runs"
    if case.draft_model is not None and case.batch_size >= _SAMPLED_IN_THREADS:
        # Two of some forty boundaries were not as predicted, and why was not found.
        return (
            f"a draft model with {_SAMPLED_IN_THREADS} jobs or more is not predicted: a sweep finds how far it goes, "
            "by runs"
        )
    if case.vision and case.draft_model is not None:
        return "a vision tower beside a draft model is not predicted: a sweep finds how far it goes, by runs"
    return None


# What only replays need is imported by the first of them, with NumPy: most plans have been answered before.


def _with_cache(trace: ParametricTrace, cache: str) -> ParametricTrace:
    from bench.engines.exllamav2.quantised_caches import with_cache

    return with_cache(trace, cache)


def _split_replayer(trace: SplitTrace, tensor_bytes: Mapping[str, int], case: Case) -> AnySplitReplayer:
    from bench.engines.exllamav2.splits import split_replayer

    return split_replayer(trace, tensor_bytes, case)


def _load_compiled() -> None:
    from bench.engines.exllamav2.chunks import load_compiled

    load_compiled()


RULES = EngineRules(
    refusal=refusal,
    prediction=PredictionRules(
        kind_of_cards=_kind_of_cards,
        setup=Setup,
        unread_setup=unread_setup,
        load_compiled=_load_compiled,
        with_cache=_with_cache,
        split_replayer=_split_replayer,
        unpredicted=_unpredicted,
    ),
    notes=notes,
    snippets=snippets,
)
