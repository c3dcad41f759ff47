"""The type of a model's unquantised weights, as config.json has it: what `bpw=16` means.

The engine computes in FP16. What is kept in another type is read onto the card as it is and cast there, tensor by
tensor (module.py of the engine, load_weight): for a moment there are two copies, and the first leaves a hole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.core.case import UNQUANTISED_BPW

ASSUMED = "BF16"  # what models are published in today
_TYPES = {"float16": "F16", "half": "F16", "bfloat16": "BF16", "float32": "F32", "float": "F32"}
_KEYS = ("dtype", "torch_dtype")  # transformers 5 writes the first, earlier ones the second


def told(config: Mapping[str, Any]) -> str | None:
    """The safetensors type that config.json (parsed) names, for the whole model or for its text; None where neither."""
    text = config.get("text_config")
    for scope in (config, text if isinstance(text, dict) else {}):
        for key in _KEYS:
            kind = _TYPES.get(str(scope.get(key)).removeprefix("torch."))
            if kind is not None:
                return kind
    return None


def unquantised(config: Mapping[str, Any]) -> str:
    """The type that config.json (parsed) names, or the one that is assumed where it names none."""
    return told(config) or ASSUMED


def assumptions(config: Mapping[str, Any], bpw: float, has_weights: bool) -> list[str]:
    """The note on an assumed type of weights; none where they are quantised, or were read."""
    if bpw != UNQUANTISED_BPW or has_weights or told(config) is not None:
        return []
    text = config.get("text_config")
    scopes = (config, text if isinstance(text, dict) else {})
    named = next((scope[key] for scope in scopes for key in _KEYS if scope.get(key) is not None), None)
    said = "no torch_dtype" if named is None else f"torch_dtype {named}, which is none that is loaded"
    return [f"weights of {ASSUMED} assumed: config.json names {said}"]
