"""The passes of the scenario, in order, at any length: what a recording at one length becomes at another.

The numbers are those of `bench.worker.scenario`, the splitting of a prefill is that of ExLlamaV2.forward (model.py).
"""

from __future__ import annotations

import math
from typing import NamedTuple

PROMPT_TOKENS = 16  # the short exchange that comes before anything is measured
# Every decoded token allocates the same: a few show what a thousand would.
WARM_UP_TOKENS = 2
DECODE_TOKENS = 4

_MAX_ATTENTION_SIZE = 2048**2  # ExLlamaV2Config.max_attention_size: queries times keys of one chunk


class Pass(NamedTuple):
    """One section of a case: a pass of `q_len` tokens after which the cache holds `k_len`; 0 outside of passes."""

    kind: str
    q_len: int = 0
    k_len: int = 0


def schedule(max_seq_len: int, max_input_len: int, lazy: bool, attention: str, window: int | None) -> list[Pass]:
    """Every section of a case. `window` is the model's sliding window, in tokens.

    `attention` is the back end that runs: sdpa and matmul shrink a chunk as the context grows, and cut the keys to the
    window themselves, which makes their later passes other ones (`windowed`). Lazy loading forwards a chunk as it goes.
    """
    chunked = is_chunked(attention)

    def kind(name: str, k_len: int) -> str:
        return f"{name}_windowed" if chunked and window is not None and k_len >= window else name

    loading = min(max_input_len, max_seq_len) if lazy else 0
    passes = [Pass("load", loading, loading), Pass("cache"), Pass("prompt", PROMPT_TOKENS, PROMPT_TOKENS)]
    passes += [Pass(f"warm_up_{i}", 1, PROMPT_TOKENS + i + 1) for i in range(WARM_UP_TOKENS)]
    filled = max_seq_len - DECODE_TOKENS
    past = 0
    while past < filled:
        q_len = chunk_size(filled - past, past, max_input_len, chunked)
        past += q_len
        passes.append(Pass(kind("prefill", past), q_len, past))
    for start in (filled, PROMPT_TOKENS):
        passes += [Pass(kind("decode", start + i + 1), 1, start + i + 1) for i in range(DECODE_TOKENS)]
    return passes


def is_chunked(attention: str) -> bool:
    """Whether the engine bounds queries times keys, as it does where it must hold all scores."""
    return attention in ("sdpa", "matmul")


def recording_lengths(max_input_len: int, lazy: bool, attention: str) -> list[int]:
    """Lengths that together show how every size follows from them, none of them a multiple of another's."""
    filled = [2 * max_input_len + 5 * max_input_len // 8, 3 * max_input_len + max_input_len // 4]
    if lazy or is_chunked(attention):
        filled.append(5 * max_input_len // 8)
    if is_chunked(attention):
        filled += [3 * max_input_len // 4, max_input_len + max_input_len // 2]
    return [max(tokens, 2 * PROMPT_TOKENS) + DECODE_TOKENS for tokens in filled]


def chunk_size(remaining: int, past: int, max_input_len: int, chunked: bool) -> int:
    """How many of the remaining tokens the engine forwards next."""
    size = min(remaining, max_input_len)
    if chunked and (past + remaining) * remaining > _MAX_ATTENTION_SIZE:
        size = min(size, math.floor((math.sqrt(past**2 + 4 * _MAX_ATTENTION_SIZE) - past) / 2))
    return size
