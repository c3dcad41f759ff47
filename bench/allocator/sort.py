"""What CUB takes on the card to sort a long row of int32 or int64, as PyTorch's argsort has it do.

Fitted to the byte on a null GPU (tests/oracle) with PyTorch 2.13 for CUDA 13: rows of 4,097 to a million numbers and
(int64: 524,288), compute capability 7.5 to 12.0. It is keys and indices once more, and a table for each tile.
"""

from __future__ import annotations

from bench.allocator.compiled import compiled_with_arrays

# Rows up to here are sorted by one block, in shared memory (Sort.cu).
SHORT_ROW = 4096
_ALIGNMENT = 256
_FIXED_BYTES = 8703
_FIXED_BYTES_INT64 = 16895
_BYTES_PER_TILE = 1024


def tile_of(compute_capability: tuple[int, int]) -> int:
    """How many numbers a block takes at a time: the tuning of CUB's radix sort for that generation of cards."""
    if compute_capability >= (9, 0):
        return 5376
    return 3072 if compute_capability >= (8, 0) else 2816


def tile_of_int64(compute_capability: tuple[int, int]) -> int:
    """The same for numbers of 8 bytes."""
    return 4608 if compute_capability >= (9, 0) else 3840


@compiled_with_arrays
def workspace_bytes(length: int, tile: int) -> int:
    """The workspace for a row of `length` numbers (more than `SHORT_ROW`)."""
    keys = -(-4 * length // _ALIGNMENT) * _ALIGNMENT
    indices = -(-8 * length // _ALIGNMENT) * _ALIGNMENT
    tiles = -(-length // tile)
    return int(keys + indices + _FIXED_BYTES + _BYTES_PER_TILE * tiles)


def workspace_bytes_int64(length: int, tile: int) -> int:
    """The workspace for a row of `length` numbers of 8 bytes (more than `SHORT_ROW`)."""
    keys = indices = -(-8 * length // _ALIGNMENT) * _ALIGNMENT
    return keys + indices + _FIXED_BYTES_INT64 + _BYTES_PER_TILE * -(-length // tile)
