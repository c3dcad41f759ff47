"""The cases of a table, run on simulated cards: what each held after every phase, and what was predicted of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.core.case import PAGE, Case
from bench.core.messages import Memory
from bench.core.outcome import Outcome, Phase
from bench.core.requests import LayOut, RunCase
from bench.core.scratch import scratch_folder
from bench.forecast.forecaster import Forecaster
from bench.forecast.library import TraceLibrary
from bench.launch.launchers import Launchers
from bench.launch.supervise import run_isolated
from bench.run.told import Told
from bench.run.verdict import judge
from bench.synth.layout import Layout

_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Ran:
    """How a case ended: `after` are the phases that were finished, `predicted_peak_bytes` is of the whole
    card; None where nothing is predicted, or it does not fit. `at_end` tells what the card held then, and the peaks.
    """

    outcome: Outcome
    phase: Phase
    error: str | None
    after: dict[Phase, Memory]
    at_end: Memory | None
    predicted_fits: bool | None = None
    predicted_peak_bytes: int | None = None


class Runner:
    """Runs each case once, in a child of its own; `predicts` them too."""

    def __init__(self, launchers: Launchers, folder: Path, jobs: int, predicts: bool) -> None:
        self._launchers = launchers
        self._folder = folder
        self._jobs = jobs
        self._predicts = predicts
        self._forecaster = Forecaster(TraceLibrary(launchers.simulated, folder, jobs))

    def run_all(self, cases: Iterable[Case], tell: Callable[[int, int], None]) -> dict[Case, Ran]:
        """What became of each of `cases`; `tell` hears how many are done, of how many."""
        asked = list(dict.fromkeys(cases))
        self._forecaster.prepare([case for case in asked if self._is_predicted(case)])
        done: dict[Case, Ran] = {}
        with ThreadPoolExecutor(self._jobs) as pool:
            for case, ran in zip(asked, pool.map(self._run, range(len(asked)), asked), strict=True):
                done[case] = ran
                tell(len(done), len(asked))
        return done

    def layouts(self, cases: Iterable[Case]) -> dict[Case, Layout]:
        """The checkpoints that are made up for `cases`; without those that the engine refuses."""
        found: dict[Case, Layout] = {}
        for number, case in enumerate(dict.fromkeys(cases)):
            path = self._folder / f"layout-{number}.json"
            log = self._folder / f"layout-{number}.log"
            run_isolated(self._launchers.of(case), LayOut(case, path), log, _TIMEOUT_S)
            if path.exists():
                found[case] = Layout.from_json(path.read_text(encoding="utf-8"))
        return found

    def _is_predicted(self, case: Case) -> bool:
        """A prediction is of a card that is told, and of whole pages."""
        return self._predicts and case.device.context_bytes != 0 and case.max_seq_len >= PAGE

    def _run(self, number: int, case: Case) -> Ran:
        log = self._folder / f"{number}.log"
        ending = run_isolated(self._launchers.of(case), RunCase(case, self._folder), log, _TIMEOUT_S)
        verdict = judge(ending, _TIMEOUT_S, [case.device.total_memory_bytes], case.limits_bytes)
        told = Told.by(ending.messages)
        prediction = self._forecaster.predict(case) if self._is_predicted(case) else None
        return Ran(
            outcome=verdict.outcome,
            phase=verdict.phase,
            error=verdict.error,
            after={each.phase: each.memory for each in told.phases},
            at_end=told.memory,
            predicted_fits=None if prediction is None else prediction.fits,
            predicted_peak_bytes=prediction.peak_device_bytes if prediction is not None and prediction.fits else None,
        )


def with_runner(stack: ExitStack, predicts: bool = True) -> Runner:
    """A runner that ends with `stack`; recordings to predict with take longer than the runs."""
    folder = stack.enter_context(scratch_folder())
    launchers = Launchers()
    stack.callback(launchers.close)
    return Runner(launchers, folder, os.cpu_count() or 1, predicts)


def sizes_of(layout: Layout, parts: Sequence[str]) -> int:
    """The bytes of a checkpoint's tensors whose name has one of `parts` in it; of all where there are none."""
    return sum(each.size_bytes for each in layout.tensors if not parts or any(part in each.name for part in parts))
