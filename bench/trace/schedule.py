"""The passes of the scenario, in order, at any length, and which of them allocate alike.

The numbers are those of `bench.worker.scenario`, the splitting of a prefill is that of ExLlamaV2.forward (model.py).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bench.core.case import MAX_ATTENTION_SIZE

PROMPT_TOKENS = 16  # the short exchange that comes before anything is measured
# Every decoded token allocates the same: a few show what a thousand would.
WARM_UP_TOKENS = 2
DECODE_TOKENS = 4

LOAD, CACHE, PREFILL, DECODE = "load", "cache", "prefill", "decode"  # the phases of a case

_HOLDS_SCORES = ("sdpa", "matmul")  # the back ends for which the engine bounds queries times keys
_KERNEL_ROWS = 4  # ExLlamaV2MoEMLP.forward: up to so many rows are routed by a kernel, without copies


class Setup(NamedTuple):
    """What decides, with the length of a case, which passes the engine makes and which of them are alike.

    `attention` is the back end that runs. `window` is the sliding window of some or all layers in tokens, `rope_limit`
    the longest context for which RoPE is made in the plain way; None where there is none. `max_attention_size` bounds
    the queries times the keys of one chunk where the engine holds all scores.
    """

    lazy: bool
    max_input_len: int
    batch_size: int
    attention: str
    native_max_seq_len: int
    window: int | None = None
    rope_limit: int | None = None
    num_experts: int = 1
    experts_per_token: int = 1
    max_attention_size: int = MAX_ATTENTION_SIZE

    @property
    def is_chunked(self) -> bool:
        """Whether the engine bounds queries times keys, as it does where it must hold all scores."""
        return self.attention in _HOLDS_SCORES

    @property
    def cut_window(self) -> int | None:
        """The sliding window where the engine cuts the keys to it, and not the attention kernel."""
        return self.window if self.is_chunked else None

    @property
    def even_tokens(self) -> int:
        """Chunks of a multiple of so many tokens give every expert the same share."""
        return self.num_experts // math.gcd(self.num_experts, self._choices)

    @property
    def short_tokens(self) -> int:
        """Chunks of 1, 2, ... up to so many tokens are unlike longer ones, and unlike each other."""
        idle = (self.num_experts - 1) // self._choices  # some expert gets no token at all
        return max(self.special_tokens, idle)

    @property
    def special_tokens(self) -> int:
        """The same, as far as other code of the engine runs for them."""
        unmasked = 2 if self.attention == "matmul" else 0  # no mask, or nothing in it to mask (attn_params.py)
        return max(unmasked, _KERNEL_ROWS // self.batch_size if self.num_experts > 1 else 0)

    @property
    def _choices(self) -> int:
        """How many experts are chosen for one position of all sequences."""
        return self.batch_size * self.experts_per_token

    def make_pass(self, phase: str, q_len: int, k_len: int, name: str | None = None) -> Pass:
        """A pass with its kind; one with a `name` happens once in a case, always at the same `q_len`."""
        traits = [name or phase]
        if name is None and phase != DECODE and q_len:
            if q_len <= self.short_tokens:
                traits.append(f"of_{q_len}")
            elif q_len % self.even_tokens:
                traits.append(f"uneven_{q_len * self._choices % self.num_experts}")
        if self.cut_window is not None and k_len >= self.cut_window:
            traits.append("at_window" if k_len == self.cut_window else "beyond_window")
        return Pass(phase, "_".join(traits), q_len, k_len)


class Pass(NamedTuple):
    """One section of a case: a pass of `q_len` tokens after which the cache holds `k_len`; 0 outside of passes.

    Passes of one `kind` allocate the same, but for sizes that follow from the lengths.
    """

    phase: str
    kind: str
    q_len: int = 0
    k_len: int = 0


class Schedule(NamedTuple):
    """Every section of a case, in order. `chunks` [chunks, 2] are the passes of the prefill, as q_len and k_len."""

    before: list[Pass]
    chunks: NDArray[np.int64]
    after: list[Pass]


def endless(max_seq_len: int, max_attention_size: int, attention: str) -> str | None:
    """Why the engine would never end, whatever the card: for the last tokens it forwards chunks of none.

    ExLlamaV2.forward makes a chunk so short that queries times keys stay within `max_attention_size`, down to nothing.
    """
    if attention not in _HOLDS_SCORES or max_seq_len <= max_attention_size:
        return None
    return (
        f"max_attention_size={max_attention_size} is less than max_seq_len={max_seq_len}: with attention={attention} "
        "ExLlamaV2 would forward chunks of no token for ever"
    )


def schedule(max_seq_len: int, setup: Setup) -> list[Pass]:
    """Every section of a case as a pass."""
    before, chunks, after = short_schedule(max_seq_len, setup)
    return [*before, *(setup.make_pass(PREFILL, int(q_len), int(k_len)) for q_len, k_len in chunks), *after]


def short_schedule(max_seq_len: int, setup: Setup) -> Schedule:
    """The same in arrays: of long cases there may be a hundred thousand. Lazy loading forwards a chunk as it goes."""
    loading = min(setup.max_input_len, max_seq_len) if setup.lazy else 0
    load = setup.make_pass(LOAD, loading, loading)
    if setup.rope_limit is not None and max_seq_len > setup.rope_limit:
        load = load._replace(kind=f"{load.kind}_extended")
    before = [load, Pass(CACHE, CACHE), setup.make_pass(PREFILL, PROMPT_TOKENS, PROMPT_TOKENS, "prompt")]
    before += [setup.make_pass(PREFILL, 1, PROMPT_TOKENS + i + 1, f"warm_up_{i}") for i in range(WARM_UP_TOKENS)]
    filled = max_seq_len - DECODE_TOKENS
    chunks = _chunks(filled, setup.max_input_len, setup.max_attention_size if setup.is_chunked else 0)
    after = [
        setup.make_pass(DECODE, 1, start + i + 1) for start in (filled, PROMPT_TOKENS) for i in range(DECODE_TOKENS)
    ]
    return Schedule(before, chunks, after)


@njit(cache=True, nogil=True)
def _chunks(tokens: int, max_input_len: int, max_attention_size: int) -> NDArray[np.int64]:
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
