"""Predictions for cases and searches: their programs, the card as it is known by now, and the answers kept."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.allocator.limits import MachineLimits
from bench.core.case import Axis, Case, Search
from bench.core.columns import CaseRow
from bench.core.split import Split, SplitBy
from bench.engines.reading import Reading
from bench.forecast.advice import next_smaller, smaller, smallest
from bench.forecast.calibrate import Calibration
from bench.forecast.library import TraceLibrary
from bench.forecast.prediction import Prediction
from bench.forecast.search import grid
from bench.forecast.speed import estimated_speed, step_of
from bench.launch.versions import installed_versions
from bench.trace.passes import NoPrediction

if TYPE_CHECKING:  # with NumPy, which is not needed to look up what was answered before
    from bench.forecast.predict import AnyLimits, AnyReplayer

_KEPT_REPLAYERS = 16
_KEPT_BOUNDARIES = 64
_BEST_IS_PREDICTED = "split=best is found by predictions, and there is none"


@dataclass(frozen=True)
class Forecast:
    """What is thought of a case or a search before it is run.

    `fits_at` is a search's predicted boundary, 0 where nothing fits; `prediction` is that of the case, or of the search
    at its boundary (at its first page, where nothing fits). Both are None where nothing can be predicted, for `reason`.
    `predicted_case` is the case of that length, and where there is no prediction the search's at its limit.
    `probes` are the cases that it will take, `estimated_decode_tokens_per_s` is at the length of the prediction.
    `reading` is what the engine makes of the model, None where it was not recorded. `auto_fits_at` is the boundary with
    `split=auto` of a search with `split=best`.
    """

    work: Case | Search
    predicted_case: Case
    fits_at: int | None
    prediction: Prediction | None
    reason: str | None
    probes: int
    estimated_decode_tokens_per_s: float | None
    reading: Reading | None = None
    auto_fits_at: int | None = None

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
    auto_fits_at: int | None = None

    @staticmethod
    def read(text: str) -> _CachedForecast | None:
        """What was kept; None of what is no such thing."""
        try:
            answer = _CachedForecast(**json.loads(text))
            Prediction.from_plain(answer.prediction or {})
            if answer.reading is not None:
                Reading.from_plain(answer.reading)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return None
        return answer


class Forecaster:
    """Answers from replays; None stands for what cannot be predicted. Any thread may ask."""

    def __init__(self, traces: TraceLibrary, rows: Iterable[CaseRow] = ()) -> None:
        self._traces = traces
        self._calibration = Calibration(installed_versions(), rows)
        self._replayers: OrderedDict[str, AnyReplayer | str] = OrderedDict()
        self._boundaries: OrderedDict[str, Prediction | str] = OrderedDict()
        self._lock = threading.Lock()

    def prepare(self, cases: Iterable[Case], made: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Has the missing programs made, many at a time."""
        cases = list(cases)
        self._traces.prepare([*cases, *(_with_auto(case) for case in cases if _asks_for_the_best(case))], made)

    def needs_recording(self, case: Case) -> bool:
        """Whether a prediction of the case would have to be recorded first."""
        return self._traces.needs_recording(case)

    def learn(self, row: CaseRow) -> None:
        """A measured row corrects what is predicted from now on."""
        self._calibration.learn(row)

    def predict(self, case: Case) -> Prediction | None:
        """The peaks of one case."""
        return self.forecast(case).prediction

    def fits_at(self, search: Search) -> int | None:
        """The longest length that fits, 0 where not even the first page does."""
        boundary = self._boundary(search)
        return None if boundary is None else boundary.length if boundary.fits else 0

    def gaps(self, search: Search) -> tuple[tuple[int, int], ...] | None:
        """Lengths below the boundary that do not fit, as in `Prediction`; None where nothing is predicted, too."""
        boundary = self._boundary(search)
        return None if boundary is None else boundary.gaps

    def why_unpredicted(self, search: Search) -> str | None:
        """Why nobody can tell a search's boundary before it is run; None where one is predicted."""
        found = self._boundary_or_reason(search)
        return found if isinstance(found, str) else None

    def _boundary(self, search: Search) -> Prediction | None:
        found = self._boundary_or_reason(search)
        return None if isinstance(found, str) else found

    def _boundary_or_reason(self, search: Search) -> Prediction | str:
        """A search at its boundary, or why that is not predicted; the last ones are remembered."""
        from bench.forecast.predict import predict_boundary

        key = self._key(search)
        with self._lock:
            if key in self._boundaries:
                return self._boundaries[key]
        replayer = self._replayer(search)
        if isinstance(replayer, str):
            boundary: Prediction | str = replayer
        else:
            try:
                limits = self._calibration.limits(search.longest)
                boundary = predict_boundary(replayer, limits, search.search_end, search.shortest)
            except NoPrediction as reason:
                boundary = str(reason)
        with self._lock:
            self._boundaries[key] = boundary
            if len(self._boundaries) > _KEPT_BOUNDARIES:
                self._boundaries.popitem(last=False)
        return boundary

    def auto_fits_at(self, search: Search) -> int | None:
        """Of a search with `split=best`, the boundary with `split=auto`; None of any other."""
        return self.fits_at(search.along(_with_auto(search.longest))) if _asks_for_the_best(search.longest) else None

    def resolved(self, case: Case) -> Case | str:
        """The case with the gpu_split that is best for it, where that is asked for; or why nobody can tell."""
        if not _asks_for_the_best(case):
            return case
        replayer = self._replayer(case)
        if isinstance(replayer, str):
            return f"{_BEST_IS_PREDICTED}: {replayer}"
        from bench.trace.best_replay import BestReplayer

        limits = self._calibration.limits(case)
        assert isinstance(replayer, BestReplayer)
        assert isinstance(limits, MachineLimits)
        try:
            split_gib = replayer.split_gib(case.max_seq_len, limits)
        except NoPrediction as reason:
            return f"{_BEST_IS_PREDICTED}: {reason}"
        return replace(case, split=str(Split(SplitBy.GPU_SPLIT, split_gib)))

    def forecast(self, work: Case | Search) -> Forecast:
        """Everything that can be said of `work` without running it."""
        return self._forecast(work, self._replay(work))

    def forecast_all(self, works: Sequence[Case | Search], jobs: int = 1) -> list[Forecast]:
        """The same for many: what was said before is looked up, the rest is replayed `jobs` at a time."""
        keys = [self._key(work) for work in works]
        kept = {key: _CachedForecast.read(text) for key, text in self._traces.store.read(keys).items()}
        said = {key: answer for key, answer in kept.items() if answer is not None}
        groups: dict[str, list[tuple[str, Case | Search]]] = {}
        for key, work in zip(keys, works, strict=True):
            if key not in said:
                groups.setdefault(self._traces.search_key(work.longest, work.axis), []).append((key, work))

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
        from bench.forecast.predict import predict, predict_boundary

        replayer = self._replayer(work)
        if isinstance(replayer, str):
            return _CachedForecast(None, replayer)
        limits = self._calibration.limits(work.longest)
        try:
            if isinstance(work, Search):
                prediction = predict_boundary(replayer, limits, work.search_end, work.shortest)
            else:
                prediction = predict(replayer, limits, work.max_seq_len)
            auto_fits_at = self.auto_fits_at(work) if isinstance(work, Search) else None
            return _CachedForecast(asdict(prediction), None, replayer.reading, auto_fits_at)
        except NoPrediction as reason:
            return _CachedForecast(None, str(reason), replayer.reading)

    def _forecast(self, work: Case | Search, said: _CachedForecast) -> Forecast:
        reading = None if said.reading is None else Reading.from_plain(said.reading)
        if said.prediction is None:
            # An engine that cannot run a model has said so: a sweep has that in its row, and looks for no answer.
            probes = 0 if str(said.reason).startswith("Unsupported") else _probes(work, None)
            return Forecast(work, work.longest, None, None, said.reason, probes, None, reading)
        prediction = Prediction.from_plain(said.prediction)
        fits_at = None
        if isinstance(work, Search):
            fits_at = prediction.length if prediction.fits else 0
        case = work.at(prediction.length) if isinstance(work, Search) else work
        speed = estimated_speed(case) if prediction.fits else None
        probes = _probes(work, fits_at)
        return Forecast(work, case, fits_at, prediction, None, probes, speed, reading, said.auto_fits_at)

    def _key(self, work: Case | Search) -> str:
        """What decides an answer: the engine's allocations, the length and the card."""
        case = work.longest
        limits = self._calibration.limits(case)
        replayed = self._traces.search_key(case, work.axis)
        return "-".join(map(str, (replayed, type(work).__name__, work.length, *limits)))

    def gains(self, search: Search) -> list[tuple[str, int]]:
        """What one would gain by giving something up: the next smaller setting of each kind, and how far it goes."""
        options = list(next_smaller(search.longest))
        self.prepare([case for _, case in options])
        forecasts = self.forecast_all([search.along(case) for _, case in options], self._traces.jobs)
        return [
            (said, each.fits_at) for (said, _), each in zip(options, forecasts, strict=True) if each.fits_at is not None
        ]

    def advise(self, search: Search) -> str | None:
        """For a search that nothing fits: the setting nearest to it that would fit, or what the smallest one lacks.

        Of several cards it is said which gpu_split would, where another was tried.
        """
        if search.longest.more_devices:
            return self._advise_to_split(search)
        options = list(smaller(search.longest))
        said, least = smallest(search.longest)
        missing = self._missing_at_the_smallest(said, search.along(least))
        if missing is not None:
            return missing
        asked = self.predict(_shortest(search))
        for said, case in options:
            limits = self._calibration.limits(case)
            if _weights_lack(case, limits) or (asked and _saves_too_little(asked, case, search.longest, limits)):
                continue  # found out without a recording
            self.prepare([case])
            fits_at = self.fits_at(search.along(case))
            if fits_at:
                return f"{said} would fit {_in_words(search, fits_at)} (predicted)"
        return None

    def _advise_to_split(self, search: Search) -> str | None:
        case = search.longest
        if case.split is None or Split.parse(case.split).by is not SplitBy.GPU_SPLIT:
            return None
        shortest, told = self.predict(_shortest(search)), []
        if shortest is not None and shortest.lack is not None:
            told.append(shortest.lack)
        best = self._boundary(search.along(replace(case, split=str(Split(SplitBy.BEST)))))
        if best is not None and best.fits:
            told.append(f"split={best.best_split} would fit {_in_words(search, best.length)} (predicted)")
        return "; ".join(told) or None

    def _missing_at_the_smallest(self, said: str, search: Search) -> str | None:
        """What the card lacks for the shortest case; None where it lacks nothing, or nobody knows."""
        case = search.longest
        limits = self._calibration.limits(case)
        if lacking := _weights_lack(case, limits):
            return f"not even with {said}: the weights alone need {_more(lacking)}"
        self.prepare([case])
        shortest = self.predict(_shortest(search))
        if shortest is None or shortest.fits:
            return None
        lacking = _needed_bytes(shortest) - limits.total_bytes
        asked = _in_words(search, search.shortest)
        return f"not even with {said}: {asked} need{'s' * asked.startswith('a ')} {_more(lacking)}"

    def _replayer(self, work: Case | Search) -> AnyReplayer | str:
        """The search's replayer, or why there is none."""
        key = self._traces.search_key(work.longest, work.axis)
        with self._lock:
            if key in self._replayers:
                self._replayers.move_to_end(key)
                return self._replayers[key]
        try:
            replayer: AnyReplayer | str = self._traces.replayer(work.longest, work.axis)
        except NoPrediction as reason:
            replayer = str(reason)
        with self._lock:
            self._replayers[key] = replayer
            if len(self._replayers) > _KEPT_REPLAYERS:
                self._replayers.popitem(last=False)
        return replayer


def _asks_for_the_best(case: Case) -> bool:
    return case.split is not None and Split.parse(case.split).by is SplitBy.BEST


def _with_auto(case: Case) -> Case:
    """The same with the engine's own split."""
    return replace(case, split=str(Split(SplitBy.AUTO)), lazy=True)


def _probes(work: Case | Search, fits_at: int | None) -> int:
    """A right prediction is certified by two cases, or by one at the end of the search or where nothing fits."""
    if isinstance(work, Case):
        return 1
    if fits_at is None:
        return max(1, len(grid(work.search_end, work.shortest)).bit_length())
    return 1 if fits_at in (0, work.search_end) else 2


def _shortest(search: Search) -> Case:
    """The case where the search begins."""
    return search.at(search.shortest)


def _in_words(search: Search, length: int) -> str:
    """`32,768 tokens`, or `a cache of 65,536 tokens`."""
    return ("" if search.axis is Axis.MAX_SEQ_LEN else "a cache of ") + f"{length:,} tokens"


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
