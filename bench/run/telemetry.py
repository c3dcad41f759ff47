"""What NVML says of the real GPUs of a case while it runs, seen from the parent, ten times a second."""

from __future__ import annotations

import functools
import operator
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench import nvml

_INTERVAL_S = 0.1


@dataclass(frozen=True)
class Telemetry:
    """What was read of one GPU, in order."""

    readings: Sequence[nvml.Reading]

    @property
    def peak_used_bytes(self) -> int | None:
        """The most that was in use at any reading; None where nothing was read."""
        return self._extreme("used_bytes", max)

    @property
    def energy_j(self) -> float | None:
        """Joules between the first reading and the last, from the GPU's own counter."""
        if not self.readings:
            return None
        first, last = self.readings[0].energy_mj, self.readings[-1].energy_mj
        return None if first is None or last is None else (last - first) / 1000

    def summary(self) -> dict[str, Any] | None:
        """Before, after, and the extremes between; None where nothing was read."""
        if not self.readings:
            return None
        reasons = [reading.throttle_reasons for reading in self.readings if reading.throttle_reasons is not None]
        return {
            "samples": len(self.readings),
            "before": asdict(self.readings[0]),
            "after": asdict(self.readings[-1]),
            "peak_used_bytes": self.peak_used_bytes,
            "sm_clock_mhz_min": self._extreme("sm_clock_mhz", min),
            "sm_clock_mhz_max": self._extreme("sm_clock_mhz", max),
            "temperature_c_max": self._extreme("temperature_c", max),
            "throttle_reasons": functools.reduce(operator.or_, reasons) if reasons else None,
        }

    def _extreme(self, name: str, pick: Callable[[Iterable[int]], int]) -> int | None:
        values = [getattr(reading, name) for reading in self.readings if getattr(reading, name) is not None]
        return int(pick(values)) if values else None


class Sampler:
    """Reads the GPUs `uuids` from its start to its end; of a case on simulated cards there are none to read."""

    def __init__(self, uuids: Sequence[str]) -> None:
        self._readings: dict[str, list[nvml.Reading]] = {uuid: [] for uuid in uuids}
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Sampler:
        if self._readings:
            self._read()
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()
            self._read()

    def telemetry(self) -> list[Telemetry]:
        """What was read of each GPU, in the order of `uuids`."""
        return [Telemetry(readings) for readings in self._readings.values()]

    def _run(self) -> None:
        while not self._done.wait(_INTERVAL_S):
            self._read()

    def _read(self) -> None:
        for uuid, readings in self._readings.items():
            try:
                readings.append(nvml.read(uuid))
            except nvml.NoDriver:
                self._done.set()
