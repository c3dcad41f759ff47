"""What the bindings of the extension check of their arguments, and a word for what fails a check."""

from __future__ import annotations

import math
from typing import Any

import torch


def check(condition: bool, name: str, *tensors: Any) -> None:
    """Raises RuntimeError, as TORCH_CHECK does, with the shapes of the tensors."""
    if not condition:
        shapes = ", ".join(str(tuple(each.shape)) if isinstance(each, torch.Tensor) else str(each) for each in tensors)
        raise RuntimeError(f"exllamav3_ext.{name}: incompatible arguments: {shapes}")


def trellis_shape(trellis: torch.Tensor, bits: float) -> tuple[int, int]:
    """Inputs and outputs of a matrix [inputs / 16, outputs / 16, 16 · bits] of int16."""
    fits = trellis.dtype is torch.int16 and trellis.dim() == 3 and trellis.shape[2] == int(16 * bits)
    check(fits, "trellis", trellis, bits)
    return trellis.shape[0] * 16, trellis.shape[1] * 16


def norm(x: torch.Tensor, w: torch.Tensor | None, y: torch.Tensor, *rest: Any, **more: Any) -> None:
    """rms_norm: in norm.cu, weights of one head or of a group of heads."""
    fits = w is None or (w.numel() % x.shape[-1] == 0) or (x.dim() > 2 and math.prod(x.shape[-2:]) == w.numel())
    check(x.shape == y.shape and fits, "rms_norm", x, w, y)


def activation(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor, *rest: Any) -> None:
    """silu_mul and its like: z of FP16 becomes a function of the gate x times y."""
    fits = x.numel() == y.numel() == z.numel() and x.dtype == y.dtype and z.dtype is torch.half
    check(fits, "activation", x, y, z)


def hadamard(x: torch.Tensor, y: torch.Tensor, pre: torch.Tensor | None, post: torch.Tensor | None, *rest: Any) -> None:
    """had_r_128: blocks of 128 columns, with signs before or after."""
    check(x.shape == y.shape and x.shape[-1] % 128 == 0, "had_r_128", x, y)
    for signs in (pre, post):
        check(signs is None or signs.shape[-1] == x.shape[-1], "had_r_128", x, signs)


def reconstruct(w: torch.Tensor, trellis: torch.Tensor, bits: float, *rest: Any) -> None:
    """A whole matrix in FP16."""
    fits = tuple(w.shape) == trellis_shape(trellis, bits) and w.dtype is torch.half
    check(fits, "reconstruct", w, trellis)


def reconstruct_slice(
    w: torch.Tensor, trellis: torch.Tensor, bits: float, mcg: Any, mul1: Any, start: int, *rest: Any
) -> None:
    """Columns of a matrix, from `start` on."""
    rows, columns = trellis_shape(trellis, bits)
    check(w.shape[0] == rows and start + w.shape[1] <= columns, "reconstruct_slice", w, trellis, start)


def reconstruct_had_slice(
    w: torch.Tensor,
    trellis: torch.Tensor,
    suh: torch.Tensor,
    svh: torch.Tensor,
    bits: float,
    mcg: Any,
    mul1: Any,
    start: int,
    *rest: Any,
) -> None:
    """The same with both Hadamard transforms done."""
    reconstruct_slice(w, trellis, bits, mcg, mul1, start)
    check(suh.shape[0] == w.shape[0] and svh.shape[0] >= w.shape[1], "reconstruct_had_slice", suh, svh, w)


FUNCTIONS = {
    "rms_norm": norm,
    "had_r_128": hadamard,
    "reconstruct": reconstruct,
    "reconstruct_slice": reconstruct_slice,
    "reconstruct_had_slice": reconstruct_had_slice,
    **dict.fromkeys(("silu_mul", "gelu_mul", "relu2_mul", "silu_oai_mul"), activation),
}
