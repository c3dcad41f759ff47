"""Modules that the extension runs as a CUDA graph when it decodes (libtorch/*.cpp).

The first run of a shape is eager; the second is captured, for which PyTorch's cuBLAS handle and its workspace are made
beforehand (graph.cu, Graph::capture_begin). What the graphs themselves take is not known.
"""

from __future__ import annotations

from typing import Any

import torch

from bench.worker.engines.exllamav3.stand_ins.buffers import Buffers
from bench.worker.engines.exllamav3.stand_ins.checks import check
from bench.worker.engines.exllamav3.stand_ins.matrices import Matrix


class Graphed:
    """Holds what it is made of, and counts its runs."""

    def __init__(self, buffers: Buffers, *args: Any, **kwargs: Any) -> None:
        self._buffers = buffers
        self._kept: list[Any] = [args, kwargs]
        self._runs: dict[Any, int] = {}

    def run_graph(self, shape: Any, x: torch.Tensor) -> None:
        """A run of that shape."""
        runs = self._runs[shape] = self._runs.get(shape, 0) + 1
        if runs == 2:
            self._buffers.card(x).use_cublas()


class GatedMLP(Graphed):
    """BC_GatedMLP (libtorch/mlp.cpp)."""

    def __init__(self, buffers: Buffers, *args: Any) -> None:
        super().__init__(buffers, *args)
        self.matrices = [each for each in args if isinstance(each, Matrix)]  # gate and up, unless in one table; down
        self.guh, self.gu = args[0], args[1]

    def run_bszN(self, x: torch.Tensor, d: torch.Tensor) -> None:  # noqa: N802
        """Up to as many rows as the statics have."""
        check(x.shape[:-1] == d.shape[:-1], "BC_GatedMLP.run_bszN", x, d)
        self.multiply(x)
        self.run_graph(x.numel() // x.shape[-1], x)

    def multiply(self, x: torch.Tensor) -> None:
        """Its products."""
        self._buffers.locks(x)
        for matrix in self.matrices:
            matrix.multiply(x)


class MLP(Graphed):
    """BC_MLP, without a gate."""

    def run_bsz1(self, x: torch.Tensor, d: torch.Tensor) -> None:
        """One row."""
        kwargs = self._kept[1]
        for matrix in (kwargs["up"], kwargs["down"]):
            matrix.multiply(x)
        self.run_graph(1, x)


class Slotted(Graphed):
    """A module whose statics Python makes for each shape that it is to run, and which holds them.

    So are BC_MLAttention, BC_Mamba2 and BC_SharedKVAttention: beside what they are given they make no tensors.
    """

    def __init__(self, buffers: Buffers, *args: Any, **kwargs: Any) -> None:
        super().__init__(buffers, *args, **kwargs)
        self.matrices = [each for each in (*args, *kwargs.values()) if isinstance(each, Matrix)]
        self.slots: dict[Any, Any] = {}

    def needs_configure(self, bsz: int, q_len: int, *which: Any) -> bool:
        """Whether a shape has no statics yet."""
        return self._slot(bsz, q_len, which) not in self.slots

    def configure_slot(self, bsz: int, q_len: int, which: Any, *statics: Any) -> None:
        """Keeps the statics of a shape."""
        self.slots[self._slot(bsz, q_len, (which,))] = statics

    def _slot(self, bsz: int, q_len: int, which: tuple[Any, ...]) -> Any:
        return bsz, q_len, which[:1]

    def set_stage_key(self, *which: Any) -> None:
        """Whose states the next captured graph works on."""

    def run(self, bsz: int, q_len: int, x: torch.Tensor, *args: Any) -> None:
        """One step of `bsz` sequences of `q_len` tokens."""
        check((bsz, q_len) == tuple(x.shape[:2]), type(self).__name__, bsz, q_len, x)
        self.step(x)

    def run_bszN(self, x: torch.Tensor, *args: Any) -> None:  # noqa: N802
        """The same of a module that knows its shape from `x`."""
        self.step(x)

    def step(self, x: torch.Tensor) -> None:
        """Its products, and a run of its graph."""
        self._buffers.locks(x)
        for matrix in self.products(x):
            matrix.multiply(x)
        self.run_graph(tuple(x.shape[:2]), x)

    def products(self, x: torch.Tensor) -> list[Matrix]:
        """The matrices that are multiplied one by one."""
        return self.matrices
