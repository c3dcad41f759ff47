"""Where the engine repeats itself so often that its own code is not run for each: matrices, experts and layers.

A model with 128 experts a layer loads 18,000 matrices of a few shapes, and works off every chunk expert by expert. What
a matrix or a layer's experts ask for depends on shapes alone, which are all in the keys (`repeats.py`).
"""

from __future__ import annotations

import importlib
import os
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from bench.worker.engines.exllamav2.repeated_layers import repeated_layers
from bench.worker.simulated.repeats import Repeats, Tensors
from bench.worker.simulated.tensor import SimulatedCuda, SimulatedTensor

_EXL2 = ("q_weight", "q_invperm", "q_scale", "q_scale_max", "q_groups", "q_perm", "bias")


@contextmanager
def shortcuts(cuda: SimulatedCuda) -> Iterator[None]:
    """While it lasts, matrices, experts and layers are done by their requests where they repeat."""
    linear = importlib.import_module("exllamav2.linear").ExLlamaV2Linear
    experts = importlib.import_module("exllamav2.moe_mlp").ExLlamaV2MoEMLP
    stack = ExitStack()
    repeats, headers = Repeats(), _Headers(stack)
    load, forward = linear.load, experts.forward_torch

    def load_once(
        self: Any, w: Any = None, device_context: bool = True, unmap: bool = False, output_map: Any = None
    ) -> Any:
        key = headers.key_of(self, unmap, output_map) if w is None and device_context else None
        card = cuda.cards[max(0, self.device_idx)]  # only of the embeddings, which are no matrix, is it -1
        seen = None if key is None else repeats.known(card, key)
        if seen is not None:
            return _take(self, repeats.repeat(card, seen), *seen.about)
        with repeats.noted(card, key) as tell:
            rows_map = load(self, w, device_context, unmap, output_map)
            if key is not None:
                tell(self.q_tensors, (weakref.ref(self.temp_dq), self.q_handle, rows_map))
        return rows_map

    def forward_once(self: Any, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        key, card = _key_of_experts(self, hidden_states, *args, **kwargs), cuda.cards[self.device_idx]
        return repeats.once(card, key, lambda: forward(self, hidden_states, *args, **kwargs))

    with stack:
        stack.enter_context(mock.patch.object(linear, "load", load_once))
        stack.enter_context(mock.patch.object(experts, "forward_torch", forward_once))
        stack.enter_context(repeated_layers(cuda))
        yield


def _take(module: Any, tensors: Tensors, temp_dq: weakref.ref[Any], like_handle: int, rows_map: Any) -> Any:
    """Leaves a matrix as ExLlamaV2Linear.load does; its slice of scratch is that of every matrix of its size.

    Returns what `load` does: None, or the order of its rows on the host, which changes no request of those who get it.
    """
    module.temp_dq = temp_dq()
    if module.temp_dq is None:
        context = module.model.get_device_context(module.device_idx)
        context.begin_scratch_alloc()
        module.temp_dq = context.get_scratch_slice(module.temp_dq_size())
    module.q_tensors = tensors
    module.q_handle = importlib.import_module("exllamav2_ext").repeat_q_matrix(like_handle)
    module.prev_prescale, module.prescale = module.prescale, 1
    return rows_map


class _Headers:
    """The headers of a checkpoint's files, and the tables of groups in them."""

    def __init__(self, stack: ExitStack) -> None:
        self._files: dict[str, Any] = {}
        self._opened: dict[str, int] = {}
        self._stack = stack

    def key_of(self, module: Any, unmap: bool, output_map: Any) -> Any:
        """What decides how a matrix in the EXL2 format is loaded, and whether it can be; None for others."""
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
                shapes.append((each, *self._told(filename, name, config.arch.keymap)))
        how = unmap, None if output_map is None else tuple(output_map.shape)
        return ("matrix", id(context.scratch), module.has_bias, module.prescale, module.out_features, how, *shapes)

    def _told(self, filename: str, name: str, keymap: Any) -> tuple[Any, ...]:
        """The type and the shape of a tensor; of groups their bits and rows, too, by which the engine goes."""
        if filename not in self._files:
            loader = importlib.import_module("exllamav2.stloader").STFile
            self._files[filename] = loader.open(filename, keymap=keymap)
        file = self._files[filename]
        entry = file.header[name]
        told = (entry["dtype"], *entry["shape"])
        if not name.endswith(".q_groups"):
            return told
        if filename not in self._opened:
            self._opened[filename] = os.open(filename, os.O_RDONLY)
            self._stack.callback(os.close, self._opened[filename])
        begin, end = entry["data_offsets"]
        return (*told, os.pread(self._opened[filename], end - begin, file.header_size + begin))


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
