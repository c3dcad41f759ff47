"""Replays the sections of a case through the allocator, without those that would change nothing.

A section is skipped if it asks for the same as the one before, and that one left the allocator in the state in which it
found it. Layers of a section are skipped by the same rule (`bench.trace.layers`).
"""

from __future__ import annotations

import numpy as np

from bench.allocator import beside, caching, flash, headroom, sort
from bench.allocator import state as allocator
from bench.allocator.compiled import as_given, compiled, compiled_with_arrays
from bench.allocator.state import State
from bench.trace import template as columns
from bench.trace.layers import Layers
from bench.trace.recording import Op, Size
from bench.trace.template import DENOMINATOR, NUM_TERMS, Array

_HASH_FACTOR = 0x100000001B3  # of 64-bit FNV-1a
_LAGS = 2  # periods of layers after which a state may return: blocks that layers hand on may swap places

_MALLOC, _FREE, _BESIDE, _LEAVE, _TAKE = (int(op) for op in (Op.MALLOC, Op.FREE, Op.BESIDE, Op.LEAVE, Op.TAKE))
_EMPTY_CACHE, _KEEP_FREE, _WATCH, _REQUIRE = (int(op) for op in (Op.EMPTY_CACHE, Op.KEEP_FREE, Op.WATCH, Op.REQUIRE))
_TENSOR, _WORKSPACE, _SCRATCH, _SORT, _RESERVE, _DRAFT_SCRATCH, _FLASH_0 = (
    int(s)
    for s in (Size.TENSOR, Size.WORKSPACE, Size.SCRATCH, Size.SORT, Size.RESERVE, Size.DRAFT_SCRATCH, Size.FLASH_0)
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
DONE, FULL, CROWDED = range(3)

# Multiprocessors, the bytes of the cuBLAS workspace and of the scratch buffer, how much is sorted at a time, the
# bytes that are kept free, and those of a draft model's scratch buffer.
Card = tuple[int, int, int, int, int, int]


def all_sizes(events: Array, starts: Array, kinds: Array, lengths: Array, card: Card) -> Array:
    """What the events of every section ask for, one after the other."""
    sizes = np.zeros(int(np.diff(starts)[kinds].sum()), np.int64)
    events, starts, kinds, lengths = map(as_given, (events, starts, kinds, lengths))
    _all_sizes(events, starts, kinds, lengths, card, sizes)
    return sizes


@compiled
def _all_sizes(events: Array, starts: Array, kinds: Array, lengths: Array, card: Card, sizes: Array) -> None:
    done = 0
    for step in range(len(kinds)):
        first, last = starts[kinds[step]], starts[kinds[step] + 1]
        _sizes_of(events, first, last, lengths[step], card, sizes, done)
        done += last - first


def replay(
    events: Array,
    layers: Layers,
    kinds: Array,
    lengths: Array,
    steps: tuple[int, int],
    card: Card,
    state: State,
    rows: Array,
) -> tuple[int, int]:
    """Runs the sections from `steps[0]` to before `steps[1]`; the index of the last one and how it ended.

    `lengths` [sections, NUM_TERMS] are what sizes are made of. `rows` [events] are the blocks that events have made;
    behind them, in `PLACES` places more, is what a section has left to the next.
    """
    longest = max((bounds[-1] - bounds[0] for bounds in layers.bounds), default=0)
    width = max(map(len, layers.bounds), default=0)
    sizes, before, marks = (as_given(np.zeros(count, np.int64)) for count in (longest, longest, width))
    events, kinds, lengths = map(as_given, (events, kinds, lengths))
    return _replay(events, layers.as_given(), kinds, lengths, steps, card, state, rows, sizes, before, marks)


@compiled_with_arrays
def _replay(
    events: Array,
    layers: Layers,
    kinds: Array,
    lengths: Array,
    steps: tuple[int, int],
    card: Card,
    state: State,
    rows: Array,
    sizes: Array,
    before: Array,
    marks: Array,
) -> tuple[int, int]:
    """The same, with room for the sizes of the longest section and of the one before, and for a mark of each layer."""
    steady = False
    for step in range(steps[0], steps[1]):
        kind = kinds[step]
        repeats = step > steps[0] and kinds[step - 1] == kind
        sizes, before = before, sizes
        _distinct_sizes(events, layers, kind, lengths[step], card, sizes)
        same = repeats and _equal(layers, kind, sizes, before)
        if same and steady:
            continue
        mark = _mark(state)
        ended = _run(events, layers, kind, sizes, rows, state, marks)
        if ended != DONE:
            return step, ended
        steady = same and _mark(state) == mark
    return steps[1] - 1, DONE


def fill(events: Array, lengths: Array, card: Card, state: State, rows: Array) -> int:
    """Runs one section until the card is full; the number of events that went through.

    `rows` [events] are the blocks that are held, -1 once they are free. There must be room for all of them.
    """
    sizes = as_given(np.zeros(len(events), np.int64))
    return _fill(as_given(events), as_given(lengths), card, state, rows, sizes)


@compiled
def _fill(events: Array, lengths: Array, card: Card, state: State, rows: Array, sizes: Array) -> int:
    _sizes_of(events, 0, len(events), lengths, card, sizes, 0)
    for index in range(len(events)):
        if _run_events(events, index, index + 1, sizes, index, rows, 0, state) != DONE:
            return index
        if events[index][_OP] == _FREE:
            rows[events[index][_BLOCK]] = -1
    return len(events)


@compiled
def _distinct_sizes(events: Array, layers: Layers, kind: int, lengths: Array, card: Card, sizes: Array) -> None:
    """What each allocation asks for, but in layers that ask for the same as those before them."""
    start, alike, unlike, end = _told(layers, kind)
    _sizes_of(events, start, alike, lengths, card, sizes, 0)
    _sizes_of(events, unlike, end, lengths, card, sizes, unlike - start)


@compiled
def _equal(layers: Layers, kind: int, sizes: Array, others: Array) -> bool:
    start, alike, unlike, end = _told(layers, kind)
    for first, last in ((0, alike - start), (unlike - start, end - start)):
        for index in range(first, last):
            if sizes[index] != others[index]:
                return False
    return True


@compiled
def _told(layers: Layers, kind: int) -> tuple[int, int, int, int]:
    """The events of a section: the first, those of layers that are like others from and to, and the end."""
    bounds, alike = layers.bounds[kind], layers.alike[kind]
    return bounds[0], bounds[alike[0] + 1], bounds[alike[1] + 1], bounds[-1]


@compiled_with_arrays
def _run(events: Array, layers: Layers, kind: int, sizes: Array, rows: Array, state: State, marks: Array) -> int:
    """The events of one section; how it ended. Layers are left out once the allocator is found as layers before.

    `marks` [layers or more] is overwritten.
    """
    bounds, period = layers.bounds[kind], layers.period
    alike, unlike = layers.alike[kind]
    depth = len(bounds) - 3
    layer = -1
    while layer <= depth:
        first, last = bounds[layer + 1], bounds[layer + 2]
        asked = layer  # the layer whose sizes are known and the same
        if alike <= layer < unlike:
            asked = alike - period + (layer - alike) % period
        ended = _run_events(events, first, last, sizes, bounds[asked + 1] - bounds[0], rows, bounds[0], state)
        if ended != DONE:
            return ended
        skipped = 0
        if alike - 1 <= layer < unlike:
            marks[layer] = _mark_with(state, rows, _carried(layers, kind, layer))
            for lag in range(period, _LAGS * period + 1, period):
                if layer - lag >= alike - 1 and marks[layer - lag] == marks[layer]:
                    skipped = (unlike - 1 - layer) // lag * lag
                    break
        if skipped:
            here, there = _carried(layers, kind, layer), _carried(layers, kind, layer + skipped)
            for index in range(len(here)):
                rows[there[index]] = rows[here[index]]
        layer += 1 + skipped
    return DONE


@compiled_with_arrays
def _carried(layers: Layers, kind: int, layer: int) -> Array:
    """The allocations that are handed on at the end of a layer."""
    return layers.carried[layers.carried_bounds[kind][layer] : layers.carried_bounds[kind][layer + 1]]


@compiled
def _run_events(
    events: Array, first: int, last: int, sizes: Array, at: int, rows: Array, start: int, state: State
) -> int:
    """Some events of a section that begins at `start`, with the `sizes` that they ask for, those from `at` on; how it
    ended.
    """
    shift = at - first
    for index in range(first, last):
        op = events[index][_OP]
        if op == _MALLOC:
            if sizes[index + shift] == 0:
                rows[index] = -1
                continue
            if not allocator.has_room(state):
                return CROWDED
            row = caching.malloc(state, sizes[index + shift], events[index][_STREAM], events[index][_PART])
            if row == allocator.FULL:
                return FULL
            rows[index] = row
        elif op == _FREE:
            row = rows[start + events[index][_BLOCK]]
            if row >= 0:
                caching.free(state, row)
        elif op == _LEAVE:
            rows[len(rows) - 1 - events[index][_PART]] = rows[start + events[index][_BLOCK]]
        elif op == _TAKE:
            place = len(rows) - 1 - events[index][_PART]
            rows[index], rows[place] = rows[place], -1
        elif op == _BESIDE:
            if not beside.take_beside(state, events[index][_PART], sizes[index + shift]):
                return FULL
        elif op == _EMPTY_CACHE:
            if not allocator.has_room(state):
                return CROWDED
            caching.empty_cache(state)
        elif op == _KEEP_FREE:
            headroom.keep_free(state, sizes[index + shift])
        elif op == _WATCH:
            headroom.watch(state)
        elif op == _REQUIRE:
            if not headroom.has_headroom(state, sizes[index + shift]):
                return FULL
        else:
            headroom.keep_nothing_free(state)
    return DONE


@compiled
def _mark(state: State) -> int:
    """A hash of the free blocks and of what is held."""
    counters = state.counters
    mark = counters[allocator.RESERVED] * _HASH_FACTOR ^ counters[allocator.ALLOCATED]
    return int((mark * _HASH_FACTOR) ^ counters[allocator.FREE_MARK])


@compiled
def _mark_with(state: State, rows: Array, carried: Array) -> int:
    """The same, with where some allocations lie."""
    mark = _mark(state)
    for event in carried:
        address = state.blocks[rows[event]][allocator.ADDRESS] if rows[event] >= 0 else -1
        mark = (mark ^ address) * _HASH_FACTOR
    return int(mark)


@compiled
def _sizes_of(events: Array, first: int, last: int, lengths: Array, card: Card, sizes: Array, at: int) -> None:
    """What each allocation of some events asks for, into `sizes` from `at` on."""
    shift = at - first
    for index in range(first, last):
        sizes[index + shift] = 0
        op = events[index][_OP]
        if op in (_FREE, _EMPTY_CACHE, _LEAVE, _TAKE):
            continue
        rule = events[index][_SIZE_RULE]
        if rule == _WORKSPACE:
            size = card[1]
        elif rule == _SCRATCH:
            size = card[2]
        elif rule == _SORT:
            size = sort.workspace_bytes(_value(events, index, _SIZE_TERMS, lengths), card[3])
        elif rule == _RESERVE:
            size = card[4]
        elif rule == _DRAFT_SCRATCH:
            size = card[5]
        elif rule == _TENSOR:
            size = events[index][_SIZE_TERMS] // DENOMINATOR
        elif rule >= _FLASH_0:
            size = flash.temporaries(
                events[index][_BATCH],
                _value(events, index, _Q_TERMS, lengths),
                events[index][_HEADS],
                events[index][_HEAD_DIM],
                _value(events, index, _K_TERMS, lengths),
                events[index][_KV_HEADS],
                events[index][_WINDOW],
                card[0],
            )[rule - _FLASH_0]
        else:
            size = _value(events, index, _SIZE_TERMS, lengths)
        sizes[index + shift] = size


@compiled
def _value(events: Array, index: int, start: int, lengths: Array) -> int:
    total = 0
    for term in range(NUM_TERMS):
        total += events[index][start + term] * lengths[term]
    return total // DENOMINATOR
