"""What PyTorch's own allocator answered with expandable segments, as it is kept in a file, and what our model answers.

An operation is a row of OPERATION, an answer one of ANSWERS after the operation. What a free gives back is named by the
row that allocated it; if that one ran out of memory, nothing is freed.
"""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.allocator.caching import CachingAllocator, OutOfMemory

Array = NDArray[np.int64]

OPERATION = ("operation", "value", "stream")
# The address is relative to the first block's, -1 where there is none.
ANSWERS = (
    *("out_of_memory", "allocated", "requested", "reserved"),
    *("peak_allocated", "peak_requested", "peak_reserved", "address", "retries"),
)


class Operation(IntEnum):
    """With bytes to allocate, the row whose allocation is freed, nothing, or the bytes of a fraction."""

    MALLOC, FREE, EMPTY_CACHE, LIMIT = range(4)


class Sequence(NamedTuple):
    """`operations` [number, 3] on an empty card of `card_bytes`, and the `answers` [number, 9] of PyTorch."""

    name: str
    card_bytes: int
    operations: Array
    answers: Array


def read(path: Path) -> list[Sequence]:
    """What `write` has written."""
    with np.load(path, allow_pickle=False) as file:
        names = [name.removeprefix("rows_") for name in file.files if name.startswith("rows_")]
        rows = {name: np.ascontiguousarray(file[f"rows_{name}"].T) for name in names}
        return [Sequence(name, int(file[f"card_{name}"]), rows[name][:, :3], rows[name][:, 3:]) for name in names]


def write(path: Path, torch_version: str, sequences: list[Sequence]) -> None:
    """Column by column, which takes the least."""
    arrays = {"torch_version": np.array(torch_version)}
    for each in sequences:
        arrays[f"rows_{each.name}"] = np.ascontiguousarray(np.hstack([each.operations, each.answers]).T)
        arrays[f"card_{each.name}"] = np.array(each.card_bytes)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def answers_of_model(sequence: Sequence) -> Array:
    """What `bench.allocator` answers to each operation."""
    model = CachingAllocator(sequence.card_bytes, device_bytes=sequence.card_bytes)
    answers = np.zeros((len(sequence.operations), len(ANSWERS)), np.int64)
    rows: dict[int, int] = {}
    base: int | None = None
    for index, (operation, value, stream) in enumerate(sequence.operations.tolist()):
        address, out_of_memory = -1, 0
        if operation == Operation.MALLOC:
            try:
                rows[index] = model.malloc(value, stream)
                found = model.block(rows[index]).address
                base = found if base is None else base
                address = found - base
            except OutOfMemory:
                out_of_memory = 1
        elif operation == Operation.FREE:
            if value in rows:
                model.free(rows.pop(value))
        elif operation == Operation.EMPTY_CACHE:
            model.empty_cache()
        else:
            model.set_limit(value)
        stats = model.stats
        answers[index] = (
            *(out_of_memory, stats.allocated_bytes, stats.requested_bytes, stats.reserved_bytes),
            *(stats.peak_allocated_bytes, stats.peak_requested_bytes, stats.peak_reserved_bytes),
            *(address, stats.num_alloc_retries),
        )
    return answers
