"""The scenarios there are, by name."""

from __future__ import annotations

from bench.scenarios.base import Scenario
from bench.scenarios.forward import FORWARD
from bench.scenarios.generator import GENERATOR

_SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in (FORWARD, GENERATOR)}
NAMES = tuple(_SCENARIOS)


def scenario_of(name: str) -> Scenario:
    """Raises KeyError for a name that is none."""
    return _SCENARIOS[name]
