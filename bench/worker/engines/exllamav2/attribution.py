"""Which part of the engine asked for an allocation: read off the Python stack, from the innermost frame outwards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType

from bench.allocator.parts import (
    ACTIVATIONS,
    ATTENTION,
    CACHE,
    DRAFT_CACHE,
    DRAFT_WEIGHTS,
    LOGITS,
    OTHER,
    RESERVE,
    ROPE,
    SCRATCH,
    VISION,
    WEIGHTS,
)

_HEAD = -1  # ExLlamaV2Linear.forward is the output layer when model.py calls it, else part of its caller
_MOVED = -2  # a tensor that changes device belongs to whoever moves it; the model itself moves hidden states
_UNKNOWN = -3

_BY_FUNCTION = {
    ("device.py", "prepare"): SCRATCH,
    ("device.py", "prepare_sincos"): ROPE,
    ("cache.py", "create_state_tensors"): CACHE,
    ("cache.py", "update_cache_tensors"): CACHE,
    ("cache.py", "touch_device"): CACHE,
    ("module.py", "load_weight"): WEIGHTS,
    ("module.py", "load_multi"): WEIGHTS,
    ("module.py", "load_weight_fused"): WEIGHTS,
    ("ext.py", "make_q_matrix"): WEIGHTS,
    ("linear.py", "forward"): _HEAD,
    ("linear.py", "forward_tp"): _HEAD,
    ("tensor_p.py", "get_sin_cos"): ROPE,
    ("tensor_p.py", "broadcast"): ACTIVATIONS,
    ("compat.py", "safe_move_tensor"): _MOVED,
    ("model.py", "load_autosplit_gen"): RESERVE,
    ("model.py", "forward_chunk"): LOGITS,
    ("model.py", "forward"): LOGITS,
    ("dynamic.py", "__init__"): CACHE,  # pages to defragment the cache with
}
_BY_FILE = {
    "attn.py": ATTENTION,
    "attn_params.py": ATTENTION,
    "mlp.py": ACTIVATIONS,
    "moe_mlp.py": ACTIVATIONS,
    "parallel_decoder.py": ACTIVATIONS,
    "embedding.py": ACTIVATIONS,
    "rmsnorm.py": ACTIVATIONS,
    "layernorm.py": ACTIVATIONS,
    "pos_embedding.py": ACTIVATIONS,
}
_OF_DRAFT = {WEIGHTS: DRAFT_WEIGHTS, CACHE: DRAFT_CACHE}
_OUR_OWN = os.path.dirname(__file__)  # of the same name
_known: dict[CodeType, int] = {}
_is_of_draft = False


@contextmanager
def of_draft() -> Iterator[None]:
    """While it lasts, weights and keys and values are those of a draft model."""
    global _is_of_draft
    _is_of_draft = True
    try:
        yield
    finally:
        _is_of_draft = False


_is_of_vision = False


@contextmanager
def of_vision() -> Iterator[None]:
    """While it lasts, all that is allocated is the vision tower's."""
    global _is_of_vision
    _is_of_vision = True
    try:
        yield
    finally:
        _is_of_vision = False


def _classify(code: CodeType) -> int:
    folder, file = os.path.split(code.co_filename)
    if os.path.basename(folder) not in ("exllamav2", "generator") or folder == _OUR_OWN:
        return _UNKNOWN
    if code.co_name in ("load", "tp_split"):
        return WEIGHTS
    return _BY_FUNCTION.get((file, code.co_name), _BY_FILE.get(file, _UNKNOWN))


def part_of(frame: FrameType | None) -> int:
    """The index in `PARTS` of the part that the code running in `frame` allocates for."""
    if _is_of_vision:
        return VISION
    moved = head = False
    while frame is not None:
        code = frame.f_code
        part = _known.get(code)
        if part is None:
            part = _known[code] = _classify(code)
        if part >= 0:
            if part in (RESERVE, LOGITS):  # called by the model itself, not by one of its modules
                return LOGITS if head else ACTIVATIONS if moved else part
            return _OF_DRAFT.get(part, part) if _is_of_draft else part
        head = head or part == _HEAD
        moved = moved or part == _MOVED
        frame = frame.f_back
    return OTHER
