"""Writes safetensors files: https://github.com/huggingface/safetensors#format."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.synth.layout import Content, Tensor

# What a tensor holds, in order; None for a hole, which reads as zeros.
Chunks = Iterable[memoryview] | None


def tables_only(tensor: Tensor) -> Chunks:
    """The content of a sparse checkpoint: the tables and constants that loaders read, and holes."""
    if tensor.content not in (Content.GROUPS, Content.CODEBOOK):
        return None
    return [memoryview(struct.pack(f"<{len(tensor.groups)}H", *tensor.groups))]


def split(tensors: Sequence[Tensor], shard_bytes: int) -> dict[str, list[Tensor]]:
    """The tensors of each file, by its name; a file holds up to `shard_bytes`, or one tensor that is larger."""
    shards: list[list[Tensor]] = []
    room = 0
    for tensor in tensors:
        if not shards or tensor.size_bytes > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(tensor)
        room -= tensor.size_bytes
    if len(shards) == 1:
        return {"model.safetensors": shards[0]}
    return {f"model-{number:05}-of-{len(shards):05}.safetensors": each for number, each in enumerate(shards, 1)}


def index(shards: Mapping[str, Sequence[Tensor]]) -> dict[str, Any]:
    """The document model.safetensors.index.json of several files."""
    return {
        "metadata": {"total_size": sum(tensor.size_bytes for tensors in shards.values() for tensor in tensors)},
        "weight_map": {tensor.name: name for name, tensors in shards.items() for tensor in tensors},
    }


def write_shard(
    path: Path,
    tensors: Sequence[Tensor],
    chunks_of: Callable[[Tensor], Chunks],
    metadata: Mapping[str, str],
    wrote: Callable[[int], None] = lambda size_bytes: None,
) -> None:
    """Writes `tensors` to the file `path`; `wrote` is called with the size of each piece.

    Tensors with values come first and holes after them, so that holes take no disk.
    """
    contents = {tensor.name: chunks_of(tensor) for tensor in tensors}
    tensors = sorted(tensors, key=lambda tensor: contents[tensor.name] is None)
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for tensor in tensors:
        end = offset + tensor.size_bytes
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for tensor in tensors:
            for chunk in contents[tensor.name] or ():
                file.write(chunk)
                wrote(chunk.nbytes)
        file.truncate(8 + len(text) + offset)
