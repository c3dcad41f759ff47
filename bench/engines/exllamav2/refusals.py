"""What ExLlamaV2 would never come to an end with, or cannot load: known before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.core.case import Case
from bench.engines.exllamav2.schedule import endless
from bench.engines.exllamav2.spec import SPEC

# exllamav2/architecture.py and vlm/vision_tower.py: by what it knows a tower, None where any that is there will do.
_TOWERS: dict[str, str | None] = {
    "LlavaForConditionalGeneration": "pixtral",
    "Mistral3ForConditionalGeneration": "pixtral",
    "Gemma3ForConditionalGeneration": "siglip_vision_model",
    "Qwen2VLForConditionalGeneration": None,
    "Qwen2_5_VLForConditionalGeneration": None,
}
_IN_WORDS = "Llava with Pixtral, Mistral 3, Gemma 3, Qwen2-VL and Qwen2.5-VL"


def refusal(case: Case) -> str | None:
    """Why a case cannot be run, and what to give in its place; None where it can."""
    if case.vision and not has_tower(case.model.config):
        return (
            f"vision=true: {case.model.name} ({case.model.architecture}) has no vision tower that ExLlamaV2 loads; it "
            f"loads those of {_IN_WORDS}. Leave vision out"
        )
    if case.load_as is not None and case.draft_model is not None:
        return (
            f"load={case.load_as}: {SPEC.servers[case.load_as].title} loads a draft model by autosplit, and tries a "
            "chunk with it, which is not done here; leave load or draft out"
        )
    reason = endless(case.max_seq_len, case.max_attention_size, case.attention)
    return None if reason is None else f"{reason}; give at least max_attention_size={case.max_seq_len}"


def has_tower(config: Mapping[str, Any]) -> bool:
    """Whether the engine has code for the vision tower of a config.json (parsed)."""
    architectures, vision = config.get("architectures"), config.get("vision_config")
    if not isinstance(architectures, list) or len(architectures) != 1 or not isinstance(vision, Mapping):
        return False
    if architectures[0] not in _TOWERS:
        return False
    kind = _TOWERS[architectures[0]]
    return kind is None or vision.get("model_type") == kind
