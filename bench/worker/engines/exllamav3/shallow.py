"""A model with as few layers as show them all, for recording what is the same at any depth."""

from __future__ import annotations

import dataclasses
from typing import Any

from bench.core.case import Case
from bench.trace.template import SHOWN_PERIODS
from bench.worker.engines.exllamav3.kinds import Kinds
from bench.worker.engines.exllamav3.readable import read_model

_LAYER_KEYS = ("num_hidden_layers", "n_layers", "n_layer")
_LONGEST_PERIOD = 6  # Gemma-3's


def shallow(case: Case, model: Any) -> tuple[Case, int, int]:
    """The case with fewer layers, how many, and after how many they repeat; the case itself where none can go.

    `model` is exllamav3's, of config.json alone. A checkpoint that is there has all its layers.
    """
    kinds = Kinds()
    layers = _kinds_of_layers(model, kinds)
    depth = len(layers)
    whole = case, depth, 1
    if case.model.has_weights:
        return whole
    period = next((p for p in range(1, _LONGEST_PERIOD + 1) if layers[p:] == layers[: depth - p]), None)
    if period is None:
        return whole
    shown = SHOWN_PERIODS * period
    num_layers = shown + 1 + (depth - shown - 1) % period  # so that the last layer falls where it does
    if num_layers >= depth:
        return whole
    config = with_layers(case.model.config, num_layers, depth)
    fewer = dataclasses.replace(case.model, config=config, fingerprint=f"{case.model.fingerprint}-{num_layers}")
    if _kinds_of_layers(read_model(config), kinds) != layers[:num_layers]:
        return whole
    return dataclasses.replace(case, model=fewer), num_layers, period


def _kinds_of_layers(model: Any, kinds: Kinds) -> list[int]:
    """How each layer is configured, in order."""
    return [kinds.of(module) for module in model.modules if module.layer_idx is not None]


def with_layers(config: dict[str, Any], num_layers: int, depth: int) -> dict[str, Any]:
    """A config.json (parsed) of a model that is so deep; lists of something for each layer are as long."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if key in _LAYER_KEYS:
            found[key] = num_layers
        elif isinstance(value, list) and len(value) == depth:
            found[key] = value[:num_layers]
        elif key == "text_config" and isinstance(value, dict):
            found[key] = with_layers(value, num_layers, depth)
        else:
            found[key] = value
    return found
