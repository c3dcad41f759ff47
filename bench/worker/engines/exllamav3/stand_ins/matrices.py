"""Products: of EXL3 matrices, of FP16 matrices, and of what was reconstructed."""

from __future__ import annotations

from typing import Any

import torch

from bench.worker.engines.exllamav3.stand_ins.buffers import Buffers
from bench.worker.engines.exllamav3.stand_ins.checks import check, trellis_shape


class Matrix:
    """BC_LinearEXL3 (libtorch/linear.cpp)."""

    def __init__(
        self,
        buffers: Buffers,
        trellis: torch.Tensor,
        suh: torch.Tensor,
        svh: torch.Tensor,
        bits: float,
        bias: torch.Tensor | None,
        mcg: torch.Tensor | None,
        mul1: torch.Tensor | None,
        xh: torch.Tensor,
    ) -> None:
        self.inputs, self.outputs = trellis_shape(trellis, bits)
        fits = suh.shape == (self.inputs,) and svh.shape == (self.outputs,)
        check(fits and (bias is None or bias.shape == svh.shape), "BC_LinearEXL3", trellis, suh, svh, bias)
        self.bits, self.mul1, self.device = bits, mul1 is not None, trellis.device
        self._buffers = buffers
        self._kept = trellis, suh, svh, bias, xh  # the C++ holds them, and so their memory

    def like(
        self, trellis: torch.Tensor, suh: torch.Tensor, svh: torch.Tensor, bias: torch.Tensor | None = None
    ) -> Matrix:
        """Another with tensors of the same shapes."""
        other = object.__new__(Matrix)
        vars(other).update(vars(self), _kept=(trellis, suh, svh, bias, self._kept[-1]))
        return other

    def run_alloc(self, x: torch.Tensor, out_features: int, output_fp32: bool) -> torch.Tensor:
        """The product [..., out_features] of rows [..., inputs]."""
        check(x.shape[-1] == self.inputs and out_features == self.outputs, "run_alloc", x, out_features)
        dtype = torch.float if output_fp32 else torch.half
        y = torch.empty((*x.shape[:-1], out_features), dtype=dtype, device=x.device)
        self.run(x, y)
        return y

    def run(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Several rows are transformed in a tensor of their own; for one there is a static one."""
        if x.numel() != x.shape[-1]:
            xh = torch.empty_like(x)
            del xh
        self.multiply(x)

    def multiply(self, x: torch.Tensor) -> None:
        """exl3_gemm with statics of the caller."""
        self._buffers.gemm(x, self.inputs, self.outputs, self.bits, self.mul1)


class Unquantised:
    """BC_LinearFP16."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.weight, self.bias = weight, bias


class Products:
    """The functions that multiply with what is in FP16, and with several EXL3 matrices at once."""

    def __init__(self, buffers: Buffers) -> None:
        self._buffers = buffers

    def hgemm(self, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> None:
        """The product of `a` and `b` by cuBLAS (hgemm.cu)."""
        types = a.dtype is b.dtype is torch.half and c.dtype in (torch.half, torch.float)
        shapes = b.dim() == 2 and a.shape[-1] == b.shape[0] and b.shape[1] == c.shape[-1]
        rows = a.numel() // max(1, a.shape[-1]) == c.numel() // max(1, c.shape[-1])
        check(types and shapes and rows, "hgemm", a, b, c)
        self._buffers.cublas_workspace(a)

    # Where FP16 accumulates fast, as on a GeForce, the extension has its own kernel for some shapes (hgemm_f16acc.cu),
    # chosen by a measurement: taken for cuBLAS, whose workspace may then be missing on such a card.
    hgemm_recon = hgemm

    def hgemm_batched(self, a: torch.Tensor, w: torch.Tensor, c: torch.Tensor) -> None:
        """As many products as there are pairs."""
        three = a.dim() == w.dim() == c.dim() == 3 and a.shape[0] == w.shape[0] == c.shape[0]
        fits = three and a.shape[2] == w.shape[1] and w.shape[2] == c.shape[2] and a.shape[1] == c.shape[1]
        check(fits, "hgemm_batched", a, w, c)
        self._buffers.cublas_workspace(a)

    def exl3_mgemm(self, a: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        """Several matrices, by tables of pointers: never on int8."""
        self._buffers.locks(a)
