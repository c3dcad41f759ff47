"""A model of PyTorch's CUDACachingAllocator: the same blocks, segments, peaks and OOMs, over no memory at all.

Source of every rule: c10/cuda/CUDACachingAllocator.cpp and c10/core/AllocatorConfig.h of PyTorch 2.11 to 2.13 with
the default settings (no expandable segments, no max_split_size_mb, no roundup_power2_divisions, no garbage
collection threshold). Not modelled, because ExLlamaV2 uses none of it: record_stream, memory pools, graph capture.

Pure Python and free of torch, so that it can be tested, and a recorded trace replayed, in milliseconds.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field

MIN_BLOCK_SIZE = 512  # every request is rounded up to a multiple of this (kMinBlockSize)
SMALL_SIZE = 1 << 20  # the largest request served from the small pool (kSmallSize)
SMALL_BUFFER = 2 << 20  # a segment of the small pool (kSmallBuffer)
MIN_LARGE_ALLOC = 10 << 20  # requests from here on get a segment of their own size (kMinLargeAlloc)
LARGE_BUFFER = 20 << 20  # a segment that several medium requests share (large_segment_size_mb)
ROUND_LARGE = 2 << 20  # large segments are a multiple of this (kRoundLarge)


class OutOfMemory(Exception):
    """The card is full: neither a free block nor a new segment can serve the request.

    `requested_bytes` is the caller's request, `free_bytes` what the card had left for a new segment.
    """

    def __init__(self, requested_bytes: int, free_bytes: int) -> None:
        super().__init__(f"{requested_bytes} bytes requested, {free_bytes} bytes free on the card")
        self.requested_bytes = requested_bytes
        self.free_bytes = free_bytes


@dataclass(eq=False, slots=True)
class Block:
    """A piece of a segment, in use or free; `prev` and `next` are its neighbours in the same segment."""

    address: int
    size_bytes: int
    stream: int
    small: bool
    requested_bytes: int = 0
    in_use: bool = False
    part: int = 0
    prev: Block | None = field(default=None, repr=False)
    next: Block | None = field(default=None, repr=False)

    @property
    def is_whole_segment(self) -> bool:
        return self.prev is None and self.next is None


@dataclass
class Statistics:
    """Bytes now and at their highest since the last reset, under the names of `torch.cuda.memory_stats`."""

    allocated_bytes: int = 0
    requested_bytes: int = 0
    reserved_bytes: int = 0
    peak_allocated_bytes: int = 0
    peak_requested_bytes: int = 0
    peak_reserved_bytes: int = 0
    num_segments: int = 0
    num_alloc_retries: int = 0
    num_ooms: int = 0


def round_size(size_bytes: int) -> int:
    """The size of the block that serves a request of `size_bytes` (> 0)."""
    return max(MIN_BLOCK_SIZE, -(-size_bytes // MIN_BLOCK_SIZE) * MIN_BLOCK_SIZE)


def segment_size(rounded_bytes: int) -> int:
    """The size of the segment that is asked from the driver for a block of `rounded_bytes`."""
    if rounded_bytes <= SMALL_SIZE:
        return SMALL_BUFFER
    if rounded_bytes < MIN_LARGE_ALLOC:
        return LARGE_BUFFER
    return -(-rounded_bytes // ROUND_LARGE) * ROUND_LARGE


class CachingAllocator:
    """Blocks of one device. `limit_bytes` is what all segments together may take.

    `parts` counts the bytes in use by the caller's own labels (`malloc(..., part=i)`); `parts_at_peak` is their state
    when allocated bytes first were at their highest.
    """

    def __init__(self, limit_bytes: int, num_parts: int = 1) -> None:
        self.limit_bytes = limit_bytes
        self.stats = Statistics()
        self.parts = [0] * num_parts
        self.parts_at_peak = [0] * num_parts
        # Free blocks by (stream, small), each list ordered as the real one: by size, then by address.
        self._free: dict[tuple[int, bool], list[tuple[int, int, Block]]] = {}
        self._next_address = 1 << 40

    def malloc(self, size_bytes: int, stream: int = 0, part: int = 0) -> Block:
        """A block of at least `size_bytes` (> 0) for `stream`; raises `OutOfMemory` when the card is full."""
        size = round_size(size_bytes)
        small = size <= SMALL_SIZE
        block = self._take_free_block(size, stream, small)
        if block is None:
            block = self._new_segment(size, stream, small)
        if block is None:
            self.empty_cache()
            self.stats.num_alloc_retries += 1
            block = self._new_segment(size, stream, small)
        if block is None:
            self.stats.num_ooms += 1
            raise OutOfMemory(size_bytes, self.limit_bytes - self.stats.reserved_bytes)
        self._split(block, size)
        block.in_use = True
        block.requested_bytes = size_bytes
        block.part = part
        self._count_malloc(block)
        return block

    def free(self, block: Block) -> None:
        """Gives a block back to its pool, merged with its free neighbours."""
        if not block.in_use:
            raise ValueError(f"block at {block.address:#x} is not in use")
        stats = self.stats
        stats.allocated_bytes -= block.size_bytes
        stats.requested_bytes -= block.requested_bytes
        self.parts[block.part] -= block.size_bytes
        block.in_use = False
        before, after = block.prev, block.next
        if before is not None and not before.in_use:
            self._forget_free(before)
            block.address = before.address
            block.size_bytes += before.size_bytes
            block.prev = before.prev
            if block.prev is not None:
                block.prev.next = block
        if after is not None and not after.in_use:
            self._forget_free(after)
            block.size_bytes += after.size_bytes
            block.next = after.next
            if block.next is not None:
                block.next.prev = block
        self._remember_free(block)

    def empty_cache(self) -> None:
        """Gives every segment without a block in use back to the driver."""
        for key, pool in self._free.items():
            whole = [block for _, _, block in pool if block.is_whole_segment]
            if whole:
                self.stats.reserved_bytes -= sum(block.size_bytes for block in whole)
                self.stats.num_segments -= len(whole)
                self._free[key] = [entry for entry in pool if not entry[2].is_whole_segment]

    def reset_peak(self) -> None:
        """`torch.cuda.reset_peak_memory_stats`: the peaks start again from what is in use now."""
        stats = self.stats
        stats.peak_allocated_bytes = stats.allocated_bytes
        stats.peak_requested_bytes = stats.requested_bytes
        stats.peak_reserved_bytes = stats.reserved_bytes
        self.parts_at_peak = self.parts.copy()

    def free_blocks(self) -> list[Block]:
        """Every cached block, in no particular order."""
        return [block for pool in self._free.values() for _, _, block in pool]

    def _take_free_block(self, size: int, stream: int, small: bool) -> Block | None:
        pool = self._free.get((stream, small))
        if not pool:
            return None
        # A tuple of one element sorts before every longer one with the same start: the smallest block that fits.
        index = bisect_left(pool, (size,))
        if index == len(pool):
            return None
        return pool.pop(index)[2]

    def _new_segment(self, size: int, stream: int, small: bool) -> Block | None:
        segment = segment_size(size)
        stats = self.stats
        if stats.reserved_bytes + segment > self.limit_bytes:
            return None
        stats.reserved_bytes += segment
        stats.num_segments += 1
        if stats.reserved_bytes > stats.peak_reserved_bytes:
            stats.peak_reserved_bytes = stats.reserved_bytes
        block = Block(self._next_address, segment, stream, small)
        self._next_address += segment
        return block

    def _split(self, block: Block, size: int) -> None:
        remaining = block.size_bytes - size
        if remaining < MIN_BLOCK_SIZE if block.small else remaining <= SMALL_SIZE:
            return
        rest = Block(block.address + size, remaining, block.stream, block.small, prev=block, next=block.next)
        if rest.next is not None:
            rest.next.prev = rest
        block.next = rest
        block.size_bytes = size
        self._remember_free(rest)

    def _count_malloc(self, block: Block) -> None:
        stats = self.stats
        stats.allocated_bytes += block.size_bytes
        stats.requested_bytes += block.requested_bytes
        self.parts[block.part] += block.size_bytes
        if stats.allocated_bytes > stats.peak_allocated_bytes:
            stats.peak_allocated_bytes = stats.allocated_bytes
            self.parts_at_peak = self.parts.copy()
        if stats.requested_bytes > stats.peak_requested_bytes:
            stats.peak_requested_bytes = stats.requested_bytes

    def _remember_free(self, block: Block) -> None:
        pool = self._free.setdefault((block.stream, block.small), [])
        insort(pool, (block.size_bytes, block.address, block))

    def _forget_free(self, block: Block) -> None:
        pool = self._free[(block.stream, block.small)]
        index = bisect_left(pool, (block.size_bytes, block.address))
        assert pool[index][2] is block
        del pool[index]
