"""One real card: what PyTorch counts on it, beside what its driver says."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import torch

from bench import nvml
from bench.core.messages import CardFacts, Memory
from bench.worker.ballast import Ballast
from bench.worker.cuda.workspaces import Workspaces


class CudaCard:
    """The GPU `cuda:index` of those that CUDA_VISIBLE_DEVICES leaves visible; `uuid` is NVML's name of it.

    `before` is what NVML said before this process had a context. `ballast` is held to make the card smaller and is no
    part of what the case holds; without one, `limit_bytes` is kept by PyTorch's allocator.
    """

    def __init__(
        self,
        index: int,
        uuid: str | None,
        before: nvml.Reading | None,
        workspaces: Workspaces,
        limit_bytes: int | None = None,
        ballast: Ballast | None = None,
    ) -> None:
        self.index = index
        self._device = torch.device("cuda", index)
        self._uuid = uuid
        self._before = before
        self._workspaces = workspaces
        self._ballast = ballast
        torch.empty(1, device=self._device)  # the first allocation brings the context and the allocator into being
        torch.cuda.empty_cache()
        torch.cuda.synchronize(index)
        self._total_bytes = torch.cuda.get_device_properties(index).total_memory
        self._peak_device_bytes = 0
        self.context_bytes = self._measure_context()
        if limit_bytes is not None and ballast is None:
            allowed = max(0, limit_bytes - (self.context_bytes or 0))
            torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / self._total_bytes), index)
        self._workspaces_bytes: list[int] | None = None
        torch.cuda.reset_peak_memory_stats(index)

    # The interface `bench.worker.interfaces.card.Card`

    def facts(self) -> CardFacts:
        """As CUDA reports them; `held_bytes` is what was used before this process had a context."""
        return CardFacts(
            context_bytes=self.context_bytes,
            cuda_version=torch.version.cuda,
            device_total_bytes=self._total_bytes,
            held_bytes=self._before.used_bytes if self._ballast and self._before else None,
            properties={
                "multi_processor_count": torch.cuda.get_device_properties(self.index).multi_processor_count,
                "workspaces_bytes": self._workspaces_bytes,
            },
        )

    def memory(self) -> Memory:
        """PyTorch's statistics, and what the driver says is used, less the ballast."""
        torch.cuda.synchronize(self.index)
        stats = torch.cuda.memory_stats(self.index)
        free_bytes, total_bytes = torch.cuda.mem_get_info(self.index)
        device_bytes = total_bytes - free_bytes - (self._ballast.held_bytes if self._ballast else 0)
        peak_reserved_bytes = int(stats["reserved_bytes.all.peak"])
        # Between two looks the card held at least what PyTorch reserved at its peak, and the context.
        known = [self._peak_device_bytes, device_bytes]
        if self.context_bytes is not None:
            known.append(peak_reserved_bytes + self.context_bytes)
        self._peak_device_bytes = max(known)
        return Memory(
            allocated_bytes=int(stats["allocated_bytes.all.current"]),
            reserved_bytes=int(stats["reserved_bytes.all.current"]),
            device_bytes=device_bytes,
            peak_allocated_bytes=int(stats["allocated_bytes.all.peak"]),
            peak_requested_bytes=int(stats["requested_bytes.all.peak"]),
            peak_reserved_bytes=peak_reserved_bytes,
            peak_device_bytes=self._peak_device_bytes,
        )

    def parts_at_peak(self, resident: Callable[[], dict[str, Iterable[Any]]]) -> dict[str, int | None]:
        """From the engine's own objects: what lives as long as the model. The transients at the peak are not known.

        The cuBLAS workspaces are freed to be counted: this is the last that is asked of a card.
        """
        sizes: dict[str, int | None] = {f"{part}_bytes": self._held(tensors) for part, tensors in resident().items()}
        self._workspaces_bytes = self._workspaces.of_card(self.index)
        return {
            **sizes,
            "workspace_bytes": None if self._workspaces_bytes is None else sum(self._workspaces_bytes),
        }

    def _held(self, tensors: Iterable[Any]) -> int:
        """The bytes of the storages of some tensors on this card, each counted once."""
        here = [tensor for tensor in tensors if tensor is not None and tensor.device == self._device]
        return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in here}.values())

    def _measure_context(self) -> int | None:
        """What the context took: what this process holds beyond PyTorch's own, or else what the GPU lost meanwhile."""
        after = read(self._uuid)
        if after is None:
            return None
        reserved_bytes = torch.cuda.memory_reserved(self.index)
        own = next((p.used_bytes for p in after.processes or () if p.pid == os.getpid()), None)
        if own is not None:
            return own - reserved_bytes
        if self._before is None or self._before.used_bytes is None or after.used_bytes is None:
            return None
        return after.used_bytes - self._before.used_bytes - reserved_bytes


def read(uuid: str | None) -> nvml.Reading | None:
    """What NVML says of a GPU now; None where there is none to ask for, or nobody to ask."""
    if uuid is None:
        return None
    try:
        return nvml.read(uuid)
    except nvml.NoDriver:
        return None
