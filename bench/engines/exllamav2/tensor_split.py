"""Which part of each layer `load_tp` gives to which card: the arithmetic of ExLlamaV2 0.3.2 (tensor_p.py).

It goes by what each card has free, less the expected cache and the weights of attention, in floating point and in whole
MiB as the engine does it. What the modules say of themselves is told once, by a worker: `DividedSizes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bench.trace.passes import NoPrediction

_MIB = 1 << 20
# ExLlamaV2Cache_Q8 and its like, as `define_split` counts an element.
_ELEMENT_BYTES = {"FP16": 2, "Q8": 8.5 / 8, "Q6": 6.5 / 8, "Q4": 4.5 / 8}
_COLUMNS, _OUTPUTS, _WORDS = (128, 2), (32, 8), (32, 16)  # of how many a part is made, and the fewest of those


@dataclass(frozen=True)
class DividedSizes:
    """What the parts are made of. `rows` are those of the longest chunk of all sequences; a layer's attention counts
    its `tensors` (`{}` is the layer) and so many `other_bytes`.
    """

    kv_heads: int
    heads_per_kv_head: int
    head_dim: int
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    max_dq_size: int
    rows: int
    tensors: list[str]
    other_bytes: int

    def to_plain(self) -> dict[str, Any]:
        """As a trace keeps it."""
        return dict(vars(self))


class Parts(NamedTuple):
    """What each card has: heads of keys and values, columns of an MLP's gate, of its output, and words of the head."""

    kv_heads: tuple[int, ...]
    columns: tuple[int, ...]
    outputs: tuple[int, ...]
    words: tuple[int, ...]


class TensorSplit:
    """The parts of one model of `depth` layers, whose cache is of a type."""

    def __init__(self, sizes: DividedSizes, depth: int, tensor_bytes: Mapping[str, int], cache: str) -> None:
        """Raises `NoPrediction` where the checkpoint lacks a tensor."""
        self._sizes = sizes
        names = [[name.format(layer) for name in sizes.tensors] for layer in range(depth)]
        if any(name not in tensor_bytes for layer in names for name in layer):
            raise NoPrediction("the checkpoint lacks a tensor that the engine counts")
        self._attention_bytes = [sizes.other_bytes + sum(tensor_bytes[name] for name in layer) for layer in names]
        elements = 2 * _ELEMENT_BYTES[cache] * sizes.kv_heads * sizes.head_dim * depth
        self._cache_bytes_a_token = elements

    def parts(self, given_gib: Sequence[float], tokens: int) -> Parts | None:
        """By what each card may take and all tokens of the cache; None where nothing is left for an MLP (engine ends).

        `TPContext.define_split`.
        """
        sizes = self._sizes
        left: list[float] = [gib * 1024 for gib in given_gib]
        kv_heads = integer_split(sizes.kv_heads, left)
        shares = [heads / sizes.kv_heads for heads in kv_heads]
        cache_bytes = self._cache_bytes_a_token * tokens
        left = [max(0, size - int(cache_bytes * share / _MIB)) for size, share in zip(left, shares, strict=True)]
        for weights in self._attention_bytes:
            left = [max(0, size - int(weights * share / _MIB)) for size, share in zip(left, shares, strict=True)]
        if not sum(left):
            return None
        units = sizes.intermediate_size, sizes.hidden_size, sizes.vocab_size + 31
        parts = [
            tuple(width * part for part in integer_split(unit // width, left, least))
            for unit, (width, least) in zip(units, (_COLUMNS, _OUTPUTS, _WORDS), strict=True)
        ]
        return Parts(tuple(kv_heads), *parts)

    def scratch_bytes(self, parts: Parts) -> list[int]:
        """The scratch buffer of each card: the most that any module wants (`scratch_space_tp` of each)."""
        sizes, scratch = self._sizes, []
        rows, head_dim, hidden, width = sizes.rows, sizes.head_dim, sizes.hidden_size, sizes.intermediate_size
        heads = sum(parts.kv_heads) * sizes.heads_per_kv_head

        def unpacked(*shapes: tuple[int, int]) -> int:
            return max(2 * min(height * columns, sizes.max_dq_size) for height, columns in shapes)

        for kv_heads, columns, outputs, words in zip(*parts, strict=True):
            queries, keys = kv_heads * sizes.heads_per_kv_head * head_dim, kv_heads * head_dim
            attention = unpacked((hidden, queries), (hidden, keys), (heads * head_dim, queries))
            attention += 2 * rows * (3 * heads * head_dim * (kv_heads > 0) + 2 * queries + 2 * keys)
            mlp = unpacked((hidden, columns), (width, outputs))
            whole = 2 * sum(parts.outputs) * (outputs > 0) + sum(parts.columns) * (columns > 0)
            mlp += 2 * rows * (whole + 2 * columns + outputs)
            scratch.append(max(attention, mlp, unpacked((hidden, words))) // 2 * 2)
        return scratch

    def least_bytes(self, parts: Parts, tokens: int) -> list[float]:
        """What each card holds at the least once the cache is made: keys and values, attention and scratch."""
        known = self._cache_bytes_a_token * tokens + sum(self._attention_bytes)
        shares = [heads / self._sizes.kv_heads for heads in parts.kv_heads]
        return [known * share + scratch for share, scratch in zip(shares, self.scratch_bytes(parts), strict=True)]


def integer_split(units: int, weights: Sequence[float], least: int = 0) -> list[int]:
    """`units` in proportion to `weights`; who would get fewer than the `least` gets none (util.py, the same name)."""
    total = sum(weights)
    parts = [int(units * weight / total) for weight in weights]
    rest = units - sum(parts)
    remainders = [units * weight / total - part for weight, part in zip(weights, parts, strict=True)]
    for _ in range(rest):
        most = remainders.index(max(remainders))
        parts[most] += 1
        remainders[most] -= 1
    freed = sum(part for part in parts if part < least)
    parts = [part if part >= least else 0 for part in parts]
    for _ in range(freed):
        fewest = min((index for index, part in enumerate(parts) if part), key=lambda index: parts[index], default=-1)
        parts[fewest] += 1
    return parts
