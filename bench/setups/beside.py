"""What is asked beside a setup: how far it would go, and which finer cache would fit as well."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bench.config.lengths import lengths_of_model
from bench.core.caches import CACHES, fineness, finest_first
from bench.core.case import DEFAULT_SCENARIO, MAX_SEQ_LEN, PAGE, Axis, Case, Search
from bench.engines.base import EngineSpec, Frontend
from bench.engines.registry import engine_of, rules_of


@dataclass(frozen=True)
class Beside:
    """Of a case: the search for the longest context that one job may have, that for the largest cache of jobs of its
    own length (None without a generator), and the same case with each finer cache that the program has a word for.
    """

    case: Case
    longest: Search | None
    largest: Search | None
    finer: dict[str, Case]

    @property
    def searches(self) -> list[Search]:
        """Those there are."""
        return [search for search in (self.largest, self.longest) if search is not None]

    @property
    def works(self) -> list[Case | Search]:
        """All of it, the case first."""
        return [self.case, *self.searches, *self.finer.values()]


def beside(case: Case, frontend: Frontend) -> Beside:
    """What is asked beside `case`, which `frontend` has its engine run."""
    return Beside(case, _longest(case, engine_of(case.engine)), _largest(case), dict(_finer(case, frontend)))


def _longest(case: Case, engine: EngineSpec) -> Search | None:
    """None where nothing tells how long a context may be."""
    limit = lengths_of_model(case.model, case.engine).limit
    step = PAGE if case.scenario != DEFAULT_SCENARIO else engine.context_step
    if limit is None or limit < step:
        return None
    if case.draft_model is not None:
        limit = min(limit, lengths_of_model(case.draft_model.model, case.engine).limit or limit)
    return Search(replace(case, cache_size=None, max_seq_len=max(limit, case.max_seq_len) // step * step))


def _largest(case: Case) -> Search | None:
    if case.scenario == DEFAULT_SCENARIO:
        return None
    return Search(replace(case, cache_size=MAX_SEQ_LEN), Axis.CACHE_SIZE)


def _finer(case: Case, frontend: Frontend) -> Iterator[tuple[str, Case]]:
    """The finest first, of those that have a name."""
    for cache in finest_first(frontend.caches.values()):
        if fineness(cache) <= fineness(case.cache) or cache not in CACHES:
            continue
        finer = replace(case, cache=cache)
        if rules_of(case.engine).refusal(finer) is None:
            yield cache, finer
