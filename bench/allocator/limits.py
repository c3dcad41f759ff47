"""How many bytes of a card PyTorch can use, and how many of those cuBLAS takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from bench.allocator.beside import ALL_BUFFERS
from bench.allocator.sort import tile_of
from bench.allocator.state import BESIDE_BUFFERS, TOTAL_BYTES, UNLIMITED_BYTES, State, new_state
from bench.core.case import EXPANDABLE, NATIVE, Case
from bench.core.device import DeviceSpec

# What PyTorch takes for cuBLAS on each stream (CUDABlas.cpp, default CUBLAS_WORKSPACE_CONFIG): more from Hopper on.
# Seen on a null GPU (docs/oracle.md) for compute capability 7.5 to 12.0.
_WORKSPACE_BYTES = 8_519_680
_WORKSPACE_BYTES_HOPPER = 32 << 20
_HOPPER = (9, 0)
_UNKNOWN_NUM_SMS = 100
ENDLESS_BYTES = 1 << 60


class Limits(NamedTuple):
    """A card as the allocator sees it: `torch_bytes` is what all its segments together may take.

    Multiprocessors (flash-attn), the cuBLAS workspace and how many numbers CUB sorts at a time decide the sizes of some
    temporaries. `device_bytes` is what the device says it has, where segments are expandable, and 0 where they are
    native. `is_fraction`: PyTorch keeps itself to `torch_bytes` (`set_per_process_memory_fraction`) of a larger card.
    `beside_counted`: what an engine takes beside PyTorch is among the `context_bytes`, as what was measured has it.
    """

    total_bytes: int
    context_bytes: int
    num_sms: int
    workspace_bytes: int
    sort_tile: int
    device_bytes: int = 0
    is_fraction: bool = False
    beside_counted: bool = False

    @property
    def torch_bytes(self) -> int:
        """What all segments of PyTorch together may take: the card less the CUDA context."""
        return max(0, self.total_bytes - self.context_bytes)

    @property
    def counts_requests(self) -> bool:
        """Whether a request can be refused though its pages would fit: as expandable segments count a fraction."""
        return self.is_fraction and self.device_bytes > 0

    def never_refuses(self, peak_reserved_bytes: int) -> bool:
        """Whether what reserves so much on an endless card of its kind goes here just as there."""
        return peak_reserved_bytes <= self.mapped_bytes and not self.counts_requests

    @property
    def mapped_bytes(self) -> int:
        """How much memory the driver gives out; `torch_bytes` where no fraction of it is what counts."""
        return max(0, self.device_bytes - self.context_bytes) if self.counts_requests else self.torch_bytes

    @property
    def fraction_bytes(self) -> int:
        """What a fraction allows, as expandable segments count it."""
        return self.torch_bytes if self.counts_requests else UNLIMITED_BYTES

    @property
    def endless(self) -> Limits:
        """A card of its kind that is never full."""
        return self._replace(total_bytes=ENDLESS_BYTES + self.context_bytes, is_fraction=False)

    def new_state(self, num_parts: int, max_blocks: int, num_streams: int) -> State:
        """The card, empty."""
        state = new_state(self.mapped_bytes, num_parts, max_blocks, num_streams, self.device_bytes, self.fraction_bytes)
        state.counters[TOTAL_BYTES] = self.total_bytes
        state.counters[BESIDE_BUFFERS] = ALL_BUFFERS if self.beside_counted else 0
        return state


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


def limits_of(
    device: DeviceSpec, vram_limit_bytes: int | None, allocator: str = NATIVE, limit_by: str | None = None
) -> Limits:
    """The card `device`, or the smaller one inside it, which `limit_by` keeps (`Case.vram_limit_by`)."""
    total_bytes = min(device.total_memory_bytes, vram_limit_bytes or device.total_memory_bytes)
    return Limits(
        total_bytes=total_bytes,
        context_bytes=device.context_bytes or 0,
        num_sms=device.multi_processor_count or _UNKNOWN_NUM_SMS,
        workspace_bytes=_workspace_bytes(device) if device.workspace_bytes is None else device.workspace_bytes,
        sort_tile=tile_of(compute_capability(device)),
        # A card that is smaller by itself says so; one that is kept small says what it has.
        device_bytes=(device.total_memory_bytes if limit_by else total_bytes) if allocator == EXPANDABLE else 0,
        is_fraction=vram_limit_bytes is not None and limit_by == "allocator",
    )


def case_limits(device: DeviceSpec, limit_bytes: int | None, case: Case) -> Limits:
    """One of the cards of `case`, or the smaller one inside it."""
    return limits_of(device, limit_bytes, case.allocator, case.vram_limit_by)


def _workspace_bytes(device: DeviceSpec) -> int:
    return _WORKSPACE_BYTES_HOPPER if compute_capability(device) >= _HOPPER else _WORKSPACE_BYTES


def origins(device: DeviceSpec) -> dict[str, str]:
    """The source of the figures that have to be measured: `assumed`, `measured`, or `measured: ` and how."""
    bases = {"context_bytes": device.context_basis, "workspace_bytes": device.workspace_basis}
    return {name: basis if basis and basis.startswith("measured") else "assumed" for name, basis in bases.items()}


def first_forward_note(device: DeviceSpec) -> str | None:
    """What is told of the kernels that a first forward pass loads on a card, and that no figure has it in it."""
    if device.first_forward_bytes is None:
        return None
    basis = device.first_forward_basis or "assumed"
    return (
        f"kernels of the first forward pass may take {device.first_forward_bytes >> 20} MiB more on {device.name} "
        f"({basis}): in no figure here"
    )


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
