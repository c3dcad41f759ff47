"""The tables of pages that a batch is decoded with (exllamav3/generator/generator.py, _stage_arena)."""

from __future__ import annotations

from bench.core.case import PAGE

TABLE_TOKENS = 16 * PAGE  # what a column of pages more in the tables of a decoding batch stands for


def table_tokens(start: int) -> int:
    """What the tables have room for when a token is decoded after `start`."""
    return -(-(start + 1) // TABLE_TOKENS) * TABLE_TOKENS
