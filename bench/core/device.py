"""A card: one that is there, or one that is simulated."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

SIMULATED = "simulated"  # the kind of a card that is not there; that of a real one is the name of its back end
# What a card is, beside its name: what decides how much fits, or which of several it is. The rest are remarks.
_IDENTITY = (
    *("kind", "name", "total_memory_bytes", "compute_capability", "multi_processor_count", "context_bytes"),
    *("workspace_bytes", "memory_bandwidth_bytes_per_s", "uuid", "driver_version"),
)


@dataclass(frozen=True)
class DeviceSpec:
    """A card: `kind` is `cuda` (then `index` and `uuid` say which) or `simulated` (then the catalogue's figures).

    `equals` are the real cards that may measure in its place: all but the `uuid` is the same.
    `held_bytes` is what others hold of a real card as a command starts, None where nobody tells: a remark.
    `workspace_bytes` is what PyTorch takes for cuBLAS on each stream, None for PyTorch's own rule (`memory.limits`).
    `first_forward_bytes` is what the driver takes for kernels at the first forward pass, None where nobody has told it:
    a remark that no figure has in it (docs/decisions.md).
    """

    name: str
    kind: str
    full_name: str
    total_memory_bytes: int
    compute_capability: str | None = None
    multi_processor_count: int | None = None
    memory_bandwidth_bytes_per_s: float | None = None
    context_bytes: int | None = None
    context_basis: str | None = None
    workspace_bytes: int | None = None
    workspace_basis: str | None = None
    first_forward_bytes: int | None = None
    first_forward_basis: str | None = None
    index: int | None = None
    uuid: str | None = None
    driver_version: str | None = None
    held_bytes: int | None = None
    equals: tuple[DeviceSpec, ...] = ()

    @property
    def is_simulated(self) -> bool:
        """Whether it is a simulated card."""
        return self.kind == SIMULATED

    @property
    def identity(self) -> dict[str, Any]:
        """What tells it from other cards, without what is unknown."""
        return {name: value for name in _IDENTITY if (value := getattr(self, name)) != _DEFAULTS[name]}

    @property
    def cards(self) -> None:
        """Several cards are listed one by one (`Machine.cards`); a single one is what the other columns say."""
        return None


_DEFAULTS = {each.name: each.default for each in dataclasses.fields(DeviceSpec)}
