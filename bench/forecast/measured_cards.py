"""Cards as rows of real GPUs have measured them: what a simulated card must be to stand beside one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.core.case import DeviceSpec
from bench.core.outcome import Outcome

Row = Mapping[str, Any]

# What a context and a workspace depend on: columns of rows.
_KIND = (
    "device_name",
    "device_total_bytes",
    "compute_capability",
    "driver_version",
    "torch_version",
)


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
            kind="simulated",
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
            "kind": "simulated",
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


def card_key(row: Row) -> tuple[Any, ...]:
    """The same for rows of the same kind of card under the same software."""
    return tuple(row.get(name) for name in _KIND)


def measured_cards(rows: Iterable[Row]) -> dict[tuple[Any, ...], MeasuredCard]:
    """Each kind of card of the measured rows, by its `card_key`. Rows of simulated cards say nothing here."""
    grouped: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["device_kind"] == "cuda" and row.get("device_total_bytes") and row.get("compute_capability"):
            grouped.setdefault(card_key(row), []).append(row)
    return {key: _card(key, group) for key, group in grouped.items()}


def _card(key: tuple[Any, ...], rows: list[Row]) -> MeasuredCard:
    fits = [row for row in rows if row["outcome"] == Outcome.FITS]
    besides = [
        row["peak_device_bytes"] - row["peak_reserved_bytes"]
        for row in fits
        if row.get("peak_device_bytes") is not None and row.get("peak_reserved_bytes") is not None
    ]
    name, total_bytes, compute_capability, driver_version, torch_version = key
    return MeasuredCard(
        name=name,
        total_bytes=total_bytes,
        compute_capability=compute_capability,
        driver_version=driver_version,
        torch_version=torch_version,
        multi_processor_count=_median([multi_processor_count(row) for row in rows]),
        initial_context_bytes=_median([row.get("context_bytes") for row in rows]),
        non_torch_bytes=_median(besides),
        workspace_bytes=_workspace_bytes(fits),
        num_rows=len(rows),
    )


def multi_processor_count(row: Row) -> int | None:
    """What CUDA said of the card of a measured row; None where it was not asked."""
    count = _properties(row).get("multi_processor_count")
    return None if count is None else int(count)


def workspaces_bytes(row: Row) -> list[int]:
    """What PyTorch held for cuBLAS in the case of a measured row, one for each stream; empty where nobody looked."""
    return [int(size) for size in _properties(row).get("workspaces_bytes") or []]


def _workspace_bytes(fits: list[Row]) -> int | None:
    """The workspace that most streams of most cases had; None where no row tells them one by one."""
    seen = Counter(size for row in fits for size in workspaces_bytes(row))
    return seen.most_common(1)[0][0] if seen else None


def _properties(row: Row) -> dict[str, Any]:
    """What a measured row tells of its card beside its columns."""
    properties: dict[str, Any] = json.loads(row.get("telemetry") or "{}").get("properties", {})
    return properties


def _median(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return round(median(known)) if known else None
