"""The state of the model of PyTorch's allocator: arrays that compiled functions change in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from bench.allocator.compiled import as_given, compiled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# The columns of `State.blocks`. Neighbours in the same segment are rows, -1 for none.
ADDRESS, SIZE, REQUESTED, POOL, PART, IN_USE, PREV, NEXT = range(8)
# What `IN_USE` says: a free block, one in use, or addresses of an expandable segment that have no memory.
FREE, USED, UNMAPPED = range(3)
NEXT_UNMAPPED = REQUESTED  # of unmapped addresses: the row of those that follow in their pool, -1 for none
# The places in `State.counters`.
(
    LIMIT,
    ALLOCATED,
    REQUESTED_NOW,
    RESERVED,
    PEAK_ALLOCATED,
    PEAK_REQUESTED,
    PEAK_RESERVED,
    NUM_SEGMENTS,
    NUM_RETRIES,
    NUM_OOMS,
    NEXT_ADDRESS,
    NUM_UNUSED,
    FREE_MARK,
    DEVICE_BYTES,
    FRACTION_LIMIT,
    BESIDE_BUFFERS,
    BESIDE_BYTES,
    BESIDE_HIGHEST,
    BESIDE_RISEN_FROM,
    TOTAL_BYTES,
    BUDGET,
    HELD_BACK,
    WATCHED_FROM,
    WATCHED_PEAK,
    LARGEST_TRANSIENT,
) = range(25)
FIRST_UNMAPPED = 25  # and one more place for each pool: the row of its lowest unmapped addresses, -1 for none

FIRST_ADDRESS = 1 << 40  # of the first segment; later ones lie above, and no address is used twice
HOLE = -1  # in `State.free`, a place among the free blocks of one that is in use again: most come back as they were
MAX_HOLES = 64  # of a pool
FULL = -1  # what `malloc` answers when the card is full
UNLIMITED_BYTES = 1 << 62


class State(NamedTuple):
    """The whole state of an allocator, in arrays of int64; where nothing is compiled, in lists (`as_given`).

    `blocks` has a row for each block; `unused` is a stack of the rows that hold none. `free` has for each pool (two a
    stream: small, large) the rows of its free blocks in the order of the real one: by size, then by address; of its
    `num_free` places, `num_holes` are `HOLE`, and `free_keys` are sizes and addresses, also those that left the holes.
    `parts` counts the bytes in use by the caller's own labels: now, and when allocated bytes first were at their peak.
    Of the counters, `FREE_MARK` is a hash of all free blocks, their pools, addresses and sizes, kept up as they change,
    and of unmapped addresses. `DEVICE_BYTES` is 0 where segments are native. `BESIDE_BUFFERS` has a
    bit for each buffer that others than PyTorch took (`beside.py`), which `LIMIT` is less. Where a loader keeps some
    of the card free (`headroom.py`), native segments have `HELD_BACK` less in `LIMIT`.
    """

    blocks: NDArray[np.int64]
    unused: NDArray[np.int64]
    free: NDArray[np.int64]
    free_keys: NDArray[np.int64]
    num_free: NDArray[np.int64]
    num_holes: NDArray[np.int64]
    parts: NDArray[np.int64]
    counters: NDArray[np.int64]


def new_state(
    limit_bytes: int,
    num_parts: int,
    max_blocks: int,
    num_streams: int,
    device_bytes: int = 0,
    fraction_bytes: int = UNLIMITED_BYTES,
) -> State:
    """An empty card on which all segments together may take `limit_bytes`.

    With `device_bytes`, the memory that the device says it has, its segments are expandable; `fraction_bytes` is then
    what `set_per_process_memory_fraction` allows, which counts in another way than a full card.
    """
    import numpy as np

    arrays = State(
        blocks=np.zeros((max_blocks, 8), np.int64),
        unused=np.arange(max_blocks, dtype=np.int64)[::-1].copy(),
        free=np.zeros((2 * num_streams, max_blocks + MAX_HOLES + 1), np.int64),
        free_keys=np.zeros((2 * num_streams, max_blocks + MAX_HOLES + 1, 2), np.int64),
        num_free=np.zeros(2 * num_streams, np.int64),
        num_holes=np.zeros(2 * num_streams, np.int64),
        parts=np.zeros((2, num_parts), np.int64),
        counters=np.zeros(FIRST_UNMAPPED + 2 * num_streams, np.int64),
    )
    counters = arrays.counters
    counters[LIMIT] = limit_bytes
    counters[NEXT_ADDRESS] = FIRST_ADDRESS
    counters[NUM_UNUSED] = max_blocks
    counters[DEVICE_BYTES] = device_bytes
    counters[FRACTION_LIMIT] = fraction_bytes
    counters[FIRST_UNMAPPED:] = -1
    return State(*map(as_given, arrays))


def copied(state: State) -> State:
    """Another state, which is as that one is now."""
    return State(*map(_copied, state))


def _copied(values: Any) -> Any:
    if isinstance(values, list) and isinstance(values[0], list):
        return [_copied(each) for each in values]
    return values.copy()


@compiled
def has_room(state: State) -> bool:
    """Whether there are rows enough for whatever the next request, or emptying the cache, makes of the blocks."""
    unused = state.counters[NUM_UNUSED]
    if state.counters[DEVICE_BYTES] == 0:
        return bool(unused >= 2)
    wanted = 8  # two tries to grow, and both ends of each free block that loses its pages
    for pool in range(len(state.num_free)):
        wanted += 2 * state.num_free[pool]
    return bool(unused >= wanted)


@compiled
def take_row(state: State) -> int:
    """A row of `State.blocks` that holds no block; there must be one."""
    state.counters[NUM_UNUSED] -= 1
    return int(state.unused[state.counters[NUM_UNUSED]])


@compiled
def give_row_back(state: State, row: int) -> None:
    """From now on `row` holds no block."""
    state.unused[state.counters[NUM_UNUSED]] = row
    state.counters[NUM_UNUSED] += 1
