"""What a prediction cannot know of a card and rows have shown: the CUDA context, and what else was missed.

A simulated card has its context from the catalogue, and there is nothing to learn. On a real one the first measured
case tells what is held besides PyTorch's memory, and by how much the prediction missed what PyTorch has in use.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import Any

from bench.allocator.limits import Limits, MachineLimits, case_limits, limits_of
from bench.config import compose as config
from bench.config.settings import DeviceSettings
from bench.core.case import Case, version_column
from bench.core.columns import SETTING, WEIGHTS, CaseRow
from bench.core.device import DeviceSpec
from bench.core.identity import identity_of, is_measured, key_of
from bench.core.outcome import Outcome
from bench.forecast.measured_cards import difference, multi_processor_count, workspaces_bytes

# Between the 386 MB (RTX 4090) and the 500 MB (data centre cards) that people report; only until a case was measured.
ASSUMED_CONTEXT_BYTES = 450 << 20

# What other programs hold counts as context, and it changes: older rows than this many are not asked.
_RECENT = 5
# Samples of one list: a card under one driver, with the kernels that one engine loads.
_SAME = ("device_uuid", "driver_version", "engine")
# CUDA sees up to 5 % less of a card than the driver lists; cards of one name differ by far more.
_SAME_CARD = 0.06
# What a prediction may have missed depends on the model and on every setting: the most telling first, bits last.
_FIRST, _LAST = ("model_fingerprint", "attention_requested", "lazy", "cache"), ("batch_size", *WEIGHTS)
_SIMILARITY = (*_FIRST, *(name for name in SETTING if name not in (*_FIRST, *_LAST)), *_LAST)


@dataclass(frozen=True)
class _Sample:
    """What one row says of its card; None where it does not say.

    `non_torch_bytes` are held besides PyTorch's memory, by anyone; `initial_context_bytes` is the process's own context
    before it loaded anything; `residual_bytes` are in use beyond the prediction; `num_sms` are the card's
    multiprocessors; `workspace_bytes` is what cuBLAS has on one stream.
    """

    fits: bool
    total_bytes: int | None
    non_torch_bytes: int | None
    initial_context_bytes: int | None
    residual_bytes: int | None
    num_sms: int | None
    workspace_bytes: int | None
    features: tuple[Any, ...]


class Calibration:
    """What the rows of this machine's GPUs say, the latest last. Rows may be added as they come in.

    `versions` are those that are installed: another driver or another PyTorch has another context, another engine or
    another harness misses something else, and such rows teach nothing.
    """

    def __init__(self, versions: Mapping[str, str | None], rows: Iterable[CaseRow] = ()) -> None:
        self._versions = versions
        self._lessons: dict[tuple[Any, ...], list[_Sample]] = {}
        for row in rows:
            self.learn(row)

    def learn(self, row: CaseRow) -> None:
        """Takes in one row of cases. Those of simulated cards, and those that say nothing of memory, teach nothing."""
        if not is_measured(row) or row["outcome"] not in (Outcome.FITS, Outcome.OOM):
            return
        if row["device_uuid"] is None or not self._of_this_software(row):
            return
        fits = row["outcome"] == Outcome.FITS
        sample = _Sample(
            fits=fits,
            total_bytes=row["device_total_bytes"],
            non_torch_bytes=difference(row["peak_device_bytes"], row["peak_reserved_bytes"]),
            initial_context_bytes=row["context_bytes"],
            # What ran out never came to its peak.
            residual_bytes=difference(row["peak_allocated_bytes"], row["predicted_peak_bytes"]) if fits else None,
            num_sms=multi_processor_count(row),
            workspace_bytes=next(iter(workspaces_bytes(row)), None),
            features=key_of(row, _SIMILARITY),
        )
        self._lessons.setdefault(key_of(row, _SAME), []).append(sample)

    def limits(self, case: Case) -> Limits | MachineLimits:
        """The cards of `case` as the allocator will see them; what was missed is taken off as if it were context."""
        cards = [
            self._limits_of(device, limit, case) for device, limit in zip(case.devices, case.limits_bytes, strict=True)
        ]
        return MachineLimits.of(cards) if case.more_devices else cards[0]

    def _limits_of(self, device: DeviceSpec, limit: int | None, case: Case) -> Limits:
        if device.is_simulated:
            return case_limits(device, limit, case)
        samples = self._lessons.get((device.uuid, device.driver_version, case.engine), [])
        device = _with_catalogue_figures(device)
        total = next((sample.total_bytes for sample in reversed(samples) if sample.total_bytes), None)
        learned = context = _context_bytes(samples)
        if context is None:
            context = ASSUMED_CONTEXT_BYTES if device.context_bytes is None else device.context_bytes
            if limit is None:  # what is free is what there is
                context += device.held_bytes or 0
        missed = _residual_bytes(samples, key_of(identity_of(case), _SIMILARITY))
        known = dataclasses.replace(
            device,
            total_memory_bytes=total or device.total_memory_bytes,
            multi_processor_count=next(
                (sample.num_sms for sample in reversed(samples) if sample.num_sms), device.multi_processor_count
            ),
            workspace_bytes=next(
                (sample.workspace_bytes for sample in reversed(samples) if sample.workspace_bytes),
                device.workspace_bytes,
            ),
            context_bytes=context + missed,
        )
        if limit is not None and case.vram_limit_by == "allocator":
            # The worker caps PyTorch at the limit less the context that it began with, whoever holds the rest.
            began = (samples[-1].initial_context_bytes or 0) if samples else context
            limit += context - began
        limits = limits_of(known, limit, case.allocator, case.vram_limit_by)
        return limits._replace(beside_counted=learned is not None)

    def _of_this_software(self, row: CaseRow) -> bool:
        installed = self._versions.get("torch_version") or ""
        torch = str(row["torch_version"])
        # The package of PyPI leaves out the build (+cu130) that torch itself tells.
        same_torch = installed in (torch, torch.partition("+")[0])
        same_engine = row["engine_version"] == self._versions.get(version_column(row["engine"] or ""))
        return same_torch and same_engine and row["harness_version"] == self._versions.get("harness_version")


def _context_bytes(samples: list[_Sample]) -> int | None:
    """What was held besides PyTorch's memory: a case that ran out early had not loaded all of its kernels."""
    for fits in (True, False):
        seen = [
            sample.non_torch_bytes for sample in samples if sample.fits is fits and sample.non_torch_bytes is not None
        ]
        if seen:
            return round(median(seen[-_RECENT:]))
    return None


def _residual_bytes(samples: list[_Sample], features: tuple[Any, ...]) -> int:
    """What was missed in the rows that are most like the case."""
    alike: dict[tuple[bool, ...], list[int]] = {}
    for sample in samples:
        if sample.residual_bytes is not None:
            likeness = tuple(own == other for own, other in zip(features, sample.features, strict=True))
            alike.setdefault(likeness, []).append(sample.residual_bytes)
    return round(median(alike[max(alike)][-_RECENT:])) if alike else 0


def _with_catalogue_figures(device: DeviceSpec) -> DeviceSpec:
    """A real card with what the catalogue knows of its model and the driver does not tell."""
    for known in _catalogue():
        total = known.total_memory_bytes or 0
        of_this_size = abs(total - device.total_memory_bytes) < _SAME_CARD * device.total_memory_bytes
        if of_this_size and known.full_name == device.full_name:
            return dataclasses.replace(
                device,
                total_memory_bytes=min(total, device.total_memory_bytes),
                multi_processor_count=known.multi_processor_count,
                context_bytes=known.context_bytes,
                workspace_bytes=known.workspace_bytes,
            )
    return device


@cache
def _catalogue() -> list[DeviceSettings]:
    return [config.device_settings(name) for name in config.names("device")]
