"""The layout of a checkpoint that is there, so that it can be filled with other values."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.synth.layout import SMALL_DEVIATION, Content, Layout, Tensor
from bench.tensor_files import Entry, read_header

_DOCUMENTS = ("config.json", "preprocessor_config.json")  # all that the engine reads without a tokenizer
_FILLED = ("F16", "BF16", "F32")  # the unquantised types that there are random values of
_PARTS = {
    "q_weight": Content.QUANTS,
    "q_invperm": Content.PERMUTATION,
    "q_scale": Content.SCALES,
    "q_scale_max": Content.LARGEST_SCALES,
    "q_groups": Content.GROUPS,
}


_TRELLIS = ("trellis", "su", "sv")  # of these every pattern of bits is a value
_SCALES = ("suh", "svh")
_CODEBOOKS = ("mul1", "mcg")
_TILE = 16  # a trellis is [inputs/16, outputs/16, 16 bits]


class CannotClone(Exception):
    """A tensor of a kind that no EXL2 or EXL3 checkpoint has."""


def lay_out_like(directory: Path) -> Layout:
    """Names, shapes and group tables of the checkpoint in `directory`; of its values only the tables are read.

    Raises `CannotClone` for tensors that would have to be filled with numbers of another type than `_FILLED`.
    """
    documents = {
        name: json.loads((directory / name).read_text(encoding="utf-8"))
        for name in _DOCUMENTS
        if (directory / name).exists()
    }
    headers: dict[str, Entry] = {}
    tables: dict[str, tuple[int, ...]] = {}
    for path in sorted(directory.glob("*.safetensors")):
        entries = read_header(path)
        headers.update(entries)
        with path.open("rb") as file:
            for name, entry in entries.items():
                layer, _, part = name.rpartition(".")
                if part in ("q_groups", *_CODEBOOKS):
                    file.seek(entry.start)
                    numbers = entry.size_bytes // 2
                    tables[layer] = struct.unpack(f"<{numbers}H", file.read(2 * numbers))
    return Layout(documents, list(_tensors(headers, tables)))


def _tensors(headers: dict[str, Entry], tables: dict[str, tuple[int, ...]]) -> Iterator[Tensor]:
    for name, entry in headers.items():
        dtype, shape = entry.dtype, entry.shape
        layer, _, part = name.rpartition(".")
        if part in _PARTS and layer in tables:
            rows = headers[f"{layer}.q_invperm"].shape[0]
            yield Tensor(name, dtype, shape, _PARTS[part], tables[layer], 1 / math.sqrt(rows))
        elif part in (*_TRELLIS, *_SCALES, *_CODEBOOKS) and f"{layer}.trellis" in headers:
            yield _of_trellis(name, entry, headers[f"{layer}.trellis"].shape[0] * _TILE, tables.get(layer, ()))
        else:
            yield Tensor(name, dtype, shape, **_unquantised(name, dtype, shape))


def _of_trellis(name: str, entry: Entry, inputs: int, table: tuple[int, ...]) -> Tensor:
    """A part of an EXL3 layer of so many inputs; `table` has the halves of its codebook's number."""
    part = name.rpartition(".")[2]
    if part in _CODEBOOKS:
        return Tensor(name, entry.dtype, entry.shape, Content.CODEBOOK, table)
    if part in _SCALES:
        deviation = 1.0 if part == _SCALES[0] else 1 / math.sqrt(inputs)
        return Tensor(name, entry.dtype, entry.shape, Content.SIGNS, deviation=deviation)
    return Tensor(name, entry.dtype, entry.shape, Content.TRELLIS)


def _unquantised(name: str, dtype: str, shape: tuple[int, ...]) -> dict[str, Any]:
    if 0 in shape:
        return {"content": Content.ZEROS}
    if dtype not in _FILLED:
        raise CannotClone(f"{name} is {dtype}; made-up weights are EXL2, EXL3, or of {', '.join(_FILLED)}")
    if name.endswith(".bias"):
        return {"content": Content.NORMAL, "deviation": SMALL_DEVIATION}
    if len(shape) == 1 or "norm" in name:
        return {"content": Content.ONES}
    return {"content": Content.NORMAL, "deviation": 1 / math.sqrt(shape[-1])}
