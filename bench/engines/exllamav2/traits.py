"""What decides, with the length of a case, which passes ExLlamaV2 makes and which of them allocate alike."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Self

from bench.core.case import DEFAULT_SCENARIO, MAX_ATTENTION_SIZE
from bench.core.outcome import Phase
from bench.engines.exllamav2.tabbyapi import chunk_tokens
from bench.scenarios.base import Work
from bench.trace.passes import Pass

HOLDS_SCORES = ("sdpa", "matmul")  # the back ends for which the engine bounds queries times keys
_KERNEL_ROWS = 4  # ExLlamaV2MoEMLP.forward: up to so many rows are routed by a kernel, without copies


class Traits(NamedTuple):
    """What decides, with the length of a case, which passes the engine makes and which of them are alike.

    `attention` is the back end that runs. `window` is the sliding window of some or all layers in tokens, `rope_limit`
    the longest context for which RoPE is made in the plain way; None where there is none. `max_attention_size` bounds
    the queries times the keys of one chunk where the engine holds all scores. `scenario` names what is done with it.
    A generator has `jobs` at a time, each the one sequence of its prompt's passes; `draft_tokens` are proposed for each
    that a job gets, and `odd_tokens` are those of the longest job beyond whole pages. Where a model proposes them,
    `draft` says of it what the fields from `window` to `experts_per_token` say of the model. `load_as` names the server
    that it is loaded as, `vision` says that the vision tower is there before it.

    With the `cache_size` of a `Case` lengths are those of its jobs; with a `max_seq_len` they are those of the cache.
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
    scenario: str = DEFAULT_SCENARIO
    jobs: int = 1
    cache_size: int | None = None
    draft_tokens: int = 0
    draft: dict[str, Any] | None = None
    odd_tokens: int = 0
    max_seq_len: int | None = None
    load_as: str | None = None
    vision: bool = False
    turns: int = 1

    def of_draft(self) -> Self | None:
        """Those of the draft model; None where there is none."""
        return None if self.draft is None else self._replace(**self.draft, draft=None)

    def work(self, length: int) -> Work:
        """What a case of that length asks of its scenario."""
        count = self.batch_size * self.jobs
        return Work(
            max_seq_len=self.max_seq_len or length,
            batch_size=count,
            cache_size=length if self.max_seq_len else self.cache_size or length * count,
            draft_tokens=self.draft_tokens,
            is_draft_model=self.draft is not None,
            tries_a_chunk=self.load_as is not None,
            has_vision=self.vision,
            turns=self.turns,
        )

    def lengths_at(self, length: int) -> tuple[int, int]:
        """`max_seq_len` of a case of that length, and the tokens of its cache."""
        work = self.work(length)
        return work.max_seq_len, work.cache_size

    def chunk_at(self, max_seq_len: int) -> int:
        """The longest chunk: autosplit bounds it by `max_seq_len`, and so do servers."""
        chunk = chunk_tokens(self.load_as, self.max_input_len, max_seq_len)
        return min(chunk, max_seq_len) if self.lazy else chunk

    @property
    def forwards_a_chunk(self) -> bool:
        """Whether a chunk as long as the engine takes is forwarded before there is a prompt."""
        return self.lazy or self.load_as is not None

    @property
    def is_served(self) -> bool:
        """Whether it is the generator that makes the passes."""
        return self.scenario != DEFAULT_SCENARIO

    @property
    def is_paged(self) -> bool:
        """Whether it has pages: with flash-attn alone."""
        return self.is_served and self.attention == "flash"

    @property
    def is_chunked(self) -> bool:
        """Whether the engine bounds queries times keys, as it does where it must hold all scores."""
        return self.attention in HOLDS_SCORES

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
        if name is None and phase != Phase.DECODE and q_len:
            if q_len <= self.short_tokens:
                traits.append(f"of_{q_len}")
            elif q_len % self.even_tokens:
                traits.append(f"uneven_{q_len * self._choices % self.num_experts}")
        if self.cut_window is not None and k_len >= self.cut_window:
            traits.append("at_window" if k_len == self.cut_window else "beyond_window")
        return Pass(phase, "_".join(traits), q_len, k_len)
