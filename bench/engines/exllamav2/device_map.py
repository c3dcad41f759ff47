"""Which module `load(gpu_split)` puts on which card: the arithmetic of ExLlamaV2 0.3.2 (model.py, `set_device_map`).

It counts weights and scratch by the sizes of files, and not the cache. Attention scratch is counted that grows with
`max_seq_len` and is never allocated (attn.py, `temp_kv_size` and `temp_attn_size`), so a longer context can move a
module to the next card. What the modules say of themselves is told once, by a worker: `MapSizes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.trace.passes import NoPrediction
from bench.trace.split import Place

GIB = 1024**3
_PADDING = 128  # attn.py, temp_attn_size
_FUDGE = 190  # the same, where attention keeps no scores


class ModuleSizes(NamedTuple):
    """What one module counts: the tensors of the checkpoint (`{}` is the layer) and so many `other_bytes` of weights.

    It gets `fixed_scratch_bytes` of scratch, and counts the most of a + b · max_seq_len over all pairs (a, b) of
    `scratch`. `heads` are those of an attention module, 0 of any other.
    """

    layer: int
    module: int
    tensors: list[str]
    other_bytes: int
    fixed_scratch_bytes: int
    scratch: list[list[int]]
    heads: int

    def counted_scratch_bytes(self, max_seq_len: int) -> int:
        """The scratch that it counts at that length."""
        return max(a + b * max_seq_len for a, b in self.scratch)


@dataclass(frozen=True)
class MapSizes:
    """What the map is made of, beside the sizes of tensors: of a model with fewer layers than the real one.

    `rope_dim` is 0 without RoPE; `state_bytes` are those of hidden states and of a mask. Scores of attention are
    counted up to `max_attention_size`, and less of them where `keeps_no_scores`.
    """

    modules: list[ModuleSizes]
    rope_dim: int
    state_bytes: int
    max_attention_size: int
    keeps_no_scores: bool

    def to_plain(self) -> dict[str, Any]:
        """As a trace keeps it."""
        return {**vars(self), "modules": [list(module) for module in self.modules]}

    @staticmethod
    def from_plain(told: Mapping[str, Any]) -> MapSizes:
        """Reads what `to_plain` gave."""
        return MapSizes(**{**told, "modules": [ModuleSizes(*module) for module in told["modules"]]})


class DeviceMap:
    """The modules of a model of `depth` layers, as the engine would put them on cards."""

    def __init__(self, sizes: MapSizes, depth: int, tensor_bytes: Mapping[str, int]) -> None:
        """Raises `NoPrediction` where layers differ, or the checkpoint lacks a tensor."""
        self._sizes = sizes
        modules = _deepened(sizes.modules, depth)
        self.places = [Place(module.layer, module.module) for module in modules]
        self.footprints = [_footprint(module, tensor_bytes) for module in modules]
        self._fixed_scratch = [module.fixed_scratch_bytes for module in modules]
        self._modules = modules

    def cards_of(self, split_gib: Sequence[float], max_seq_len: int) -> list[int] | None:
        """The card of each module, None where they do not all have one: the engine would raise an AssertionError."""
        cards = self._filled(split_gib, max_seq_len)
        return cards if len(cards) == len(self.places) else None

    def count_held(self, split_gib: Sequence[float], max_seq_len: int) -> int:
        """How many modules have a card among these."""
        return len(self._filled(split_gib, max_seq_len))

    def _filled(self, split_gib: Sequence[float], max_seq_len: int) -> list[int]:
        """The card of each module, up to the first that has none."""
        common = self._common_bytes(max_seq_len)
        left = [gib * GIB - common for gib in split_gib]
        scratch, scores = [0] * len(left), [0.0] * len(left)
        cards: list[int] = []
        card = 0
        for module, footprint in zip(self._modules, self.footprints, strict=True):
            own = module.counted_scratch_bytes(max_seq_len)
            own_scores = self._score_bytes(module.heads, max_seq_len)
            while True:
                if card == len(left):
                    return cards
                most, most_scores = max(own, scratch[card]), max(own_scores, scores[card])
                if footprint + most + most_scores <= left[card]:
                    break
                card += 1
            scratch[card], scores[card] = most, most_scores
            left[card] -= footprint
            cards.append(card)
        return cards

    def scratch_bytes(self, cards: Sequence[int], count: int) -> list[int]:
        """The scratch buffer of each of `count` cards: what the greediest of its modules wants."""
        most = [0] * count
        for card, wanted in zip(cards, self._fixed_scratch, strict=True):
            most[card] = max(most[card], wanted)
        return [size // 2 * 2 for size in most]

    def needed_gib(self, first: int, max_seq_len: int) -> NDArray[np.float64]:
        """What a card must be given to hold the module number `first` and those after it up to each, in GiB."""
        modules = self._modules[first:]
        scratch = [each.counted_scratch_bytes(max_seq_len) for each in modules]
        scores = [self._score_bytes(each.heads, max_seq_len) for each in modules]
        needed = np.cumsum(self.footprints[first:]) + np.maximum.accumulate(scratch) + np.maximum.accumulate(scores)
        return np.asarray((needed + self._common_bytes(max_seq_len)) / GIB, np.float64)

    def _common_bytes(self, max_seq_len: int) -> int:
        return 4 * self._sizes.rope_dim * max_seq_len + self._sizes.state_bytes

    def _score_bytes(self, heads: int, max_seq_len: int) -> float:
        if heads == 0:
            return 0
        most = self._sizes.max_attention_size
        scores: float = min(most, max_seq_len**2)
        if self._sizes.keeps_no_scores:
            scores //= most**0.5 / _FUDGE
        return 2 * scores * heads * 2 + _PADDING


def _deepened(told: Sequence[ModuleSizes], depth: int) -> list[ModuleSizes]:
    """The modules of a model of `depth` layers, from those of one with fewer or as many."""
    shown = max(module.layer for module in told)  # the number of layers: that of what follows them
    before = [module for module in told if module.layer < 0]
    after = [module._replace(layer=depth) for module in told if module.layer == shown]
    layers = [[module._replace(layer=0) for module in told if module.layer == layer] for layer in range(shown)]
    if any(layer != layers[0] for layer in layers):
        raise NoPrediction("its layers count unlike sizes when they are put on cards")
    return [*before, *(module._replace(layer=n) for n in range(depth) for module in layers[0]), *after]


def _footprint(module: ModuleSizes, tensor_bytes: Mapping[str, int]) -> int:
    names = [name.format(module.layer) for name in module.tensors]
    if any(name not in tensor_bytes for name in names):
        raise NoPrediction("the checkpoint lacks a tensor that the engine counts")
    return module.other_bytes + sum(tensor_bytes[name] for name in names)
