"""Carries out a scenario: the steps of a case, one after the other, on a session of its engine.

It runs unchanged on real cards and on simulated ones. After each phase it reports the memory of each and the seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from bench.core.case import Case
from bench.core.messages import CardResult, Entered, Message, PhaseDone, Result, Started, Timings
from bench.core.outcome import Phase
from bench.engines.steps import steps_of
from bench.notes.rules import notes_of_case
from bench.scenarios.base import Act, Step
from bench.worker.engines.registry import worker_engine
from bench.worker.interfaces.card import Machine
from bench.worker.interfaces.engine import Session, Tell
from bench.worker.progress import Teller

Emit = Callable[[Message], None]


def run(case: Case, machine: Machine, layouts: Path, emit: Emit) -> None:
    """Measures `case` on `machine`. Whatever goes wrong is raised; what was finished has been emitted by then."""
    machine.import_engine()
    session = worker_engine(case.engine).session(case, machine)
    notes: list[str] = []
    for (turn, phase), steps in groupby(steps_of(case, machine.pace), lambda step: (step.turn, step.phase)):
        with _phase(phase, turn, machine, emit) as data:
            tell = Teller(phase, "modules" if phase is Phase.LOAD else "tokens", emit)
            if phase is Phase.LOAD:
                reading = session.open(*directories_of(case, machine, layouts))
                notes = notes_of_case(case, reading)
                first, *others = (card.facts() for card in machine.cards)
                emit(Started(reading.attention, [*machine.notes(), *notes], first, others))
                session.build()
            for step in steps:
                _add(data, _timed(step, session, machine, case, tell))
    results = [  # by now a card knows more of itself
        CardResult(card.parts_at_peak(session.resident_tensors), card.facts(), *placed)
        for card, placed in zip(machine.cards, session.placement(), strict=True)
    ]
    several = results if len(results) > 1 else []
    given = session.given()
    emit(
        Result(
            parts=results[0].parts,
            notes=[*machine.notes(), *notes],
            facts=results[0].facts,
            cards=several,
            host_buffers_bytes=session.host_buffers_bytes(),
            peak_host_bytes=machine.peak_host_bytes(),
            generated_tokens=given.generated_tokens if given else None,
            drafted_tokens=given.drafted_tokens if given else None,
        )
    )


def directories_of(case: Case, machine: Machine, layouts: Path) -> list[Path]:
    """Where the model lies, and then its draft model if it has one."""
    return [machine.model_dir(each, layouts) for each in (case, case.of_draft) if each is not None]


def _add(data: dict[str, Any], said: dict[str, Any]) -> None:
    """What a step says of its phase; the seconds of a draft model and of the model are one number."""
    for name, value in said.items():
        data[name] = data[name] + value if name == "load_s" and name in data else value


def perform(step: Step, session: Session, tell: Tell | None = None) -> None:
    """Does what a step says with an engine's session, which is built."""
    if step.act is Act.LOAD_DRAFT:
        session.load_draft(tell)
    elif step.act is Act.CACHE_DRAFT:
        session.make_draft_cache()
    elif step.act is Act.VISION:
        session.load_vision(tell)
    elif step.act is Act.LOAD:
        session.load(tell)
    elif step.act is Act.CACHE:
        session.make_cache()
    elif step.act is Act.FILL:
        session.fill(step.tokens, tell)
    elif step.act is Act.DECODE:
        session.decode(step.start, step.tokens, tell)
    elif step.act is Act.TRY:
        session.try_a_chunk()
    elif step.act is Act.SERVE:
        session.serve()
    elif step.act is Act.TRIM:
        session.trim()
    elif step.act is Act.BEGIN:
        session.begin(step.jobs, step.tokens, step.new_tokens, tell)
    else:
        session.generate(step.tokens, tell)


def _timed(step: Step, session: Session, machine: Machine, case: Case, tell: Tell) -> dict[str, Any]:
    """Carries out a step, as often as it is to be timed; returns what the phase's message says of it."""
    if step.timed_as is None:
        perform(step, session)
        return {}
    if step.act in (Act.LOAD_DRAFT, Act.LOAD):  # once, and on every machine
        started = time.perf_counter()
        perform(step, session, tell)
        return {step.timed_as: time.perf_counter() - started}
    said: dict[str, Any] = {step.timed_as: machine.time(lambda: perform(step, session, tell), case.repeats)}
    if step.counted_as is not None:
        said[step.counted_as] = step.tokens * case.batch_size  # sequences, or jobs
    return said


@contextmanager
def _phase(phase: Phase, turn: int, machine: Machine, emit: Emit) -> Iterator[dict[str, Any]]:
    """Reports that `phase` is entered and, once its block is done, what it took; the block may add to the report."""
    emit(Entered(phase, turn))
    data: dict[str, Any] = {}
    started = time.perf_counter()
    yield data
    memory, *others = (card.memory() for card in machine.cards)  # waits for them
    emit(PhaseDone(phase, time.perf_counter() - started, memory, Timings(**data), others, turn))
