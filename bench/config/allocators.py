"""The key `allocator`: its names, and settings of PyTorch's allocator as people write them in PYTORCH_ALLOC_CONF."""

from __future__ import annotations

from typing import Any

from bench.core.case import ALLOCATORS, EXPANDABLE, NATIVE

# Settings that are neither simulated nor passed on, by what they do to a request.
_NOT_SIMULATED = {
    "max_split_size_mb": "larger blocks are not split",
    "roundup_power2_divisions": "requests are rounded up",
    "garbage_collection_threshold": "cached blocks are given back early",
}
SETTINGS = tuple(_NOT_SIMULATED)
_ASYNC = ("async", "cudamallocasync", "backend:cudamallocasync")
_SEGMENTS = {"expandable_segments:true": EXPANDABLE, "expandable_segments:false": NATIVE, "backend:native": NATIVE}
_INSTEAD = f"give one of auto, {', '.join(ALLOCATORS)}"


def allocator_name(value: Any) -> Any:
    """The name that `value` has here; anything that is no text as it is. Raises `ValueError` for what is not simulated,
    by its name.
    """
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if text in _ASYNC:
        reason = "cudaMallocAsync's pool is the driver's own, and is not simulated"
        raise ValueError(f"allowed are auto, {', '.join(ALLOCATORS)}; {reason}, nor set for a real card")
    if name := text.partition(":")[0] if text.partition(":")[0] in _NOT_SIMULATED else None:
        raise ValueError(f"{not_simulated(name)}; {_INSTEAD}")
    return _SEGMENTS.get(text, value)


def not_simulated(name: str) -> str:
    """Why a setting of PyTorch's allocator is refused."""
    return (
        f"{name} ({_NOT_SIMULATED[name]}) is not simulated, and a real card is measured without it: cases run with "
        "PyTorch's default, whatever PYTORCH_ALLOC_CONF or PYTORCH_CUDA_ALLOC_CONF say"
    )
