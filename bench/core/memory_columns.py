"""What memory was held at its highest, and what it was made of: columns of cases, and of each of several cards."""

from __future__ import annotations

from typing import Annotated, TypedDict

from bench.core.column import Column, Role


def size_column(doc: str) -> Column:
    """A column of bytes."""
    return Column(Role.SIZE, doc, "bytes")


def _part(doc: str, later: bool = False) -> Column:
    return Column(Role.PART, doc, "bytes", later=later)


class PeakAllocated(TypedDict):
    """PyTorch's memory in use at its highest."""

    peak_allocated_bytes: Annotated[
        int | None, size_column("PyTorch's memory in use, in its blocks, over the whole case; for an OOM: until then")
    ]


class Peaks(TypedDict):
    """What else was at its highest."""

    peak_requested_bytes: Annotated[int | None, size_column("the same as asked for, before it is rounded to blocks")]
    peak_reserved_bytes: Annotated[int | None, size_column("what PyTorch held from the driver")]
    peak_device_bytes: Annotated[
        int | None,
        size_column(
            "what the card held: reserved and the CUDA context; on a real card NVML's highest reading, if higher"
        ),
    ]


class PartColumns(TypedDict):
    """The CUDA context, and `PARTS` of `core/columns.py`: what the memory in use was made of."""

    context_bytes: Annotated[int | None, size_column("the CUDA context's own; on a simulated card from the catalogue")]
    weights_bytes: Annotated[
        int | None,
        _part(
            "weights; this and the parts below are those alive when the memory in use was highest "
            "([simulation](simulation.md)); on a real card only weights, cache, scratch, rope and workspace are known"
        ),
    ]
    cache_bytes: Annotated[int | None, _part("keys and values")]
    scratch_bytes: Annotated[int | None, _part("the engine's scratch space")]
    rope_bytes: Annotated[int | None, _part("sines and cosines of the positions")]
    attention_bytes: Annotated[int | None, _part("what attention holds for one pass")]
    logits_bytes: Annotated[int | None, _part("logits")]
    activations_bytes: Annotated[int | None, _part("hidden states and what MLPs hold for one pass")]
    reserve_bytes: Annotated[int | None, _part("what `load_autosplit` keeps free while it loads")]
    workspace_bytes: Annotated[int | None, _part("cuBLAS's workspaces; on a real card as they are at the end")]
    other_bytes: Annotated[int | None, _part("what belongs to none of these")]
    draft_weights_bytes: Annotated[
        int | None,
        _part("weights of a draft model; what else it takes is among the parts above", later=True),
    ]
    draft_cache_bytes: Annotated[int | None, _part("its keys and values", later=True)]
    vision_bytes: Annotated[int | None, _part("weights of the vision tower; of images nothing is counted", later=True)]
