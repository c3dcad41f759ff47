"""Predictions for cases and cells: their programs, the card as it is known by now, and the answers kept."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

from bench.memory.program import Unpredictable
from bench.memory.replay import Replayer
from bench.plan.calibrate import Calibration
from bench.plan.predict import Prediction, predict, predict_boundary, predict_fits_at
from bench.plan.search import grid
from bench.plan.speed import estimate
from bench.records import Case, Cell
from bench.run.programs import Programs

_KEPT_REPLAYERS = 16
# What is given up, step by step, for a case that does not fit.
_CACHES = ("FP16", "Q8", "Q6", "Q4")
_WIDTHS = (8.0, 6.0, 5.0, 4.0, 3.5, 3.0, 2.5, 2.25, 2.0)
_INPUT_LENGTHS = (2048, 1024, 512, 256)


@dataclass(frozen=True)
class Forecast:
    """What is thought of a case or a cell before it is run.

    `fits_at` is a cell's predicted boundary, 0 where nothing fits; `prediction` is that of the case, or of the cell at
    its boundary (at its first page, where nothing fits). Both are None where nothing can be predicted, for `reason`.
    `probes` are the cases that it will take, `estimated_decode_tokens_per_s` is at the length of the prediction.
    """

    work: Case | Cell
    fits_at: int | None
    prediction: Prediction | None
    reason: str | None
    probes: int
    estimated_decode_tokens_per_s: float | None

    @property
    def case(self) -> Case:
        """The case, or the cell's at its limit."""
        return _longest(self.work)


@dataclass(frozen=True)
class _Said:
    """A replay's answer as it is kept: the fields of a `Prediction`, or why there is none."""

    prediction: dict[str, Any] | None
    reason: str | None


def _longest(work: Case | Cell) -> Case:
    return work.longest if isinstance(work, Cell) else work


