"""A mixture of experts: the router's choice (routing.cu, routing_gemm.cu) and the experts (blocksparse_mlp.cpp).

A router is taken to choose every expert equally often: of a simulated card nobody knows its choice.
"""

from __future__ import annotations

from typing import Any

import torch

from bench.allocator.limits import compute_capability
from bench.worker.engines.exllamav3.stand_ins.buffers import Buffers
from bench.worker.engines.exllamav3.stand_ins.checks import check
from bench.worker.engines.exllamav3.stand_ins.graphed import GatedMLP, Graphed
from bench.worker.simulated.tensor import SimulatedTensor

_STATIC_ROWS = 64  # routing_gemm.cu: RG_STATIC_ROWS
_CHUNK, _TILE_ROWS, _TILE_EXPERTS, _MIN_TILES, _MAX_SLICES = 128, 128, 64, 256, 8  # and rg_slices
_MAX_TOKENS = 8  # libtorch/mlp.h: MAX_BSZN


class Routing:
    """The functions that choose experts."""

    def __init__(self, buffers: Buffers) -> None:
        self._buffers = buffers
        self._statics: dict[Any, list[torch.Tensor]] = {}  # of a card, for the life of the process

    def forget(self) -> None:
        """Gives back what is kept of the cards before."""
        self._statics.clear()

    def routing_std(
        self,
        y: torch.Tensor,
        gate: torch.Tensor,
        logits: torch.Tensor,
        selected: torch.Tensor,
        weights: torch.Tensor,
        scale: Any = None,
        gate_t: torch.Tensor | None = None,
        bias: Any = None,
        gate_i8: torch.Tensor | None = None,
        gate_sb: Any = None,
    ) -> None:
        """By softmax."""
        check(selected.shape == weights.shape, "routing_std", selected, weights)
        self._project(y, gate, logits, gate_t, gate_i8)
        choose(selected, logits.shape[-1])

    def routing_ds3_nogroup(
        self,
        y: torch.Tensor,
        gate: torch.Tensor,
        logits: torch.Tensor,
        bias: Any,
        selected: torch.Tensor,
        weights: torch.Tensor,
        factor: float,
        gate_t: torch.Tensor | None = None,
        act: int = 0,
        gate_i8: torch.Tensor | None = None,
        gate_sb: Any = None,
    ) -> None:
        """As DeepSeek-V3's, among all experts."""
        self.routing_std(y, gate, logits, selected, weights, None, gate_t, None, gate_i8)

    def routing_ds3_group(self, logits: torch.Tensor, bias: Any, selected: torch.Tensor, *rest: Any) -> None:
        """As DeepSeek-V3's, by groups: of logits that are there."""
        choose(selected, logits.shape[-1])

    def _project(
        self,
        y: torch.Tensor,
        gate: torch.Tensor,
        logits: torch.Tensor,
        gate_t: torch.Tensor | None,
        gate_i8: torch.Tensor | None,
    ) -> None:
        """Logits of the rows of `y`: one by a kernel of its own, several on int8 from Ampere on, or else by cuBLAS."""
        width = y.shape[-1]
        rows = y.numel() // width
        modern = compute_capability(self._buffers.card(y).spec) >= (8, 0)
        if rows > 1 and gate_i8 is not None and modern and width % 16 == 0:
            self._project_int8(y, rows, width, gate_i8.shape[1])
        elif rows > 1 or gate_t is None or width % 2:
            self._buffers.cublas_workspace(y)

    def _project_int8(self, y: torch.Tensor, rows: int, width: int, experts: int) -> None:
        """The rows as two slices of int8 with scales, and partial sums; for few rows they are kept."""
        chunks = -(-width // _CHUNK)
        few = rows <= _STATIC_ROWS
        slices = _slices(1 if few else rows, experts, chunks)  # statics are made for what takes most
        key = width, experts, y.device
        if few and key in self._statics:
            return
        held = _STATIC_ROWS if few else rows
        used = slices if few else -(-width // (-(-chunks // slices) * _CHUNK))
        made = [torch.empty((held, width), dtype=torch.int8, device=y.device) for _ in range(2)]
        made.append(torch.empty((held, chunks), dtype=torch.float, device=y.device))
        if few or used > 1:
            made.append(torch.empty((used, held, experts), dtype=torch.float, device=y.device))
        if few:
            self._statics = {each: kept for each, kept in self._statics.items() if each[2] != y.device}
            self._statics[key] = made


def _slices(rows: int, experts: int, chunks: int) -> int:
    tiles, slices = -(-experts // _TILE_EXPERTS) * -(-rows // _TILE_ROWS), 1
    while tiles * slices < _MIN_TILES and slices < _MAX_SLICES and slices * 2 <= chunks:
        slices *= 2
    return slices


def choose(selected: torch.Tensor, experts: int) -> None:
    """Writes the choice of a balanced router among `experts`, which the host may read."""
    if isinstance(selected, SimulatedTensor):
        selected.numbers = (torch.arange(selected.numel()) % experts).view(selected.shape)


class Experts(Graphed):
    """BC_BlockSparseMLP. A shared expert may be one more launch, with tables and statics of its own."""

    def __init__(self, buffers: Buffers, *args: Any, act_relu2: bool = False, sh_coop: bool = False) -> None:
        super().__init__(buffers, *args)
        self._gates, self._ups, self._downs = args[39], args[40], args[41]
        self._shared: GatedMLP | None = args[37]
        self._in_one_launch = sh_coop and self._shared is not None and args[9] is not None
        if self._in_one_launch:
            self._kept.append(_of_shared_expert(self._shared, args[1], args[3]))

    def run_bszN(self, y: torch.Tensor, selected: torch.Tensor, weights: torch.Tensor) -> None:  # noqa: N802
        """Few tokens: two launches for all experts, and no graph."""
        check(y.shape[0] == selected.shape[0] <= _MAX_TOKENS, "BC_BlockSparseMLP.run_bszN", y, selected)
        if self._shared is not None and not self._in_one_launch:
            self._shared.run_bszN(y.unsqueeze(0), y.unsqueeze(0))

    def run_single_expert(self, y: torch.Tensor, expert: int) -> None:
        """The rows of one expert, in a graph."""
        for matrices in (self._gates, self._ups, self._downs):
            if matrices:
                matrices[expert].multiply(y)
        self.run_graph(y.shape[0], y)

    def run_single_expert_dq(self, y: torch.Tensor, *args: Any) -> None:
        """The same, of matrices that are reconstructed into statics."""
        self._buffers.cublas_workspace(y)


def _of_shared_expert(shared: Any, yh: torch.Tensor, interm_g: torch.Tensor) -> list[torch.Tensor]:
    """What the C++ makes for the launch of a shared expert, where its matrices fit that."""
    *first, down = shared.matrices
    device, hidden, width, outputs = yh.device, yh.shape[-1], down.inputs, down.outputs

    def table() -> torch.Tensor:
        return torch.zeros(1, dtype=torch.long).to(device)

    if not first:  # gate and up are in one table of two pointers each, of which each is a view: nothing is made
        tables = []
    elif len({(each.bits, each.mul1) for each in first}) == 1 and first[0].inputs == hidden:
        tables = [table() for _ in range(6)]
    else:
        return []
    tables += [table() for _ in range(3)]
    tokens = _MAX_TOKENS
    counters = tokens * (width // 128) + tokens * (outputs // 128) + 2 * tokens + 3  # exl3_moe_coop_ctr_len

    def empty(columns: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty((tokens, columns), dtype=dtype, device=device)

    return [
        *tables,
        *(empty(hidden, torch.half) for _ in range(2)),
        *(empty(width, interm_g.dtype) for _ in range(2)),
        empty(width, torch.half),
        empty(outputs, torch.float),
        torch.zeros(counters, dtype=torch.int, device=device),
        torch.zeros((tokens, 1), dtype=torch.long, device=device),
        torch.ones((tokens, 1), dtype=torch.half, device=device),
    ]
