"""Replays a program through the allocator: does a case fit a card of this size, and what does it take at its peak?

This is the allocator that the simulated card uses, fed with the events that the engine would have caused there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numba import njit

from bench.memory import allocator, flash
from bench.memory import program as columns
from bench.memory.allocator import State
from bench.memory.limits import Limits
from bench.memory.parts import PARTS
from bench.memory.program import DENOMINATOR, NUM_TERMS, Array, Program, Unpredictable, terms
from bench.memory.trace import Op, Size

_ENDLESS_BYTES = 1 << 60
_HASH_FACTOR = 0x100000001B3  # of 64-bit FNV-1a

_MALLOC, _FREE = int(Op.MALLOC), int(Op.FREE)
_TENSOR, _WORKSPACE, _SCRATCH, _FLASH_0 = (int(s) for s in (Size.TENSOR, Size.WORKSPACE, Size.SCRATCH, Size.FLASH_0))
_OP, _BLOCK, _STREAM, _PART, _SIZE_RULE = (
    columns.OP,
    columns.BLOCK,
    columns.STREAM,
    columns.PART,
    columns.SIZE_RULE,
)
_BATCH, _HEADS, _HEAD_DIM, _KV_HEADS, _WINDOW = (
    columns.BATCH,
    columns.HEADS,
    columns.HEAD_DIM,
    columns.KV_HEADS,
    columns.WINDOW,
)
_SIZE_TERMS, _Q_TERMS, _K_TERMS = columns.SIZE_TERMS, columns.Q_TERMS, columns.K_TERMS
# How a replay ends: all done, the card full, or no room left in the arrays of the allocator's state.
_DONE, _FULL, _CROWDED = range(3)


@dataclass(frozen=True)
class Replay:
    """How a case ended: `failed_in` is the phase in which the card was full, None where it fits."""

    failed_in: str | None
    peak_allocated_bytes: int
    peak_requested_bytes: int
    peak_reserved_bytes: int
    parts_at_peak: tuple[int, ...]

    @property
    def fits(self) -> bool:
        return self.failed_in is None


class Replayer:
    """One cell, ready to be replayed at any length on any card: a program and the sizes of a checkpoint's tensors."""

    def __init__(self, program: Program, tensor_bytes: Mapping[str, int]) -> None:
        """Raises `Unpredictable` where the checkpoint lacks a tensor that the program loads."""
        self._program = program.deepened()
        self._kinds = list(self._program.templates)
        events = np.concatenate([self._program.templates[kind] for kind in self._kinds])
        lengths = [len(self._program.templates[kind]) for kind in self._kinds]
        self._starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self._events = np.ascontiguousarray(events)
        sizes = np.zeros((len(self._program.tensors), self._program.depth + 2), np.int64)
        try:
            for index, layer, name in self._program.tensor_names:
                sizes[index, layer + 1] = tensor_bytes[name]
        except KeyError as missing:
            raise Unpredictable(f"the checkpoint has no tensor {missing}") from None
        loads = events[:, columns.SIZE_RULE] == Size.TENSOR
        wanted = sizes[events[loads, columns.TENSOR], events[loads, columns.LAYER] + 1]
        self._events[loads, columns.SIZE_TERMS] = wanted * DENOMINATOR
        self._needed: dict[int, int] = {}
        self._num_streams = int(events[:, columns.STREAM].max()) + 1

    @property
    def attention(self) -> str:
        """The back end that runs."""
        return self._program.setup.attention

    def replay(self, max_seq_len: int, limits: Limits, endless: bool = False) -> Replay:
        """The case at `max_seq_len` on a card, or on an endless one of its kind.

        Raises `Unpredictable` for lengths that the recordings say nothing about.
        """
        passes = self._program.passes(max_seq_len)
        steps = np.array([[self._kinds.index(p.kind), p.q_len, p.k_len] for p in passes], np.int64)
        lengths = np.stack([terms(p.q_len, p.k_len, max_seq_len) for p in passes]).astype(np.int64)
        card = (limits.num_sms, limits.workspace_bytes, self._program.scratch_bytes(max_seq_len))
        max_blocks = 2 * len(self._events) + 2
        while True:
            limit_bytes = _ENDLESS_BYTES if endless else limits.torch_bytes
            state = allocator.new_state(limit_bytes, len(PARTS), max_blocks, self._num_streams)
            failed, ended = _replay(self._events, self._starts, steps, lengths, card, state)
            if ended != _CROWDED:
                break
            max_blocks *= 4  # chunks that grow may leave any number of segments behind
        counters = state.counters
        return Replay(
            failed_in=None if ended == _DONE else passes[failed].phase,
            peak_allocated_bytes=int(counters[allocator.PEAK_ALLOCATED]),
            peak_requested_bytes=int(counters[allocator.PEAK_REQUESTED]),
            peak_reserved_bytes=int(counters[allocator.PEAK_RESERVED]),
            parts_at_peak=tuple(int(size) for size in state.parts[1]),
        )

    def needed_bytes(self, max_seq_len: int, limits: Limits) -> int:
        """About what PyTorch must hold at that length, on any card; remembered."""
        if max_seq_len not in self._needed:
            self._needed[max_seq_len] = self.replay(max_seq_len, limits, endless=True).peak_allocated_bytes
        return self._needed[max_seq_len]


