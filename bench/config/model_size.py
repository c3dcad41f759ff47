"""About how many weights a model has on the card, by the sizes that its config.json names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_UNGATED_ACTIVATIONS = ("relu2", "xielu")  # whose MLPs have two matrices, where all others have a gate, too
_UNGATED = "Starcoder2ForCausalLM"
_OF_OTHER_LAYERS = ("hybrid_override_pattern", "hybrid_layer_pattern", "block_configs")  # layers that differ in kind
_Size = Callable[..., int]


def weights_of(config: Mapping[str, Any]) -> int | None:
    """All linear layers, every expert and the output layer, without the embedding, which stays on the host; None where
    a size is not told, or layers are of kinds that are not counted here.

    `config` is a config.json, parsed. Vision towers are left out. It is for putting models in an order, and for leaving
    out what cannot fit: from 8B on it is within 12 % of what the names of the catalogue's models say.
    """
    nested = config.get("text_config")
    told = {**config, **(nested if isinstance(nested, Mapping) else {})}

    def size(*keys: str) -> int:
        return next((value for key in keys if isinstance(value := told.get(key), int) and value > 0), 0)

    hidden, layers, heads = size("hidden_size"), size("num_hidden_layers"), size("num_attention_heads")
    vocabulary = size("vocab_size")
    experts = size("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts")
    wide, narrow = size("intermediate_size"), size("moe_intermediate_size", "intermediate_size")
    if not (hidden and layers and heads and vocabulary and (narrow if experts else wide)):
        return None
    if any(told.get(key) for key in _OF_OTHER_LAYERS):
        return None
    architectures = config.get("architectures")
    ungated = told.get("hidden_act") in _UNGATED_ACTIVATIONS or _UNGATED in (architectures or ())
    matrix = hidden * (2 if ungated else 3)
    shared = size("n_shared_experts", "num_shared_experts", "moe_num_shared_experts") * narrow
    shared += size("shared_expert_intermediate_size")
    dense = min(size("first_k_dense_replace", "num_dense_layers"), layers) if experts else layers
    mlps = matrix * (dense * wide + (layers - dense) * (experts * narrow + shared))
    linear = _linear_layers(told, layers, size)
    full = _latent(hidden, heads, size) if size("kv_lora_rank") else _attention(hidden, heads, told, size)
    return linear * _linear(hidden, size) + (layers - linear) * full + mlps + hidden * vocabulary


def _attention(hidden: int, heads: int, told: Mapping[str, Any], size: _Size) -> int:
    """Queries, keys, values and output, and the gate of those that have one."""
    columns, is_gated = size("head_dim") or hidden // heads, bool(told.get("attn_output_gate"))
    return hidden * columns * ((2 + is_gated) * heads + 2 * (size("num_key_value_heads") or heads))


def _latent(hidden: int, heads: int, size: _Size) -> int:
    """The same of latent attention (DeepSeek-V2 and later): ranks in between."""
    plain, turned, values = size("qk_nope_head_dim"), size("qk_rope_head_dim"), size("v_head_dim")
    rank, query_rank = size("kv_lora_rank"), size("q_lora_rank")
    queries = heads * (plain + turned) * (query_rank or hidden) + hidden * query_rank
    return queries + hidden * (rank + turned) + rank * heads * (plain + values) + heads * values * hidden


def _linear_layers(told: Mapping[str, Any], layers: int, size: _Size) -> int:
    """How many layers have states in place of keys and values (Qwen3-Next, Qwen3.5)."""
    if not size("linear_num_value_heads"):
        return 0
    kinds = told.get("layer_types")
    if isinstance(kinds, list):
        return kinds.count("linear_attention")
    return layers - layers // (size("full_attention_interval") or 4)


def _linear(hidden: int, size: _Size) -> int:
    """Queries, keys, values, gate and output of such a layer."""
    keys = size("linear_num_key_heads") * size("linear_key_head_dim")
    return hidden * (2 * keys + 3 * size("linear_num_value_heads") * size("linear_value_head_dim"))
