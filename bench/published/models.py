"""The model of a line: by the sizes that the table gives it, laid out as its family is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bench.config.compose import model_settings
from bench.config.models import resolve_model
from bench.config.settings import ModelSettings
from bench.core.case import ModelSpec
from bench.published.refused import NotComparable
from bench.published.table import Entry, Shape

_LLAMA = {"architectures": ["LlamaForCausalLM"], "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 10000.0}
_LIKE_LLAMA = (
    *("llama", "codellama", "openllama", "tinyllama", "mistral", "nemo", "yi", "miqu", "goliath", "smaug"),
    *("openhermes", "zephyr", "solar", "vicuna", "wizard", "xwin", "airoboros", "lzlv", "euryale", "nous", "dolphin"),
)
_GEMMA = {"architectures": ["GemmaForCausalLM"], "rms_norm_eps": 1e-6, "hidden_act": "gelu", "rope_theta": 10000.0}
# How the models of a family are built, by the beginning of what a table calls them, the longest first: a file of the
# catalogue whose sizes are replaced, or keys of a config.json.
_FAMILIES: dict[str, str | dict[str, Any]] = {
    "gemma2": "gemma_2_9b",
    "gemma": _GEMMA,
    "phi3-mini": "phi_3_mini_128k",
    "phi3": "phi_3_medium_128k",
    "mixtral": "mixtral_8x7b",
    "command-r-plus": {},  # normalises queries and keys, which no file here says the sizes of
    "command-r": "command_r_35b",
    "qwen1.5": "qwen2_5_7b",
    "qwen2": "qwen2_5_7b",
    **dict.fromkeys(_LIKE_LLAMA, _LLAMA),
}
# Files of the catalogue for what a table gives no sizes of.
_CATALOGUE = {
    "tinyllama-1.1b": "tinyllama_1_1b",
    "nemo-12b": "mistral_nemo_12b",
    "llama3-8b": "llama_3_8b",
    "llama3.1-8b": "llama_3_1_8b",
    "llama3-70b": "llama_3_1_70b",
    "llama3.1-70b": "llama_3_1_70b",
    "mixtral-8x7b": "mixtral_8x7b",
    "phi3-mini": "phi_3_mini_128k",
    "phi3-medium": "phi_3_medium_128k",
    "gemma2-9b": "gemma_2_9b",
    "gemma2-27b": "gemma_2_27b",
    "command-r-v01": "command_r_35b",
    "gemma3-27b": "gemma_3_27b",
    "qwen3.5-27b": "qwen3_5_27b",
    "qwen2-7b": "qwen2_5_7b",
    "qwen2-14b": "qwen2_5_14b",
    "qwen2-32b": "qwen2_5_32b",
    "qwen2-72b": "qwen2_5_72b",
}


class Models:
    """Models by what tables call their shape; a line without sizes has those of another line of the same shape."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._shapes = {entry["base_arch"]: entry.shape for entry in entries if entry.shape and entry["base_arch"]}

    def of(self, entry: Entry) -> ModelSpec:
        """The model of a line. Raises `NotComparable`."""
        name = entry["base_arch"]
        if not name:
            raise NotComparable("shape unknown: no base_arch")
        shape = entry.shape or self._shapes.get(name)
        if shape is None:
            if name in _CATALOGUE:
                return resolve_model(model_settings(_CATALOGUE[name]))
            raise NotComparable(
                f"shape unknown: no line gives the sizes of {name}, and the catalogue has no such model"
            )
        family = next((family for family in sorted(_FAMILIES, key=len, reverse=True) if name.startswith(family)), None)
        built = _FAMILIES[family] if family else {}
        config = model_settings(built).config if isinstance(built, str) else built
        if not config:
            raise NotComparable(f"shape unknown: how a model like {name} is built is not known here")
        if entry["quant_format"].startswith("FP16"):
            config = {**config, "torch_dtype": "float16"}
        return resolve_model(ModelSettings(name=name, config={**config, **_sizes(shape, config)}))


def _sizes(shape: Shape, config: dict[str, Any]) -> dict[str, Any]:
    sizes: dict[str, Any] = {
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab,
    }
    if shape.n_experts > 1:
        if "num_local_experts" not in config:
            raise NotComparable("shape unknown: experts in a model whose family has none")
        sizes |= {"num_local_experts": shape.n_experts, "num_experts_per_tok": min(2, shape.n_experts)}
    return sizes
