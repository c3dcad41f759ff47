"""The parts of a card's memory, in the order of every list that counts them."""

from __future__ import annotations

from bench.core import columns

PARTS = tuple(name.removesuffix("_bytes") for name in columns.PARTS)
# The place of each in such a list.
WEIGHTS, CACHE, SCRATCH, ROPE, ATTENTION, LOGITS, ACTIVATIONS, RESERVE, WORKSPACE, OTHER = range(10)
DRAFT_WEIGHTS, DRAFT_CACHE, VISION = range(10, len(PARTS))
