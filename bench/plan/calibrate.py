"""What a prediction cannot know of a card and rows have shown: the CUDA context, and what else was missed.

A simulated card has its context from the catalogue, and there is nothing to learn. On a real one the first measured
case tells what CUDA holds besides PyTorch, and by how much the prediction missed what PyTorch has in use.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from bench.memory.limits import Limits, limits_of
from bench.plan import config
from bench.records import Case, DeviceSpec

# Between the 386 MB (RTX 4090) and the 500 MB (data centre cards) that people report; only until a case was measured.
ASSUMED_CONTEXT_BYTES = 450 << 20


class Calibration:
    """What the rows of this machine's GPUs say. Rows may be added as they come in."""

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self._context_bytes: dict[str, list[int]] = {}
        self._missed_bytes: dict[str, list[int]] = {}
        for row in rows:
            self.learn(row)

    def learn(self, row: Mapping[str, Any]) -> None:
        """Takes in one row of cases; those of simulated cards, and those that do not fit, teach nothing."""
        uuid = row.get("device_uuid")
        if row.get("device_kind") != "cuda" or row.get("outcome") != "fits" or uuid is None:
            return
        device, reserved = row.get("peak_device_bytes"), row.get("peak_reserved_bytes")
        allocated, predicted = row.get("peak_allocated_bytes"), row.get("predicted_peak_bytes")
        if device is not None and reserved is not None:
            self._context_bytes.setdefault(uuid, []).append(device - reserved)
        if allocated is not None and predicted is not None:
            self._missed_bytes.setdefault(uuid, []).append(allocated - predicted)

    def limits(self, case: Case) -> Limits:
        """The card of `case` as the allocator will see it; what was missed so far is taken off as if it were context."""
        device = case.device
        if device.kind == "cuda":
            device = _with_catalogue_figures(device)
            seen = self._context_bytes.get(device.uuid or "")
            context = median(seen) if seen else device.context_bytes or ASSUMED_CONTEXT_BYTES
            missed = median(self._missed_bytes.get(device.uuid or "", [0]))
            device = dataclasses.replace(device, context_bytes=round(context + missed))
        return limits_of(device, case.vram_limit_bytes)


def _with_catalogue_figures(device: DeviceSpec) -> DeviceSpec:
    """A real card with what the catalogue knows of its model and the driver does not tell."""
    for name in config.names("device"):
        known = config.device_settings(name)
        if known.full_name == device.full_name:
            return dataclasses.replace(
                device,
                multi_processor_count=known.multi_processor_count,
                context_bytes=known.context_bytes,
            )
    return device
