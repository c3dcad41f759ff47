"""How far a phase is, told while the engine works; what it allocates stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.core.case import Case
from bench.core.messages import Message, PhaseDone, PhaseProgress
from bench.core.outcome import Phase
from bench.worker import progress
from bench.worker.progress import Teller
from tests.worker.conftest import Run, made_up_case
from tests.worker.test_scenario import TINY

Runner = Callable[[Case], Run]


def _told(run: Run, phase: Phase) -> list[PhaseProgress]:
    return [each for each in run.of(PhaseProgress) if each.phase is phase]


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("axes", [{"attention": "flash"}, {"attention": "matmul", "max_seq_len": 8192}])
def test_each_phase_tells_how_far_it_is_and_no_byte_changes(
    run: Runner, monkeypatch: pytest.MonkeyPatch, lazy: bool, axes: dict[str, Any]
) -> None:
    case = made_up_case(TINY, lazy=lazy, **axes)
    monkeypatch.setattr(progress, "INTERVAL_S", 3600.0)
    silent = run(case)
    assert not silent.of(PhaseProgress)
    monkeypatch.setattr(progress, "INTERVAL_S", 0.0)
    talking = run(case)
    modules = 2 * TINY["num_hidden_layers"] + 3  # attention and MLP of each layer; embeddings, norm and head
    loaded = [(each.done, each.total, each.units) for each in _told(talking, Phase.LOAD)]
    assert loaded == [(done, modules, "modules") for done in range(modules + 1)]
    prefilled = _told(talking, Phase.PREFILL)
    filled = case.max_seq_len - 4
    assert {(each.total, each.units) for each in prefilled} == {(filled, "tokens")}
    assert [each.done for each in prefilled][:2] == [1024, 2048 if axes["attention"] == "matmul" else filled]
    assert prefilled[-1].done == filled
    assert [each.done for each in _told(talking, Phase.DECODE)] == [0, 1, 2, 3] * 2
    assert (talking.memory, talking.parts) == (silent.memory, silent.parts)
    assert [done.memory for done in talking.of(PhaseDone)] == [done.memory for done in silent.of(PhaseDone)]


def test_a_phase_tells_once_a_second_and_a_short_one_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: seconds[0])
    messages: list[Message] = []
    tell = Teller(Phase.PREFILL, "tokens", messages.append)
    for done in range(28):
        tell(done, 28)
        seconds[0] += 0.125
    assert messages == [PhaseProgress(Phase.PREFILL, done, 28, "tokens") for done in (8, 16, 24)]
