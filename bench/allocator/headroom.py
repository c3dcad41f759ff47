"""A loader that keeps some of a card free, and gives up where what passes need would not fit, in the state.

The fraction of the card that is left (`torch.cuda.set_per_process_memory_fraction`) bounds what PyTorch reserves. Each
part of a model is tried when it is loaded: the most that any has needed beside what stays must be left within that
bound, and, with a margin, of what the driver has.
"""

from __future__ import annotations

from bench.allocator.compiled import compiled
from bench.allocator.state import (
    ALLOCATED,
    BUDGET,
    DEVICE_BYTES,
    FRACTION_LIMIT,
    HELD_BACK,
    LARGEST_TRANSIENT,
    LIMIT,
    TOTAL_BYTES,
    UNLIMITED_BYTES,
    WATCHED_FROM,
    WATCHED_PEAK,
    State,
)

_LEAST_FRACTION = 0.01


@compiled
def keep_free(state: State, reserve_bytes: int) -> None:
    """The fraction becomes what is free now without `reserve_bytes`, and at least a hundredth of the card."""
    counters = state.counters
    fraction = (counters[LIMIT] + counters[HELD_BACK] - reserve_bytes) / counters[TOTAL_BYTES]
    fraction = min(1.0, max(_LEAST_FRACTION, fraction))
    counters[BUDGET] = int(fraction * counters[TOTAL_BYTES])
    if counters[DEVICE_BYTES] > 0:
        counters[FRACTION_LIMIT] = _counted(state, counters[BUDGET])
    else:
        room = counters[LIMIT] + counters[HELD_BACK]
        counters[LIMIT] = min(room, counters[BUDGET])
        counters[HELD_BACK] = room - counters[LIMIT]


@compiled
def keep_nothing_free(state: State) -> None:
    """The fraction becomes the whole card."""
    counters = state.counters
    if counters[DEVICE_BYTES] > 0:
        counters[FRACTION_LIMIT] = _counted(state, counters[TOTAL_BYTES])
    counters[LIMIT] += counters[HELD_BACK]
    counters[HELD_BACK] = 0


@compiled
def watch(state: State) -> None:
    """What is needed beside what is there counts from now on."""
    counters = state.counters
    counters[WATCHED_FROM] = counters[ALLOCATED]
    counters[WATCHED_PEAK] = counters[ALLOCATED]


@compiled
def has_headroom(state: State, margin_bytes: int) -> bool:
    """Whether the most that was needed so far would fit once more beside what is allocated now."""
    counters = state.counters
    transient = max(counters[LARGEST_TRANSIENT], counters[WATCHED_PEAK] - counters[WATCHED_FROM])
    counters[LARGEST_TRANSIENT] = transient
    if counters[ALLOCATED] + transient > counters[BUDGET]:
        return False
    room = counters[LIMIT] + counters[HELD_BACK]
    return bool(room - counters[ALLOCATED] >= transient + margin_bytes)


@compiled
def _counted(state: State, fraction_bytes: int) -> int:
    """As expandable segments count a fraction: not at all where it is the whole device."""
    if fraction_bytes < state.counters[DEVICE_BYTES]:
        return fraction_bytes
    return UNLIMITED_BYTES
