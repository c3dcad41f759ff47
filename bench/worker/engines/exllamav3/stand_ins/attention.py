"""BC_Attention (libtorch/attention.cpp) and BC_GatedDeltaNetSplit (libtorch/gated_delta_net.cpp): what decodes a layer.

Both run several projections in slices at once, for which they make tables of pointers and a carrier of outputs.
"""

from __future__ import annotations

from typing import Any

import torch

from bench.worker.engines.exllamav3.stand_ins.buffers import Buffers
from bench.worker.engines.exllamav3.stand_ins.checks import check
from bench.worker.engines.exllamav3.stand_ins.graphed import Slotted
from bench.worker.engines.exllamav3.stand_ins.matrices import Matrix

_SLICED_ROWS = 32  # with more rows, projections are multiplied one after the other
_TABLES = (2, 3, 4)  # rows of `meta` [5, slices], a CPU tensor, that go to the card
_MAX_ROWS = 8 * 16  # gated_delta_net.h: MAX_BSZ, MAX_QLEN


def _tables(meta: torch.Tensor, device: torch.device) -> list[torch.Tensor]:
    return [meta[row].contiguous().to(device) for row in _TABLES]


def _pointers(slices: int, like: torch.Tensor) -> torch.Tensor:
    return torch.zeros(slices, dtype=torch.long).to(like.device)


class Attention(Slotted):
    """Queries, keys and values in slices where `qkv_meta` says so."""

    def __init__(self, buffers: Buffers, **kwargs: Any) -> None:
        super().__init__(buffers, **kwargs)
        self._last: Matrix = kwargs["o_proj"]
        self._slices = 0
        if kwargs.get("qkv_ptrs_trellis") is not None:
            meta, device = kwargs["qkv_meta"], kwargs["qkv_ptrs_trellis"].device
            self._slices = meta.shape[1]
            self._carrier = _tables(meta, device), torch.empty((1, 1, 1), dtype=torch.half, device=device)

    def configure_slot(self, bsz: int, q_len: int, which: Any, *statics: Any) -> None:
        """With a table of where the slices go."""
        pointers = _pointers(self._slices, statics[0]) if self._slices else None
        super().configure_slot(bsz, q_len, which, *statics, pointers)

    def products(self, x: torch.Tensor) -> list[Matrix]:
        """The last projection, and those that are in no slices."""
        together = self._slices and x.shape[0] * x.shape[1] <= _SLICED_ROWS
        return [self._last] if together else self.matrices


class DeltaNet(Slotted):
    """A gated delta net whose projections are apart."""

    _slices = 0

    def set_qkvz_bundle(
        self, trellis: torch.Tensor, suh: torch.Tensor, svh: torch.Tensor, meta: torch.Tensor, *rest: Any
    ) -> None:
        """Both input projections in slices."""
        slices = self._slices = meta.shape[1]
        fits = trellis.shape[0] == svh.shape[0] == slices and suh.shape[0] == 2
        check(fits, "set_qkvz_bundle", trellis, suh, svh, meta)
        carrier = torch.empty((slices, _MAX_ROWS, int(meta[2][0])), dtype=torch.float, device=trellis.device)
        self._carrier = _tables(meta, trellis.device), carrier, trellis, suh, svh

    def configure_slot(self, bsz: int, q_len: int, which: Any, *statics: Any) -> None:
        """With a table of where the slices go, and a tensor to transform their input in."""
        made: list[torch.Tensor] = []
        if self._slices:
            qkv, qkv_xh = statics[0], statics[9]
            made = [_pointers(self._slices, qkv)]
            made.append(torch.empty((2, bsz * q_len, qkv_xh.shape[-1]), dtype=qkv_xh.dtype, device=qkv.device))
        super().configure_slot(bsz, q_len, which, *statics, made)

    configure_slot_kda = Slotted.configure_slot

    def products(self, x: torch.Tensor) -> list[Matrix]:
        """The output projection, and those that are in no slices."""
        together = self._slices and x.shape[0] * x.shape[1] <= _SLICED_ROWS
        return self.matrices[-1:] if together else self.matrices
