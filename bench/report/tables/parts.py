"""Where the memory goes at a boundary: the parts of the case that was seen to fit there, by kind."""

from __future__ import annotations

import pandas as pd

from bench.core.columns import PARTS, BoundaryRow
from bench.core.identity import key_of
from bench.core.memory_columns import PartColumns, PeakAllocated

# Each kind of memory from the bottom up, what it is made of, and Okabe and Ito's colour for it.
_KINDS = {
    "weights": (("weights_bytes",), "#0072B2"),
    "vision tower": (("vision_bytes",), "#8870F8"),
    "cache": (("cache_bytes",), "#E69F00"),
    "draft weights": (("draft_weights_bytes",), "#4800F8"),
    "draft cache": (("draft_cache_bytes",), "#00F880"),
    "scratch": (("scratch_bytes",), "#56B4E9"),
    "activations": (("activations_bytes", "attention_bytes", "logits_bytes"), "#009E73"),
    "held back by load_autosplit": (("reserve_bytes",), "#D55E00"),
    "other": (("rope_bytes", "workspace_bytes", "other_bytes"), "#F0E442"),
}
_UNTOLD, _CONTEXT, _HELD, _ALL = (
    "in use, not told apart",
    "CUDA context",
    "kept by PyTorch, unused",
    "held, not told apart",
)
KIND_COLOURS = {
    **{kind: colour for kind, (_, colour) in _KINDS.items()},
    _UNTOLD: "#222222",
    _CONTEXT: "#CC79A7",
    _HELD: "#D8D8D8",
    _ALL: "#555555",
}
_AT_BOUNDARY = [*PARTS, "context_bytes", "peak_allocated_bytes"]


class BoundaryAtFit(BoundaryRow, PartColumns, PeakAllocated):
    """A boundary with the memory of the case at `fits_at`; all null where that is not told."""


def with_parts(boundaries: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """Boundaries with the parts of the case that was seen to fit there; null where it is not among `cases`."""
    if boundaries.empty or cases.empty:
        return boundaries.reindex(columns=[*boundaries.columns, *_AT_BOUNDARY])
    probes = boundaries[["boundary_id", "fits_at", "case_ids"]].explode("case_ids").dropna()
    fits = cases.loc[
        cases["case_id"].isin(probes["case_ids"]) & cases["outcome"].eq("fits"),
        ["case_id", "max_seq_len", *_AT_BOUNDARY],
    ]
    found = probes.merge(fits, left_on=["case_ids", "fits_at"], right_on=["case_id", "max_seq_len"])
    parts = found.drop_duplicates("boundary_id", keep="last").set_index("boundary_id")[_AT_BOUNDARY]
    return boundaries.join(parts, on="boundary_id")


def stack_of(row: BoundaryAtFit) -> dict[str, int]:
    """The bytes of each kind at a boundary, from the bottom up; empty where nothing is known.

    Parts are those alive when allocated bytes were highest. What is in use beyond the parts that are known is not told
    apart; what the card held beyond that and the CUDA context is unused.
    """
    device = row["peak_device_bytes"]
    known = {kind: [size for size in key_of(row, parts) if size is not None] for kind, (parts, _) in _KINDS.items()}
    stack = {kind: sum(values) for kind, values in known.items() if values}
    if not stack and row["peak_allocated_bytes"] is None:
        return {} if device is None else {_ALL: device}
    used = sum(stack.values())
    stack[_UNTOLD] = max(0, (row["peak_allocated_bytes"] or 0) - used)
    stack[_CONTEXT] = row["context_bytes"] or 0
    stack[_HELD] = max(0, (device or 0) - sum(stack.values()))
    return {kind: size_bytes for kind, size_bytes in stack.items() if size_bytes}
