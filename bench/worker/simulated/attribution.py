"""Which part of the engine asked for an allocation: read off the Python stack, from the innermost frame outwards."""

from __future__ import annotations

import os
from types import CodeType, FrameType

# The parts of a card's memory, in the order of every list that counts them.
PARTS = (
    "weights",
    "cache",
    "scratch",
    "rope",
    "attention",
    "logits",
    "activations",
    "reserve",
    "workspace",
    "other",
)
WEIGHTS, CACHE, SCRATCH, ROPE, ATTENTION, LOGITS, ACTIVATIONS, RESERVE, WORKSPACE, OTHER = range(len(PARTS))

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
    ("compat.py", "safe_move_tensor"): _MOVED,
    ("model.py", "load_autosplit_gen"): RESERVE,
    ("model.py", "forward_chunk"): LOGITS,
    ("model.py", "forward"): LOGITS,
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
_known: dict[CodeType, int] = {}


def _classify(code: CodeType) -> int:
    folder, file = os.path.split(code.co_filename)
    if os.path.basename(folder) != "exllamav2":
        return _UNKNOWN
    if code.co_name == "load":
        return WEIGHTS
    return _BY_FUNCTION.get((file, code.co_name), _BY_FILE.get(file, _UNKNOWN))


def part_of(frame: FrameType | None) -> int:
    """The index in `PARTS` of the part that the code running in `frame` allocates for."""
    moved = False
    while frame is not None:
        code = frame.f_code
        part = _known.get(code)
        if part is None:
            part = _known[code] = _classify(code)
        frame = frame.f_back
        if part >= 0:
            return ACTIVATIONS if moved and part in (RESERVE, LOGITS) else part
        if part == _HEAD and frame is not None and frame.f_code.co_filename.endswith("model.py"):
            return LOGITS
        moved = moved or part == _MOVED
    return OTHER
