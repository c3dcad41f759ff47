"""What a generator has given its jobs, as rows say it."""

from __future__ import annotations

from collections.abc import Sequence


class Given:
    """The tokens of the last jobs whose prompts were longer than those of the first: that filled the cache.

    `generated_tokens` are those of all of them together, without their prompts, and `drafted_tokens` what was proposed
    to them, taken or not.
    """

    def __init__(self) -> None:
        self.generated_tokens = 0
        self.drafted_tokens = 0
        self._short: int | None = None

    def note(self, prompt_tokens: int, of_each: Sequence[int], drafted_tokens: int) -> None:
        """So many tokens `of_each` job after a prompt of `prompt_tokens`; of jobs that go on it may be told again."""
        if not of_each:
            return
        self._short = prompt_tokens if self._short is None else self._short
        if prompt_tokens > self._short:
            self.generated_tokens = sum(of_each)
            self.drafted_tokens = drafted_tokens
