"""Which part of exllamav3 asked for an allocation: read off the Python stack, from the innermost frame outwards."""

from __future__ import annotations

from types import CodeType, FrameType

from bench.allocator.parts import ACTIVATIONS, ATTENTION, CACHE, LOGITS, OTHER, RESERVE, ROPE, SCRATCH, WEIGHTS

_HEAD = -1  # Linear.forward is the output layer's where the model has it as a module, else part of its caller
_UNKNOWN = -2
_FOLDER = "/site-packages/exllamav3/"

_BY_FUNCTION = {
    # Kept for the life of the process, and shared by all layers: the tensors of decoding, above all.
    ("util/tensor.py", "get"): SCRATCH,
    ("util/tensor.py", "get_scratch"): ATTENTION,
    ("util/memory.py", "touch_device"): OTHER,
    ("model/model_ls.py", "_load_autosplit"): ACTIVATIONS,
    ("model/model_ls.py", "forward_ls"): ACTIVATIONS,
    ("modules/attn.py", "autosplit_extra_measure"): RESERVE,
    ("modules/linear.py", "forward"): _HEAD,
}
# A module's `load` and what it calls there makes its weights, and tables of pointers to them.
_OF_LOADING = frozenset({"load", "load_local", "load_routing", "autosplit_prepare"})
_BY_PREFIX = (
    ("loader/", WEIGHTS),
    ("modules/multilinear.py", WEIGHTS),
    ("cache/", CACHE),
    ("util/rope.py", ROPE),
    ("modules/attention_fn/", ATTENTION),
    ("modules/", ACTIVATIONS),
    ("model/", ACTIVATIONS),
)
_known: dict[CodeType, int] = {}


def _classify(code: CodeType) -> int:
    _, inside, path = code.co_filename.rpartition(_FOLDER)
    if not inside:
        return _UNKNOWN
    found = _BY_FUNCTION.get((path, code.co_name))
    if found is not None:
        return found
    if code.co_name == "alloc" and path.startswith("modules/"):  # states of linear attention, rings of windows
        return CACHE
    if code.co_name in _OF_LOADING and path.startswith("modules/"):
        return WEIGHTS
    return next((part for prefix, part in _BY_PREFIX if path.startswith(prefix)), _UNKNOWN)


def part_of(frame: FrameType | None) -> int:
    """The index in `PARTS` of the part that the code running in `frame` allocates for."""
    found = OTHER
    while frame is not None:
        code = frame.f_code
        part = _known.get(code)
        if part is None:
            part = _known[code] = _classify(code)
        if part == _HEAD:
            caps = getattr(frame.f_locals.get("self"), "caps", {})
            return LOGITS if caps.get("logits_output") else ACTIVATIONS
        if part != _UNKNOWN:
            return part
        frame = frame.f_back
    return found
