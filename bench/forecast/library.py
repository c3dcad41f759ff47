"""The programs that predictions replay: made by workers, and kept on disk by what determines them."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from bench.allocator.limits import supports_flash_attention
from bench.core.case import Case
from bench.core.messages import Report
from bench.forecast.cache import ForecastStore
from bench.launch.isolate import Launcher, LauncherFailed, run_isolated
from bench.launch.versions import engine_digest
from bench.trace.parametric import NoPrediction, ParametricTrace, load_tensor_bytes
from bench.trace.quantised_caches import RECORDED, with_cache
from bench.trace.replay import Replayer, load_compiled

_FP16_BPW = 16.0
_PER_REQUEST = 8
_KEPT_TRACES = 8
_TIMEOUT_S = 600.0


class TraceLibrary:
    """`make_launcher` starts workers for simulated cards; it is called when the first program is missing."""

    def __init__(self, make_launcher: Callable[[], Launcher], scratch: Path, jobs: int | None = None) -> None:
        self._make_launcher = make_launcher
        self._launcher: Launcher | None = None
        self._scratch = scratch
        self.jobs = jobs or os.cpu_count() or 1
        self._dir = user_cache_path("vram-bench") / "programs" / engine_digest()
        # Cells that differ in their tensors alone share a program.
        self._load = lru_cache(_KEPT_TRACES)(
            lambda path, cache: with_cache(ParametricTrace.load(path).deepened(), cache)
        )
        self.store = ForecastStore(self._dir / "forecasts.sqlite")

    def prepare(self, cases: Iterable[Case], made: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Makes what is missing for `cases`, several at a time; `made` hears how many of how many are there."""
        wanted = {str(item["path"]): item for case in cases for item in self._items(case)}
        missing = [item for path, item in wanted.items() if not Path(path).exists()]
        if not missing:
            return
        self._dir.mkdir(parents=True, exist_ok=True)
        missing.sort(key=lambda item: str(item["order"]))
        each = min(_PER_REQUEST, -(-len(missing) // self.jobs))  # of few, every core gets some
        batches = [missing[i : i + each] for i in range(0, len(missing), each)]
        self._launcher = self._launcher or self._make_launcher()
        done, lock, stop = 0, threading.Lock(), threading.Event()

        def one_more() -> None:
            nonlocal done
            with lock:
                done += 1
                made(done, len(missing))

        made(done, len(missing))
        threading.Thread(target=load_compiled).start()  # while the workers record
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                list(pool.map(lambda number: self._make(number, batches[number], one_more, stop), range(len(batches))))
            except BaseException:
                stop.set()
                raise

    def replayer(self, case: Case) -> Replayer:
        """The search of `case`, ready to be replayed. Raises `NoPrediction` with the reason where it cannot be."""
        paths = {item["kind"]: Path(item["path"]) for item in self._items(case)}
        try:
            return Replayer(self._load(paths["program"], case.cache), load_tensor_bytes(paths["tensors"]))
        except NoPrediction:
            raise
        except FileNotFoundError:
            raise NoPrediction("its recording came to no end") from None
        except Exception as error:  # over bytes that have changed, NumPy and zipfile raise anything
            for path in paths.values():
                path.unlink(missing_ok=True)
            raise NoPrediction(f"its recording is damaged ({error}); it will be made again") from None

    def search_key(self, case: Case) -> str:
        """The same for cases that share a replayer."""
        return "-".join([*(Path(item["path"]).stem for item in self._items(case)), case.cache])

    def _items(self, case: Case) -> Iterator[dict[str, Any]]:
        """What a search's prediction is made of, and where each lies."""
        trace = [
            case.model.fingerprint,
            case.bpw == _FP16_BPW,
            case.head_bits is None,
            case.lazy,
            RECORDED[case.cache],
            case.attention,
            supports_flash_attention(case.device),
            case.batch_size,
            case.max_input_len,
            case.max_attention_size,
        ]
        tensors = [case.model.fingerprint, case.bpw, case.head_bits]
        for kind, key, suffix in (("program", trace, ".npz"), ("tensors", tensors, ".json")):
            name = hashlib.sha256(json.dumps([kind, key]).encode()).hexdigest()[:24]
            path = str(self._dir / f"{name}{suffix}")
            recorded = replace(case, cache=RECORDED[case.cache])
            yield {
                "kind": kind,
                "path": path,
                "case": recorded,
                "order": (case.model.fingerprint, kind, *map(str, key)),
            }

    def _make(
        self, number: int, batch: list[dict[str, Any]], one_more: Callable[[], None], stop: threading.Event
    ) -> None:
        """Has one child make a batch, and tells of each as it is made; what the child dies over has no file."""
        left = len(batch)

        def on_report(report: Report) -> None:
            nonlocal left
            if report.event == "recorded":
                left -= 1
                one_more()

        wanted = [{"kind": item["kind"], "path": item["path"], "case": item["case"].to_json()} for item in batch]
        request = json.dumps({"wanted": wanted, "layouts": str(self._scratch)})
        assert self._launcher is not None
        log_path = self._scratch / f"recording-{number}.log"
        try:
            run_isolated(self._launcher, request, log_path, _TIMEOUT_S, on_report, stop)
        except LauncherFailed:
            pass
        for _ in range(left):
            one_more()
