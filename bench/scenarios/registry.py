"""The scenarios there are, by name, and what a case asks of its own."""

from __future__ import annotations

from bench.core.case import Case
from bench.scenarios.base import Pace, Scenario, Step, Work
from bench.scenarios.forward import FORWARD
from bench.scenarios.generator import GENERATOR

_SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in (FORWARD, GENERATOR)}
NAMES = tuple(_SCENARIOS)


def scenario_of(name: str) -> Scenario:
    """Raises KeyError for a name that is none."""
    return _SCENARIOS[name]


def work_of(case: Case) -> Work:
    """What a case asks of its scenario."""
    drafts = case.num_draft_tokens or 0, case.draft_model is not None
    return Work(case.max_seq_len, case.batch_size, case.cache_tokens, *drafts)


def steps_of(case: Case, pace: Pace | None = None) -> list[Step]:
    """Every step of a case, at a simulated card's pace where none is given."""
    scenario = scenario_of(case.scenario)
    return scenario.steps(work_of(case), pace or scenario.simulated_pace)
