"""What the keys of a generator must keep among themselves: cache_size, max_batch_size and batch_size."""

from __future__ import annotations

from collections.abc import Sequence

from bench.config.settings import AUTO, Settings
from bench.core.case import DEFAULT_SCENARIO, PAGE, Axis, Case, Search
from bench.core.errors import BadInput
from bench.engines.base import EngineSpec

_OF_A_GENERATOR = ("cache_size", "max_batch_size", "draft", "num_draft_tokens")


def require_scenario(settings: Settings, engine: EngineSpec) -> None:
    """Refuses a scenario that the engine is not run in, and a generator's keys in another. Raises `BadInput`."""
    scenario = settings.scenario.name
    if scenario not in engine.scenarios:
        raise BadInput(
            f"scenario={scenario}: {engine.title} is not run so here; allowed are {', '.join(engine.scenarios)}"
        )
    if scenario != DEFAULT_SCENARIO:
        return
    for key in _OF_A_GENERATOR:
        if (value := getattr(settings, key)) is not None:
            raise BadInput(
                f"{key}={getattr(value, 'name', value)}: it is a generator's; scenario={scenario} has a cache of "
                "max_seq_len tokens for each of batch_size sequences; give scenario=generator, or leave it out"
            )


def fewer_jobs(settings: Settings) -> str | None:
    """That one job runs where a server is told to take more at a time; None where that is not so."""
    most = settings.max_batch_size
    if most is None or most == 1 or settings.batch_size > 1:
        return None
    return (
        f"max_batch_size={most}: room for so many jobs, of which one is run (batch_size=1); batch_size={most} runs all"
    )


def draft_tokens_of(settings: Settings, engine: EngineSpec) -> int | None:
    """How many tokens are proposed for each; None where nothing proposes any. Raises `BadInput`."""
    asked = settings.num_draft_tokens
    if settings.draft is None:
        if asked is not None:
            raise BadInput(
                f"num_draft_tokens={asked}: nothing proposes tokens; give draft=ngram or draft=model, or leave it out"
            )
        return None
    if asked is not None and asked > engine.most_draft_tokens:
        raise BadInput(
            f"num_draft_tokens={asked}: {engine.title} proposes at most {engine.most_draft_tokens} tokens at a time"
        )
    return asked or engine.default_draft_tokens


def longest_served(settings: Settings, end: int) -> int:
    """Where a search ends that would go to `end` tokens: jobs have whole pages, and none is longer than the cache."""
    if settings.scenario.name == DEFAULT_SCENARIO:
        return end
    size = settings.cache_size
    return min(end // PAGE * PAGE or PAGE, size if isinstance(size, int) else end)


def require_lengths(lengths: Sequence[object]) -> None:
    """Refuses a search for the largest cache without a length of jobs. Raises `BadInput`."""
    if AUTO in lengths:
        raise BadInput(
            "cache_size=auto max_seq_len=auto: only one of them can be searched; give max_seq_len=N, the longest that "
            "a job may be, or leave cache_size out"
        )


def require_pages(work: Case | Search) -> None:
    """Refuses a cache of no whole pages, or too small for its jobs. Raises `BadInput`."""
    case = work.longest
    if case.scenario == DEFAULT_SCENARIO:
        return
    size, jobs = case.cache_size, case.batch_size
    if isinstance(work, Search) and work.axis is Axis.CACHE_SIZE and work.search_end < work.shortest:
        raise BadInput(
            f"auto_up_to={size}: the smallest cache for max_seq_len={case.max_seq_len} and batch_size={jobs} has "
            f"{work.shortest} tokens; give at least that, or leave it out"
        )
    if size is None and case.max_seq_len % PAGE:
        raise BadInput(f"max_seq_len={case.max_seq_len}: {_WHOLE}; give {_near(case.max_seq_len)}, or a cache_size")
    if size is not None and size % PAGE:
        raise BadInput(f"cache_size={size}: {_WHOLE}; give {_near(size)}")
    if size is not None and size < case.max_seq_len:
        raise BadInput(
            f"cache_size={size} max_seq_len={case.max_seq_len}: a job of that length has no room; give a cache_size of "
            f"at least {-(-case.max_seq_len // PAGE) * PAGE}, or a shorter max_seq_len"
        )
    if case.cache_tokens < jobs * PAGE:
        raise BadInput(
            f"cache_size={case.cache_tokens} batch_size={jobs}: each job has a page of {PAGE} tokens at least; give a "
            f"cache_size of {jobs * PAGE} or more, or fewer jobs"
        )
    if case.max_batch_size is not None and jobs > case.max_batch_size:
        raise BadInput(
            f"batch_size={jobs} max_batch_size={case.max_batch_size}: so many jobs do not run at a time; give a "
            f"max_batch_size of at least {jobs}, or fewer jobs"
        )


_WHOLE = f"a generator's cache has whole pages of {PAGE} tokens"


def _near(tokens: int) -> str:
    allowed = [tokens // PAGE * PAGE, -(-tokens // PAGE) * PAGE]
    return " or ".join(str(each) for each in allowed if each)
