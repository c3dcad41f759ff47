"""The scenarios there are, by name."""

from __future__ import annotations

from bench.scenarios.base import Scenario
from bench.scenarios.fill import FILL

_SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in (FILL,)}
NAMES = tuple(_SCENARIOS)


def scenario_of(name: str) -> Scenario:
    """Raises KeyError for a name that is none."""
    return _SCENARIOS[name]
