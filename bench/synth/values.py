"""Random values for every tensor of a checkpoint, made as fast as a disk writes.

A true random stream is slower than a disk. So the bits are drawn once, into blocks of some MiB, and the tensors are
made of pieces of these blocks, each from a random place of its own.

The packed weights are what the quantiser makes of normally distributed ones (conversion/adaptivegptq.py of the engine):
a weight is (q - 2^(bits-1)) * (s + 1)^2 / 256 * q_scale_max, with q of `bits` bits and s of 4. Their mean is zero:
levels drawn evenly would have a mean of half a level, which all outputs share, and which grows from layer to layer.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import struct
from collections.abc import Iterator
from functools import cached_property
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.synth.layout import Content, Tensor

UNIT_ROWS = 32  # rows that fill whole words: `bits` packed rows
_DRAWS = 1 << 16  # a value is looked up by 16 random bits
_BLOCK_COLUMNS = 1 << 19
_BLOCK_ITEMS = 1 << 23
_CHUNK_BYTES = 8 << 20
_SCALES_MASK = 0x88888888  # s from 8 to 15: the largest weights of a group's columns differ by no more than 3.2
# The quantiser puts the largest weight of a group at its outermost level; of some 100 normal ones that is here.
_LARGEST_DEVIATIONS = 2.8

Words = npt.NDArray[np.uint32]
Floats = npt.NDArray[Any]  # of a tensor's own type; NumPy has no BF16, and its bits stand for it


class Values:
    """What the tensors hold; the same `seed` and tensor always give the same bytes."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._quants: dict[int, Words] = {}
        self._normals: dict[tuple[float, str], Floats] = {}

    def chunks(self, tensor: Tensor) -> Iterator[memoryview]:
        """The bytes of `tensor`, in pieces."""
        for array in self._arrays(tensor):
            yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data

    def _arrays(self, tensor: Tensor) -> Iterator[npt.NDArray[np.generic]]:
        match tensor.content:
            case Content.GROUPS | Content.CODEBOOK:
                yield np.array(tensor.groups, "<u2")
            case Content.QUANTS:
                yield from self._packed_rows(tensor)
            case Content.PERMUTATION:
                draws = self._generator(tensor.name).random_raw(tensor.shape[0])
                yield np.argsort(draws, kind="stable").astype("<i4")
            case Content.SCALES:
                yield from self._pieces(self._scales, tensor)
            case Content.LARGEST_SCALES:
                largest = {bits: tensor.deviation / _relative_deviation(bits) for bits in set(tensor.groups[::2])}
                yield np.array([largest[bits] for bits in tensor.groups[::2]], "<f2")
            case Content.TRELLIS:
                yield from self._pieces(self._draws("trellis", _BLOCK_ITEMS), tensor)
            case Content.SIGNS:
                signs = self._draws("signs", _BLOCK_ITEMS) & np.uint16(0x8000)
                size = np.array([tensor.deviation], "<f2").view("<u2")
                yield from self._pieces(signs | size, tensor)
            case Content.NORMAL:
                yield from self._pieces(self._normal(tensor.deviation, tensor.dtype), tensor)
            case Content.ONES:
                yield _in_type(np.ones(tensor.shape, "<f2"), tensor.dtype)
            case Content.ZEROS:
                yield np.zeros(tensor.size_bytes, "u1")

    def _packed_rows(self, tensor: Tensor) -> Iterator[Words]:
        """q_weight, some units of rows at a time; each unit is a piece of the block of its bits."""
        rows, columns = tensor.shape
        generator = self._generator(tensor.name)
        for bits, first, end in _runs(tensor.groups, rows):
            block = self._block_of_quants(bits)
            size = max(1, _CHUNK_BYTES // (4 * bits * columns))
            units = math.ceil((end - first) / bits)
            for start in range(0, units, size):
                made = np.empty((min(size, units - start), bits, columns), "<u4")
                for left in range(0, columns, _BLOCK_COLUMNS // 2):
                    part = made[:, :, left : left + _BLOCK_COLUMNS // 2]
                    places = generator.random_raw(len(made)) % np.uint64(_BLOCK_COLUMNS - part.shape[2] + 1)
                    for unit, place in zip(part, places.tolist(), strict=True):
                        unit[:] = block[:, place : place + part.shape[2]]
                yield made.reshape(-1, columns)[: end - first - start * bits]

    def _pieces(self, block: npt.NDArray[np.generic], tensor: Tensor) -> Iterator[npt.NDArray[np.generic]]:
        """As many items of `block` as `tensor` has, from random places."""
        generator = self._generator(tensor.name)
        left = math.prod(tensor.shape)
        while left:
            length = min(left, len(block) // 2)
            place = int(generator.random_raw()) % (len(block) - length + 1)
            yield block[place : place + length]
            left -= length

    def _block_of_quants(self, bits: int) -> Words:
        """[bits, columns]: in each column the packed weights of a unit (pack_columns in cuda/pack_tensor.cu)."""
        if bits not in self._quants:
            levels = np.repeat(np.arange(1 << bits, dtype="<u4"), quant_counts(bits))
            block = np.zeros((bits, _BLOCK_COLUMNS), "<u4")
            draws = self._draws(f"quants of {bits} bits", UNIT_ROWS * _BLOCK_COLUMNS).reshape(UNIT_ROWS, -1)
            for row in range(UNIT_ROWS):
                quants = levels[draws[row]]
                word, shift = divmod(row * bits, 32)
                block[word] |= quants << shift
                if shift + bits > 32:
                    block[word + 1] |= quants >> (32 - shift)
            self._quants[bits] = block
        return self._quants[bits]

    def _normal(self, deviation: float, dtype: str) -> Floats:
        if (deviation, dtype) not in self._normals:
            normal = NormalDist(0.0, deviation)
            values = np.array([normal.inv_cdf((draw + 0.5) / _DRAWS) for draw in range(_DRAWS)], "<f2")
            block = _in_type(values, dtype)[self._draws(f"normal {deviation}", _BLOCK_ITEMS)]
            self._normals[deviation, dtype] = block
        return self._normals[deviation, dtype]

    @cached_property
    def _scales(self) -> Words:
        return self._draws("scales", _BLOCK_ITEMS).view("<u4") | np.uint32(_SCALES_MASK)

    def _draws(self, purpose: str, count: int) -> npt.NDArray[np.uint16]:
        """`count` times 16 random bits."""
        return self._generator(purpose).random_raw(count // 4).astype("<u8", copy=False).view("<u2")

    def _generator(self, purpose: str) -> np.random.PCG64:
        """Its raw stream is the same in every version of NumPy; those of distributions are not."""
        digest = hashlib.sha256(struct.pack("<Q", self._seed) + purpose.encode()).digest()
        return np.random.PCG64(int.from_bytes(digest[:16], "little"))


def _in_type(halves: npt.NDArray[np.float16], dtype: str) -> Floats:
    """The same numbers in the safetensors type `dtype`: F16, BF16 or F32."""
    match dtype:
        case "F16":
            return halves
        case "F32":
            return halves.astype("<f4")
        case "BF16":  # the upper half of an F32, rounded to even
            bits = halves.astype("<f4").view("<u4")
            return ((bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)).astype("<u2")
    raise ValueError(f"no values of type {dtype}")


def quant_counts(bits: int) -> list[int]:
    """How many of 65,536 draws each level from 0 to 2^bits - 1 gets: a rounded normal distribution around the middle.

    The lowest level gets none, so that the others are even around the zero level 2^(bits-1).
    """
    zero = 1 << (bits - 1)
    normal = NormalDist(0.0, zero / _LARGEST_DEVIATIONS)
    bounds = [0, *(round(_DRAWS * normal.cdf(level + 0.5)) for level in range(1 - zero, zero - 1)), _DRAWS]
    return [0, *(upper - lower for lower, upper in itertools.pairwise(bounds))]


def _relative_deviation(bits: int) -> float:
    """The standard deviation of the weights of a group whose q_scale_max is 1."""
    zero = 1 << (bits - 1)
    mean_square = sum(count * (level - zero) ** 2 for level, count in enumerate(quant_counts(bits))) / _DRAWS
    scales = [((s + 1) ** 2 / 256) ** 2 for s in range(8, 16)]
    return math.sqrt(mean_square * sum(scales) / len(scales))


def _runs(groups: tuple[int, ...], rows: int) -> Iterator[tuple[int, int, int]]:
    """Bits, first and last + 1 packed row of all successive groups of the same bits, of `rows` packed rows."""
    starts = [
        (bits, first)
        for number, (bits, first) in enumerate(zip(groups[::2], groups[1::2], strict=True))
        if number == 0 or bits != groups[2 * number - 2]
    ]
    for (bits, first), (_, end) in itertools.pairwise([*starts, (0, rows)]):
        yield bits, first, end
