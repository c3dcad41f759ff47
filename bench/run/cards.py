"""What is known of each card of a case that was run, and the rows of those that are one of several."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import cast

from bench.core.case import Case
from bench.core.columns import PARTS, SCHEMA_VERSION, MemoryRow
from bench.core.device import DeviceSpec
from bench.core.split import Split, SplitBy
from bench.engines.registry import engine_of
from bench.run.telemetry import Telemetry
from bench.run.told import CardTold, Told


@dataclass(frozen=True)
class CardOfCase:
    """One card, what the child told of it, and what NVML read; `telemetry` is None of a simulated card."""

    device: DeviceSpec
    told: CardTold
    telemetry: Telemetry | None
    vram_limit_bytes: int | None
    vram_limit_by: str | None

    @property
    def total_bytes(self) -> int | None:
        """As CUDA reports it; NVML lists more for a real card."""
        told = self.told.facts.device_total_bytes
        return self.device.total_memory_bytes if told is None and self.device.is_simulated else told

    @property
    def peak_device_bytes(self) -> int | None:
        """The highest that the child or the driver saw the card hold."""
        told = self.told.memory.peak_device_bytes if self.told.memory else None
        sampled = self.telemetry.peak_used_bytes if self.telemetry else None
        if self.vram_limit_by == "process" and sampled is not None:
            # NVML also counts the ballast process that makes the card smaller: subtract it.
            held_bytes = self.told.facts.held_bytes
            sampled = None if held_bytes is None else sampled - held_bytes
        return max(filter(None, [told, sampled]), default=None)

    @property
    def headroom_bytes(self) -> int | None:
        """What the card, or the smaller one inside it, had left at the peak."""
        memory = self.told.memory
        return headroom(
            total_bytes=self.total_bytes,
            limit_bytes=self.vram_limit_bytes,
            limit_by=self.vram_limit_by,
            peak_device_bytes=self.peak_device_bytes,
            peak_reserved_bytes=memory.peak_reserved_bytes if memory else None,
            context_bytes=self.told.facts.context_bytes,
        )


def headroom(
    *,
    total_bytes: int | None,
    limit_bytes: int | None,
    limit_by: str | None,
    peak_device_bytes: int | None,
    peak_reserved_bytes: int | None,
    context_bytes: int | None,
) -> int | None:
    """What a card, or the smaller one inside it, had left at the peak; None where that is unknown."""
    if peak_device_bytes is None or total_bytes is None:
        return None
    if limit_by == "allocator" and limit_bytes is not None and peak_reserved_bytes is not None:
        # There the limit is on PyTorch and the context that it began with; others may hold the rest of the card.
        return limit_bytes - (context_bytes or 0) - peak_reserved_bytes
    return min(total_bytes, limit_bytes or total_bytes) - peak_device_bytes


def cards_of(case: Case, told: Told, telemetry: Sequence[Telemetry]) -> list[CardOfCase]:
    """Each card of a case, in their order. A child that died early has told of the first at most."""
    each = told.cards()
    if _is_full_to_the_last(case, told):
        each[-1] = replace(each[-1], ran_out=True)
    return [
        CardOfCase(
            device,
            each[number] if number < len(each) else CardTold.nothing(),
            telemetry[number] if number < len(telemetry) else None,
            limit_bytes,
            None if limit_bytes is None else case.vram_limit_by,
        )
        for number, (device, limit_bytes) in enumerate(zip(case.devices, case.limits_bytes, strict=True))
    ]


def _is_full_to_the_last(case: Case, told: Told) -> bool:
    """Whether the engine filled card after card, and the last had no room for the rest: its error names none."""
    failure = told.failure
    return (
        case.split is not None
        and Split.parse(case.split).by is SplitBy.AUTO
        and failure is not None
        and failure.card is None
        and len(told.cards()) == len(case.devices)
        and any(re.search(text, failure.message) for text in engine_of(case.engine).oom_texts)
    )


def tightest(case: Case, cards: Sequence[CardOfCase]) -> int | None:
    """The number of the card that decides; None of one card, or where nothing is known.

    It is the one that ran out of memory, or else as the split has it (`Split.deciding_card`).
    """
    if case.split is None:
        return None
    ran_out = next((number for number, card in enumerate(cards) if card.told.ran_out), None)
    if ran_out is not None:
        return ran_out
    return Split.parse(case.split).deciding_card([card.headroom_bytes for card in cards])


def total(values: Iterable[int | None]) -> int | None:
    """The sum; None where one is unknown."""
    found = list(values)
    return None if None in found else sum(cast(list[int], found))


def memory_rows(run_id: str, case_id: str, cards: Sequence[CardOfCase]) -> list[MemoryRow]:
    """A row for each of several cards; of one card its case has all there is to say."""
    if len(cards) == 1:
        return []
    rows = []
    for number, card in enumerate(cards):
        told, memory, device = card.told, card.told.memory, card.device
        row = {
            "schema_version": SCHEMA_VERSION,
            "run_id": run_id,
            "case_id": case_id,
            "card": number,
            "device_name": device.name,
            "device_kind": device.kind,
            "device_uuid": device.uuid,
            "device_total_bytes": card.total_bytes,
            "vram_limit_bytes": card.vram_limit_bytes,
            "ran_out": told.ran_out,
            "modules": told.modules,
            "layers": told.layers,
            "peak_allocated_bytes": memory and memory.peak_allocated_bytes,
            "peak_requested_bytes": memory and memory.peak_requested_bytes,
            "peak_reserved_bytes": memory and memory.peak_reserved_bytes,
            "peak_device_bytes": card.peak_device_bytes,
            "headroom_bytes": card.headroom_bytes,
            "context_bytes": told.facts.context_bytes,
            **dict.fromkeys(PARTS),
            **(told.parts or {}),
        }
        rows.append(cast(MemoryRow, row))
    return rows
