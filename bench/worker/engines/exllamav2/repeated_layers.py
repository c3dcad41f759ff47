"""Attention and MLPs whose requests repeat from layer to layer: where two in a row asked for the same, the others do.

What such a module asks for depends on how it is configured, on the shape of what it is given and, for attention, on
what the pass has prepared and how much the cache holds. A pass is known by its parameters: what they keep for all
layers is made by the first, which therefore asks for more, and the next pass begins anew.
"""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch

from bench.worker.simulated.repeats import Repeats
from bench.worker.simulated.tensor import SimulatedCuda, SimulatedTensor

_OTHERS = frozenset({"layer_idx", "key", "f_key", "footprint"})  # differ from layer to layer, and change no request
_PLAIN = (bool, int, float, type(None), torch.dtype)


@contextmanager
def repeated_layers(cuda: SimulatedCuda) -> Iterator[None]:
    """While it lasts, a layer's attention and MLP are done by their requests where they repeat."""
    attention = importlib.import_module("exllamav2.attn").ExLlamaV2Attention
    mlp = importlib.import_module("exllamav2.mlp").ExLlamaV2MLP
    layers = _Layers()
    with ExitStack() as stack:
        for kind, is_attention in ((attention, True), (mlp, False)):
            stack.enter_context(mock.patch.object(kind, "forward", layers.once(kind.forward, is_attention)))
        yield


class _Layers:
    """What was seen of the layers so far: of MLPs in the whole case, of attention in the pass that is going on."""

    def __init__(self) -> None:
        self._mlps = Repeats()
        self._attentions = Repeats()
        self._pass: Callable[[], Any] = lambda: None
        self._kinds: dict[Any, int] = {}
        self._kind_of: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def once(self, forward: Callable[..., Any], is_attention: bool) -> Callable[..., Any]:
        """`forward` of a module, run only where it is not known to repeat."""

        def forward_once(
            module: Any,
            hidden_states: Any,
            cache: Any = None,
            attn_params: Any = None,
            past_len: Any = None,
            intermediates: bool = False,
            loras: Any = None,
            **kwargs: Any,
        ) -> Any:
            given = (hidden_states, cache, attn_params, past_len, intermediates, loras)
            if module.is_tp or intermediates or loras or kwargs or type(hidden_states) is not SimulatedTensor:
                return forward(module, *given, **kwargs)
            repeats = self._of_pass(attn_params) if is_attention else self._mlps
            meta, card = hidden_states.meta, hidden_states.card
            key = (
                self._kind(module),
                (meta.shape, meta.stride(), meta.dtype, hidden_states.numbers is None),
                (id(cache), past_len) if is_attention else None,
            )
            return repeats.once(card, key, lambda: forward(module, *given), hidden_states)

        return forward_once

    def _of_pass(self, attn_params: Any) -> Repeats:
        if attn_params is None or self._pass() is not attn_params:
            self._attentions = Repeats()
            self._pass = (lambda: None) if attn_params is None else weakref.ref(attn_params)
        return self._attentions

    def _kind(self, module: Any) -> int:
        """A number that modules have in common that are configured alike."""
        if module not in self._kind_of:
            told = tuple((type(part).__name__, *sorted(_told(part).items())) for part in [module, *module.submodules])
            self._kind_of[module] = self._kinds.setdefault(told, len(self._kinds))
        return self._kind_of[module]


def _told(part: Any) -> dict[str, str]:
    """How a module is configured: its plain values, and the shapes and types of its tensors."""
    return {name: _value(name, value) for name, value in vars(part).items() if name not in _OTHERS}


def _value(name: str, value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{tuple(value.shape)} {value.dtype}"
    if name.endswith("handle"):
        return str(value is None)
    return repr(value) if isinstance(value, _PLAIN) else type(value).__name__
