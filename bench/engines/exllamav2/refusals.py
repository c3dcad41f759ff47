"""What ExLlamaV2 would never come to an end with: known before anything runs."""

from __future__ import annotations

from bench.core.case import Case
from bench.engines.exllamav2.schedule import endless


def refusal(case: Case) -> str | None:
    """Why a case cannot be run, and what to give in its place; None where it can."""
    reason = endless(case.max_seq_len, case.max_attention_size, case.attention)
    return None if reason is None else f"{reason}; give at least max_attention_size={case.max_seq_len}"
