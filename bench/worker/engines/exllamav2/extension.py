"""A stand-in for exllamav2's compiled extension: the checks of its bindings, and the memory that they take.

The kernels write into tensors that the Python code made, so nearly every function here only checks shapes. What costs
memory is PyTorch's cuBLAS workspace, which every binding that asks for a cuBLAS handle brings into being.
"""

from __future__ import annotations

import itertools
import os
from types import ModuleType
from typing import Any

import torch

from bench.worker.engines.exllamav2.divided_extension import DividedExtension, Matrix
from bench.worker.engines.exllamav2.sampling_extension import SamplingExtension
from bench.worker.simulated.tensor import MAX_ELEMENTS_WITH_VALUES, SimulatedCuda, SimulatedTensor


class Extension:
    """The functions of `exllamav2_ext` that loading, prefilling and decoding call."""

    def __init__(self, cuda: SimulatedCuda) -> None:
        self._cuda = cuda
        self._matrices: dict[int, Matrix] = {}
        self._handles = itertools.count(1)

    def module(self) -> ModuleType:
        module = ModuleType("exllamav2_ext")
        for functions in (self, DividedExtension(self._cuda, self._matrices), SamplingExtension()):
            vars(module).update({name: getattr(functions, name) for name in dir(functions) if not name.startswith("_")})
        vars(module)["__getattr__"] = _missing
        return module

    # Loading

    def stloader_read(self, filename: str, offset: int, size: int, target: torch.Tensor) -> None:
        """Only the group tables (int16) are read: the engine's Python code works with their numbers."""
        self._cuda.observer.weight(filename, offset, target)
        if target.dtype != torch.int16 or target.numel() > MAX_ELEMENTS_WITH_VALUES:
            return
        with open(filename, "rb") as file:
            data = os.pread(file.fileno(), size, offset)
        if len(data) != size:
            raise RuntimeError("I/O error reading tensor")
        values = torch.frombuffer(bytearray(data), dtype=torch.int16).view(target.shape)
        if isinstance(target, SimulatedTensor):
            target.numbers = values
        else:
            target.copy_(values)

    def make_group_map(self, q_groups: torch.Tensor, num_qrows: int) -> torch.Tensor:
        """For each row of the matrix its group, and how many rows of the group are left; int16 [2 * rows]."""
        bits, first = q_groups[0::2].long(), q_groups[1::2].long()
        ends = torch.cat((first[1:], torch.tensor([num_qrows])))
        rows = (ends - first) * 32 // bits
        group = torch.repeat_interleave(torch.arange(len(rows)), rows)
        starts = torch.repeat_interleave(rows.cumsum(0), rows)
        left = starts - torch.arange(len(group))
        return torch.stack((group, left), dim=1).flatten().to(torch.int16)

    def make_q_matrix(
        self,
        q_weight: SimulatedTensor,
        q_perm: torch.Tensor,
        q_invperm: torch.Tensor,
        q_scale: torch.Tensor,
        q_scale_max: torch.Tensor,
        q_groups: torch.Tensor,
        q_group_map: torch.Tensor,
        gptq_qzeros: torch.Tensor,
        gptq_scales: torch.Tensor,
        gptq_g_idx: torch.Tensor,
        bias: torch.Tensor,
        temp_dq: torch.Tensor,
        max_dq_rows: int,
    ) -> int:
        width = q_weight.shape[1]
        if q_scale.is_meta:
            _check(gptq_qzeros.shape[1] * 8 == width, "q_weight and gptq_qzeros have incompatible shapes")
            height = q_weight.shape[0] * 8
        else:
            _check(q_scale.shape[1] * 8 == width, "q_weight and q_scale have incompatible shapes")
            _check(q_scale_max.shape[0] == q_scale.shape[0], "q_scale_max and q_scale have incompatible shapes")
            height = q_group_map.shape[0] // 2
        _check(bias.is_meta or bias.shape[0] == width, "q_weight and bias have incompatible shapes")
        needed = width * min(max_dq_rows, height)
        _check(temp_dq.is_meta or temp_dq.shape[0] >= needed, "Insufficient size of temp_dq buffer")
        return self._remember(Matrix(height, width, q_weight.card))

    make_q_matrix_split = make_q_matrix  # it wants an EXL2 matrix, and the engine has seen to that

    def repeat_q_matrix(self, handle: int) -> int:
        """Another matrix like the one of `handle`, which was checked. No function of the real extension."""
        return self._remember(self._matrices[handle])

    def make_q_attn(self, *args: Any) -> int:
        return next(self._handles)

    def make_q_mlp(self, *args: Any) -> int:
        return next(self._handles)

    def make_q_moe_mlp(self, *args: Any) -> int:
        return next(self._handles)

    def free_q_matrix(self, handle: int) -> None:
        self._matrices.pop(handle, None)

    def free_q_attn(self, handle: int) -> None: ...

    def free_q_mlp(self, handle: int) -> None: ...

    def free_q_moe_mlp(self, handle: int) -> None: ...

    def tensor_remap(self, tensor: torch.Tensor, index: torch.Tensor) -> None: ...

    def tensor_remap_4bit(self, tensor: torch.Tensor, index: torch.Tensor) -> None: ...

    # Forward

    def gemm_half_q_half(self, a: SimulatedTensor, handle: int, c: torch.Tensor, force_cuda: bool) -> None:
        matrix = self._matrices[handle]
        _check(a.shape[0] == c.shape[0] and a.shape[1] == matrix.height, "a and b have incompatible shapes")
        _check(c.shape[1] == matrix.width, "b and c have incompatible shapes")
        a.card.use_cublas()

    def reconstruct(self, handle: int, output: torch.Tensor) -> None: ...

    def q_attn_forward_1(self, handle: int, x: SimulatedTensor, *args: Any) -> None:
        x.card.use_cublas()

    def q_attn_forward_2(self, handle: int, x: SimulatedTensor, attn_output: torch.Tensor, *args: Any) -> None:
        x.card.use_cublas()

    def q_mlp_forward_(self, handle: int, x: SimulatedTensor, *args: Any) -> None:
        x.card.use_cublas()

    def q_moe_mlp_forward_(self, handle: int, x: SimulatedTensor) -> None:
        x.card.use_cublas()

    def rms_norm(self, x: torch.Tensor, w: torch.Tensor, y: torch.Tensor, *args: Any) -> None:
        _check(x.shape == y.shape and x.shape[-1] == w.shape[0], "x and w have incompatible shapes")

    def layer_norm(self, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor, y: torch.Tensor, *args: Any) -> None:
        _check(x.shape == y.shape and x.shape[-1] == w.shape[0], "x and w have incompatible shapes")

    def head_norm(self, x: torch.Tensor, *args: Any) -> None: ...

    def rope_(self, x: torch.Tensor, *args: Any) -> None: ...

    def softcap_(self, x: torch.Tensor, scale: float) -> None: ...

    # Cache

    def q_to_fp16_kv(self, *args: Any) -> None: ...

    def fp16_to_q_kv(self, *args: Any) -> None: ...

    def _remember(self, matrix: Matrix) -> int:
        handle = next(self._handles)
        self._matrices[handle] = matrix
        return handle


def _check(condition: bool, text: str) -> None:
    if not condition:
        raise RuntimeError(text)


def _missing(name: str) -> Any:
    raise AttributeError(f"exllamav2_ext.{name} is not simulated: the scenario does not reach it")
