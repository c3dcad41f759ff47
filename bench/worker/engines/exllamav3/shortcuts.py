"""Where the engine repeats itself so often that its own code is not run for each: layers, matrices and RoPE.

What such a module asks for depends on shapes, on how it is configured, and on what the cache holds: all of that is in
the keys. Where two layers of a pass have asked for the same, one after the other, and kept nothing but their result,
the others do (`repeats.py`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch

from bench.worker.engines.exllamav3.kinds import Kinds, MadeByExperts
from bench.worker.engines.exllamav3.repeated_matrices import repeated_matrices
from bench.worker.simulated.repeats import Repeats
from bench.worker.simulated.tensor import SimulatedCuda, SimulatedTensor

_MODULES = (
    ("exllamav3.modules.transformer", "TransformerBlock"),
    ("exllamav3.modules.attn", "Attention"),
    ("exllamav3.modules.sliding_attn", "SlidingAttention"),
    ("exllamav3.modules.mla_attn", "MLAttention"),
    ("exllamav3.modules.gated_delta_net", "GatedDeltaNet"),
    ("exllamav3.modules.mlp", "GatedMLP"),
    ("exllamav3.modules.mlp", "MLP"),
    ("exllamav3.modules.block_sparse_mlp", "BlockSparseMLP"),
)


@contextmanager
def shortcuts(cuda: SimulatedCuda) -> Iterator[None]:
    """While it lasts, a layer's modules are done by their requests where they repeat."""
    repeats = Repeats()
    kinds = Kinds()
    made = MadeByExperts()

    def once(forward: Callable[..., Any], is_block: bool) -> Callable[..., Any]:
        def forward_once(self: Any, x: Any, params: Any = None, *args: Any, **kwargs: Any) -> Any:
            passed = None if args or kwargs or type(x) is not SimulatedTensor else _pass(params)
            if passed is None or (is_block and not _is_plain(self, params)):
                return forward(self, x, params, *args, **kwargs)
            key = kinds.of(self), made.of(self), passed, (x.meta.shape, x.meta.stride(), x.meta.dtype)
            return repeats.once(x.card, key, lambda: forward(self, x, params), x)

        return forward_once

    rope = importlib.import_module("exllamav3.util.rope").RoPE
    make_rope = rope.__init__

    def make_rope_once(self: Any, device: Any, settings: Any) -> None:
        card = cuda.card_named(torch.device(device))
        key = "rope", repr(settings)
        seen = repeats.known(card, key)
        if seen is not None:
            vars(self).update(seen.about, device=device, rope_settings=settings, **repeats.repeat(card, seen))
            return
        with repeats.noted(card, key) as tell:
            make_rope(self, device, settings)
            tensors = {name: each for name, each in vars(self).items() if isinstance(each, torch.Tensor)}
            tell(tensors, {name: each for name, each in vars(self).items() if name not in tensors})

    with ExitStack() as stack:
        stack.enter_context(repeated_matrices(cuda))
        stack.enter_context(mock.patch.object(rope, "__init__", make_rope_once))
        for module, name in _MODULES:
            kind = getattr(importlib.import_module(module), name)
            stack.enter_context(mock.patch.object(kind, "forward", once(kind.forward, name == "TransformerBlock")))
        yield


def _is_plain(block: Any, params: Any) -> bool:
    """Whether a whole layer leaves nothing but its result: in decoding it may leave a sum to the next one."""
    left = "resid_defer" in params or "resid_pending" in params or "hc_pending" in params
    return not (left or block.attn_hc or block.mlp_hc or params.get("export_state_layers"))


def _pass(params: Any) -> Any:
    """What of a pass decides the requests of its layers; None where autosplit measures them."""
    if params is None or params.get("autosplit_measure") or "cache_seqlens" not in params:
        return None
    lengths, table = params["cache_seqlens"], params.get("block_table")
    if type(lengths) is SimulatedTensor:
        return None
    return (
        tuple(lengths.tolist()),
        None if table is None else tuple(table.shape),
        bool(params.get("prefill")),
        bool(params.get("recurrent_history")),
        tuple(state.slot for state in params.get("recurrent_states") or ()),  # whose numbers are kept on the card
    )
