"""Sizes of blocks and segments (c10/core/AllocatorConfig.h, CUDACachingAllocator.cpp), with the default settings."""

from __future__ import annotations

from bench.allocator.compiled import compiled

MIN_BLOCK_SIZE = 512  # every request is rounded up to a multiple of this (kMinBlockSize)
SMALL_SIZE = 1 << 20  # the largest request served from the small pool (kSmallSize)
SMALL_BUFFER = 2 << 20  # a segment of the small pool (kSmallBuffer)
MIN_LARGE_ALLOC = 10 << 20  # requests from here on get a segment of their own size (kMinLargeAlloc)
LARGE_BUFFER = 20 << 20  # a segment that several medium requests share (large_segment_size_mb)
ROUND_LARGE = 2 << 20  # large segments are a multiple of this (kRoundLarge)


@compiled
def round_size(size_bytes: int) -> int:
    """The size of the block that serves a request of `size_bytes` (> 0)."""
    return -(-size_bytes // MIN_BLOCK_SIZE) * MIN_BLOCK_SIZE


@compiled
def segment_size(rounded_bytes: int) -> int:
    """The size of the segment that is asked from the driver for a block of `rounded_bytes`."""
    if rounded_bytes <= SMALL_SIZE:
        return SMALL_BUFFER
    if rounded_bytes < MIN_LARGE_ALLOC:
        return LARGE_BUFFER
    return -(-rounded_bytes // ROUND_LARGE) * ROUND_LARGE


@compiled
def page_size(pool: int) -> int:
    """What an expandable segment of that pool grows by: even numbers are small pools."""
    return SMALL_BUFFER if pool % 2 == 0 else LARGE_BUFFER
