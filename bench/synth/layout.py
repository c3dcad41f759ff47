"""What a checkpoint consists of: names, shapes, and what each tensor is to hold."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

# The key in config.json that marks a synthetic checkpoint; trained models do not have it.
SYNTHETIC = "weights_made_up_by"

SMALL_DEVIATION = 0.02  # of embeddings and biases; what most models are initialised with

_ITEM_BYTES = {"F16": 2, "BF16": 2, "I16": 2, "I32": 4, "F32": 4}


class Content(StrEnum):
    """What a tensor holds. The first five are the parts of an EXL2 layer, the next three those of an EXL3 one."""

    GROUPS = "groups"  # q_groups: bits and first packed row of each group
    QUANTS = "quants"  # q_weight: the packed weights
    PERMUTATION = "permutation"  # q_invperm: where each input went
    SCALES = "scales"  # q_scale: eight of 4 bits a word, one for each group and output
    LARGEST_SCALES = "largest_scales"  # q_scale_max: one for each group
    TRELLIS = "trellis"  # the packed weights: every pattern of bits is one
    SIGNS = "signs"  # suh and svh: a number for each input or output, of either sign
    CODEBOOK = "codebook"  # mul1: a constant that says how a trellis is read; `groups` are its halves, the lower first
    NORMAL = "normal"  # normally distributed
    ONES = "ones"
    ZEROS = "zeros"


@dataclass(frozen=True)
class Tensor:
    """One entry of a safetensors header.

    `groups` are the bits and the first packed row of each group in turn, for the parts of a layer that depend on them;
    `deviation` is the standard deviation of the weights, and of signs their size.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    content: Content
    groups: tuple[int, ...] = ()
    deviation: float = 0.0

    @property
    def size_bytes(self) -> int:
        """The size of its values."""
        return math.prod(self.shape) * _ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class Layout:
    """A model directory: its JSON documents by name, and its tensors."""

    documents: dict[str, Any]
    tensors: list[Tensor]

    @property
    def size_bytes(self) -> int:
        """The size of all tensors' values."""
        return sum(tensor.size_bytes for tensor in self.tensors)

    def to_json(self) -> str:
        """The layout as JSON, for the parent."""
        return json.dumps({"documents": self.documents, "tensors": [vars(tensor) for tensor in self.tensors]})

    @staticmethod
    def from_json(text: str) -> Layout:
        """Reads what `to_json` has written."""
        fields = json.loads(text)
        tensors = [
            Tensor(
                **{
                    **each,
                    "shape": tuple(each["shape"]),
                    "groups": tuple(each["groups"]),
                    "content": Content(each["content"]),
                }
            )
            for each in fields["tensors"]
        ]
        return Layout(fields["documents"], tensors)
