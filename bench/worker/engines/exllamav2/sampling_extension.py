"""What a generator calls of exllamav2's compiled extension: pages of the cache, and sampling on the host.

Nobody has computed the logits. The tokens that are sampled are different ones of the lower half of the vocabulary, each
seen once, so that no n-grams of them repeat and no draft is accepted: every pass gives a job one token.
"""

from __future__ import annotations

from typing import Any

import torch

_TOKENS, _PROBABILITIES = 9, 10  # of the arguments of sample_basic


class SamplingExtension:
    """Functions of `exllamav2_ext`."""

    def __init__(self) -> None:
        self._sampled = 0

    def count_match(self, a: torch.Tensor, b: torch.Tensor, max_a: int) -> int:
        """How many tokens are the same at the beginning of both [1, n]."""
        length = min(max_a, b.shape[1])
        differ = (a[0, :length] != b[0, :length]).nonzero()
        return int(differ[0]) if len(differ) else length

    def sample_basic(self, logits: torch.Tensor, *args: Any) -> list[float]:
        """Writes a token for each row of the logits [batch, 1, vocabulary]; returns no state of Mirostat."""
        output = (logits, *args)
        self._sampled += 1
        output[_TOKENS].fill_(self._sampled % (logits.shape[-1] // 2))
        output[_PROBABILITIES].fill_(1.0)
        return []

    def cache_rotate(self, cache: torch.Tensor, order: torch.Tensor, buffer: torch.Tensor) -> None: ...

    def apply_rep_penalty(self, *args: Any) -> None: ...

    def fast_fill_cpu_ones_bool(self, tensor: torch.Tensor) -> None: ...
