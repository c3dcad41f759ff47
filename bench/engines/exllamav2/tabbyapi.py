"""What TabbyAPI sets of ExLlamaV2 before it loads, read in its backends/exllamav2/model.py (79126f9, 2026-06-27).

It is one of the last versions with an ExLlamaV2 back end, which was removed on 2026-07-14 (c8b9a8f).
"""

from __future__ import annotations

from bench.core.case import PAGE
from bench.engines.base import Server

VERSION = "79126f9"
MAX_OUTPUT_LEN = 16  # tokens of a chunk that may have logits; its autosplit takes those of one
# Its autosplit_reserve is [96] (MiB) where config.yml has none, and nothing on the cards after those that it names.
TABBYAPI = Server("TabbyAPI", first_reserve_bytes=96 << 20, other_reserve_bytes=0)


def chunk_tokens(load_as: str | None, max_input_len: int, max_seq_len: int) -> int:
    """The tokens of a chunk: TabbyAPI makes none longer than the context, in whole pages; otherwise as they are."""
    if load_as is None:
        return max_input_len
    return -(-max(PAGE, min(max_input_len, max_seq_len)) // PAGE) * PAGE
