"""Which modules of exllamav3 are configured alike, as far as it may matter to what they ask for."""

from __future__ import annotations

import re
import weakref
from typing import Any

import torch

_OTHERS = frozenset({"layer_idx", "modules"})  # which layer it is says nothing; its parts have numbers of their own
_NUMBER = re.compile(r"\.\d+(?=\.|$)")  # of a layer, or an expert, in the key of a tensor
_PLAIN = frozenset({bool, int, float, type(None), torch.dtype})


class Kinds:
    """Numbers that modules have in common whose plain values are equal, and the shapes and types of their tensors."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        self._known: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def of(self, module: Any) -> int:
        """By how it, its matrix and its parts were configured when it was first asked for."""
        number = self._known.get(module)
        if number is None:
            parts = tuple(map(self.of, module.modules))
            told = _told(module), _told(getattr(module, "inner", None)), parts
            number = self._known[module] = self._numbers.setdefault(told, len(self._numbers))
        return number


class MadeByExperts:
    """What experts make for themselves when they first need it, and keep (block_sparse_mlp.py, _routing.py)."""

    def __init__(self) -> None:
        self._below: weakref.WeakKeyDictionary[Any, list[Any]] = weakref.WeakKeyDictionary()

    def of(self, module: Any) -> tuple[Any, ...]:
        """Which of it is there, of the experts in a module."""
        below = self._below.get(module)
        if below is None:
            below = self._below[module] = [each for each in module if hasattr(each, "routing_cfg")]
        return tuple(
            (each.batch_recon is None, *(value is None for value in _values_of(each.routing_cfg))) for each in below
        )


def _values_of(config: Any) -> tuple[Any, ...]:
    return () if config is None else tuple(vars(config).values())


def _told(holder: Any) -> tuple[Any, ...]:
    if holder is None:
        return ()
    values: list[Any] = [type(holder)]
    for name, value in vars(holder).items():
        kind = type(value)
        if kind is str:
            told: Any = _NUMBER.sub("", value)
        elif name in _OTHERS:
            continue
        elif kind in _PLAIN:
            told = value
        else:
            told = (tuple(value.shape), value.dtype) if isinstance(value, torch.Tensor) else kind
        values += name, told
    return tuple(values)
