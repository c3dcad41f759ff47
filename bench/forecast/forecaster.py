"""Predictions for cases and searches: their programs, the card as it is known by now, and the answers kept."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

from bench.core.case import Case, Search
from bench.core.columns import CaseRow
from bench.engines.reading import Reading
from bench.forecast.advice import next_smaller, smaller, smallest
from bench.forecast.calibrate import Calibration
from bench.forecast.library import TraceLibrary
from bench.forecast.predict import AnyLimits, AnyReplayer, Prediction, predict, predict_boundary, predict_fits_at
from bench.forecast.search import grid
from bench.forecast.speed import estimated_speed, step_of
from bench.launch.versions import installed_versions
from bench.trace.passes import NoPrediction

_KEPT_REPLAYERS = 16


@dataclass(frozen=True)
class Forecast:
    """What is thought of a case or a search before it is run.

    `fits_at` is a search's predicted boundary, 0 where nothing fits; `prediction` is that of the case, or of the search
    at its boundary (at its first page, where nothing fits). Both are None where nothing can be predicted, for `reason`.
    `probes` are the cases that it will take, `estimated_decode_tokens_per_s` is at the length of the prediction.
    `reading` is what the engine makes of the model, None where it was not recorded.
    """

    work: Case | Search
    fits_at: int | None
    prediction: Prediction | None
    reason: str | None
    probes: int
    estimated_decode_tokens_per_s: float | None
    reading: Reading | None = None

    @property
    def case(self) -> Case:
        """The case, or the search's at its limit."""
        return self.work.longest


@dataclass(frozen=True)
class _CachedForecast:
    """A replay's answer as it is kept: the fields of a `Prediction`, or why there is none."""

    prediction: dict[str, Any] | None
    reason: str | None
    reading: dict[str, Any] | None = None


