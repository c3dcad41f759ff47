"""The shapes that PyTorch's meta kernels answer with, each asked for once: they follow from what goes in.

Many of those kernels are written in Python and take up to milliseconds, and an engine goes through the same few shapes
in every layer of every pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_META = torch.device("meta")
_MOST_KNOWN = 20_000
_PLAIN = (bool, int, float, str, type(None), torch.dtype, torch.layout, torch.memory_format)


class OutputShapes:
    """What operators have answered in this process."""

    def __init__(self) -> None:
        self._known: dict[Any, Callable[[], Any]] = {}

    def of(self, func: Any, args: Any, kwargs: Any) -> Any:
        """`func(*args, **kwargs)`, whose tensors are meta tensors; the outputs have storages of their own."""
        try:
            key = (func, torch.get_default_dtype(), _told(args), _told(kwargs))
        except _Unlike:
            return func(*args, **kwargs)
        known = self._known.get(key)
        if known is not None:
            return known()
        out = func(*args, **kwargs)
        again = _again(out)
        if again is not None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key] = again
        return out


class _Unlike(Exception):
    """An argument of which more may matter than its shape."""


def _told(arg: Any) -> Any:
    """What an answer can depend on; 1, 1.0 and True are three things to an operator."""
    kind = type(arg)
    if kind is torch.Tensor and arg.device == _META:
        return arg.shape, arg.stride(), arg.dtype
    if kind in _PLAIN:
        return kind, arg
    if kind is tuple or kind is list or kind is torch.Size:
        return kind, *[_told(each) for each in arg]
    if kind is dict:
        return kind, *[(name, _told(value)) for name, value in arg.items()]
    if kind is torch.device:
        return arg
    raise _Unlike


def _again(out: Any) -> Callable[[], Any] | None:
    """Makes outputs that are like these; None where more than their shapes would have to be kept."""
    if type(out) is torch.Tensor:
        size, strides, dtype = out.shape, out.stride(), out.dtype

        def make() -> torch.Tensor:
            return torch.empty_strided(size, strides, dtype=dtype, device=_META)

        return make if make().untyped_storage().nbytes() == out.untyped_storage().nbytes() else None
    if type(out) is tuple:
        each = [_again(one) for one in out]
        known = [make for make in each if make is not None]
        return (lambda: tuple(make() for make in known)) if len(known) == len(each) else None
    return None
