"""As it is served: the engine's own generator over one cache, with jobs that fill it and decode together."""

from __future__ import annotations

from bench.core.case import PAGE
from bench.core.outcome import Phase
from bench.scenarios.base import Act, Pace, Step, Work
from bench.scenarios.forward import DECODE_TOKENS, FORWARD, PROMPT_TOKENS
from bench.scenarios.turns import lengths_of_turns

_DRAFT_MODEL = (Step(Phase.LOAD, Act.LOAD_DRAFT, timed_as="load_s"), Step(Phase.LOAD, Act.CACHE_DRAFT))
_FIRST_TOKEN = 1  # a job has it when its prompt is done


class Generator:
    """See `bench.scenarios.base.Scenario`.

    One job of `max_seq_len` tokens is worked off to its end, and then as many as `batch_size` says, which share the
    cache. Where those are one job of that length, it is not done twice. A draft model is there before the model, as
    servers load it, with a cache of its own.
    """

    name = "generator"
    simulated_pace = FORWARD.simulated_pace

    def steps(self, work: Work, pace: Pace) -> list[Step]:
        """`cache_size` must be a page for each job at least, and `max_seq_len` more than `PROMPT_TOKENS`."""
        share = min(work.max_seq_len, work.cache_size // work.batch_size // PAGE * PAGE or work.cache_size)
        room = share - PROMPT_TOKENS - _FIRST_TOKEN - _kept_free(work)
        warm_up = max(1, min(pace.warm_up_tokens, room))
        decoded = max(1, min(pace.decode_tokens, room // pace.repeats))
        # As far on every card, however many tokens it decodes: what a prompt takes depends on its length.
        few = max(1, min(DECODE_TOKENS, room))
        steps = [
            *(_DRAFT_MODEL if work.is_draft_model else ()),
            *([Step(Phase.LOAD, Act.VISION)] if work.has_vision else []),
            Step(Phase.LOAD, Act.LOAD, timed_as="load_s"),
            Step(Phase.CACHE, Act.CACHE),
            *([Step(Phase.CACHE, Act.TRY)] if work.tries_a_chunk else []),
            Step(Phase.CACHE, Act.SERVE),
            *([Step(Phase.CACHE, Act.TRIM)] if work.tries_a_chunk else []),
            # After it the pages of the next jobs are no longer in order.
            *_job(work, PROMPT_TOKENS, warm_up, "prompt", "warm_up"),
        ]
        if work.batch_size > 1 and share < work.max_seq_len:
            steps += _to_the_end(work, 1, work.max_seq_len, few)
        if decoded * pace.repeats != few:
            steps += _to_the_end(work, work.batch_size, share, few)
        new_tokens = _FIRST_TOKEN + decoded * pace.repeats
        filled, jobs = share - new_tokens - _kept_free(work), work.batch_size
        shortest = PAGE + _FIRST_TOKEN + few + _kept_free(work)
        more = [
            step
            for turn, tokens in enumerate(lengths_of_turns(share, shortest, work.turns), 2)
            for step in _to_the_end(work, jobs, tokens, few, turn)
        ]
        return [
            *steps,
            Step(
                Phase.PREFILL,
                Act.BEGIN,
                tokens=filled,
                timed_as="prefill_s",
                counted_as="prefill_tokens",
                jobs=jobs,
                new_tokens=new_tokens,
            ),
            Step(Phase.DECODE, Act.GENERATE, filled, decoded, timed_as="decode_full_s", jobs=jobs),
            Step(Phase.DECODE, Act.BEGIN, tokens=PROMPT_TOKENS, jobs=jobs, new_tokens=new_tokens),
            Step(Phase.DECODE, Act.GENERATE, PROMPT_TOKENS, decoded, None, "decode_s", "decode_tokens", jobs),
            *more,
        ]


def _kept_free(work: Work) -> int:
    """The tokens of a job's pages that it never gets: what is proposed beyond its last one, and what is to spare."""
    return work.draft_tokens + work.spare_tokens


def _to_the_end(work: Work, jobs: int, length: int, decoded: int, turn: int = 1) -> list[Step]:
    """So many jobs that end with `length` tokens each. What they decode in the first turn counts as prefill."""
    new_tokens = _FIRST_TOKEN + decoded
    prompt = length - new_tokens - _kept_free(work)
    phase = Phase.PREFILL if turn == 1 else Phase.DECODE
    return [
        Step(Phase.PREFILL, Act.BEGIN, tokens=prompt, jobs=jobs, new_tokens=new_tokens, turn=turn),
        Step(phase, Act.GENERATE, prompt, decoded, jobs=jobs, turn=turn),
    ]


def _job(work: Work, prompt: int, decoded: int, name: str, decode_name: str) -> list[Step]:
    """A job on its own, whose passes have kinds of their own."""
    return [
        Step(Phase.PREFILL, Act.BEGIN, tokens=prompt, name=name, new_tokens=_FIRST_TOKEN + decoded),
        Step(Phase.PREFILL, Act.GENERATE, prompt, decoded, name=decode_name),
    ]


GENERATOR = Generator()
