"""What flash-attn's forward kernel allocates besides its output.

Source: csrc/flash_attn/flash_api.cpp (mha_fwd, mha_fwd_kvcache, num_splits_heuristic) at 2.8; PyTorch carries a copy
of the same code.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from bench.allocator.compiled import compiled_with_arrays

_MAX_SPLITS = 128


class Call(NamedTuple):
    """The shape of one call. `window` is the sliding window in tokens, negative for none."""

    batch_size: int
    q_len: int
    num_heads: int
    head_dim: int
    k_len: int
    num_kv_heads: int
    window: int


@compiled_with_arrays
def temporaries(
    batch_size: int,
    q_len: int,
    num_heads: int,
    head_dim: int,
    k_len: int,
    num_kv_heads: int,
    window: int,
    num_sms: int,
) -> tuple[int, int, int]:
    """Bytes of the log-sum-exp (fp32), and of the accumulators for it and for the output (0 where keys are not split).

    The arguments are a `Call` and the card's number of multiprocessors.
    """
    windowed = 0 <= window < k_len
    return _temporaries(batch_size, q_len, num_heads, head_dim, k_len, num_kv_heads, windowed, num_sms)


@compiled_with_arrays
def kvcache_temporaries(
    batch_size: int,
    q_len: int,
    num_heads: int,
    head_dim: int,
    k_len: int,
    num_kv_heads: int,
    window: int,
    num_sms: int,
) -> tuple[int, int, int]:
    """The same of mha_fwd_kvcache. `k_len` is the cache's own length, not that of what is in it.

    It looks at the window before it finds that it is longer than the keys; mha_fwd does so afterwards.
    """
    return _temporaries(batch_size, q_len, num_heads, head_dim, k_len, num_kv_heads, window >= 0, num_sms)


@compiled_with_arrays
def _temporaries(
    batch_size: int,
    q_len: int,
    num_heads: int,
    head_dim: int,
    k_len: int,
    num_kv_heads: int,
    windowed: bool,
    num_sms: int,
) -> tuple[int, int, int]:
    if q_len == 1 and num_heads > num_kv_heads and not windowed:
        # The heads that share keys are worked on as if they were one head's queries.
        q_len, num_heads = num_heads // num_kv_heads, num_kv_heads
    rows = batch_size * num_heads * q_len
    splits = num_splits(batch_size * num_heads * ((q_len + 63) // 64), head_dim, k_len, num_sms)
    if splits == 1:
        return rows * 4, 0, 0
    multiple = 32 if head_dim <= 128 else 64
    rounded_dim = (head_dim + multiple - 1) // multiple * multiple
    return rows * 4, splits * rows * 4, splits * rows * rounded_dim * 4


@compiled_with_arrays
def num_splits(work_items: int, head_dim: int, k_len: int, num_sms: int) -> int:
    """The fewest splits of the keys that reach 85 % of the best use of the card, for so many (head, block) pairs.

    In single precision, as the original: rounding decides between numbers of splits that are 85 % of the best exactly.
    """
    slots = 2 * num_sms
    if work_items >= np.float32(0.8) * np.float32(slots):
        return 1
    block_n = 256 if head_dim <= 64 else 128 if head_dim <= 128 else 64
    num_blocks = (k_len + block_n - 1) // block_n
    most = min(_MAX_SPLITS, slots, num_blocks)
    best = np.float32(0.0)
    for splits in range(1, most + 1):
        best = max(best, _use(splits, work_items, slots, num_blocks))
    for splits in range(1, most + 1):
        use = _use(splits, work_items, slots, num_blocks)
        if use > 0.0 and use >= 0.85 * np.float64(best):
            return splits
    return 1


@compiled_with_arrays
def _use(splits: int, work_items: int, slots: int, num_blocks: int) -> np.float32:
    """The share of the card's slots in use over all waves; 0 for a number of splits that shortens none of them."""
    if splits > 1 and (num_blocks + splits - 1) // splits == (num_blocks + splits - 2) // (splits - 1):
        return np.float32(0.0)
    waves = np.float32(work_items * splits) / np.float32(slots)
    return np.float32(waves / np.float32(math.ceil(waves)))
