"""What is foreseen of cases and searches: nothing is run, but for recordings that are missing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.answers.display import Display
from bench.answers.expected_time import expect
from bench.answers.forecast_rows import row_of, with_gains
from bench.config.settings import Settings
from bench.core.case import Case, Search
from bench.core.extras import require_some
from bench.core.outcome import Outcome
from bench.core.scratch import scratch_folder
from bench.forecast.duration import slowness
from bench.forecast.forecaster import Forecaster
from bench.forecast.library import TraceLibrary
from bench.launch.launchers import Launchers
from bench.launch.versions import installed_versions
from bench.report.forecasts import Expectation, ForecastRow
from bench.run.resume import Stored

_FEW = 16  # searches and cases for which it is also said what would change the answer


@dataclass(frozen=True)
class Foreseen:
    """A row for each case and search, in their order."""

    rows: list[ForecastRow]
    _stored: Stored
    _jobs: int
    _slow: float | None
    _timeout_s: float
    _cards: dict[str | None, int]  # how many equal GPUs share the work of one

    def expectation(self, rows: Sequence[ForecastRow]) -> Expectation:
        """How long a sweep of those that `rows` are about would take."""
        return expect(rows, self._stored.rows, self._jobs, self._slow, self._timeout_s, self._cards)


def foresee(works: Sequence[Case | Search], settings: Settings, own: int, display: Display) -> Foreseen:
    """What a sweep of `works` is expected to find.

    Of the first `own` of them, where they are few, it is also said what would change the answer. Raises `BadInput`
    where nothing is predicted for want of what is not installed.
    """
    jobs = settings.jobs or os.cpu_count() or 1
    stored = Stored.read(Path(settings.results_dir), settings.rerun, settings.retry)
    with forecaster_of(stored, jobs) as forecaster:
        forecaster.prepare([work.longest for work in works], partial(show_recorded, display))
        display.begin("predicting")
        forecasts = forecaster.forecast_all(works, jobs)
        require_some(forecast.reason for forecast in forecasts)
        versions = installed_versions()
        seen = {row["device_uuid"] for row in stored.rows if row["outcome"] == Outcome.FITS}
        rows = [row_of(forecast, stored.answer(forecast.work, versions), seen) for forecast in forecasts]
        if own <= _FEW:
            display.begin("what would change the answer", own)
            for index, forecast in enumerate(forecasts[:own]):
                display.reach(index, f"what would change the answer, {index}/{own}")
                rows[index] = with_gains(rows[index], forecast, forecaster)
    slow = slowness(stored.rows, [work.longest for work in works])
    cards = {device.uuid: 1 + len(device.equals) for device in (work.longest.device for work in works)}
    return Foreseen(rows, stored, jobs, slow, settings.timeout_s, cards)


def show_recorded(display: Display, done: int, total: int) -> None:
    """Shows how many of the recordings that predictions need are there."""
    if done == 0:
        display.begin(f"0/{total} recordings", total)
    display.reach(done, f"{done}/{total} recordings")
    if done == total:
        display.say(f"{total} recording{'' if total == 1 else 's'} made to predict with")


@contextlib.contextmanager
def forecaster_of(stored: Stored, jobs: int) -> Iterator[Forecaster]:
    """A forecaster with a folder of its own; a worker starts when a recording is missing, and ends with it."""
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(scratch_folder())
        launchers = Launchers()
        stack.callback(launchers.close)
        yield Forecaster(TraceLibrary(launchers.simulated, scratch, jobs), stored.rows)
