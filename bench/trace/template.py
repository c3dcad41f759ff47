"""The events of one kind of section (loading, a prefill chunk, a decoded token, ...) as the rows of an array.

The size of each allocation is either that of a tensor of the checkpoint, or a rule of the card, or
`(c · terms) / 64` with whole numbers c.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.int64]

DENOMINATOR = 64
NUM_TERMS = 7

# The periods of layers in a recording: two that the first events may still affect, and two that must be equal.
SHOWN_PERIODS = 4
# The columns of `Template.events`; coefficients follow: of the size, and of a flash call's q_len and k_len. Of a tensor
# it are SHARE of SHARES equal parts; where a matrix is divided among cards, DIVIDED says what it all follows
# (`bench.trace.divided`).
OP, BLOCK, STREAM, PART, LAYER, MODULE, SIZE_RULE, TENSOR, BATCH, HEADS, HEAD_DIM, KV_HEADS, WINDOW = range(13)
SHARE, SHARES, DIVIDED = 13, 14, 15
SIZE_TERMS, Q_TERMS, K_TERMS = 16, 16 + NUM_TERMS, 16 + 2 * NUM_TERMS
NUM_COLUMNS = 16 + 3 * NUM_TERMS


def terms(q_len: int | Array, k_len: int | Array, max_seq_len: int | Array, cache_tokens: int | Array = 0) -> Array:
    """What sizes are made of, the simplest first; [NUM_TERMS], or [sections, NUM_TERMS] of arrays.

    `cache_tokens` are those of all sequences or jobs together.
    """
    one = np.ones_like(q_len)
    return np.stack([one, max_seq_len * one, k_len, q_len, q_len * k_len, q_len * q_len, cache_tokens * one], axis=-1)


def spans_of_layers(template: Array, num_layers: int) -> list[tuple[int, int]]:
    """First and last (exclusive) event of what comes before the layers, of each layer, and of what comes after."""
    bounds = np.searchsorted(template[:, LAYER], np.arange(-1, num_layers + 2))
    return [(int(first), int(last)) for first, last in pairwise(bounds)]


def without(template: Array, op: int) -> Array:
    """The events but those of a kind that makes and frees nothing."""
    kept = template[:, OP] != op
    left: Array = template[kept]
    left[:, BLOCK] = (np.cumsum(kept) - 1)[left[:, BLOCK]]
    return left
