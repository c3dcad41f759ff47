"""Cards as rows of real GPUs have measured them: what a simulated card must be to stand beside one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.core.columns import CaseRow, ResultRow
from bench.core.device import SIMULATED, DeviceSpec
from bench.core.identity import is_measured, key_of
from bench.core.outcome import Outcome

# What a context and a workspace depend on.
_KIND = (*("device_name", "device_total_bytes", "compute_capability"), *("driver_version", "torch_version"))


@dataclass(frozen=True)
class MeasuredCard:
    """One kind of card under one driver and PyTorch, by medians of `num_rows` rows; None for what no row says.

    `initial_context_bytes` is the context of a process that has loaded nothing yet; `non_torch_bytes` is all that was
    held besides PyTorch's memory at the end of cases that fit: the context with its kernels, and what other programs
    held. `workspace_bytes` is what PyTorch takes for cuBLAS on each stream.
    """

    name: str
    total_bytes: int
    compute_capability: str
    driver_version: str | None
    torch_version: str | None
    multi_processor_count: int | None
    initial_context_bytes: int | None
    non_torch_bytes: int | None
    workspace_bytes: int | None
    num_rows: int

    @property
    def basis(self) -> str:
        """The origin of the figures, as rows of a simulated card will tell it."""
        return f"measured: driver {self.driver_version}, torch {self.torch_version}, {self.num_rows} rows"

    def as_simulated(self, capped: bool) -> DeviceSpec:
        """The same card, simulated. `capped`: for cases whose `vram_limit` PyTorch's allocator keeps, which leaves room
        for the context that a process begins with and for nothing else.
        """
        context = self.initial_context_bytes if capped or self.non_torch_bytes is None else self.non_torch_bytes
        return DeviceSpec(
            name=self.name,
            kind=SIMULATED,
            full_name=self.name,
            total_memory_bytes=self.total_bytes,
            compute_capability=self.compute_capability,
            multi_processor_count=self.multi_processor_count,
            context_bytes=context,
            context_basis="assumed" if context is None else self.basis,
            workspace_bytes=self.workspace_bytes,
            workspace_basis="assumed" if self.workspace_bytes is None else self.basis,
            driver_version=self.driver_version,
        )

    def as_catalogue_file(self) -> str:
        """The YAML document of conf/device that makes this card one of the catalogue."""
        fields = {
            "name": self.name,
            "kind": SIMULATED,
            "full_name": self.name,
            "total_memory_bytes": self.total_bytes,
            "compute_capability": self.compute_capability,
            "multi_processor_count": self.multi_processor_count,
            "context_bytes": self.non_torch_bytes if self.non_torch_bytes is not None else self.initial_context_bytes,
            "context_basis": self.basis,
            "workspace_bytes": self.workspace_bytes,
            "workspace_basis": None if self.workspace_bytes is None else self.basis,
        }
        # A JSON value is a YAML value, and quotes what YAML would take for a number.
        return "".join(f"{key}: {json.dumps(value)}\n" for key, value in fields.items() if value is not None)


def card_key(row: ResultRow) -> tuple[Any, ...]:
    """The same for rows of the same kind of card under the same software."""
    return key_of(row, _KIND)


def measured_cards(rows: Iterable[CaseRow]) -> dict[tuple[Any, ...], MeasuredCard]:
    """Each kind of card of the measured rows, by its `card_key`. Rows of simulated cards say nothing here."""
    grouped: dict[tuple[Any, ...], list[CaseRow]] = {}
    for row in rows:
        if is_measured(row) and row["device_total_bytes"] and row["compute_capability"]:
            grouped.setdefault(card_key(row), []).append(row)
    return {key: _card(key, group) for key, group in grouped.items()}


def _card(key: tuple[Any, ...], rows: list[CaseRow]) -> MeasuredCard:
    fits = [row for row in rows if row["outcome"] == Outcome.FITS]
    besides = [difference(row["peak_device_bytes"], row["peak_reserved_bytes"]) for row in fits]
    name, total_bytes, compute_capability, driver_version, torch_version = key
    return MeasuredCard(
        name=name,
        total_bytes=total_bytes,
        compute_capability=compute_capability,
        driver_version=driver_version,
        torch_version=torch_version,
        multi_processor_count=_median([multi_processor_count(row) for row in rows]),
        initial_context_bytes=_median([row["context_bytes"] for row in rows]),
        non_torch_bytes=_median(besides),
        workspace_bytes=_workspace_bytes(fits),
        num_rows=len(rows),
    )


def multi_processor_count(row: CaseRow) -> int | None:
    """What CUDA said of the card of a measured row; None where it was not asked."""
    count = _properties(row).get("multi_processor_count")
    return None if count is None else int(count)


def workspaces_bytes(row: CaseRow) -> list[int]:
    """What PyTorch held for cuBLAS in the case of a measured row, one for each stream; empty where nobody looked."""
    return [int(size) for size in _properties(row).get("workspaces_bytes") or []]


def _workspace_bytes(fits: list[CaseRow]) -> int | None:
    """The workspace that most streams of most cases had; None where no row tells them one by one."""
    seen = Counter(size for row in fits for size in workspaces_bytes(row))
    return seen.most_common(1)[0][0] if seen else None


def _properties(row: CaseRow) -> dict[str, Any]:
    """What a measured row tells of its card beside its columns; nothing where it was read without its documents."""
    properties: dict[str, Any] = json.loads(row.get("telemetry") or "{}").get("properties", {})
    return properties


def difference(size_bytes: int | None, less_bytes: int | None) -> int | None:
    """What is left of a size; None where either is unknown."""
    return None if size_bytes is None or less_bytes is None else size_bytes - less_bytes


def _median(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return round(median(known)) if known else None