class Forecaster:
    """Answers from replays; None stands for what cannot be predicted. Any thread may ask."""

    def __init__(self, traces: TraceLibrary, rows: Iterable[CaseRow] = ()) -> None:
        self._traces = traces
        self._calibration = Calibration(installed_versions(), rows)
        self._replayers: OrderedDict[str, AnyReplayer | str] = OrderedDict()
        self._lock = threading.Lock()

    def prepare(self, cases: Iterable[Case], made: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Has the missing programs made, many at a time."""
        self._traces.prepare(cases, made)

    def learn(self, row: CaseRow) -> None:
        """A measured row corrects what is predicted from now on."""
        self._calibration.learn(row)

    def predict(self, case: Case) -> Prediction | None:
        """The peaks of one case."""
        return self.forecast(case).prediction

    def fits_at(self, search: Search) -> int | None:
        """The longest length that fits, 0 where not even the first page does."""
        replayer = self._replayer(search.longest)
        if isinstance(replayer, str):
            return None
        try:
            return predict_fits_at(replayer, self._calibration.limits(search.longest), search.search_end)
        except NoPrediction:
            return None

    def forecast(self, work: Case | Search) -> Forecast:
        """Everything that can be said of `work` without running it."""
        return self._forecast(work, self._replay(work))

    def forecast_all(self, works: Sequence[Case | Search], jobs: int = 1) -> list[Forecast]:
        """The same for many: what was said before is looked up, the rest is replayed `jobs` at a time."""
        keys = [self._key(work) for work in works]
        said = {key: _CachedForecast(**json.loads(text)) for key, text in self._traces.store.read(keys).items()}
        groups: dict[str, list[tuple[str, Case | Search]]] = {}
        for key, work in zip(keys, works, strict=True):
            if key not in said:
                groups.setdefault(self._traces.search_key(work.longest), []).append((key, work))

        def say(group: list[tuple[str, Case | Search]]) -> dict[str, _CachedForecast]:
            return {key: self._replay(work) for key, work in group}

        new: dict[str, _CachedForecast] = {}
        with ThreadPoolExecutor(jobs) as pool:
            for answers in pool.map(say, (groups[name] for name in sorted(groups))):
                new.update(answers)
        # A reason may pass: a recording that came to no end is made again.
        self._traces.store.write({key: json.dumps(asdict(answer)) for key, answer in new.items() if answer.prediction})
        said.update(new)
        return [self._forecast(work, said[key]) for key, work in zip(keys, works, strict=True)]

    def _replay(self, work: Case | Search) -> _CachedForecast:
        replayer = self._replayer(work.longest)
        if isinstance(replayer, str):
            return _CachedForecast(None, replayer)
        limits = self._calibration.limits(work.longest)
        try:
            if isinstance(work, Search):
                prediction = predict_boundary(replayer, limits, work.search_end)
            else:
                prediction = predict(replayer, limits, work.max_seq_len)
            return _CachedForecast(asdict(prediction), None, replayer.reading)
        except NoPrediction as reason:
            return _CachedForecast(None, str(reason), replayer.reading)

    def _forecast(self, work: Case | Search, said: _CachedForecast) -> Forecast:
        reading = None if said.reading is None else Reading.from_plain(said.reading)
        if said.prediction is None:
            # An engine that cannot run a model says so in the first case.
            probes = 1 if str(said.reason).startswith("Unsupported") else _probes(work, None)
            return Forecast(work, None, None, said.reason, probes, None, reading)
        prediction = Prediction.from_plain(said.prediction)
        fits_at = None
        if isinstance(work, Search):
            fits_at = prediction.max_seq_len if prediction.fits else 0
        case = replace(work.longest, max_seq_len=prediction.max_seq_len)
        speed = estimated_speed(case) if prediction.fits else None
        return Forecast(work, fits_at, prediction, None, _probes(work, fits_at), speed, reading)

    def _key(self, work: Case | Search) -> str:
        """What decides an answer: the engine's allocations, the length and the card."""
        case = work.longest
        limits = self._calibration.limits(case)
        return "-".join(map(str, (self._traces.search_key(case), type(work).__name__, case.max_seq_len, *limits)))

    def gains(self, search: Search) -> list[tuple[str, int]]:
        """What one would gain by giving something up: the next smaller setting of each kind, and how far it goes."""
        options = list(next_smaller(search.longest))
        self.prepare([case for _, case in options])
        forecasts = self.forecast_all([Search(case) for _, case in options], self._traces.jobs)
        return [
            (said, each.fits_at) for (said, _), each in zip(options, forecasts, strict=True) if each.fits_at is not None
        ]

    def advise(self, search: Search) -> str | None:
        """For a search that nothing fits: the setting nearest to it that would fit, or what the smallest one lacks.

        Of several cards nothing is said: what helps may be to put the model on them in another way.
        """
        if search.longest.more_devices:
            return None
        options = list(smaller(search.longest))
        missing = self._missing_at_the_smallest(*smallest(search.longest))
        if missing is not None:
            return missing
        asked = self.predict(_shortest(search.longest))
        for said, case in options:
            limits = self._calibration.limits(case)
            if _weights_lack(case, limits) or (asked and _saves_too_little(asked, case, search.longest, limits)):
                continue  # found out without a recording
            self.prepare([case])
            fits_at = self.fits_at(Search(case))
            if fits_at:
                return f"{said} would fit {fits_at:,} tokens (predicted)"
        return None

    def _missing_at_the_smallest(self, said: str, case: Case) -> str | None:
        """What the card lacks for the first page; None where it lacks nothing, or nobody knows."""
        limits = self._calibration.limits(case)
        if lacking := _weights_lack(case, limits):
            return f"not even with {said}: the weights alone need {_more(lacking)}"
        self.prepare([case])
        shortest = self.predict(_shortest(case))
        if shortest is None or shortest.fits:
            return None
        lacking = _needed_bytes(shortest) - limits.total_bytes
        return f"not even with {said}: {shortest.max_seq_len} tokens need {_more(lacking)}"

    def _replayer(self, case: Case) -> AnyReplayer | str:
        """The search's replayer, or why there is none."""
        key = self._traces.search_key(case)
        with self._lock:
            if key in self._replayers:
                self._replayers.move_to_end(key)
                return self._replayers[key]
        try:
            replayer: AnyReplayer | str = self._traces.replayer(case)
        except NoPrediction as reason:
            replayer = str(reason)
        with self._lock:
            self._replayers[key] = replayer
            if len(self._replayers) > _KEPT_REPLAYERS:
                self._replayers.popitem(last=False)
        return replayer


def _probes(work: Case | Search, fits_at: int | None) -> int:
    """A right prediction is certified by two cases, or by one at the end of the search or where nothing fits."""
    if isinstance(work, Case):
        return 1
    if fits_at is None:
        return max(1, len(grid(work.search_end)).bit_length())
    return 1 if fits_at in (0, work.search_end) else 2


def _shortest(case: Case) -> Case:
    """The case at its first page."""
    return replace(case, max_seq_len=grid(case.max_seq_len)[0])


def _weights_lack(case: Case, limits: AnyLimits) -> float:
    """What is missing for the weights alone, as far as it is known without a recording; 0 where they may fit."""
    step = step_of(replace(case, batch_size=1))
    return max(0, step.weights_bytes - limits.torch_bytes) if step else 0


def _needed_bytes(prediction: Prediction) -> int:
    """What a card must have at least; PyTorch gives back what it only keeps."""
    return sum(prediction.parts.values())


def _saves_too_little(asked: Prediction, case: Case, than: Case, limits: AnyLimits) -> bool:
    """Whether `case` only has another cache, and more is missing than all that the cache takes."""
    only_the_cache = case == replace(than, cache=case.cache)
    return only_the_cache and _needed_bytes(asked) - asked.parts["cache"] > limits.total_bytes


def _more(missing_bytes: float) -> str:
    return f"{max(missing_bytes / (1 << 30), 0.1):.1f} GiB more (predicted)"