class Forecaster:
    """Answers from replays; None stands for what cannot be predicted. Any thread may ask."""

    def __init__(self, programs: Programs, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self._programs = programs
        self._calibration = Calibration(rows)
        self._replayers: OrderedDict[str, Replayer | str] = OrderedDict()
        self._lock = threading.Lock()

    def prepare(self, cases: Iterable[Case], made: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Has the missing programs made, many at a time."""
        self._programs.prepare(cases, made)

    def learn(self, row: Mapping[str, Any]) -> None:
        """A measured row corrects what is predicted from now on."""
        self._calibration.learn(row)

    def predict(self, case: Case) -> Prediction | None:
        """The peaks of one case."""
        return self.forecast(case).prediction

    def fits_at(self, cell: Cell) -> int | None:
        """The longest length that fits, 0 where not even the first page does."""
        replayer = self._replayer(cell.longest)
        if isinstance(replayer, str):
            return None
        try:
            return predict_fits_at(replayer, self._calibration.limits(cell.longest), cell.native_max_seq_len)
        except Unpredictable:
            return None

    def forecast(self, work: Case | Cell) -> Forecast:
        """Everything that can be said of `work` without running it."""
        return self._forecast(work, self._replay(work))

    def forecast_all(self, works: Sequence[Case | Cell], jobs: int = 1) -> list[Forecast]:
        """The same for many: what was said before is looked up, the rest is replayed `jobs` at a time."""
        keys = [self._key(work) for work in works]
        said = {key: _Said(**json.loads(text)) for key, text in self._programs.store.read(keys).items()}
        groups: dict[str, list[tuple[str, Case | Cell]]] = {}
        for key, work in zip(keys, works, strict=True):
            if key not in said:
                groups.setdefault(self._programs.cell_key(_longest(work)), []).append((key, work))

        def say(group: list[tuple[str, Case | Cell]]) -> dict[str, _Said]:
            return {key: self._replay(work) for key, work in group}

        new: dict[str, _Said] = {}
        with ThreadPoolExecutor(jobs) as pool:
            for answers in pool.map(say, (groups[name] for name in sorted(groups))):
                new.update(answers)
        self._programs.store.write({key: json.dumps(asdict(answer)) for key, answer in new.items()})
        said.update(new)
        return [self._forecast(work, said[key]) for key, work in zip(keys, works, strict=True)]

    def _replay(self, work: Case | Cell) -> _Said:
        replayer = self._replayer(_longest(work))
        if isinstance(replayer, str):
            return _Said(None, replayer)
        limits = self._calibration.limits(_longest(work))
        try:
            if isinstance(work, Cell):
                return _Said(asdict(predict_boundary(replayer, limits, work.native_max_seq_len)), None)
            return _Said(asdict(predict(replayer, limits, work.max_seq_len)), None)
        except Unpredictable as reason:
            return _Said(None, str(reason))

    def _forecast(self, work: Case | Cell, said: _Said) -> Forecast:
        if said.prediction is None:
            return Forecast(work, None, None, said.reason, _probes(work, None), None)
        prediction = Prediction(**said.prediction)
        fits_at = None
        if isinstance(work, Cell):
            fits_at = prediction.max_seq_len if prediction.fits else 0
        case = replace(_longest(work), max_seq_len=prediction.max_seq_len)
        speed = estimated_speed(case) if prediction.fits else None
        return Forecast(work, fits_at, prediction, None, _probes(work, fits_at), speed)

    def _key(self, work: Case | Cell) -> str:
        """What decides an answer: the engine's allocations, the length and the card."""
        case = _longest(work)
        limits = self._calibration.limits(case)
        return "-".join(map(str, (self._programs.cell_key(case), type(work).__name__, case.max_seq_len, *limits)))

    def gains(self, cell: Cell) -> list[tuple[str, int]]:
        """What one would gain by giving something up: the next smaller setting of each kind, and how far it goes."""
        gained = []
        for said, smaller in _next_smaller(cell.longest):
            self.prepare([smaller])
            fits_at = self.fits_at(Cell(smaller))
            if fits_at is not None:
                gained.append((said, fits_at))
        return gained

    def advise(self, cell: Cell) -> str | None:
        """For a cell that nothing fits: the setting nearest to it that would fit, or what is missing."""
        for said, smaller in _smaller(cell.longest):
            self.prepare([smaller])
            fits_at = self.fits_at(Cell(smaller))
            if fits_at:
                return f"{said} would fit {fits_at:,} tokens (predicted)"
        shortest = self.predict(cell.at(grid(cell.native_max_seq_len)[0]))
        if shortest is None:
            return None
        missing = shortest.peak_device_bytes - self._calibration.limits(cell.longest).total_bytes
        return f"{shortest.max_seq_len} tokens need {missing / (1 << 30):.1f} GiB more (predicted)"

    def _replayer(self, case: Case) -> Replayer | str:
        """The cell's replayer, or why there is none."""
        key = self._programs.cell_key(case)
        with self._lock:
            if key in self._replayers:
                self._replayers.move_to_end(key)
                return self._replayers[key]
        try:
            replayer: Replayer | str = self._programs.replayer(case)
        except Unpredictable as reason:
            replayer = str(reason)
        with self._lock:
            self._replayers[key] = replayer
            if len(self._replayers) > _KEPT_REPLAYERS:
                self._replayers.popitem(last=False)
        return replayer


def estimated_speed(case: Case) -> float | None:
    """Tokens a second of a simulated card with its context full, estimated; None for a real one, which is measured."""
    if case.device.kind != "simulated":
        return None
    return estimate(
        case.model.config,
        case.bpw,
        case.head_bits,
        case.cache,
        case.max_seq_len,
        case.batch_size,
        case.device.memory_bandwidth_bytes_per_s,
    )


def _probes(work: Case | Cell, fits_at: int | None) -> int:
    """A right prediction is certified by two cases, or by one at the model's own limit or where nothing fits."""
    if isinstance(work, Case):
        return 1
    if fits_at is None:
        return max(1, len(grid(work.native_max_seq_len)).bit_length())
    return 1 if fits_at in (0, work.native_max_seq_len) else 2


def _next_smaller(case: Case) -> Iterator[tuple[str, Case]]:
    """One step down on each axis, and what to type for it."""
    if case.lazy:
        yield "lazy=false", replace(case, lazy=False)
    for cache in _CACHES[_CACHES.index(case.cache) + 1 :][:1]:
        yield f"cache={cache}", replace(case, cache=cache)
    for bpw in [bpw for bpw in _WIDTHS if bpw < case.bpw and not case.model.has_weights][:1]:
        yield f"bpw={bpw:g}", replace(case, bpw=bpw)
    for length in [length for length in _INPUT_LENGTHS if length < case.max_input_len][:1]:
        yield f"max_input_len={length}", replace(case, max_input_len=length)


def _smaller(case: Case) -> Iterator[tuple[str, Case]]:
    """Cases that take less, the nearest first, and what to type for each."""
    own = {"lazy": "lazy=false"} if case.lazy else {}
    base = replace(case, lazy=False)
    if own:
        yield "lazy=false", base
    caches = _CACHES[_CACHES.index(case.cache) + 1 :]
    widths = [] if case.model.has_weights else [bpw for bpw in _WIDTHS if bpw < case.bpw]
    steps: list[dict[str, Any]] = [{"cache": cache} for cache in caches]
    steps += [{"bpw": bpw} for bpw in widths]
    steps += [{"bpw": bpw, "cache": "Q4"} for bpw in widths if caches]
    most = {**({"bpw": widths[-1]} if widths else {}), **({"cache": "Q4"} if caches else {})}
    steps += [{**most, "max_input_len": length} for length in _INPUT_LENGTHS if length < case.max_input_len]
    for step in steps:
        said = [
            *own.values(),
            *(f"{key}={value:g}" if key == "bpw" else f"{key}={value}" for key, value in step.items()),
        ]
        yield " ".join(said), replace(base, **step)
