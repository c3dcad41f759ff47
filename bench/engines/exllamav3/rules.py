"""What the parent computes of exllamav3: what is predicted of it, what it will get wrong, what to copy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bench.allocator.limits import case_limits, compute_capability
from bench.core.case import PAGE, UNQUANTISED_BPW, Case
from bench.engines.base import EngineRules, PredictionRules
from bench.engines.exllamav3.architectures import ARCHITECTURES
from bench.engines.exllamav3.notes import notes
from bench.engines.exllamav3.refusals import refusal
from bench.engines.exllamav3.setup import Setup, unread_setup
from bench.engines.exllamav3.snippets import snippets
from bench.engines.exllamav3.version import ENGINE
from bench.trace.passes import NoPrediction

if TYPE_CHECKING:
    from bench.trace.parametric import ParametricTrace
    from bench.trace.split import SplitTrace
    from bench.trace.split_replay import SplitReplayer

_HOPPER = (9, 0)  # from there on more bits run on int8 (exllamav3_ext/quant/exl3_gemv_int8.cu)


def _unpredicted(case: Case) -> str | None:
    """Why nothing is predicted of a case."""
    if case.model.architecture not in ARCHITECTURES:
        return f"Unsupported: {ENGINE} does not know the architecture {case.model.architecture}"
    if case.turns > 1:
        # Experts and the first tokens of jobs took some KiB less, or more, than predicted.
        return "exllamav3 is not predicted with several turns: a sweep finds how far it goes, by runs"
    if case.more_devices:
        return "exllamav3 is not predicted on several cards: a sweep finds how far it goes, by runs"
    if case.lazy and case.max_input_len % PAGE:
        return f"exllamav3 does not load by autosplit in chunks that are no whole pages of {PAGE} tokens"
    if case.bpw == UNQUANTISED_BPW:
        return "exllamav3 is predicted with EXL3 weights alone: a sweep finds how far others go, by runs"
    return None


def _kind_of_cards(case: Case) -> object:
    """Its multiprocessors share out the keys of a long prompt, and experts; its generation has other kernels."""
    return case_limits(case.device, None, case).num_sms, compute_capability(case.device) >= _HOPPER


def _with_cache(trace: ParametricTrace, cache: str) -> ParametricTrace:
    """Each type is recorded by itself."""
    return trace


def _with_loading(trace: ParametricTrace, loading: ParametricTrace) -> ParametricTrace:
    from bench.engines.exllamav3.loading import with_loading  # with NumPy, which most plans do without

    return with_loading(trace, loading)


def _split_replayer(trace: SplitTrace, tensor_bytes: Mapping[str, int], case: Case) -> SplitReplayer:
    raise NoPrediction(str(_unpredicted(case)))


def _load_compiled() -> None:
    """Nothing is compiled."""


RULES = EngineRules(
    refusal=refusal,
    prediction=PredictionRules(
        kind_of_cards=_kind_of_cards,
        setup=Setup,
        unread_setup=unread_setup,
        load_compiled=_load_compiled,
        with_cache=_with_cache,
        split_replayer=_split_replayer,
        with_loading=_with_loading,
        unpredicted=_unpredicted,
    ),
    notes=notes,
    snippets=snippets,
)
