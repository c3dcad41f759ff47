"""Keeps PyTorch's compiler out of a process in which nothing is compiled.

`torch._dynamo` takes as long to import as all the rest of PyTorch. Operators without a body import it only to be marked
as not to be compiled (torch/_compile.py), attention biases to be marked as they are (torch/nn/attention/bias.py).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

_NAME = "torch._dynamo"


class _Marks(ModuleType):
    """Stands for the compiler until anything but a mark is asked of it; then the real one is loaded and answers."""

    @staticmethod
    def allow_in_graph(function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    @staticmethod
    def disable(function: Callable[..., Any], recursive: bool = True, **options: Any) -> Callable[..., Any]:
        return function

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":  # what the import system looks for in any module
            raise AttributeError(name)
        if sys.modules.get(_NAME) is self:
            del sys.modules[_NAME]
        return getattr(importlib.import_module(_NAME), name)


def keep_out_compiler() -> None:
    """Puts the stand-in where the compiler would be, unless that is loaded already, and loads what cases do need."""
    sys.modules.setdefault(_NAME, _Marks(_NAME))
    importlib.import_module("torch.fx.experimental.symbolic_shapes")  # which every check of a shape asks for
