"""ExLlamaV2's rules for one search, as a trace asks for them."""

from __future__ import annotations

from typing import Any

from bench.core.case import DEFAULT_SCENARIO, Case
from bench.engines.exllamav2 import samples
from bench.engines.exllamav2.schedule import chunk_count, schedule_of
from bench.engines.exllamav2.traits import Traits
from bench.trace.passes import Pass, Schedule


class Setup(Traits):
    """See `bench.trace.passes.Setup`."""

    def within(self, cache_size: int | None, max_seq_len: int | None = None, turns: int = 1) -> Setup:
        """The same rules for jobs that share a cache of so many tokens, or by the cache's length at a `max_seq_len`."""
        return self._replace(cache_size=cache_size, max_seq_len=max_seq_len, turns=turns)

    def schedule(self, length: int) -> Schedule:
        """Every section of a case of that length in tokens."""
        return schedule_of(length, self)

    def chunk_count(self, tokens: int) -> int:
        """Into how many chunks a prompt of so many tokens is split."""
        return chunk_count(tokens, self)

    def whole_lengths(self) -> list[int]:
        """The lengths in tokens at which a case is recorded to its end."""
        return samples.whole_lengths(self)

    def larger_caches(self) -> list[tuple[int, int]]:
        """Lengths that are also recorded with a larger cache than they ask for, of so many tokens."""
        return samples.larger_caches(self)

    def load_lengths(self) -> list[int]:
        """The lengths in tokens at which only loading is recorded."""
        return samples.load_lengths(self)

    def extra_passes(self, max_seq_len: int) -> list[Pass]:
        """What is recorded after a whole case of that length in tokens."""
        return samples.extra_passes(max_seq_len, self)

    def whole_passes(self, max_seq_len: int) -> list[Pass]:
        """Every section of a whole case as it is recorded."""
        return self.schedule(max_seq_len).passes() + self.extra_passes(max_seq_len)

    def longest_chunk(self, length: int) -> int:
        """Tokens that scratch must do for, in a case of that length."""
        return self.chunk_at(self.work(length).max_seq_len)

    def in_words(self, each: Pass) -> str:
        """A pass, for people."""
        if "uneven" in each.kind:
            return f"a chunk of {each.q_len} tokens, of which the experts get unequal shares"
        after = f" of {each.q_len} tokens after {each.k_len - each.q_len}" if each.q_len else ""
        return f"a {each.phase}{after} ({each.kind})"

    def to_plain(self) -> dict[str, Any]:
        """The fields by name, as a trace keeps them."""
        return self._asdict()


def asked_by(case: Case) -> dict[str, Any]:
    """What a case asks for, whatever the engine makes of its model; a generator's jobs are one sequence each."""
    is_served = case.scenario != DEFAULT_SCENARIO
    return {
        "lazy": case.lazy,
        "max_input_len": case.max_input_len,
        "batch_size": 1 if is_served else case.batch_size,
        "jobs": case.batch_size if is_served else 1,
        "max_attention_size": case.max_attention_size,
        "scenario": case.scenario,
        "cache_size": case.cache_size,
        "draft_tokens": case.num_draft_tokens or 0,
        "draft": None if case.draft_model is None else {},
        "odd_tokens": case.odd_tokens,
        "load_as": case.load_as,
        "vision": case.vision,
    }


def unread_setup(case: Case, attention: str) -> Setup:
    """The rules for `case` as far as they are known without the engine: of a dense model, without windows."""
    return Setup(**asked_by(case), attention=attention, native_max_seq_len=case.max_seq_len)
