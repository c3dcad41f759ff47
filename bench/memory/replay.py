"""Replays a program through the allocator: does a case fit a card of this size, and what does it take at its peak?

This is the allocator that the simulated card uses, fed with the events that the engine would have caused there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from bench.memory import allocator, flash, sort
from bench.memory import program as columns
from bench.memory.allocator import State
from bench.memory.limits import Limits
from bench.memory.parts import PARTS
from bench.memory.program import DENOMINATOR, NUM_TERMS, Array, Program, Unpredictable, terms
from bench.memory.schedule import DECODE
from bench.memory.trace import Op, Size

_ENDLESS_BYTES = 1 << 60
_HASH_FACTOR = 0x100000001B3  # of 64-bit FNV-1a

_MALLOC, _FREE = int(Op.MALLOC), int(Op.FREE)
_TENSOR, _WORKSPACE, _SCRATCH, _SORT, _FLASH_0 = (
    int(s) for s in (Size.TENSOR, Size.WORKSPACE, Size.SCRATCH, Size.SORT, Size.FLASH_0)
)
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


# Multiprocessors, the bytes of the cuBLAS workspace and of the scratch buffer, and how much is sorted at a time.
_Card = tuple[int, int, int, int]


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


class _Plan(NamedTuple):
    """The sections of a case: their phases, their kinds, and what their sizes are made of (rows of `terms`).

    From the section `first_decode` on, sizes differ from one kind of card to the next.
    """

    phases: list[str]
    kinds: Array
    lengths: Array
    scratch_bytes: int
    first_decode: int


class _Stage(NamedTuple):
    """An allocator amid a case, and the block that each event has made."""

    state: State
    rows: Array

    def copy(self, limit_bytes: int) -> _Stage:
        """The same on a card of another size."""
        copied = _Stage(State(*(each.copy() for each in self.state)), self.rows.copy())
        copied.state.counters[allocator.LIMIT] = limit_bytes
        return copied


class Replayer:
    """One cell, ready to be replayed at any length on any card: a program and the sizes of a checkpoint's tensors."""

    def __init__(self, program: Program, tensor_bytes: Mapping[str, int]) -> None:
        """Raises `Unpredictable` where the checkpoint lacks a tensor that the program loads."""
        self._program = program.deepened()
        self._kinds = list(self._program.templates)
        events, self._starts = self._program.all_events
        self._events = events.copy()
        sizes = np.zeros((len(self._program.tensors), self._program.depth + 2), np.int64)
        try:
            for index, layer, name in self._program.tensor_names:
                sizes[index, layer + 1] = tensor_bytes[name]
        except KeyError as missing:
            raise Unpredictable(f"the checkpoint has no tensor {missing}") from None
        loads = self._events[:, _SIZE_RULE] == Size.TENSOR
        wanted = sizes[self._events[loads, columns.TENSOR], self._events[loads, columns.LAYER] + 1]
        self._events[loads, columns.SIZE_TERMS] = wanted * DENOMINATOR
        self._num_streams = int(self._events[:, _STREAM].max(initial=0)) + 1
        self._max_blocks = len(self._events) // 2 + 2
        self._plans: dict[int, _Plan] = {}
        self._beginnings: dict[tuple[int, bytes], _Stage] = {}
        self._needed: dict[int, int] = {}

    @property
    def attention(self) -> str:
        """The back end that runs."""
        return self._program.setup.attention

    def replay(self, max_seq_len: int, limits: Limits, endless: bool = False) -> Replay:
        """The case at `max_seq_len` on a card, or on an endless one of its kind.

        Raises `Unpredictable` for lengths that the recordings say nothing about.
        """
        plan = self._plans[max_seq_len] = self._plans.get(max_seq_len) or self._plan(max_seq_len)
        limit_bytes = _ENDLESS_BYTES if endless else limits.torch_bytes
        key = max_seq_len, self._asked_before_decode(plan, limits)
        if endless and key not in self._beginnings:
            self._beginnings[key], _ = self._run(plan, limits, _ENDLESS_BYTES, end=plan.first_decode)
        beginning = self._beginnings.get(key)
        if beginning is not None and beginning.state.counters[allocator.PEAK_RESERVED] <= limit_bytes:
            # Where the card was never full, it makes no difference how large it is.
            stage, failed = self._run(plan, limits, limit_bytes, beginning)
        else:
            stage, failed = self._run(plan, limits, limit_bytes)
        counters = stage.state.counters
        return Replay(
            failed_in=None if failed is None else plan.phases[failed],
            peak_allocated_bytes=int(counters[allocator.PEAK_ALLOCATED]),
            peak_requested_bytes=int(counters[allocator.PEAK_REQUESTED]),
            peak_reserved_bytes=int(counters[allocator.PEAK_RESERVED]),
            parts_at_peak=tuple(int(size) for size in stage.state.parts[1]),
        )

    def needed_bytes(self, max_seq_len: int, limits: Limits) -> int:
        """About what PyTorch must hold at that length, on any card; remembered."""
        if max_seq_len not in self._needed:
            self._needed[max_seq_len] = self.replay(max_seq_len, limits, endless=True).peak_allocated_bytes
        return self._needed[max_seq_len]

    def _plan(self, max_seq_len: int) -> _Plan:
        passes = self._program.passes(max_seq_len)
        phases = [each.phase for each in passes]
        return _Plan(
            phases=phases,
            kinds=np.array([self._kinds.index(each.kind) for each in passes], np.int64),
            lengths=np.stack([terms(each.q_len, each.k_len, max_seq_len) for each in passes]).astype(np.int64),
            scratch_bytes=self._program.scratch_bytes(max_seq_len),
            first_decode=phases.index(DECODE),
        )

    def _asked_before_decode(self, plan: _Plan, limits: Limits) -> bytes:
        """The same for kinds of cards that are asked for the same sizes until the first token is decoded."""
        card = _card(limits, plan.scratch_bytes)
        flash_sizes: Array = _all_sizes(*self._program.flash_calls, plan.kinds[: plan.first_decode], plan.lengths, card)
        return np.array(card, np.int64).tobytes()[8:] + flash_sizes.tobytes()  # all of the card but `num_sms`

    def _run(
        self, plan: _Plan, limits: Limits, limit_bytes: int, beginning: _Stage | None = None, end: int | None = None
    ) -> tuple[_Stage, int | None]:
        """The sections before `end`, or those after a `beginning`; the last stage, and where the card was full."""
        card = _card(limits, plan.scratch_bytes)
        steps = (0 if beginning is None else plan.first_decode, len(plan.kinds) if end is None else end)
        while True:
            stage = self._empty_card(limit_bytes) if beginning is None else beginning.copy(limit_bytes)
            failed, ended = _replay(self._events, self._starts, plan.kinds, plan.lengths, steps, card, *stage)
            if ended != _CROWDED:
                return stage, failed if ended == _FULL else None
            self._max_blocks *= 4  # chunks that grow may leave any number of segments behind
            beginning, steps = None, (0, steps[1])

    def _empty_card(self, limit_bytes: int) -> _Stage:
        state = allocator.new_state(limit_bytes, len(PARTS), self._max_blocks, self._num_streams)
        return _Stage(state, np.full(len(self._events), -1, np.int64))


