"""The chunks of a prompt, as ExLlamaV2 splits it (model.py, `forward`): imported where they are counted, with NumPy."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bench.allocator.compiled import compiled_with_arrays


def load_compiled() -> None:
    """Has numba load what splits a prefill, or compile it."""
    chunks_of(1, 1, 0)


@compiled_with_arrays
def chunks_of(tokens: int, max_input_len: int, max_attention_size: int) -> NDArray[np.int64]:
    """How the engine splits so many tokens; `max_attention_size` is 0 where it bounds nothing.

    After that many tokens the engine's chunks are of none, and it comes to no end: there these do end.
    """
    chunks = np.zeros((tokens, 2), np.int64)
    past = count = 0
    while past < tokens:
        remaining = tokens - past
        size = min(remaining, max_input_len)
        if max_attention_size and (past + remaining) * remaining > max_attention_size:
            size = min(size, math.floor((math.sqrt(past**2 + 4 * max_attention_size) - past) / 2))
            if size == 0:
                break
        past += size
        chunks[count, 0], chunks[count, 1] = size, past
        count += 1
    return chunks[:count].copy()
