"""Jobs of an engine's own generator whose text does not matter: how they run, and what they got."""

from __future__ import annotations

from typing import Any

import torch

from bench.worker.interfaces.engine import Tell
from bench.worker.interfaces.given import Given

_SEED = 1


class Jobs:
    """The jobs that were begun last; an engine's class has `begin`, which makes them.

    Of the engine's `generator` only `iterate` is called here. Its jobs have `new_tokens`, `is_finished`, `sequences`
    with the `kv_position` of each, and how many drafted tokens were accepted and rejected.
    """

    def __init__(self, generator: Any, vocab_size: int) -> None:
        self._generator = generator
        self._vocab_size = vocab_size
        self._jobs: list[Any] = []
        self._prompt_tokens = 0
        self._random = torch.Generator().manual_seed(_SEED)
        self._given = Given()

    def _prompt(self, tokens: int) -> torch.Tensor:
        """Random tokens [1, tokens] of the upper half of the vocabulary: of a simulated card none is ever sampled.

        Prompts that were alike would share their pages.
        """
        return torch.randint(self._vocab_size // 2, self._vocab_size, (1, tokens), generator=self._random)

    def _until_each_has_a_token(self, tell: Tell | None) -> None:
        """`iterate`, of which `tell` hears how much of all prompts is in the cache."""
        tokens = self._prompt_tokens
        while any(job.new_tokens < 1 for job in self._jobs):
            self._generator.iterate()
            if tell is not None:
                tell(sum(_held(job, tokens) for job in self._jobs), len(self._jobs) * tokens)

    def generate(self, tokens: int, tell: Tell | None = None) -> None:
        """`iterate` until the last of the jobs has so many more, or has ended."""
        wanted = [job.new_tokens + tokens for job in self._jobs]
        for done in range(tokens):
            if tell is not None:
                tell(done, tokens)
            if all(job.is_finished or job.new_tokens >= most for job, most in zip(self._jobs, wanted, strict=True)):
                break
            self._generator.iterate()

    def _note(self) -> None:
        drafted = sum(job.accepted_draft_tokens + job.rejected_draft_tokens for job in self._jobs)
        self._given.note(self._prompt_tokens, [job.new_tokens for job in self._jobs], drafted)

    def given(self) -> Given:
        """What the jobs got."""
        self._note()
        return self._given


def _held(job: Any, tokens: int) -> int:
    """How many tokens of a job's prompt are in the cache."""
    return int(min(tokens, sum(sequence.kv_position for sequence in job.sequences)))
