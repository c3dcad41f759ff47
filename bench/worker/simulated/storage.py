"""The memory behind simulated tensors, as PyTorch's `UntypedStorage`: views share it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from bench.worker.simulated.card import Claim, SimulatedCard


@dataclass(frozen=True)
class Storage:
    """`size_bytes` on `card`; `claim` is None where they are 0."""

    card: SimulatedCard
    claim: Claim | None
    size_bytes: int
    _whole: dict[torch.dtype, torch.Tensor] = field(default_factory=dict)

    def view(self, dtype: torch.dtype, offset: int, size: Sequence[int], strides: Sequence[int]) -> torch.Tensor:
        """A meta tensor of some elements of that type in it, from the one at `offset` on."""
        with torch._C._DisableTorchDispatch():
            if dtype not in self._whole:
                self._whole[dtype] = torch.empty(self.size_bytes // dtype.itemsize, dtype=dtype, device="meta")
            return self._whole[dtype].as_strided(size, strides, offset)

    def nbytes(self) -> int:
        """How many bytes it has, as PyTorch calls it."""
        return self.size_bytes

    def data_ptr(self) -> int:
        """Its address on the card; 0 where it is empty."""
        return 0 if self.claim is None else self.claim.address


def dense_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a contiguous tensor of that shape, in elements."""
    strides: list[int] = []
    run = 1
    for extent in reversed(shape):
        strides.append(run)
        run *= max(1, extent)
    return tuple(reversed(strides))
