"""What a case asks of its scenario, by the rules of its engine."""

from __future__ import annotations

from bench.core.case import Case
from bench.engines.registry import engine_of
from bench.scenarios.base import Pace, Step, Work
from bench.scenarios.registry import scenario_of


def work_of(case: Case) -> Work:
    """What a case asks of its scenario."""
    return Work(
        case.max_seq_len,
        case.batch_size,
        case.cache_tokens,
        draft_tokens=case.num_draft_tokens or 0,
        spare_tokens=engine_of(case.engine).job_spare_tokens,
        is_draft_model=case.draft_model is not None,
        tries_a_chunk=case.load_as is not None,
        has_vision=case.vision,
        turns=case.turns,
    )


def steps_of(case: Case, pace: Pace | None = None) -> list[Step]:
    """Every step of a case, at a simulated card's pace where none is given."""
    scenario = scenario_of(case.scenario)
    return scenario.steps(work_of(case), pace or scenario.simulated_pace)
