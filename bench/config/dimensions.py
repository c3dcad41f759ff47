"""Refuses absurd numbers in a config.json, by their key, before they are used.

An engine takes 0 layers, -4096 columns or 10^30 words as they are, `true` as 1, and fails over them later: in a
division, in an endless loop over layers, or with gigabytes of tensors that it was asked for. What it refuses itself,
such as a text for a number, is left to it (bench/worker/readable.py). For lengths see lengths.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.config.units import number_in_words
from bench.core.case import MAX_SEQ_LEN


@dataclass(frozen=True)
class _Range:
    """What one of `keys` may be; `part.key` is a key within an object. `above` is a limit that is no value itself."""

    keys: tuple[str, ...]
    least: float
    most: float
    above: bool = False

    @property
    def _is_whole(self) -> bool:
        return not self.above and self.most != math.inf

    def allows(self, value: float) -> bool:
        above = self.least < value if self.above else self.least <= value
        if not above or value > self.most:
            return False
        return isinstance(value, int) or (math.isfinite(value) and (not self._is_whole or value.is_integer()))

    def __str__(self) -> str:
        if self.most == math.inf:
            return "a number" if self.least == -math.inf else "a positive number"
        if self.above:
            return f"a number above {self.least:g}, up to {self.most:g}"
        return f"a whole number from {int(self.least):,} to {int(self.most):,}"


_POSITIVE = (0, math.inf, True)
_ANY = (-math.inf, math.inf)
# In the order in which the engine reads them. No published model comes near to what is the most: the deepest has some
# 200 layers, the widest 20,480 columns, Kimi-K2 384 experts in each of 61 layers.
_RANGES = (
    _Range(("bos_token_id", "eos_token_id", "pad_token_id"), -(1 << 22), 1 << 22),
    _Range(("vocab_size",), 1, 1 << 22),
    _Range(("num_hidden_layers", "n_layers", "n_layer"), 1, 1024),
    _Range(("hidden_size", "d_model", "n_embd"), 1, 1 << 18),
    _Range(("num_attention_heads", "n_heads", "n_head"), 1, 4096),
    _Range(("head_dim",), 1, 4096),
    _Range(("num_key_value_heads", "attn_config.kv_n_heads"), 1, 4096),
    _Range(("query_pre_attn_scalar",), *_POSITIVE),
    _Range(("intermediate_size", "ffn_config.ffn_hidden_size", "n_inner", "moe_intermediate_size"), 1, 1 << 20),
    _Range(("num_local_experts", "ffn_config.moe_num_experts", "num_experts"), 0, 4096),
    _Range(("num_experts_per_tok", "ffn_config.moe_top_k"), 0, 4096),
    _Range(("dim_model_base",), 1, 1 << 18),
    _Range(("logit_scale", "logits_scaling", "scale_emb", "embedding_multiplier", "attention_multiplier"), *_ANY),
    _Range(("residual_multiplier", "scale_depth", "attn_logit_softcapping", "final_logit_softcapping"), *_ANY),
    _Range(("rope_theta", "attn_config.rope_theta", "rope_parameters.rope_theta"), *_POSITIVE),
    _Range(("sliding_window", "sliding_window_size"), -1, MAX_SEQ_LEN),
    _Range(("sliding_window_pattern",), 0, 1024),
    _Range(("partial_rotary_factor", "rope_parameters.partial_rotary_factor"), 0, 1, True),
    _Range(("rope_scaling.factor", "rope_scaling.low_freq_factor", "rope_scaling.high_freq_factor"), *_POSITIVE),
    _Range(("rope_scaling.original_max_position_embeddings", "original_max_position_embeddings"), 1, MAX_SEQ_LEN),
)
_LAYERS, _EXPERTS, _VOCABULARY, _WIDTH, _HEADS, _HEAD_DIM, _MLP = (
    next(each for each in _RANGES if key in each.keys)
    for key in (
        *("num_hidden_layers", "num_experts", "vocab_size", "hidden_size"),
        *("num_attention_heads", "head_dim", "intermediate_size"),
    )
)
_MOST_EXPERTS = 1 << 16  # of all layers together
# Products, with room above what is published: 128 heads of 192 columns, 2^31 numbers in an embedding (262,144 tokens
# of 8,192), 2 · 10^12 weights.
_MOST_HEAD_COLUMNS = 1 << 18
_MOST_EMBEDDED = 1 << 33
_MOST_WEIGHTS = 10**13


# Objects in which the engine looks for keys without a look at what they are.
_OBJECTS = ("text_config", "vision_config", "quantization_config", "ffn_config", "attn_config")


def absurdity(config: Mapping[str, Any]) -> str | None:
    """The first number of `config` (a config.json, parsed) that no model has, and what is allowed there; else None."""
    for key in _OBJECTS:
        if config.get(key) and not isinstance(config[key], Mapping):
            return f"{key} is {_shortened(json.dumps(config[key]))}; write an object there, or null"
    for allowed in _RANGES:
        for key, value in _told(config, allowed):
            if isinstance(value, bool):
                return f"{key} is {json.dumps(value)}; write {allowed} there"
            if isinstance(value, int | float) and not allowed.allows(value):
                return f"{key} is {number_in_words(value)}; write {allowed} there"
    layers, experts = (next(_numbers(config, allowed), ("", 0)) for allowed in (_LAYERS, _EXPERTS))
    if layers[1] * experts[1] > _MOST_EXPERTS:
        return (
            f"{layers[0]} is {layers[1]:,} and {experts[0]} is {experts[1]:,}; a model of more than {_MOST_EXPERTS:,} "
            "experts is not measured"
        )
    return _too_large(config)


def _too_large(config: Mapping[str, Any]) -> str | None:
    """Of numbers that are each allowed, which are too much together; None where none are."""
    layers, experts, vocabulary, width, heads, head_dim, mlp = (
        max(_numbers(config, allowed), key=lambda told: told[1], default=(allowed.keys[0], 1))
        for allowed in (_LAYERS, _EXPERTS, _VOCABULARY, _WIDTH, _HEADS, _HEAD_DIM, _MLP)
    )
    if heads[1] * head_dim[1] > _MOST_HEAD_COLUMNS:
        return f"{_both(heads, head_dim)}; write numbers there of which the product is {_MOST_HEAD_COLUMNS:,} at most"
    if vocabulary[1] * width[1] > _MOST_EMBEDDED:
        return f"{_both(vocabulary, width)}; write numbers there of which the product is {_MOST_EMBEDDED:,} at most"
    each_layer = 4 * width[1] * max(width[1], heads[1] * head_dim[1]) + 3 * width[1] * mlp[1] * max(1, experts[1])
    weights = layers[1] * each_layer
    if weights > _MOST_WEIGHTS:
        told = ", ".join(f"{key} is {value:,}" for key, value in (layers, width, mlp, experts) if value > 1)
        return f"{told}: some 10^{len(str(weights)) - 1} weights; models of up to 10^13 are measured"
    return None


def _both(first: tuple[str, int], second: tuple[str, int]) -> str:
    return f"{first[0]} is {first[1]:,} and {second[0]} is {second[1]:,}"


def _told(config: Mapping[str, Any], allowed: _Range) -> Iterator[tuple[str, Any]]:
    """Each of the keys that there is, as it is named in config.json, and its value."""
    text = config.get("text_config")
    for prefix, scope in (("", config), ("text_config.", text)):
        for key in allowed.keys:
            part, _, name = key.rpartition(".")
            where = scope.get(part) if part and isinstance(scope, Mapping) else scope
            if isinstance(where, Mapping) and where.get(name) is not None:
                yield prefix + key, where[name]


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:39]}…"


def _numbers(config: Mapping[str, Any], allowed: _Range) -> Iterator[tuple[str, int]]:
    return ((key, int(value)) for key, value in _told(config, allowed) if isinstance(value, int | float))
