"""How ExLlamaV2 splits a prefill where it bounds queries times keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.case import MAX_ATTENTION_SIZE
from bench.core.outcome import Phase
from bench.engines.exllamav2.schedule import endless, schedule
from bench.engines.exllamav2.setup import Setup
from bench.scenarios.forward import DECODE_TOKENS, PROMPT_TOKENS, WARM_UP_TOKENS
from tests.trace.synthetic_recordings import PLAIN


@given(
    attention=st.sampled_from(["sdpa", "matmul"]),
    max_seq_len=st.integers(64, 20_000),
    max_input_len=st.sampled_from([64, 500, 2048]),
    spare=st.integers(0, 1 << 22),
)
def test_no_chunk_holds_more_scores_than_are_allowed_nor_more_tokens(
    attention: str, max_seq_len: int, max_input_len: int, spare: int
) -> None:
    setup = PLAIN._replace(
        attention=attention, max_input_len=max_input_len, max_attention_size=max(1024, max_seq_len + spare)
    )
    chunks = chunks_of(max_seq_len, setup)
    assert sum(q_len for q_len, _ in chunks) == max_seq_len - DECODE_TOKENS
    assert all(0 < q_len <= max_input_len and q_len * k_len <= setup.max_attention_size for q_len, k_len in chunks)


@given(max_seq_len=st.integers(64, 20_000), scores=st.integers(64, 1 << 23))
def test_the_kernels_that_hold_no_scores_know_no_such_limit(max_seq_len: int, scores: int) -> None:
    for attention in ("flash", "xformers"):
        setup = PLAIN._replace(attention=attention, max_attention_size=scores)
        assert schedule(max_seq_len, setup) == schedule(max_seq_len, setup._replace(max_attention_size=1 << 40))
        assert endless(max_seq_len, scores, attention) is None


def test_the_engines_own_limit_is_the_default() -> None:
    assert PLAIN.max_attention_size == MAX_ATTENTION_SIZE == 2048**2


@pytest.mark.parametrize("attention", ["sdpa", "matmul"])
def test_chunks_of_no_token_are_told(attention: str) -> None:
    assert endless(4096, 4096, attention) is None
    assert "for ever" in str(endless(4097, 4096, attention))


def chunks_of(max_seq_len: int, setup: Setup) -> list[tuple[int, int]]:
    """Queries and keys of each chunk that fills the context."""
    passes = [each for each in schedule(max_seq_len, setup) if each.phase == Phase.PREFILL]
    assert passes[0].q_len == PROMPT_TOKENS
    return [(each.q_len, each.k_len) for each in passes[1 + WARM_UP_TOKENS :]]
