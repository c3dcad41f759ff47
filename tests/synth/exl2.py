"""The weights of an EXL2 layer as ExLlamaV2's kernels see them: a second reading of the format, beside the writer's.

Written after reconstruct_kernel (exllamav2_ext/cuda/q_matrix.cu), the plain unpacking in cuda/quant/qdq_*.cuh, dq_scale
(cuda/quant/qdq_util.cuh) and load_weight (exllamav2/module.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from tests.synth import headers

Array = npt.NDArray[Any]


def read(directory: Path) -> dict[str, Array]:
    """Every tensor of a model directory; those of BF16, which NumPy has not, as FP32."""
    tensors: dict[str, Array] = {}
    for path in sorted(directory.glob("*.safetensors")):
        raw = headers.read(path)
        with safe_open(path, framework="numpy") as file:
            for name, (kind, shape, data) in raw.items():
                if kind == "BF16":
                    bits = np.frombuffer(data, "<u2").astype("<u4") << np.uint32(16)
                    tensors[name] = bits.view(np.float32).reshape(shape)
                else:
                    tensors[name] = file.get_tensor(name)
    return tensors


def groups(tensors: Mapping[str, Array], key: str) -> list[tuple[int, int, int]]:
    """Bits, first packed row and number of rows of each group of the layer `key`."""
    table = tensors[f"{key}.q_groups"].view(np.uint16).reshape(-1, 2).tolist()
    rows = len(tensors[f"{key}.q_invperm"])
    found, row = [], 0
    for number, (bits, first) in enumerate(table):
        last = number == len(table) - 1
        size = rows - row if last else (table[number + 1][1] - first) * 32 // bits
        found.append((bits, first, size))
        row += size
    return found


def dequantise(tensors: Mapping[str, Array], key: str) -> Array:
    """[inputs, outputs] float32 weights of the layer `key`."""
    packed, scales = tensors[f"{key}.q_weight"].view(np.uint32), tensors[f"{key}.q_scale"].view(np.uint32)
    largest = tensors[f"{key}.q_scale_max"] * np.float16(1 / 256)  # in FP16, as make_q_matrix does it
    permutation = np.argsort(tensors[f"{key}.q_invperm"], kind="stable")
    weights = np.empty((len(permutation), packed.shape[1]), np.float32)
    shifts = (np.arange(packed.shape[1]) & 7).astype(np.uint32) * 4
    row = 0
    for group, (bits, first, size) in enumerate(groups(tensors, key)):
        nibbles = (scales[group].repeat(8) >> shifts) & 15
        scale = ((nibbles + 1) ** 2).astype(np.float16) * largest[group]
        for offset in range(size):
            word, shift = divmod(offset * bits, 32)
            both = packed[first + word].astype(np.uint64)
            if shift + bits > 32:
                both |= packed[first + word + 1].astype(np.uint64) << np.uint64(32)
            quants = ((both >> np.uint64(shift)) & np.uint64((1 << bits) - 1)).astype(np.int32) - (1 << (bits - 1))
            weights[permutation[row + offset]] = quants.astype(np.float16) * scale
        row += size
    return weights
