"""What PyTorch holds for cuBLAS on each card: it lets go of all of it at once, and is asked before and after."""

from __future__ import annotations

from functools import cached_property

import torch


class Workspaces:
    """The workspaces of all cards of this process. Looking at them frees them, so it is done once, and last."""

    def of_card(self, index: int) -> list[int] | None:
        """Bytes of each workspace on `cuda:index`, one for each stream; None where this PyTorch cannot free them."""
        return None if self._by_card is None else self._by_card.get(index, [])

    @cached_property
    def _by_card(self) -> dict[int, list[int]] | None:
        clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)
        if clear is None:
            return None
        before = _blocks_in_use()
        clear()
        after = _blocks_in_use()
        found: dict[int, list[int]] = {}
        for (index, address), size in before.items():
            if (index, address) not in after:
                found.setdefault(index, []).append(size)
        return {index: sorted(sizes) for index, sizes in found.items()}


def _blocks_in_use() -> dict[tuple[int, int], int]:
    """What was asked for, by card and address."""
    return {
        (segment["device"], block["address"]): block["requested_size"]
        for segment in torch.cuda.memory_snapshot()  # type: ignore[no-untyped-call]
        for block in segment["blocks"]
        if block["state"] == "active_allocated"
    }