def _card(limits: Limits, scratch_bytes: int) -> _Card:
    return limits.num_sms, limits.workspace_bytes, scratch_bytes, limits.sort_tile


@njit(cache=True, nogil=True)
def _all_sizes(events: Array, starts: Array, kinds: Array, lengths: Array, card: _Card) -> Array:
    """What the events of every section ask for, one after the other."""
    total = 0
    for kind in kinds:
        total += starts[kind + 1] - starts[kind]
    sizes = np.zeros(total, np.int64)
    done = 0
    for step in range(len(kinds)):
        first, last = starts[kinds[step]], starts[kinds[step] + 1]
        _sizes_of(events, first, last, lengths[step], card, sizes[done:])
        done += last - first
    return sizes


@njit(cache=True, nogil=True)
def _replay(
    events: Array,
    starts: Array,
    kinds: Array,
    lengths: Array,
    steps: tuple[int, int],
    card: _Card,
    state: State,
    rows: Array,
) -> tuple[int, int]:
    """Runs the sections from `steps[0]` to before `steps[1]`; the index of the last one and how it ended.

    A section that left the free blocks as it found them is not run again as long as its sizes stay the same.
    """
    longest = 0
    for kind in range(len(starts) - 1):
        longest = max(longest, starts[kind + 1] - starts[kind])
    sizes = np.zeros(longest, np.int64)
    before = np.zeros(longest, np.int64)
    steady = False
    for step in range(steps[0], steps[1]):
        kind = kinds[step]
        first, last = starts[kind], starts[kind + 1]
        repeats = step > steps[0] and kinds[step - 1] == kind
        before[:] = sizes
        _sizes_of(events, first, last, lengths[step], card, sizes)
        same = repeats and np.array_equal(before[: last - first], sizes[: last - first])
        if same and steady:
            continue
        mark = _mark(state)
        ended = _run(events, first, last, sizes, rows, state)
        if ended != _DONE:
            return step, ended
        steady = same and _mark(state) == mark
    return steps[1] - 1, _DONE


@njit(cache=True, nogil=True)
def _sizes_of(events: Array, first: int, last: int, lengths: Array, card: _Card, sizes: Array) -> None:
    """What each allocation of a section asks for."""
    for index in range(first, last):
        if events[index, _OP] != _MALLOC:
            continue
        rule = events[index, _SIZE_RULE]
        if rule == _WORKSPACE:
            size = card[1]
        elif rule == _SCRATCH:
            size = card[2]
        elif rule == _SORT:
            size = sort.workspace_bytes(_value(events, index, _SIZE_TERMS, lengths), card[3])
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
