"""Recordings of the real allocator, replayed. Here the model itself plays the real one, at addresses of its own."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.allocator.caching import CachingAllocator
from bench.allocator.snapshot import Recording, replay

MIB = 1 << 20


def trace(seed: int, length: int = 400) -> list[dict[str, Any]]:
    """What PyTorch would have written down: random requests of two streams; each segment lies below the last."""
    random_ = random.Random(seed)
    model = CachingAllocator(1 << 40)
    entries: list[dict[str, Any]] = []
    bases: dict[int, int] = {}  # real addresses of segments, by those of the model
    live: list[tuple[int, int, int, int]] = []

    def tell(action: str, address: int, size_bytes: int, stream: int) -> None:
        entries.append({"action": action, "addr": address, "size": size_bytes, "stream": 7000 + stream})

    def segments() -> dict[int, int]:
        found: dict[int, int] = {}
        for address, size, *_, before, _ in sorted(model.all_blocks().tolist()):
            start = address if before < 0 else start  # noqa: F821
            found[start] = found.get(start, 0) + size
        return found

    for _ in range(length):
        known, draw = segments(), random_.random()
        if draw < 0.03:
            model.empty_cache()
            for base in known.keys() - segments().keys():
                tell("segment_free", bases.pop(base), known[base], 0)
        elif draw < 0.4 and live:
            row, address, size_bytes, stream = live.pop(random_.randrange(len(live)))
            tell("free_requested", address, size_bytes, stream)
            tell("free_completed", address, size_bytes, stream)
            model.free(row)
        else:
            stream = int(random_.random() < 0.3)
            size_bytes = random_.choice((random_.randint(1, MIB), random_.randint(MIB, 40 * MIB)))
            row = model.malloc(size_bytes, stream)
            for base in segments().keys() - known.keys():
                bases[base] = (1 << 46) - base - segments()[base]
                tell("segment_alloc", bases[base], segments()[base], stream)
            place = model.block(row).address
            base = max(base for base in segments() if base <= place)
            address = bases[base] + place - base
            tell("alloc", address, size_bytes, stream)
            live.append((row, address, size_bytes, stream))
    return entries


@pytest.mark.parametrize("seed", range(4))
def test_the_same_rules_end_in_the_same_places(seed: int, tmp_path: Path) -> None:
    recording = Recording.of_trace(trace(seed))
    recording.save(tmp_path / "case.npz")
    replayed = replay(Recording.load(tmp_path / "case.npz"))
    assert replayed.different is None
    assert replayed.num_requests > 200
    assert replayed.num_segments > 10


def test_a_block_elsewhere_is_named() -> None:
    recording = Recording.of_trace(trace(0))
    requests = np.flatnonzero(recording.events[:, 0] == 0)
    recording.events[requests[100], 1] += 512
    different = replay(recording).different
    assert different is not None
    assert f"event {requests[100]}, alloc of" in different


def test_a_segment_of_another_size_is_named() -> None:
    recording = Recording.of_trace(trace(0))
    segment = np.flatnonzero(recording.events[:, 0] == 2)[3]
    recording.events[segment, 2] += 2 * MIB
    assert "of segment" in (replay(recording).different or "")


def test_a_recording_that_was_begun_too_late_says_so() -> None:
    entries = [entry for entry in trace(0) if entry["action"] != "segment_alloc"]
    assert "begun too late" in (replay(Recording.of_trace(entries)).different or "")
