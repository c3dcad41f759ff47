"""A recording by PyTorch's allocator, replayed through our model of it: is every block at the same place?

A recording is the trace of `torch.cuda.memory._record_memory_history` (c10/cuda/CUDACachingAllocator.h, TraceEntry),
begun while nothing was allocated: requests, frees, and the segments that were taken from the driver and given back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from bench.allocator.caching import CachingAllocator
from bench.core.files import replaced

# The actions of TraceEntry that move anything; `free_requested` is followed by `free_completed` on one stream.
ACTIONS = ("alloc", "free_completed", "segment_alloc", "segment_free")
_ALLOC, _FREE, _SEGMENT_ALLOC, _SEGMENT_FREE = range(len(ACTIONS))
_ENDLESS_BYTES = 1 << 50


class TraceEntry(TypedDict):
    """One entry of PyTorch's trace, as far as it is read: bytes at an address, on a stream by its handle."""

    action: str
    addr: int
    size: int
    stream: int


@dataclass(frozen=True)
class Recording:
    """`events` is [events, 4]: action, address, bytes (of a request, as it was asked for), and stream by its number."""

    events: NDArray[np.int64]

    @staticmethod
    def of_trace(trace: Iterable[TraceEntry]) -> Recording:
        """From one of the `device_traces` of `torch.cuda.memory._snapshot()`."""
        streams: dict[int, int] = {}
        events = [
            (
                ACTIONS.index(entry["action"]),
                entry["addr"],
                entry["size"],
                streams.setdefault(entry["stream"], len(streams)),
            )
            for entry in trace
            if entry["action"] in ACTIONS
        ]
        return Recording(np.array(events, np.int64).reshape(-1, 4))

    def save(self, path: Path) -> None:
        """Writes the events as a compressed .npz, which appears whole or not at all."""
        with replaced(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, events=self.events)

    @staticmethod
    def load(path: Path) -> Recording:
        """Reads what `save` has written."""
        with np.load(path, allow_pickle=False) as arrays:
            return Recording(arrays["events"])


@dataclass(frozen=True)
class Replayed:
    """How many events the model agrees with; `different` describes the first other one, None if there is none."""

    num_events: int
    num_requests: int
    num_segments: int
    peak_reserved_bytes: int
    different: str | None


def replay(recording: Recording) -> Replayed:
    """Sends the requests and frees of a recording to the model, and compares every address.

    Segments are identified by their number, blocks by their segment and their offset in it. The recording decides when
    segments go back to the driver (`empty_cache`, or a full card), the model which ones.
    """
    return _Replay().of(recording)


class _Replay:
    def __init__(self) -> None:
        self._model = CachingAllocator(_ENDLESS_BYTES)
        self._rows: dict[int, int] = {}  # of blocks in use, by their real address
        self._real: dict[int, tuple[int, int]] = {}  # a segment's number and bytes, by its real address
        self._ours: dict[int, int] = {}  # a segment's number, by its address in the model
        self._num_segments = 0
        self._emptied = False

    def of(self, recording: Recording) -> Replayed:
        requests = 0
        different = None
        for index, (action, address, size_bytes, stream) in enumerate(recording.events.tolist()):
            difference = self._step(action, address, size_bytes, stream)
            requests += action == _ALLOC
            if difference is not None:
                different = f"event {index}, {ACTIONS[action]} of {size_bytes:,} B: {difference}"
                break
        peak_bytes = self._model.stats.peak_reserved_bytes
        return Replayed(len(recording.events), requests, self._num_segments, peak_bytes, different)

    def _step(self, action: int, address: int, size_bytes: int, stream: int) -> str | None:
        """What is different after one event."""
        if action == _SEGMENT_FREE:
            if not self._emptied:
                self._model.empty_cache()
                self._emptied = True
            del self._real[address]
            return None
        if self._emptied:
            self._emptied = False
            reserved_bytes = sum(size for _, size in self._real.values())
            if reserved_bytes != self._model.stats.reserved_bytes:
                return f"{reserved_bytes:,} B are kept after the cache was emptied, {self._reserved()} in the model"
        if action == _SEGMENT_ALLOC:
            self._real[address] = (self._num_segments, size_bytes)
            self._num_segments += 1
            return None
        if action == _FREE:
            self._model.free(self._rows.pop(address))
            return None
        return self._request(address, size_bytes, stream)

    def _request(self, address: int, size_bytes: int, stream: int) -> str | None:
        row = self._rows[address] = self._model.malloc(size_bytes, stream)
        base = max((base for base in self._real if base <= address), default=None)
        if base is None:
            return "its segment is not in the recording: it was begun too late"
        place = self._place(row)
        real = (self._real[base][0], address - base)
        if place != real:
            return f"segment {real[0]} + {real[1]:,} B, in the model segment {place[0]} + {place[1]:,} B"
        if sum(size for _, size in self._real.values()) != self._model.stats.reserved_bytes:
            return f"{self._real[base][1]:,} B of segment, reserved in the model {self._reserved()}"
        return None

    def _place(self, row: int) -> tuple[int, int]:
        first = block = self._model.block(row)
        while first.prev is not None:
            first = self._model.block(first.prev)
        number = self._ours.setdefault(first.address, len(self._ours))
        return number, block.address - first.address

    def _reserved(self) -> str:
        return f"{self._model.stats.reserved_bytes:,} B"
