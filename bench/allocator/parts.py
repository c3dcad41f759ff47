"""The parts of a card's memory, in the order of every list that counts them."""

from __future__ import annotations

PARTS = (
    "weights",
    "cache",
    "scratch",
    "rope",
    "attention",
    "logits",
    "activations",
    "reserve",
    "workspace",
    "other",
)
