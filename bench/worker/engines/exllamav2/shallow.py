"""A model with fewer layers than it has, or more: its config.json says how many."""

from __future__ import annotations

import dataclasses
from typing import Any

from bench.core.case import Case

_LAYER_KEYS = ("num_hidden_layers", "n_layers", "n_layer")  # ExLlamaV2Config.prepare


def with_layers(case: Case, num_layers: int) -> Case:
    """The case with a model that is so deep; itself where there are weights, which cannot be left out."""
    if case.model.has_weights:
        return case
    model = dataclasses.replace(
        case.model,
        config=with_num_hidden_layers(case.model.config, num_layers),
        fingerprint=f"{case.model.fingerprint}-{num_layers}",
    )
    return dataclasses.replace(case, model=model)


def with_draft_layers(case: Case, num_layers: int) -> Case:
    """The case with a draft model that is so deep; itself where it has weights, which cannot be left out."""
    if case.draft_model is None or case.of_draft is None:
        return case
    model = with_layers(case.of_draft, num_layers).model
    return dataclasses.replace(case, draft_model=dataclasses.replace(case.draft_model, model=model))


def with_num_hidden_layers(config: dict[str, Any], num_layers: int) -> dict[str, Any]:
    """A config.json (parsed) of a model that is so deep."""
    shallow: dict[str, Any] = {key: num_layers if key in _LAYER_KEYS else value for key, value in config.items()}
    text_config = shallow.get("text_config")
    if isinstance(text_config, dict):
        shallow["text_config"] = with_num_hidden_layers(text_config, num_layers)
    return shallow
