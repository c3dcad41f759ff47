"""What a scenario times has a place in the message that tells it."""

from __future__ import annotations

from dataclasses import fields

import pytest

from bench.core.messages import Timings
from bench.scenarios.base import Pace, Scenario, Work
from bench.scenarios.forward import FORWARD
from bench.scenarios.generator import GENERATOR


@pytest.mark.parametrize("scenario", [FORWARD, GENERATOR], ids=lambda scenario: scenario.name)
def test_what_a_step_is_timed_and_counted_as_is_a_timing(scenario: Scenario) -> None:
    steps = scenario.steps(Work(4096, 1, 4096), Pace(2, 4))
    told = {name for step in steps for name in (step.timed_as, step.counted_as) if name is not None}
    assert told <= {field.name for field in fields(Timings)}
    assert {"prefill_s", "decode_s", "decode_full_s"} <= told
