"""Which projections of a model have a bias. exllamav3 takes those that are there, and config.json says it half.

What its keys mean differs by architecture, as in transformers' modeling files. A checkpoint's own headers know best.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_QKV = frozenset({"q_proj", "k_proj", "v_proj"})
_ATTENTION = _QKV | {"o_proj"}
_MLP = frozenset({"gate_proj", "up_proj", "down_proj"})
_LATENT = frozenset({"q_a_proj", "kv_a_proj_with_mqa", "o_proj"})

# Always, whatever config.json says.
_ALWAYS = {
    "Qwen2ForCausalLM": _QKV,
    "Qwen2_5_VLForConditionalGeneration": _QKV,
    "MiMoForCausalLM": _QKV,
    "Glm4vForConditionalGeneration": _QKV,
    "GptOssForCausalLM": _ATTENTION | _MLP | {"router"},
}
# Where `attention_bias` is true: other projections than all four.
_ATTENTION_BIAS = {
    **dict.fromkeys(
        (
            "Glm4ForCausalLM",
            "Glm4MoeForCausalLM",
            "Glm4vMoeForConditionalGeneration",
            "SeedOssForCausalLM",
            "SolarOpenForCausalLM",
        ),
        _QKV,
    ),
    **dict.fromkeys(("DeepseekV3ForCausalLM", "Glm4MoeLiteForCausalLM", "GlmMoeDsaForCausalLM"), _LATENT),
}
_NEVER = frozenset({"MistralForCausalLM", "MixtralForCausalLM", "Phi3ForCausalLM"})


def biased_projections(config: Mapping[str, Any]) -> frozenset[str]:
    """The last parts of the keys of all projections with a bias, by a config.json (parsed)."""
    architecture = config["architectures"][0]
    text = {**config, **(config.get("text_config") or {})}
    found = _ALWAYS.get(architecture, frozenset())
    if architecture in _NEVER:
        return found
    if text.get("attention_bias"):
        found |= _ATTENTION_BIAS.get(architecture, _ATTENTION)
    if text.get("attention_out_bias"):
        found |= {"o_proj"}
    if text.get("mlp_bias"):
        found |= _MLP
    if text.get("use_bias"):
        found |= _ATTENTION | _MLP
    return found
