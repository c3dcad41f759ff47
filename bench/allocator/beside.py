"""What the driver gives to others than PyTorch, each buffer once and for the life of the process, in the state.

PyTorch gives nothing back for it. Each buffer has a number below 62.
"""

from __future__ import annotations

from bench.allocator.compiled import compiled
from bench.allocator.state import (
    BESIDE_BUFFERS,
    BESIDE_BYTES,
    BESIDE_HIGHEST,
    BESIDE_RISEN_FROM,
    HELD_BACK,
    LIMIT,
    PEAK_RESERVED,
    RESERVED,
    State,
)

ALL_BUFFERS = (1 << 62) - 1


@compiled
def take_beside(state: State, number: int, size: int) -> bool:
    """Takes the buffer if it is not there yet; False if the card has no room for it."""
    counters = state.counters
    if counters[BESIDE_BUFFERS] >> number & 1:
        return True
    room = counters[LIMIT] + counters[HELD_BACK]  # a fraction is PyTorch's own: the driver knows of none
    if counters[RESERVED] + size > room:
        return False
    before = counters[PEAK_RESERVED] + counters[BESIDE_BYTES]
    counters[BESIDE_BUFFERS] |= 1 << number
    counters[BESIDE_BYTES] += size
    counters[LIMIT] = min(counters[LIMIT], room - size) if counters[HELD_BACK] > 0 else room - size
    counters[HELD_BACK] = room - size - counters[LIMIT]
    counters[BESIDE_RISEN_FROM] = counters[PEAK_RESERVED]
    counters[BESIDE_HIGHEST] = max(counters[BESIDE_HIGHEST], before, counters[RESERVED] + counters[BESIDE_BYTES])
    return True


def peak_held_bytes(state: State) -> int:
    """The most that PyTorch and the buffers have held together."""
    counters = state.counters
    # What rose since the last buffer was taken, rose beside all of them.
    highest = counters[PEAK_RESERVED] if counters[PEAK_RESERVED] > counters[BESIDE_RISEN_FROM] else 0
    reserved = max(highest, counters[RESERVED])
    return int(max(counters[BESIDE_HIGHEST], reserved + counters[BESIDE_BYTES]))
