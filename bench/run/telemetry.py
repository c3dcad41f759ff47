"""What NVML says of a real GPU while a case runs on it, seen from the parent, ten times a second."""

from __future__ import annotations

import functools
import operator
import threading
from dataclasses import asdict
from typing import Any

from bench import nvml

_INTERVAL_S = 0.1


class Sampler:
    """Samples a GPU from `start` to `stop`; `uuid` None (a simulated card) samples nothing."""

    def __init__(self, uuid: str | None) -> None:
        self._uuid = uuid
        self._readings: list[nvml.Reading] = []
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Sampler:
        if self._uuid is not None:
            self._read()
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()
            self._read()

    def summary(self) -> dict[str, Any] | None:
        """Before, after, and the extremes between; None where nothing was sampled."""
        if not self._readings:
            return None
        before, after = self._readings[0], self._readings[-1]
        reasons = [reading.throttle_reasons for reading in self._readings if reading.throttle_reasons is not None]
        return {
            "samples": len(self._readings),
            "before": asdict(before),
            "after": asdict(after),
            "peak_used_bytes": self._extreme("used_bytes", max),
            "sm_clock_mhz_min": self._extreme("sm_clock_mhz", min),
            "sm_clock_mhz_max": self._extreme("sm_clock_mhz", max),
            "temperature_c_max": self._extreme("temperature_c", max),
            "throttle_reasons": functools.reduce(operator.or_, reasons) if reasons else None,
        }

    def energy_j(self) -> float | None:
        """Joules between the first reading and the last, from the GPU's own counter."""
        if not self._readings:
            return None
        first, last = self._readings[0].energy_mj, self._readings[-1].energy_mj
        return None if first is None or last is None else (last - first) / 1000

    def _extreme(self, name: str, pick: Any) -> int | None:
        values = [getattr(reading, name) for reading in self._readings if getattr(reading, name) is not None]
        return int(pick(values)) if values else None

    def _run(self) -> None:
        while not self._done.wait(_INTERVAL_S):
            self._read()

    def _read(self) -> None:
        assert self._uuid is not None
        try:
            self._readings.append(nvml.read(self._uuid))
        except nvml.NoDriver:
            self._done.set()
