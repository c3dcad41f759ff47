"""Where the engine repeats itself so often that its own code is not run for each: matrices and experts.

A model with 128 experts a layer loads 18,000 matrices of a few shapes, and works off every chunk expert by expert. What
a matrix or a layer's experts ask for depends on shapes alone, which are all in the keys (`repeats.py`).
"""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from bench.worker.simulated.repeats import Repeats, Tensors
from bench.worker.simulated.tensor import SimulatedCuda, SimulatedTensor

_EXL2 = ("q_weight", "q_invperm", "q_scale", "q_scale_max", "q_groups", "q_perm", "bias")


@contextmanager
def shortcuts(cuda: SimulatedCuda) -> Iterator[None]:
    """While it lasts, matrices and experts are done by their requests where they repeat."""
    linear = importlib.import_module("exllamav2.linear").ExLlamaV2Linear
    experts = importlib.import_module("exllamav2.moe_mlp").ExLlamaV2MoEMLP
    repeats, headers = Repeats(), _Headers()
    load, forward = linear.load, experts.forward_torch

    def load_once(self: Any, *args: Any, **kwargs: Any) -> Any:
        key = None if args or kwargs else headers.key_of(self)
        card = cuda.cards[max(0, self.device_idx)]  # only of the embeddings, which are no matrix, is it -1
        seen = None if key is None else repeats.known(card, key)
        if seen is not None:
            return _take(self, repeats.repeat(card, seen), *seen.about)
        with repeats.noted(card, key) as tell:
            result = load(self, *args, **kwargs)
            if key is not None:
                tell(self.q_tensors, (weakref.ref(self.temp_dq), self.q_handle))
        return result

    def forward_once(self: Any, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        key, card = _key_of_experts(self, hidden_states, *args, **kwargs), cuda.cards[self.device_idx]
        seen = None if key is None else repeats.known(card, key)
        if seen is not None:
            return repeats.repeat(card, seen)[""]
        with repeats.noted(card, key) as tell:
            result = forward(self, hidden_states, *args, **kwargs)
            tell({"": result}, None)
        return result

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(linear, "load", load_once))
        stack.enter_context(mock.patch.object(experts, "forward_torch", forward_once))
        yield


def _take(module: Any, tensors: Tensors, temp_dq: weakref.ref[Any], like_handle: int) -> None:
    """Leaves a matrix as ExLlamaV2Linear.load does; its slice of scratch is that of every matrix of its size."""
    module.temp_dq = temp_dq()
    if module.temp_dq is None:
        context = module.model.get_device_context(module.device_idx)
        context.begin_scratch_alloc()
        module.temp_dq = context.get_scratch_slice(module.temp_dq_size())
    module.q_tensors = tensors
    module.q_handle = importlib.import_module("exllamav2_ext").repeat_q_matrix(like_handle)
    module.prev_prescale, module.prescale = module.prescale, 1


class _Headers:
    """The headers of a checkpoint's files."""

    def __init__(self) -> None:
        self._headers: dict[str, Any] = {}

    def key_of(self, module: Any) -> Any:
        """What decides the requests of loading a matrix in the EXL2 format; None for others."""
        config = module.model.config
        files = config.tensor_file_map
        if f"{module.key}.q_weight" not in files or _is_fused(module.f_key, files):
            return None
        context = module.model.device_context[module.device_idx]
        if context is None or not context.ready:  # the first matrix of a card makes it, once its own tensors are there
            return None
        shapes = []
        for each in _EXL2:
            name = f"{module.key}.{each}"
            if filename := files.get(name):
                if filename not in self._headers:
                    loader = importlib.import_module("exllamav2.stloader").STFile
                    self._headers[filename] = loader.open(filename, keymap=config.arch.keymap).header
                entry = self._headers[filename][name]
                shapes.append((each, entry["dtype"], *entry["shape"]))
        return ("matrix", id(context.scratch), module.has_bias, module.prescale, module.out_features, *shapes)


def _is_fused(key: str | None, files: Any) -> bool:
    return bool(key) and any(f"{key}{end}" in files for end in ("", ".weight", ".bias"))


def _key_of_experts(
    module: Any,
    hidden_states: Any,
    cache: Any = None,
    attn_params: Any = None,
    past_len: Any = None,
    intermediates: bool = False,
    loras: Any = None,
    **kwargs: Any,
) -> Any:
    """What decides the requests of a layer's experts; None where they are not all quantised."""
    experts = [*module.w1, *module.w2, *module.w3]
    if intermediates or loras or type(hidden_states) is not SimulatedTensor or not all(e.q_handle for e in experts):
        return None
    meta, norm, gate = hidden_states.meta, module.post_attention_layernorm, module.gate
    return (
        "experts",
        (meta.shape, meta.stride(), meta.dtype),
        (module.num_experts, module.num_experts_per_token, module.archparams.mlp_act_func),
        (type(norm), norm.weight.shape, norm.weight.dtype, norm.bias is None),
        (gate.in_features, gate.out_features, gate.has_bias, gate.q_handle is None),
        tuple({(e.in_features, e.out_features, e.has_bias): None for e in experts}),
    )
