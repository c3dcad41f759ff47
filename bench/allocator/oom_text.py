"""PyTorch's message when a card is full, with the same figures (c10/cuda/CUDACachingAllocator.cpp)."""

from __future__ import annotations

import re

from bench.allocator.caching import OutOfMemory, Statistics

_CARD = re.compile(r"out of memory\..* GPU (\d+)\b")


def oom_text(error: OutOfMemory, stats: Statistics, total_bytes: int, index: int = 0) -> str:
    """The message of `torch.OutOfMemoryError` on the simulated card `cuda:index` of `total_bytes`, up to its advice.

    "Tried to allocate" is the segment that was asked from the driver, not the tensor: 20.00 MiB for one of 2 MiB.
    """
    return (
        f"CUDA out of memory. Tried to allocate {format_size(error.segment_bytes)}. GPU {index} (simulated) has a "
        f"total capacity of {format_size(total_bytes)} of which {format_size(error.free_bytes)} is free. Of the "
        f"allocated memory {format_size(stats.allocated_bytes)} is allocated by PyTorch, and "
        f"{format_size(stats.reserved_bytes - stats.allocated_bytes)} is reserved by PyTorch but unallocated."
    )


def card_of(text: str) -> int | None:
    """The number of the card that ran out of memory, as PyTorch's message tells it; None where it does not."""
    found = _CARD.search(text)
    return int(found[1]) if found else None


def format_size(size_bytes: int) -> str:
    """A size as PyTorch's allocator prints it: two decimals of the largest unit that it exceeds."""
    if size_bytes <= 1 << 10:
        return f"{size_bytes} bytes"
    for unit_bytes, unit in ((1 << 10, "KiB"), (1 << 20, "MiB")):
        if size_bytes <= unit_bytes << 10:
            return f"{size_bytes / unit_bytes:.2f} {unit}"
    return f"{size_bytes / (1 << 30):.2f} GiB"
