"""What a reduction of one long row takes beside its result (aten/src/ATen/native/cuda/Reduce.cuh, setReduceConfig)."""

from __future__ import annotations

_THREADS = 512  # a block, where the row is longer
_FEW, _MANY = 16, 256  # values of a thread: from so many on, several blocks share the row
_SEMAPHORE_BYTES = 4


def workspace_bytes(values: int, element_bytes: int) -> list[int]:
    """The sizes of the tensors where blocks meet that share a row of `values` numbers, in order; none for a short row.

    The row must be contiguous; `element_bytes` are those of what is summed up. Cards have blocks to spare.
    """
    of_thread = -(-values // _THREADS)
    if of_thread < _MANY:
        return []
    return [element_bytes * -(-of_thread // _FEW), _SEMAPHORE_BYTES]
