"""How long a model's context may be: what the engine takes by default, and the model's own limit. The two differ.

An engine takes whatever `max_seq_len` it is given; what it reads from config.json is its default, and one of its own
where config.json has none of the keys that it reads. A model's own limit is the length for which it was made, with the
scaling of its RoPE taken into account: by vLLM's rule (vllm/config/model.py, `_get_and_verify_max_len`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from bench.core.case import DEFAULT_ENGINE, MAX_SEQ_LEN, ModelSpec
from bench.core.outcome import LimitBasis
from bench.engines.base import EngineSpec
from bench.engines.registry import engine_of

MIN_SEQ_LEN = 64

# RoPE scaling that is in max_position_embeddings already.
_COUNTED_IN = frozenset({"default", "llama3", "longrope", "su"})

# Families whose config.json leaves the length out, as all their models have the same (transformers 5.24.0, config
# classes).
_OF_A_FAMILY = {"gemma": 8192, "gemma2": 8192, "gemma3": 131072, "gemma3_text": 131072}
# transformers leaves out of a text_config whatever is its class's default (5.24.0, recursive_diff_dict), so where it
# names none, it has that one.
_OF_A_TEXT_CONFIG = {
    **_OF_A_FAMILY,
    "llama": 2048,
    "mistral": 131072,
    "qwen2": 32768,
    "qwen2_vl_text": 32768,
    "qwen2_5_vl_text": 32768,
    "qwen3": 32768,
}


@dataclass(frozen=True)
class Lengths:
    """Lengths of a model in tokens.

    `engine_default` is what the engine takes where max_seq_len is not set; None where it refuses what config.json
    says. `engine_key` names where it is from, None where config.json names none. `limit` is the model's own, by
    `basis`; both None where config.json says only what is no length. `derivation` is how a scaled limit comes about.
    No length beyond `limit` can be run where it `is_hard`. `engine` is what people call the engine.
    """

    engine_default: int | None
    engine_key: str | None
    limit: int | None
    basis: LimitBasis | None
    derivation: str | None = None
    is_hard: bool = False
    engine: str = field(kw_only=True)

    @property
    def is_limit_known(self) -> bool:
        """Whether anything tells the model's own limit."""
        return self.limit is not None and self.basis is not LimitBasis.ENGINE_DEFAULT

    def notes(self, max_seq_len: int) -> list[str]:
        """What a reader should know of a case of that length: it may be longer than the model was made for."""
        if self.limit is None and self.engine_key is None:
            return [f"config.json names no limit, and {self.engine} takes none by default"]
        if self.limit is None:
            return [f"the model's own limit is not known: {self.engine_key} of config.json is no length"]
        if not self.is_limit_known:
            return [
                unnamed_note(self.limit, self.engine),
                *([beyond_note(None, self.engine)] if max_seq_len > self.limit else []),
            ]
        if max_seq_len > self.limit:
            return [beyond_note(self.limit, self.engine)]
        if self.engine_default is not None and max_seq_len > self.engine_default:
            derivation = f" ({self.derivation})" if self.derivation else ""
            return [
                f"longer than the {self.engine_default:,} that {self.engine} takes by default: set max_seq_len; "
                f"the model's own limit is {self.limit:,}{derivation}"
            ]
        return []


def unnamed_note(default: int, engine: str) -> str:
    """The note of a model whose config.json names no limit; `default` is the engine's, in tokens."""
    return f"config.json names no limit; {engine} takes {default:,} by default"


def beyond_note(limit: int | None, engine: str) -> str:
    """Of a length that is more than the model's own `limit`, or than the engine's default where that is unknown."""
    beyond = f"{engine}'s default" if limit is None else f"the model's own limit of {limit:,}"
    return f"beyond {beyond}: memory is right, outputs may not be"


def is_plausible(length: int) -> bool:
    """Whether a context may be so long: a tokenizer's 10^30 for `no limit`, or 0, is none."""
    return MIN_SEQ_LEN <= length <= MAX_SEQ_LEN


@lru_cache(maxsize=64)
def lengths_of_model(model: ModelSpec, engine: str) -> Lengths:
    """`lengths_of` its config.json; a sweep asks for few models, of each many times."""
    return lengths_of(model.config, engine)