@njit(cache=True, nogil=True)
def _replay(
    events: Array, starts: Array, steps: Array, lengths: Array, card: tuple[int, int, int], state: State
) -> tuple[int, int]:
    """Runs every step; the index of the last one and how it ended.

    `card` has its number of multiprocessors, and the bytes of the cuBLAS workspace and of the scratch buffer.
    """
    rows = np.full(len(events), -1, np.int64)
    longest = 0
    for kind in range(len(starts) - 1):
        longest = max(longest, starts[kind + 1] - starts[kind])
    sizes = np.zeros(longest, np.int64)
    before = np.zeros(longest, np.int64)
    steady = False
    for step in range(len(steps)):
        kind = steps[step, 0]
        first, last = starts[kind], starts[kind + 1]
        repeats = step > 0 and steps[step - 1, 0] == kind
        before[:] = sizes
        _sizes_of(events, first, last, lengths[step], card, sizes)
        same = repeats and np.array_equal(before[: last - first], sizes[: last - first])
        if same and steady:
            continue
        mark = _mark(state)
        ended = _run(events, first, last, sizes, rows, state)
        if ended != _DONE:
            return step, ended
        # A section that left the free blocks as it found them will do so again, as long as its sizes are the same.
        steady = same and _mark(state) == mark
    return len(steps) - 1, _DONE


@njit(cache=True, nogil=True)
def _sizes_of(events: Array, first: int, last: int, lengths: Array, card: tuple[int, int, int], sizes: Array) -> None:
    """What each allocation of a section asks for."""
    for index in range(first, last):
        if events[index, _OP] != _MALLOC:
            continue
        rule = events[index, _SIZE_RULE]
        if rule == _WORKSPACE:
            size = card[1]
        elif rule == _SCRATCH:
            size = card[2]
        elif rule == _TENSOR:
            size = events[index, _SIZE_TERMS] // DENOMINATOR
        elif rule >= _FLASH_0:
            size = flash.temporaries(
                events[index, _BATCH],
                _value(events, index, _Q_TERMS, lengths),
                events[index, _HEADS],
                events[index, _HEAD_DIM],
                _value(events, index, _K_TERMS, lengths),
                events[index, _KV_HEADS],
                events[index, _WINDOW],
                card[0],
            )[rule - _FLASH_0]
        else:
            size = _value(events, index, _SIZE_TERMS, lengths)
        sizes[index - first] = size


@njit(cache=True, nogil=True)
def _value(events: Array, index: int, start: int, lengths: Array) -> int:
    total = 0
    for term in range(NUM_TERMS):
        total += events[index, start + term] * lengths[term]
    return total // DENOMINATOR


@njit(cache=True, nogil=True)
def _run(events: Array, first: int, last: int, sizes: Array, rows: Array, state: State) -> int:
    """The events of one section; how it ended."""
    for index in range(first, last):
        op = events[index, _OP]
        if op == _MALLOC:
            if sizes[index - first] == 0:
                rows[index] = -1
                continue
            if state.counters[allocator.NUM_UNUSED] < 2:
                return _CROWDED
            row = allocator.malloc(state, sizes[index - first], events[index, _STREAM], events[index, _PART])
            if row == allocator.FULL:
                return _FULL
            rows[index] = row
        elif op == _FREE:
            row = rows[first + events[index, _BLOCK]]
            if row >= 0:
                allocator.free(state, row)
        else:
            allocator.empty_cache(state)
    return _DONE


@njit(cache=True, nogil=True)
def _mark(state: State) -> int:
    """A hash of the free blocks and of what is held."""
    mark = int(state.counters[allocator.RESERVED])
    for pool in range(len(state.num_free)):
        for i in range(state.num_free[pool]):
            row = state.free[pool, i]
            mark = (mark ^ state.blocks[row, allocator.ADDRESS]) * _HASH_FACTOR
            mark = (mark ^ state.blocks[row, allocator.SIZE]) * _HASH_FACTOR
        mark = (mark ^ pool) * _HASH_FACTOR
    return int(mark)
