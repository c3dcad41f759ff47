"""The bits per weight of a checkpoint, by the headers of its tensors: what the engine's converter would print."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from bench.config.formats import EXL2_PARTS
from bench.core.case import UNQUANTISED_BPW
from bench.tensor_files import Entry

_TILE = 16  # a trellis is [K/16, N/16, 16 b], of a matrix of K by N weights with b bits each
_PACKED_BITS = 32  # of an element of q_weight, whose rows are those of the layer in so many bits
_TRELLIS_PARTS = ("trellis", "suh", "svh", "su", "sv", "mul1", "mcg", "bias")  # all that a quantised layer has


def bits_per_weight(entries: Mapping[str, Entry]) -> float | None:
    """All bits of the quantised layers over their weights, the head left out; 16 of weights that are not quantised.

    None where there are no tensors at all. The converters of both formats count scales, permutations and biases, and
    weights that were padded with their padding.
    """
    bits = weights = 0
    for layer_bits, layer_weights in _layers(entries):
        bits, weights = bits + layer_bits, weights + layer_weights
    if weights:
        return round(bits / weights, 2)
    return UNQUANTISED_BPW if entries else None


def head_bits(entries: Mapping[str, Entry]) -> float | None:
    """The bits of a weight of the output layer, without its scales; None where it has no tensors of its own."""
    for name, entry in entries.items():
        layer, _, part = name.rpartition(".")
        if not _is_head(layer):
            continue
        order = entries.get(f"{layer}.q_invperm")
        if part == "q_weight" and order is not None and order.shape[0]:
            return round(entry.shape[0] * _PACKED_BITS / order.shape[0], 2)
        if part == "trellis" and len(entry.shape) == 3:
            return entry.shape[2] / _TILE
        if part == "weight":
            return UNQUANTISED_BPW
    return None


def _layers(entries: Mapping[str, Entry]) -> Iterator[tuple[int, int]]:
    """The bits and the weights of each quantised layer, whose own part says that it is one."""
    for name, entry in entries.items():
        layer, _, part = name.rpartition(".")
        if _is_head(layer):
            continue
        if part == "q_weight":
            order = entries.get(f"{layer}.q_invperm")
            yield _bits(entries, layer, EXL2_PARTS), math.prod(order.shape) * entry.shape[1] if order else 0
        elif part == "trellis" and len(entry.shape) == 3:
            yield _bits(entries, layer, _TRELLIS_PARTS), entry.shape[0] * entry.shape[1] * _TILE**2


def _bits(entries: Mapping[str, Entry], layer: str, parts: tuple[str, ...]) -> int:
    return sum(8 * entry.size_bytes for part in parts if (entry := entries.get(f"{layer}.{part}")) is not None)


def _is_head(layer: str) -> bool:
    """Whether a layer is the output layer: engines call it lm_head, below the prefix of the language model.

    InternLM2's own name for it is mapped to that (architecture.py of the engine, internlm2_keymap).
    """
    return layer.rpartition(".")[2] == "lm_head" or layer == "output"
