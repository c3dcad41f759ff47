"""What exllamav3 would refuse, or lose, of a case: known before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.core.case import PAGE, Case
from bench.engines.reading import find_number

_SCALED = 32  # values that share a scale in a quantised cache (exllamav3/cache/quant.py, CacheLayer_quant)
_LATENT = "kv_lora_rank"  # of layers whose cache holds no keys and values but what both are made of


def refusal(case: Case) -> str | None:
    """Why a case cannot be run, and what to give in its place; None where it can."""
    if case.vision:
        return "vision=true: exllamav3's vision towers are not loaded here; leave vision out"
    return _lossy_cache(case.cache, case.model.config) or _measured_chunk(case)


def _measured_chunk(case: Case) -> str | None:
    """Autosplit forwards a whole chunk through every module as it is loaded (exllamav3/model/model_ls.py)."""
    chunk = case.max_input_len
    if not case.lazy and case.split is None:
        return None
    if chunk % PAGE:
        given = [str(each) for each in (chunk // PAGE * PAGE, -(-chunk // PAGE) * PAGE) if each]
        return (
            f"max_input_len={chunk}: exllamav3's autosplit measures a chunk in whole pages of {PAGE} tokens; give "
            + " or ".join(given)
        )
    if chunk > case.cache_tokens:
        return (
            f"max_input_len={chunk}: exllamav3's autosplit measures a whole chunk, and the cache has room for "
            f"{case.cache_tokens} tokens; give max_input_len={case.cache_tokens} or less, or load=single"
        )
    return None


def is_latent(config: Mapping[str, Any]) -> bool:
    """Whether a config.json (parsed) is of multi-head latent attention."""
    return find_number(config, _LATENT) is not None


def _lossy_cache(cache: str, config: Mapping[str, Any]) -> str | None:
    """The engine makes room for whole groups alone, and writes all values: the last of them would be lost."""
    heads, hidden = find_number(config, "num_attention_heads"), find_number(config, "hidden_size")
    if cache == "FP16" or is_latent(config) or not heads:
        return None
    kv_heads = find_number(config, "num_key_value_heads") or heads
    head_dim = find_number(config, "head_dim") or (hidden or 0) // heads
    if kv_heads * head_dim % _SCALED == 0:
        return None
    return (
        f"cache={cache}: keys of {kv_heads:g} heads x {head_dim:g} are no multiple of {_SCALED}, and exllamav3's "
        "quantised cache would lose the rest; give cache=FP16"
    )
