"""Choices that exllamav3 leaves to its caller, and what it made of a config.json."""

from __future__ import annotations

from typing import Any

from bench.core.case import DEFAULT_SCENARIO, Case
from bench.engines.reading import Reading, Rope
from bench.worker.engines.exllamav3.served import cache_options

_ATTENTION = "triton"  # its own kernels, for all that it runs on Ampere and later (attention_fn/dispatch.py)


def cache_of(model: Any, case: Case, key_bits: int, value_bits: int) -> Any:
    """An exllamav3 Cache for all sequences of `case`: its tensors are made as the layers are loaded.

    Layers with a state instead of a cache, and rings of sliding windows, get a slot for each sequence; of a generator's
    cache, for as many jobs as it takes.
    """
    from exllamav3 import Cache, CacheLayer_fp16, CacheLayer_quant

    kwargs: dict[str, Any] = {"layer_type": CacheLayer_fp16}
    if key_bits < 16:
        kwargs = {"layer_type": CacheLayer_quant, "k_bits": key_bits, "v_bits": value_bits}
    more = {"max_batch_size": case.batch_size} if case.scenario == DEFAULT_SCENARIO else cache_options(case)
    return Cache(model, max_num_tokens=case.cache_tokens, **more, **kwargs)


def read_back(model: Any) -> Reading:
    """What the engine made of a config.json."""
    attentions = [module for module in model if hasattr(module, "num_q_heads") and hasattr(module, "rope_settings")]
    experts = max((getattr(module, "num_experts", None) or 1 for module in model), default=1)
    windows = tuple(max(0, getattr(module, "sliding_window", 0) or 0) for module in attentions)
    return Reading(_ATTENTION, int(model.config.head_dim), experts, windows, _rope(attentions))


def _rope(attentions: list[Any]) -> Rope | None:
    """Of the layers without a window; that of those with one is told beside it."""
    whole = [each for each in attentions if each.rope_settings is not None and not _slides(each)]
    sliding = [each for each in attentions if each.rope_settings is not None and _slides(each)]
    if not (whole or sliding):
        return None
    settings = (whole or sliding)[0].rope_settings
    window_base = float(sliding[0].rope_settings.rope_theta) if whole and sliding else None
    scaling = settings.rope_scaling or {}
    kind = str(scaling.get("rope_type") or scaling.get("type") or "default")
    numbers = {
        key: float(value)
        for key, value in scaling.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return Rope(float(settings.rope_theta), window_base, kind, numbers, float(settings.partial_rotary_factor))


def _slides(attention: Any) -> bool:
    return (getattr(attention, "sliding_window", 0) or 0) > 0
