"""A draft model beside the model: which of the two a model is, and what it holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakSet

_APART = ("weights", "cache")
_configs: WeakSet[Any] = WeakSet()


def mark_draft(config: Any) -> None:
    """Remembers that a model of this ExLlamaV2Config is a draft model."""
    _configs.add(config)


def is_draft(model: Any) -> bool:
    """Whether an ExLlamaV2 is one."""
    return model.config in _configs


def with_draft(own: Mapping[str, Iterable[Any]], draft: Mapping[str, Iterable[Any]]) -> dict[str, Iterable[Any]]:
    """The tensors of both by part: the draft model's weights and cache are parts of their own, all else is together."""
    apart = {f"draft_{part}": draft[part] for part in ("weights", "cache")}
    return {
        **{part: [*held, *(draft[part] if f"draft_{part}" not in apart else [])] for part, held in own.items()},
        **apart,
    }
