"""Requests to an allocator: recorded one by one, and repeated all at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bench.allocator.caching import CachingAllocator, OutOfMemory, empty_cache, free, malloc
from bench.allocator.compiled import compiled
from bench.allocator.state import FULL, UNLIMITED_BYTES, State, has_room

_MALLOC, _FREE, _EMPTY_CACHE = range(3)
_DONE, _FULL, _CROWDED = range(3)  # CROWDED: there is no room for more blocks in the arrays
# The columns of `Requests.array`: BLOCK is the request that made it.
_OP, _SIZE, _STREAM, _PART, _BLOCK = range(5)


@dataclass
class Requests:
    """A recorded series of requests; two are equal if they asked for the same in the same order.

    `foreign` if one freed a block that was allocated before the recording.
    """

    asked: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    foreign: bool = False

    @cached_property
    def array(self) -> NDArray[np.int64]:
        """[requests, 5] of int64: what was asked, bytes, stream, part, and the request that made the block."""
        return np.array(self.asked, np.int64).reshape(-1, 5)

    @property
    def sizes(self) -> list[int]:
        """The bytes of each block that was asked for, in order."""
        return [size_bytes for op, size_bytes, *_ in self.asked if op == _MALLOC]

    @property
    def frees(self) -> bool:
        """Whether anything was given back."""
        return any(op != _MALLOC for op, *_ in self.asked)


class NotingAllocator(CachingAllocator):
    """An allocator that notes what it is asked for between `start` and `stop`."""

    def __init__(
        self, limit_bytes: int, num_parts: int = 1, device_bytes: int = 0, fraction_bytes: int = UNLIMITED_BYTES
    ) -> None:
        super().__init__(limit_bytes, num_parts, device_bytes, fraction_bytes)
        self._noted: Requests | None = None
        self.makers: dict[
            int, int
        ] = {}  # by row, of blocks in use that were allocated since `start`: the index of the request

    @property
    def notes(self) -> bool:
        """Whether requests are noted now."""
        return self._noted is not None

    def start(self) -> Requests:
        """Begins to record requests, in what is returned; blocks that exist already are foreign to them."""
        self._noted, self.makers = Requests(), {}
        return self._noted

    def stop(self) -> Requests:
        """What was noted since `start`, which must have been called."""
        noted, self._noted = self._noted, None
        assert noted is not None
        return noted

    def malloc(self, size_bytes: int, stream: int = 0, part: int = 0) -> int:
        """As `CachingAllocator.malloc`, and noted."""
        row = super().malloc(size_bytes, stream, part)
        if self._noted is not None:
            self.makers[row] = len(self._noted.asked)
            self._noted.asked.append((_MALLOC, size_bytes, stream, part, len(self._noted.asked)))
        return row

    def free(self, row: int) -> None:
        """As `CachingAllocator.free`, and noted."""
        super().free(row)
        if self._noted is not None:
            maker = self.makers.pop(row, None)
            self._noted.foreign |= maker is None
            self._noted.asked.append((_FREE, 0, 0, 0, -1 if maker is None else maker))

    def empty_cache(self) -> None:
        """As `CachingAllocator.empty_cache`, and noted."""
        super().empty_cache()
        if self._noted is not None:
            self._noted.asked.append((_EMPTY_CACHE, 0, 0, 0, -1))

    def repeat(self, requests: Requests, rows: NDArray[np.int64]) -> None:
        """Repeats `requests`; `rows` [requests] gets the blocks that are in use at the end, and -1 elsewhere.

        Raises `OutOfMemory` as soon as one can't be served; then `rows` are the blocks that are in use by then.
        """
        rows[:] = -1
        done = 0
        while done < len(rows):
            done, ended = _repeat(requests.array, rows, self._state, done)
            if ended == _CROWDED:
                self._grow(1)
            elif ended == _FULL:
                raise OutOfMemory(requests.asked[done][_SIZE], self.free_bytes)


@compiled
def _repeat(requests: NDArray[np.int64], rows: NDArray[np.int64], state: State, first: int) -> tuple[int, int]:
    """How many went through, those before the `first` among them; and why no more did."""
    for index in range(first, len(requests)):
        op = requests[index, _OP]
        if op == _FREE:
            maker = requests[index, _BLOCK]
            free(state, rows[maker])
            rows[maker] = -1
        elif not has_room(state):
            return index, _CROWDED
        elif op == _MALLOC:
            row = malloc(state, requests[index, _SIZE], requests[index, _STREAM], requests[index, _PART])
            if row == FULL:
                return index, _FULL
            rows[index] = row
        else:
            empty_cache(state)
    return len(requests), _DONE
