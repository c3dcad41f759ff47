"""The packed weights, unpacked by ExLlamaV2's own CUDA code: compiled for the CPU, where there is a compiler."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tests.synth.exl2 import dequantise
from tests.synth.test_values import layer

ROWS, COLUMNS = 128, 64


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler, spec = shutil.which("g++") or shutil.which("clang++"), find_spec("exllamav2")
    if compiler is None or spec is None or spec.origin is None:
        pytest.skip("needs a C++ compiler")
    library = tmp_path_factory.mktemp("kernels") / "kernels.so"
    source = Path(__file__).with_name("kernels.cpp")
    command = [compiler, "-std=c++17", "-shared", "-fPIC", "-w", f"-I{Path(spec.origin).parent}"]
    built = subprocess.run([*command, "-o", library, source], capture_output=True, text=True, check=False)
    if built.returncode:
        if "_Float16" in built.stderr:
            pytest.skip("the C++ compiler has no _Float16")
        pytest.fail(built.stderr)
    return ctypes.CDLL(str(library))


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_the_engines_own_code_unpacks_the_same_weights(kernels: ctypes.CDLL, bits: int) -> None:
    tensors = layer(ROWS, COLUMNS, (bits, 0, bits, 2 * bits), 4 * bits)
    quants = np.empty((ROWS, COLUMNS), np.float32)
    for unit in range(ROWS // 32):
        for column in range(COLUMNS):
            words = np.ascontiguousarray(tensors["layer.q_weight"][unit * bits : (unit + 1) * bits, column])
            out = np.empty(32, np.float32)
            kernels.unpack(bits, words.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p))
            quants[32 * unit : 32 * (unit + 1), column] = out
    highest = (1 << (bits - 1)) - 1
    assert (quants.min(), quants.max()) == (-highest, highest)
    scales = np.empty((ROWS, COLUMNS), np.float16)
    for row in range(ROWS):
        for column in range(COLUMNS):
            # MatrixView_q4_row::item and dq_scale
            s = (int(tensors["layer.q_scale"].view(np.uint32)[row // 64, column // 8]) >> (4 * (column & 7))) & 15
            largest = tensors["layer.q_scale_max"][row // 64] * np.float16(1 / 256)
            scales[row, column] = np.float16((s + 1) ** 2) * largest
    permuted = dequantise(tensors, "layer")[np.argsort(tensors["layer.q_invperm"], kind="stable")]
    assert (quants.astype(np.float16) * scales == permuted).all()
