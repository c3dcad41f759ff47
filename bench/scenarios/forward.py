"""By the engine's own forward pass: load, make the cache, fill the context, decode at its end and near its start."""

from __future__ import annotations

from bench.core.outcome import Phase
from bench.scenarios.base import Act, Pace, Step, Work
from bench.scenarios.turns import lengths_of_turns

PROMPT_TOKENS = 16  # the short exchange that comes before anything is measured
WARM_UP_TOKENS = 2
DECODE_TOKENS = 4


class Forward:
    """See `bench.scenarios.base.Scenario`."""

    name = "forward"
    # Every decoded token allocates the same: a few show what a thousand would.
    simulated_pace = Pace(WARM_UP_TOKENS, DECODE_TOKENS)

    def steps(self, work: Work, pace: Pace) -> list[Step]:
        """`max_seq_len` must be more than `PROMPT_TOKENS`."""
        max_seq_len = work.max_seq_len
        warm_up_tokens = min(pace.warm_up_tokens, max_seq_len - PROMPT_TOKENS)
        # As far on every card, however many tokens it decodes: what a prefill takes depends on its length.
        filled = max_seq_len - DECODE_TOKENS
        decoded = pace.decode_tokens
        more = [
            step
            for turn, tokens in enumerate(lengths_of_turns(filled, PROMPT_TOKENS, work.turns), 2)
            for step in (
                Step(Phase.PREFILL, Act.FILL, 0, tokens, turn=turn),
                Step(Phase.DECODE, Act.DECODE, tokens, DECODE_TOKENS, turn=turn),
            )
        ]
        return [
            *([Step(Phase.LOAD, Act.VISION)] if work.has_vision else []),
            Step(Phase.LOAD, Act.LOAD, timed_as="load_s"),
            Step(Phase.CACHE, Act.CACHE),
            Step(Phase.PREFILL, Act.FILL, 0, PROMPT_TOKENS, name="prompt"),
            Step(Phase.PREFILL, Act.DECODE, PROMPT_TOKENS, warm_up_tokens, name="warm_up"),
            Step(Phase.PREFILL, Act.FILL, 0, filled, timed_as="prefill_s", counted_as="prefill_tokens"),
            Step(Phase.DECODE, Act.DECODE, max_seq_len - decoded, decoded, timed_as="decode_full_s"),
            Step(Phase.DECODE, Act.DECODE, PROMPT_TOKENS, decoded, None, "decode_s", "decode_tokens"),
            *more,
        ]


FORWARD = Forward()
