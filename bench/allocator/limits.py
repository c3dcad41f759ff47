"""How many bytes of a card PyTorch can use, and how many of those cuBLAS takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from bench.allocator.sort import tile_of
from bench.core.device import DeviceSpec

# What PyTorch takes for cuBLAS on each stream (CUDABlas.cpp, default CUBLAS_WORKSPACE_CONFIG): more from Hopper on.
# Seen on a null GPU (docs/oracle.md) for compute capability 7.5 to 12.0.
_WORKSPACE_BYTES = 8_519_680
_WORKSPACE_BYTES_HOPPER = 32 << 20
_HOPPER = (9, 0)
_UNKNOWN_NUM_SMS = 100


class Limits(NamedTuple):
    """A card as the allocator sees it: `torch_bytes` is what all its segments together may take.

    The rest decides the sizes of some temporaries: multiprocessors (flash-attn), the cuBLAS workspace, and how many
    numbers CUB sorts at a time.
    """

    total_bytes: int
    context_bytes: int
    num_sms: int
    workspace_bytes: int
    sort_tile: int

    @property
    def torch_bytes(self) -> int:
        """What all segments of PyTorch together may take: the card less the CUDA context."""
        return max(0, self.total_bytes - self.context_bytes)


class MachineLimits(NamedTuple):
    """Several cards, in the engine's order; the sums are of all of them."""

    cards: tuple[Limits, ...]

    @staticmethod
    def of(cards: Iterable[Limits]) -> MachineLimits:
        """The cards as one process has them.

        PyTorch decides once how large cuBLAS's workspaces are, by the card that multiplies first: it is filled first.
        """
        first, *others = cards
        return MachineLimits((first, *(each._replace(workspace_bytes=first.workspace_bytes) for each in others)))

    @property
    def total_bytes(self) -> int:
        """What they have."""
        return sum(card.total_bytes for card in self.cards)

    @property
    def context_bytes(self) -> int:
        """What their CUDA contexts take."""
        return sum(card.context_bytes for card in self.cards)

    @property
    def torch_bytes(self) -> int:
        """What PyTorch may take of them."""
        return sum(card.torch_bytes for card in self.cards)


def limits_of(device: DeviceSpec, vram_limit_bytes: int | None) -> Limits:
    """The card `device`, or the smaller one inside it."""
    return Limits(
        total_bytes=min(device.total_memory_bytes, vram_limit_bytes or device.total_memory_bytes),
        context_bytes=device.context_bytes or 0,
        num_sms=device.multi_processor_count or _UNKNOWN_NUM_SMS,
        workspace_bytes=_workspace_bytes(device) if device.workspace_bytes is None else device.workspace_bytes,
        sort_tile=tile_of(compute_capability(device)),
    )


def _workspace_bytes(device: DeviceSpec) -> int:
    return _WORKSPACE_BYTES_HOPPER if compute_capability(device) >= _HOPPER else _WORKSPACE_BYTES


def origins(device: DeviceSpec) -> dict[str, str]:
    """The source of the figures that have to be measured: `assumed`, `measured`, or `measured: ` and how."""
    bases = {"context_bytes": device.context_basis, "workspace_bytes": device.workspace_basis}
    return {name: basis if basis and basis.startswith("measured") else "assumed" for name, basis in bases.items()}


def attention_assumptions(device: DeviceSpec) -> list[str]:
    """The note on what is assumed of the card's attention kernels, if anything is."""
    if supports_flash_attention(device):
        return []
    return ["attention kernels of cards before Ampere assumed to take what newer ones take"]


def compute_capability(device: DeviceSpec) -> tuple[int, int]:
    """Major and minor; that of Ampere where it is not known."""
    major, minor = (device.compute_capability or "8.0").split(".")
    return int(major), int(minor)


def supports_flash_attention(device: DeviceSpec) -> bool:
    """flash-attn 2 needs Ampere or newer."""
    return compute_capability(device) >= (8, 0)
