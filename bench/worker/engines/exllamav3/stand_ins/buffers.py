"""The buffers that exllamav3's extension takes from the driver itself, each once a card, and its cuBLAS handle."""

from __future__ import annotations

import torch

from bench.allocator.limits import compute_capability
from bench.worker.simulated.card import SimulatedCard
from bench.worker.simulated.tensor import SimulatedCuda

_WORKSPACE_BYTES = 16 << 20  # exl3_devctx.cuh: WORKSPACE_SIZE
_LOCKS_BYTES = (1024 * 1024 + 2 * 1024 + 66) * 4  # exl3_devctx.cuh: MAX_TILES_C, MAX_BARRIERS, MOE_SCHED_INTS
_WORKSPACE, _LOCKS, _INT8_WORKSPACE = _NAMES = ("exl3 workspace", "exl3 locks", "exl3 int8 workspace")
_INT8_ROWS = 2  # exl3_gemv_int8.cu: the per-slice kernel; with more rows the regular one runs


class Buffers:
    """Each raises RuntimeError, with the text of the C++, where the card is full: cudaMalloc is not PyTorch's."""

    def __init__(self, cuda: SimulatedCuda) -> None:
        self._cuda = cuda

    def card(self, tensor: torch.Tensor) -> SimulatedCard:
        """The card that a tensor is on."""
        return self._cuda.card_named(tensor.device)

    def cublas_workspace(self, tensor: torch.Tensor) -> None:
        """The extension's own, of its cuBLAS handle (cublas_handle.cuh): PyTorch makes none for it from 2.12 on."""
        card = self.card(tensor)
        if not self._take(card, _WORKSPACE, _WORKSPACE_BYTES):  # exl3_devctx.cu: get_ws
            raise RuntimeError(f"exl3 workspace allocation failed on device {card.index}: out of memory")

    def locks(self, tensor: torch.Tensor) -> None:
        """What the blocks of a GEMM wait on (exl3_devctx.cu: get_locks)."""
        card = self.card(tensor)
        if not self._take(card, _LOCKS, _LOCKS_BYTES):
            raise RuntimeError(f"exl3 lock buffer allocation failed on device {card.index}: out of memory")

    def gemm(self, x: torch.Tensor, inputs: int, outputs: int, bits: float, mul1: bool) -> None:
        """A product with an EXL3 matrix of `bits` a weight; `x` has its inputs in the last dimension.

        With a row or two it runs on int8 where the matrix allows (exl3_gemv_int8.cu), for which there is a workspace.
        """
        self.locks(x)
        card = self.card(x)
        rows = x.numel() // x.shape[-1]
        whole = outputs % 256 == 0 and inputs % 128 == 0
        modern = compute_capability(card.spec) >= (8, 0)  # of 80 KB shared memory, and more
        if mul1 and rows <= _INT8_ROWS and whole and modern and -(-bits // 1) <= self.int8_bits(card):
            self.int8_workspace(card)

    def int8_workspace(self, card: SimulatedCard) -> None:
        """Sums of products on int8 (gemv_int8_get_ws); its error is one of CUDA's."""
        if not self._take(card, _INT8_WORKSPACE, _WORKSPACE_BYTES):
            raise RuntimeError("CUDA error: out of memory (exl3_gemv_int8.cu, gemv_int8_get_ws)")

    def _take(self, card: SimulatedCard, name: str, size_bytes: int) -> bool:
        self._cuda.observer.beside(card.index, _NAMES.index(name), size_bytes)
        return card.take_beside(name, size_bytes)

    def int8_bits(self, card: SimulatedCard) -> int:
        """The most bits a weight of a matrix that runs on int8 (exl3_gemv_int8_max_k)."""
        return 6 if compute_capability(card.spec) >= (9, 0) else 5
