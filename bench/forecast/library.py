"""The recordings that predictions replay: made by workers, and kept on disk by what determines them."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platformdirs import user_cache_path

from bench.core.case import UNQUANTISED_BPW, Axis, Case
from bench.core.extras import not_shipped
from bench.core.identity import SETTINGS_OF
from bench.core.messages import Message, Recorded
from bench.core.requests import Record, Recording, Wanted
from bench.core.split import Split, SplitBy
from bench.engines.base import PredictionRules
from bench.engines.registry import NAMES, engine_of, rules_of
from bench.forecast.cache import ForecastStore
from bench.forecast.shipped import Shipped
from bench.launch.launcher import Launcher, LauncherFailed
from bench.launch.supervise import run_isolated
from bench.launch.versions import engine_digest, installed_version
from bench.trace.passes import NoPrediction

if TYPE_CHECKING:  # with NumPy, which is not needed to look up what was answered before
    from bench.trace.best_replay import BestReplayer
    from bench.trace.divided_replay import DividedReplayer
    from bench.trace.parametric import ParametricTrace
    from bench.trace.placed_replay import PlacedReplayer
    from bench.trace.replay import Replayer
    from bench.trace.split import SplitTrace
    from bench.trace.split_replay import SplitReplayer
    from bench.trace.template import Array

    AnyReplayer = Replayer | SplitReplayer | PlacedReplayer | BestReplayer | DividedReplayer


def _recorded_cache(case: Case) -> str:
    """Two caches are recorded as they are: what the generator has of both depends on what they have in common."""
    if case.draft_model is not None:
        return case.cache
    return engine_of(case.engine).caches[case.cache].recorded_as


def _recorded_split(case: Case) -> SplitBy | None:
    """The best of all gpu_splits is one of them."""
    by = None if case.split is None else Split.parse(case.split).by
    return SplitBy.GPU_SPLIT if by is SplitBy.BEST else by


# A recording is of every setting, but for what a replay can put in its place: bits, and the type of a quantised cache.
_RECORDED_SETTING: dict[str, Callable[[Case], object]] = {
    **SETTINGS_OF,
    "bpw": lambda case: case.bpw == UNQUANTISED_BPW,
    "head_bits": lambda case: case.head_bits is None,
    "cache": _recorded_cache,
    "allocator": lambda case: None,
    "split": _recorded_split,
    "draft_model": lambda case: None,
    "draft_bpw": lambda case: case.draft_bpw == UNQUANTISED_BPW,
    "cache_size": lambda case: case.odd_tokens,  # whole pages are alike, whoever shares them
}
_REPEATED = ("turns",)  # by a replay: one is recorded
_PER_REQUEST = 8
_KEPT_TRACES = 8
_TIMEOUT_S = 600.0


class TraceLibrary:
    """`launcher_of` has the launcher for simulated cards of an engine; it is called when a recording is missing."""

    def __init__(
        self,
        launcher_of: Callable[[str], Launcher],
        scratch: Path,
        jobs: int | None = None,
        shipped: Shipped | None = None,
    ) -> None:
        self._launcher_of = launcher_of
        self._shipped = shipped or Shipped()
        self._scratch = scratch
        self.jobs = jobs or os.cpu_count() or 1
        self._dir = user_cache_path("vram-bench") / "programs" / engine_digest()
        self._name_of: dict[str, str] = {}  # cells that differ in their cards have the same recordings
        # Where the cache may not be written to, what is missing in it is made for this process alone.
        self._aside = scratch / "programs"
        self._bad: set[Path] = set()  # what is damaged in such a cache
        self._can_keep = True
        # Cells that differ in their tensors alone share a program.
        self._load = lru_cache(_KEPT_TRACES)(self._load_trace)
        self.store = ForecastStore(self._dir / "forecasts.sqlite")

    def prepare(self, cases: Iterable[Case], made: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Makes what is missing for `cases`, several at a time; `made` hears how many of how many are there."""
        cases = list(cases)
        missing = self._missing(cases)
        missing = [wanted for wanted in missing if installed_version(wanted.case.engine) is not None]
        if not missing:
            return
        if self._can_keep and not _is_writable(self._dir):
            self._can_keep = False
            self._aside.mkdir(exist_ok=True)
            missing = self._missing(cases)
        # What is alike is made by one child, and what takes longer comes first.
        missing.sort(
            key=lambda wanted: (
                wanted.case.engine,
                wanted.case.model.fingerprint,
                wanted.recording is Recording.TENSORS,
            )
        )
        each = min(_PER_REQUEST, -(-len(missing) // self.jobs))  # of few, every core gets some
        batches = [missing[i : i + each] for i in range(0, len(missing), each)]
        done, lock, stop = 0, threading.Lock(), threading.Event()

        def one_more() -> None:
            nonlocal done
            with lock:
                done += 1
                made(done, len(missing))

        made(done, len(missing))
        with ThreadPoolExecutor(1) as aside, ThreadPoolExecutor(self.jobs) as pool:
            loading = aside.submit(_load_compiled)  # every replay needs it
            try:
                list(pool.map(lambda number: self._make(number, batches[number], one_more, stop), range(len(batches))))
            except BaseException:
                stop.set()
                raise
        loading.result()

    def needs_recording(self, case: Case) -> bool:
        """Whether something that `prepare` would make for the case is not there."""
        return bool(self._missing([case]))

    def replayer(self, case: Case, axis: Axis = Axis.MAX_SEQ_LEN) -> AnyReplayer:
        """The search of `case` along an axis, ready to be replayed; a recording that is damaged is made again first.

        Raises `NoPrediction` with the reason where it cannot be.
        """
        try:
            return self._replayer(case, axis)
        except _Damaged as damaged:
            self.prepare([case])
            if self._missing([case]):
                raise NoPrediction(str(damaged)) from None
            return self._replayer(case, axis)

    def _missing(self, cases: Iterable[Case]) -> list[Wanted]:
        cases = list(cases)
        wanted = {path: (recording, case) for case in cases for recording, path in self.paths(case).items()}
        for draft in filter(None, (case.of_draft for case in cases)):
            wanted[self.paths(draft)[Recording.TENSORS]] = (Recording.TENSORS, draft)
        return [
            Wanted(recording, replace(case, cache=_recorded_cache(case), cache_size=None, turns=1), path)
            for path, (recording, case) in wanted.items()
            if not os.path.exists(path) and not self._shipped.has(case.model, case.engine, path.name)
        ]

    def _replayer(self, case: Case, axis: Axis) -> AnyReplayer:
        from bench.trace.parametric import ParametricTrace, with_draft
        from bench.trace.replay import Replayer

        rules = _rules(case)
        paths = self.paths(case)
        for each in filter(None, (case, case.of_draft)):
            self._shipped.look_for(each.model, each.engine)
        try:
            # The trace first: where the engine refuses the model, its reason is the one that says so.
            if case.more_devices:
                split = self._load_split(paths[Recording.TRACE], case).within(*bound(case, axis))
                return rules.split_replayer(split, self._tensor_bytes(paths[Recording.TENSORS]), case)
            cache = None if _recorded_cache(case) == case.cache else case.cache
            trace = self._load(paths[Recording.TRACE], case.engine, cache).within(*bound(case, axis))
            if rules.with_loading is not None:
                loading = ParametricTrace.of(*self._arrays(paths[Recording.LOADING]), rules.setup)
                return Replayer(rules.with_loading(trace, loading), {})
            tensor_bytes = self._tensor_bytes(paths[Recording.TENSORS])
            if case.of_draft is not None:
                drafts = self._tensor_bytes(self.paths(case.of_draft)[Recording.TENSORS])
                tensor_bytes = with_draft(tensor_bytes, drafts)
            return Replayer(trace, tensor_bytes)
        except NoPrediction:
            raise
        except FileNotFoundError:
            raise NoPrediction(self._why_not_there(case)) from None
        except Exception as error:  # over bytes that have changed, NumPy and zipfile raise anything
            for path in paths.values():
                try:
                    path.unlink(missing_ok=True)
                except OSError:
                    self._bad.add(path)
                    self._can_keep = False
                    self._aside.mkdir(exist_ok=True)
            raise _Damaged(f"its recording is damaged ({error}); it will be made again") from None

    def _load_trace(self, path: Path, engine: str, cache: str | None) -> ParametricTrace:
        """The trace of a search with `cache` (None: as it was recorded), with every layer."""
        from bench.trace.parametric import ParametricTrace

        rules = rules_of(engine).prediction
        trace = ParametricTrace.of(*self._arrays(path), rules.setup).deepened()
        return trace if cache is None else rules.with_cache(trace, cache)

    def _load_split(self, path: Path, case: Case) -> SplitTrace:
        from bench.trace.split import SplitTrace

        rules = _rules(case)
        return SplitTrace.of(*self._arrays(path), rules.setup).with_cache(rules.with_cache, case.cache)

    def _arrays(self, path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
        """What was recorded: here, or where this program was made."""
        from bench.trace.parametric import load_arrays

        return load_arrays(path) if os.path.exists(path) else self._shipped.arrays(path.name)

    def _tensor_bytes(self, path: Path) -> dict[str, int]:
        from bench.trace.parametric import load_tensor_bytes

        return load_tensor_bytes(path) if os.path.exists(path) else self._shipped.tensor_bytes(path.name)

    def _why_not_there(self, case: Case) -> str:
        if installed_version(case.engine) is None:
            return not_shipped(case.engine)
        return "its recording came to no end"

    def search_key(self, case: Case, axis: Axis = Axis.MAX_SEQ_LEN) -> str:
        """The same for cases that share a replayer."""
        split = [] if case.split is None else [str(len(case.devices)), case.split]
        made_of = [path.stem for path in self.paths(case).values()] or [case.engine, case.model.fingerprint]
        if case.of_draft is not None:
            made_of += [path.stem for path in self.paths(case.of_draft).values()]
        cache_size, job, turns = bound(case, axis)
        told = {"cache": cache_size, "job": job, "turns": turns if turns > 1 else None}
        return "-".join([*made_of, case.cache, *split, *(f"{name}={size}" for name, size in told.items() if size)])

    def paths(self, case: Case) -> dict[Recording, Path]:
        """What a search's prediction is made of, and where each lies; nothing where the engine is not predicted."""
        rules = rules_of(case.engine).prediction
        if rules.unpredicted(case) is not None:
            return {}
        setting = [value_of(case) for name, value_of in _RECORDED_SETTING.items() if name not in _REPEATED]
        trace = [case.model.fingerprint, rules.kind_of_cards(case), *setting]
        tensors = [case.engine, case.model.fingerprint, case.bpw, case.head_bits, case.vision]
        bits = (Recording.TENSORS, tensors, ".json")
        if rules.with_loading is not None:
            bits = (Recording.LOADING, [*trace, case.bpw, case.head_bits], ".npz")
        return {made_of[0]: self._path(*made_of) for made_of in ((Recording.TRACE, trace, ".npz"), bits)}

    def _path(self, recording: Recording, key: list[object], suffix: str) -> Path:
        """Where the recording lies that `key` decides; looked up where it was asked for before."""
        told = repr((recording, key))
        if told not in self._name_of:
            digest = hashlib.sha256(json.dumps([recording, key]).encode()).hexdigest()[:24]
            self._name_of[told] = f"{digest}{suffix}"
        return self._place(self._name_of[told])

    def _place(self, name: str) -> Path:
        path = self._dir / name
        is_there = path not in self._bad and os.path.exists(path)
        return path if self._can_keep or is_there else self._aside / name

    def _make(self, number: int, batch: list[Wanted], one_more: Callable[[], None], stop: threading.Event) -> None:
        """Has one child make a batch, and tells of each as it is made; what the child dies over has no file."""
        left = len(batch)

        def on_message(message: Message) -> None:
            nonlocal left
            if isinstance(message, Recorded):
                left -= 1
                one_more()

        launcher = self._launcher_of(batch[0].case.engine)
        log_path = self._scratch / f"recording-{number}.log"
        try:
            run_isolated(launcher, Record(batch, self._scratch), log_path, _TIMEOUT_S, on_message, stop)
        except LauncherFailed:
            pass
        for _ in range(left):
            one_more()


class _Damaged(NoPrediction):
    """A recording that cannot be read as one; it was deleted, where that was possible."""


def _is_writable(folder: Path) -> bool:
    """Whether files can be made in `folder`, which is made if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def bound(case: Case, axis: Axis) -> tuple[int | None, int | None, int]:
    """What is the same for all cases of a search: the cache's length or that of its jobs, where they are told apart,
    and how many turns there are.
    """
    return (None, case.max_seq_len, case.turns) if axis is Axis.CACHE_SIZE else (case.cache_size, None, case.turns)


def _rules(case: Case) -> PredictionRules:
    """Raises `NoPrediction` for what is not predicted, and says why."""
    rules = rules_of(case.engine).prediction
    if (reason := rules.unpredicted(case)) is not None:
        raise NoPrediction(reason)
    return rules


def _load_compiled() -> None:
    from bench.trace.replay import load_compiled

    for name in NAMES:
        rules_of(name).prediction.load_compiled()
    load_compiled()
