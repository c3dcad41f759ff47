"""What a scenario is: a list of steps, which are run, recorded and predicted alike.

The run carries each step out on a session of an engine (`bench.worker.scenario`). So does the recorder, which writes
down what is allocated meanwhile (`bench.worker.recorder`). The prediction asks the engine's rules which passes it would
make of each step (`bench.trace.passes`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, Protocol

from bench.core.outcome import Phase


class Act(StrEnum):
    """What a step does with the engine."""

    LOAD_DRAFT = "load_draft"  # puts the weights of a draft model on the card
    CACHE_DRAFT = "cache_draft"  # makes its cache, where loading has not made it
    VISION = "vision"  # puts the vision tower on the first card
    LOAD = "load"  # puts the weights on the card
    CACHE = "cache"  # makes the cache, where loading has not made it
    FILL = "fill"  # empties the cache and fills it with a prompt
    DECODE = "decode"  # decodes tokens one by one
    TRY = "try"  # forwards a chunk as long as the engine takes, as a server does to see that it fits
    SERVE = "serve"  # makes the engine's generator over the model and its cache
    TRIM = "trim"  # gives back what PyTorch holds and nothing uses
    BEGIN = "begin"  # gives the generator jobs, and lets it run until each of them has its first token
    GENERATE = "generate"  # lets the generator run until each job has so many tokens more


class Step(NamedTuple):
    """One step of a case, in its `phase`.

    A FILL puts `tokens` into an empty cache, a DECODE adds `tokens` after the first `start` that it holds; of each
    sequence of the batch. A BEGIN empties the cache and begins `jobs` jobs, each with a prompt of `tokens` tokens and
    room for `new_tokens` more; a GENERATE adds `tokens` to each job that runs. A step with a `name` is the only one of
    its kind, with the same tokens in every case. `timed_as` is the field of the phase's message that has the seconds:
    such a step is repeated where time means something. It comes with the number of tokens in a field called
    `counted_as`. `turn` is the number of the context that it belongs to, from 1.
    """

    phase: Phase
    act: Act
    start: int = 0
    tokens: int = 0
    name: str | None = None
    timed_as: str | None = None
    counted_as: str | None = None
    jobs: int = 1
    new_tokens: int = 0
    turn: int = 1


class Pace(NamedTuple):
    """How many tokens are decoded before anything is measured, and in each of `repeats` measurements."""

    warm_up_tokens: int
    decode_tokens: int
    repeats: int = 1


class Work(NamedTuple):
    """What a case asks of its scenario: `batch_size` sequences or jobs of up to `max_seq_len` tokens each.

    The cache has `cache_size` tokens for all of them together. For each token that a job gets, `draft_tokens` are
    proposed, 0 where nothing proposes any; by a model, where there `is_draft_model`. A job has room for `spare_tokens`
    more than it gets. `tries_a_chunk` says that a whole chunk is forwarded before the generator is made, and what is
    left over then given back; `has_vision` that the vision tower is there before the model. `turns` are the
    contexts, one after the other.
    """

    max_seq_len: int
    batch_size: int = 1
    cache_size: int = 0
    draft_tokens: int = 0
    spare_tokens: int = 0
    is_draft_model: bool = False
    tries_a_chunk: bool = False
    has_vision: bool = False
    turns: int = 1


class Scenario(Protocol):
    """A way to use an engine. `simulated_pace` shows all allocations that more tokens would show."""

    name: str
    simulated_pace: Pace

    def steps(self, work: Work, pace: Pace) -> list[Step]:
        """Every step of a case, phase by phase."""
