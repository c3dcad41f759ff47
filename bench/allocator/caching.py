"""A model of PyTorch's CUDACachingAllocator: the same blocks, segments, peaks and OOMs, over no memory at all.

Source of every rule: c10/cuda/CUDACachingAllocator.cpp and c10/core/AllocatorConfig.h of PyTorch 2.11 to 2.13 with
the default settings (no max_split_size_mb, no roundup_power2_divisions, no garbage collection threshold), with native
segments or with expandable ones (expandable.py): an allocator has the one or the other for its life. Not modelled,
because the engines use none of it: record_stream, memory pools, graph capture.

Free of torch, and compiled by numba: the simulated card calls it through `CachingAllocator`, one request at a time; a
recorded trace is replayed through the same functions in a millisecond (replay.py).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.allocator.blocks import merge_free, set_block, split
from bench.allocator.compiled import compiled
from bench.allocator.expandable import take_expandable, unmap_free_pages
from bench.allocator.free_blocks import close_holes, leave_hole, remember_free, take_free_block
from bench.allocator.sizes import SMALL_SIZE, round_size, segment_size
from bench.allocator.state import (
    ADDRESS,
    ALLOCATED,
    DEVICE_BYTES,
    FRACTION_LIMIT,
    FREE,
    FULL,
    HOLE,
    IN_USE,
    LIMIT,
    NEXT,
    NEXT_ADDRESS,
    NUM_OOMS,
    NUM_RETRIES,
    NUM_SEGMENTS,
    NUM_UNUSED,
    PART,
    PEAK_ALLOCATED,
    PEAK_REQUESTED,
    PEAK_RESERVED,
    PREV,
    REQUESTED,
    REQUESTED_NOW,
    RESERVED,
    SIZE,
    UNLIMITED_BYTES,
    UNMAPPED,
    USED,
    WATCHED_PEAK,
    State,
    give_row_back,
    has_room,
    new_state,
    take_row,
)


@compiled
def malloc(state: State, size_bytes: int, stream: int, part: int) -> int:
    """The row of a block of at least `size_bytes` (> 0) for `stream`; `FULL` when the card is full.

    The state must have room (`has_room`).
    """
    counters = state.counters
    size = round_size(size_bytes)
    pool = 2 * stream + (0 if size <= SMALL_SIZE else 1)
    if counters[DEVICE_BYTES] > 0:
        row = take_expandable(state, size, pool)
    else:
        row = take_free_block(state, size, pool)
        if row == FULL:
            row = _new_segment(state, size, pool)
        if row == FULL:
            empty_cache(state)
            counters[NUM_RETRIES] += 1
            row = _new_segment(state, size, pool)
    if row == FULL:
        counters[NUM_OOMS] += 1
        return FULL
    split(state, row, size)
    blocks = state.blocks
    blocks[row][IN_USE] = USED
    blocks[row][REQUESTED] = size_bytes
    blocks[row][PART] = part
    counters[ALLOCATED] += blocks[row][SIZE]
    counters[REQUESTED_NOW] += size_bytes
    state.parts[0][part] += blocks[row][SIZE]
    if counters[ALLOCATED] > counters[PEAK_ALLOCATED]:
        counters[PEAK_ALLOCATED] = counters[ALLOCATED]
        for i in range(len(state.parts[0])):
            state.parts[1][i] = state.parts[0][i]
    counters[WATCHED_PEAK] = max(counters[WATCHED_PEAK], counters[ALLOCATED])
    counters[PEAK_REQUESTED] = max(counters[PEAK_REQUESTED], counters[REQUESTED_NOW])
    return row


@compiled
def free(state: State, row: int) -> bool:
    """Gives a block back to its pool, merged with its free neighbours; False if it was not in use."""
    blocks, counters = state.blocks, state.counters
    if blocks[row][IN_USE] != USED:
        return False
    counters[ALLOCATED] -= blocks[row][SIZE]
    counters[REQUESTED_NOW] -= blocks[row][REQUESTED]
    state.parts[0][blocks[row][PART]] -= blocks[row][SIZE]
    blocks[row][IN_USE] = FREE
    merge_free(state, row)
    remember_free(state, row)
    return True


@compiled
def empty_cache(state: State) -> None:
    """Gives every segment without a block in use back to the driver, and unmaps the free pages of expandable ones.

    The state must have room (`has_room`).
    """
    blocks = state.blocks
    if state.counters[DEVICE_BYTES] > 0:
        unmap_free_pages(state)
        return
    for pool in range(len(state.num_free)):
        for place in range(state.num_free[pool]):
            row = state.free[pool][place]
            if row != HOLE and blocks[row][PREV] < 0 and blocks[row][NEXT] < 0:
                state.counters[RESERVED] -= blocks[row][SIZE]
                state.counters[NUM_SEGMENTS] -= 1
                leave_hole(state, pool, place)
                give_row_back(state, row)
        close_holes(state, pool)


@compiled
def _new_segment(state: State, size: int, pool: int) -> int:
    counters = state.counters
    segment = segment_size(size)
    if counters[RESERVED] + segment > counters[LIMIT]:
        return FULL
    counters[RESERVED] += segment
    counters[NUM_SEGMENTS] += 1
    counters[PEAK_RESERVED] = max(counters[PEAK_RESERVED], counters[RESERVED])
    row = take_row(state)
    set_block(state, row, counters[NEXT_ADDRESS], segment, pool, -1, -1)
    counters[NEXT_ADDRESS] += segment
    return row


class OutOfMemory(Exception):
    """The card is full: neither a free block nor a new segment can serve the request.

    `requested_bytes` is the caller's request, `segment_bytes` the segment that was asked from the driver for it, and
    `free_bytes` what the card had left.
    """

    def __init__(self, requested_bytes: int, free_bytes: int) -> None:
        super().__init__(f"{requested_bytes} bytes requested, {free_bytes} bytes free on the card")
        self.requested_bytes = requested_bytes
        self.segment_bytes = int(segment_size(round_size(requested_bytes)))
        self.free_bytes = free_bytes


class Block(NamedTuple):
    """A piece of a segment as it is now; `prev` and `next` are the rows of its neighbours in the same segment."""

    row: int
    address: int
    size_bytes: int
    requested_bytes: int
    stream: int
    small: bool
    part: int
    in_use: bool
    is_mapped: bool
    prev: int | None
    next: int | None


class Statistics(NamedTuple):
    """Bytes now and at their highest since the last reset, under the names of `torch.cuda.memory_stats`."""

    allocated_bytes: int
    requested_bytes: int
    reserved_bytes: int
    peak_allocated_bytes: int
    peak_requested_bytes: int
    peak_reserved_bytes: int
    num_segments: int
    num_alloc_retries: int
    num_ooms: int


class CachingAllocator:
    """Blocks of one device, each known by its row. `limit_bytes` is what all segments together may take.

    With `device_bytes`, the device's memory, segments are expandable, and `fraction_bytes` is what a fraction of it
    allows (`set_per_process_memory_fraction`). `parts` counts the bytes in use by the caller's own labels
    (`malloc(..., part=i)`); `parts_at_peak` is their state when allocated bytes first were at their highest.
    """

    def __init__(
        self, limit_bytes: int, num_parts: int = 1, device_bytes: int = 0, fraction_bytes: int = UNLIMITED_BYTES
    ) -> None:
        self.limit_bytes = limit_bytes
        self._is_expandable = device_bytes > 0
        self._state = new_state(limit_bytes, num_parts, 1024, 2, device_bytes, fraction_bytes)

    def malloc(self, size_bytes: int, stream: int = 0, part: int = 0) -> int:
        """A block of at least `size_bytes` (> 0) for `stream`; raises `OutOfMemory` when the card is full."""
        if self._state.counters[NUM_UNUSED] < 2 or 2 * stream >= len(self._state.num_free):
            self._grow(stream)
        if self._is_expandable:
            self._make_room()
        row = int(malloc(self._state, size_bytes, stream, part))
        if row == FULL:
            raise OutOfMemory(size_bytes, self.free_bytes)
        return row

    def free(self, row: int) -> None:
        """Gives a block back to its pool."""
        if not free(self._state, row):
            raise ValueError(f"block {row} is not in use")

    def empty_cache(self) -> None:
        """Gives every segment without a block in use back to the driver, and every free page of expandable ones."""
        self._make_room()
        empty_cache(self._state)

    def set_room(self, limit_bytes: int) -> None:
        """What the driver gives out from now on, of a card that others take of; what is held stays held."""
        self.limit_bytes = limit_bytes
        self._state.counters[LIMIT] = limit_bytes

    def set_limit(self, limit_bytes: int) -> None:
        """`torch.cuda.set_per_process_memory_fraction`: from now on; what is held stays held."""
        counters = self._state.counters
        if self._is_expandable:
            counters[FRACTION_LIMIT] = limit_bytes if limit_bytes < counters[DEVICE_BYTES] else UNLIMITED_BYTES
        else:
            self.limit_bytes = limit_bytes
            counters[LIMIT] = limit_bytes

    def reset_peak(self) -> None:
        """`torch.cuda.reset_peak_memory_stats`: the peaks start again from what is in use now."""
        counters = self._state.counters
        counters[PEAK_ALLOCATED] = counters[ALLOCATED]
        counters[PEAK_REQUESTED] = counters[REQUESTED_NOW]
        counters[PEAK_RESERVED] = counters[RESERVED]
        self._state.parts[1] = self._state.parts[0]

    @property
    def free_bytes(self) -> int:
        """What the card has left for new segments."""
        return self.limit_bytes - int(self._state.counters[RESERVED])

    @property
    def stats(self) -> Statistics:
        """Sizes and counts now, as `torch.cuda.memory_stats` would give them."""
        return Statistics(*(int(count) for count in self._state.counters[ALLOCATED : NUM_OOMS + 1]))

    @property
    def parts(self) -> list[int]:
        """Bytes in use now, by part."""
        return [int(size) for size in self._state.parts[0]]

    @property
    def parts_at_peak(self) -> list[int]:
        """Bytes in use by part, when allocated bytes first were at their highest."""
        return [int(size) for size in self._state.parts[1]]

    def address(self, row: int) -> int:
        """Where a block begins."""
        return int(self._state.blocks[row, ADDRESS])

    def block(self, row: int) -> Block:
        """What a block is now."""
        address, size, requested, pool, part, in_use, before, after = (int(field) for field in self._state.blocks[row])
        return Block(
            row=row,
            address=address,
            size_bytes=size,
            requested_bytes=requested if in_use == USED else 0,
            stream=pool // 2,
            small=pool % 2 == 0,
            part=part,
            in_use=in_use == USED,
            is_mapped=in_use != UNMAPPED,
            prev=before if before >= 0 else None,
            next=after if after >= 0 else None,
        )

    def all_blocks(self) -> NDArray[np.int64]:
        """The rows of `State.blocks` that hold a block, in use or free, or unmapped addresses."""
        state = self._state
        held = np.ones(len(state.blocks), bool)
        held[state.unused[: state.counters[NUM_UNUSED]]] = False
        rows: NDArray[np.int64] = state.blocks[held]
        return rows

    def free_blocks(self) -> list[Block]:
        """Every cached block, pool by pool in the allocator's own order."""
        state = self._state
        places = (row for pool, count in enumerate(state.num_free) for row in state.free[pool, :count])
        return [self.block(int(row)) for row in places if row != HOLE]

    def _make_room(self) -> None:
        while not has_room(self._state):
            self._grow(0)

    def _grow(self, stream: int) -> None:
        """Room for twice the blocks, and for the pools of `stream`."""
        old = self._state
        rows, streams = len(old.blocks), len(old.num_free) // 2
        new = new_state(self.limit_bytes, old.parts.shape[1], 2 * rows, max(streams, stream + 1))
        new.blocks[:rows] = old.blocks
        new.free[: 2 * streams, : old.free.shape[1]] = old.free
        new.free_keys[: 2 * streams, : old.free.shape[1]] = old.free_keys
        new.num_free[: 2 * streams] = old.num_free
        new.num_holes[: 2 * streams] = old.num_holes
        new.parts[:] = old.parts
        new.counters[: len(old.counters)] = old.counters
        num_unused = int(old.counters[NUM_UNUSED])
        new.unused[rows : rows + num_unused] = old.unused[:num_unused]  # above the new rows, which its bottom lists
        new.counters[NUM_UNUSED] = rows + num_unused
        self._state = new
