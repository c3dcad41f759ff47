"""What CUB takes on the card to sort a long row of int32, as PyTorch's argsort has it do.

Fitted to the byte on a null GPU (tests/oracle) with PyTorch 2.13 for CUDA 13, rows of 4,097 to a million numbers,
compute capability 7.5 to 12.0: keys and indices once more, and a table for each tile of the row.
"""

from __future__ import annotations

from numba import njit

# Rows up to here are sorted by one block, in shared memory (Sort.cu).
SHORT_ROW = 4096
_ALIGNMENT = 256
_FIXED_BYTES = 8703
_BYTES_PER_TILE = 1024


def tile_of(compute_capability: tuple[int, int]) -> int:
    """How many numbers a block takes at a time: the tuning of CUB's radix sort for that generation of cards."""
    if compute_capability >= (9, 0):
        return 5376
    return 3072 if compute_capability >= (8, 0) else 2816


@njit(cache=True, nogil=True)
def workspace_bytes(length: int, tile: int) -> int:
    """The workspace for a row of `length` numbers (more than `SHORT_ROW`)."""
    keys = -(-4 * length // _ALIGNMENT) * _ALIGNMENT
    indices = -(-8 * length // _ALIGNMENT) * _ALIGNMENT
    tiles = -(-length // tile)
    return int(keys + indices + _FIXED_BYTES + _BYTES_PER_TILE * tiles)