def lengths_of(config: dict[str, Any], engine: str = DEFAULT_ENGINE) -> Lengths:
    """The lengths of the model that `config` (a config.json, parsed) describes, as `engine` reads it."""
    spec = engine_of(engine)
    text = config.get("text_config")
    engine_default, engine_key = _engine_default(config, spec)
    stated = next((value for _, value in _stated(config, spec.length_keys) if is_plausible(value)), None)
    architectures = config.get("architectures")
    is_hard = isinstance(architectures, list) and any(str(name) in spec.learned_positions for name in architectures)
    basis = LimitBasis.CONFIG
    if stated is None:
        own, nested = config.get("model_type"), text.get("model_type") if isinstance(text, dict) else None
        stated, basis = _OF_A_TEXT_CONFIG.get(str(nested)) or _OF_A_FAMILY.get(str(own)), LimitBasis.FAMILY
    if stated is not None:
        scaled = None if is_hard else _scaled(config, stated, spec.length_keys)
        if scaled is None:
            return Lengths(engine_default, engine_key, stated, basis, is_hard=is_hard, engine=spec.title)
        return Lengths(engine_default, engine_key, scaled[0], LimitBasis.ROPE_SCALING, scaled[1], engine=spec.title)
    if engine_key is None and engine_default is not None:
        return Lengths(
            engine_default, None, engine_default, LimitBasis.ENGINE_DEFAULT, is_hard=is_hard, engine=spec.title
        )
    return Lengths(engine_default, engine_key, None, None, is_hard=is_hard, engine=spec.title)


def _engine_default(config: dict[str, Any], engine: EngineSpec) -> tuple[int | None, str | None]:
    """What the engine takes where nobody sets a length, and the key it is from. No value where it refuses the key's, or
    where it takes no length from config.json.
    """
    if engine.default_length is None:
        return None, None
    for prefix, scope in (("", config), ("text_config.", config.get("text_config"))):
        if not scope:
            continue
        if not isinstance(scope, dict):
            return None, prefix.removesuffix(".")
        for key in engine.length_keys:
            if scope.get(key) is not None:
                return _whole(scope[key]), prefix + key
    return engine.default_length, None


def _stated(config: dict[str, Any], keys: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Every length that config.json names, in the engine's order."""
    for scope in _scopes(config):
        for key in keys:
            value = _whole(scope.get(key))
            if value is not None:
                yield key, value


def _scaled(config: dict[str, Any], stated: int, keys: Sequence[str]) -> tuple[int, str] | None:
    """The length that RoPE is scaled to, and how; None where scaling does not change what is `stated`."""
    kinds = [config.get("model_type"), *(scope.get("model_type") for scope in _scopes(config))]
    if any(str(kind).startswith("gemma3") for kind in kinds):
        return None  # counted in, though its type is linear (as in vLLM)
    for scaling in _scalings(config):
        kind, factor = scaling.get("rope_type") or scaling.get("type"), _factor(scaling.get("factor"))
        # `alpha` stretches the base for the length that is stated (HunYuan; transformers, hunyuan_v1_dense).
        if not isinstance(kind, str) or kind in _COUNTED_IN or scaling.get("alpha") or factor is None:
            continue
        positions = next((value for key, value in _stated(config, keys) if key == "max_position_embeddings"), stated)
        base = min(stated, positions) if is_plausible(positions) else stated
        if kind.endswith("yarn"):
            original = _whole(scaling.get("original_max_position_embeddings"))
            base = original if original is not None and is_plausible(original) else base
        length = int(base * factor)
        # What is linear or dynamic may be counted in under another key, as in Vicuna 16k.
        if is_plausible(length) and (length > stated or (kind.endswith("yarn") and length != stated)):
            return length, f"{kind}, {factor:g} x {base:,}"
        return None
    return None


def _scalings(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What config.json says of RoPE: transformers 5 writes rope_parameters, with a part for each kind of layer."""
    for name in ("rope_scaling", "rope_parameters"):
        for scope in _scopes(config):
            scaling = scope.get(name)
            if isinstance(scaling, dict):
                yield scaling
                yield from (part for part in scaling.values() if isinstance(part, dict))


def _scopes(config: dict[str, Any]) -> list[dict[str, Any]]:
    return [scope for scope in (config, config.get("text_config")) if isinstance(scope, dict)]


def _whole(value: Any) -> int | None:
    """A number as the engines read an int; None for what it refuses, or what is not there."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    return None


def _factor(value: Any) -> float | None:
    """A factor that lengths may be multiplied with; None for what is none."""
    return float(value) if isinstance(value, int | float) and 1 <= value <= MAX_SEQ_LEN else None
