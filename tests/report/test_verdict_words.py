"""How a case ended, in the words of tables and of the schema."""

from __future__ import annotations

import pytest

from bench.report.text.verdicts import ended, stored


@pytest.mark.parametrize(
    ("outcome", "phase", "words", "schema"),
    [
        ("fits", "done", "fits", "fits"),
        ("oom", "cache", "OOM in cache", "oom in cache"),
        ("timeout", "prefill", "timed out", "timeout in prefill"),
        ("degraded", "done", "spilled", "degraded"),
        ("crash", "load", "crash", "crash in load"),
    ],
)
def test_an_end_is_told_in_either_words(outcome: str, phase: str, words: str, schema: str) -> None:
    assert (ended(outcome, phase), stored(outcome, phase)) == (words, schema)
    assert stored(outcome, None) == outcome


def test_what_fits_needs_no_phase() -> None:
    assert stored("fits", "load") == "fits"
