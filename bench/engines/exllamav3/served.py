"""What exllamav3's Generator is told, and the passes that it makes of its jobs (generator/generator.py, job.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bench.core.case import PAGE
from bench.core.outcome import Phase
from bench.engines.exllamav3 import chunks
from bench.engines.exllamav3.tables import TABLE_TOKENS, table_tokens
from bench.scenarios.base import Act, Step
from bench.scenarios.forward import DECODE_TOKENS, PROMPT_TOKENS
from bench.trace.passes import Pass

MOST_JOBS = 256  # Generator: max_batch_size
MOST_SLOTS = 16  # Cache: max_batch_size, for models with states beside the cache
NGRAM_TOKENS = 2  # what TabbyAPI looks for by default (ngram_match_min); the engine's own 0 is none
SPARE_TOKENS = 1  # that a job has room for beside what it is promised (job.py, prepare_for_queue: max_rq_tokens)

SERVE = f"{Phase.CACHE}_served"  # the kind of the section in which the generator is made
LAST_TOKEN = 1  # of a prompt, which comes with the first decoded one
_FIRST_TOKEN = 1

PrefillOf = Callable[[str, int, int, str | None, bool], Pass]


@dataclass
class Generator:
    """The generator's state between steps: the jobs that run, the tokens of each, and the tables made by then.

    `prefill` names a chunk of a prompt. Every token that is decoded in a case has a kind of its own: there are few, and
    what they make once for all differs. With each come `draft_tokens`, of which none is taken. Of `batch_size` jobs one
    may run alone first; what its prompt's chunks make is found by the others' of as many tokens.
    """

    max_input_len: int
    draft_tokens: int
    prefill: PrefillOf
    batch_size: int = 1
    jobs: int = 1
    held: int = 0
    place: str = ""
    made: set[tuple[int, int]] = field(default_factory=set)
    chunked: set[int] = field(default_factory=set)  # the tokens of chunks of earlier prompts

    def passes(self, step: Step, with_prompts: bool = True) -> Iterator[Pass]:
        """What the generator makes of a BEGIN or a GENERATE: a chunk of each job in turn, then a token of all.

        Without prompts those of any length are left out.
        """
        if step.act is Act.BEGIN:
            is_short = step.tokens == PROMPT_TOKENS
            self.jobs, self.held = step.jobs, step.tokens
            self.place = "near_start" if is_short else "full" if step.jobs == self.batch_size else "full_alone"
            if is_short or with_prompts:
                yield from self._prompts(step, is_short)
            yield self._decode(step, "first")
        else:
            for done in range(step.tokens):
                yield self._decode(step, str(done))

    def _prompts(self, step: Step, is_short: bool) -> Iterator[Pass]:
        name = step.name if step.name or not is_short else f"{Phase.DECODE}_prompt"
        spans = list(chunks.chunks(step.tokens - LAST_TOKEN, self.max_input_len, recurrent=False))
        for start, end in spans:
            for job in range(step.jobs):
                own = None if name is None else f"{name}_{min(job, 2)}"
                yield self.prefill(step.phase, end - start, end, own, job > 0 or end - start in self.chunked)
        if name is None:
            self.chunked.update(end - start for start, end in spans)

    def _decode(self, step: Step, which: str) -> Pass:
        """The tables have columns to spare for drafts, twice (generator.py, iterate_gen)."""
        k_len = table_tokens(self.held - 1 + 2 * self.draft_tokens)
        self.held += 1
        kind = f"{Phase.DECODE}_{step.name or self.place}_{which}"
        if (self.jobs, k_len) not in self.made:
            kind += "_in_wider_tables"
        self.made.add((self.jobs, k_len))
        return Pass(step.phase, kind, 1 + self.draft_tokens, k_len)


def tokens_short_of_pages(draft_tokens: int) -> int:
    """By how much the prompt of a job with whole pages is shorter than those, without its last token."""
    return _FIRST_TOKEN + DECODE_TOKENS + draft_tokens + SPARE_TOKENS + LAST_TOKEN


def ends_of_prompts(max_input_len: int, draft_tokens: int) -> list[int]:
    """The tokens of the last chunk of a prompt, of a job with a whole number of pages."""
    return list(range(PAGE - tokens_short_of_pages(draft_tokens), max_input_len // PAGE * PAGE, PAGE))


def more_lengths(draft_tokens: int) -> list[int]:
    """Lengths in tokens that show what longer ones do not: jobs decoded with the tables of the first one alone.

    With drafts, jobs that end with a column of the tables are decoded with wider ones by their last tokens.
    """
    return [3 * PAGE, 11 * PAGE, *([2 * TABLE_TOKENS, 3 * TABLE_TOKENS, 5 * TABLE_TOKENS] if draft_tokens else [])]
