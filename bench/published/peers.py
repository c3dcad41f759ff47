"""Errors that others have published of their own estimates of memory on a GPU."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """`share` is the error as a share of what was measured; `words` says of what it is."""

    name: str
    share: float
    words: str
    source: str


PEERS = (
    Peer("LLMem", 0.016, "up to 1.6 % for fine-tuning on one GPU", "https://arxiv.org/abs/2404.10933"),
    Peer("LLMem", 0.030, "3.0 % on average on several GPUs", "https://arxiv.org/abs/2404.10933"),
)
