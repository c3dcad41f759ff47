"""How exllamav3's Generator splits a prompt (generator/job.py, Job.prefill)."""

from __future__ import annotations

from collections.abc import Iterator

from bench.core.case import PAGE


def chunks(tokens: int, max_chunk_size: int, recurrent: bool) -> Iterator[tuple[int, int]]:
    """First and last token (exclusive) of each pass of a prompt: they end with a page, but the last one.

    Models with states beside the cache work off the last whole page's end as a pass of its own, to keep its state.
    """
    start, last_page = 0, tokens // PAGE * PAGE
    while start < tokens:
        end = min((start + max_chunk_size) // PAGE * PAGE, tokens)
        if recurrent and start < last_page <= end:
            end = last_page
        yield start, end
        start = end
