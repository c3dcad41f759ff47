"""How far ExLlamaV2 is in a prompt, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.worker.interfaces.engine import Tell


@contextmanager
def telling_chunks(model: Any, cache: Any, total: int, tell: Tell) -> Iterator[None]:
    """While it lasts, `model` (an ExLlamaV2) tells after each chunk how many of `total` tokens are in `cache`."""
    forward_chunk = model.forward_chunk

    def forward_and_tell(**kwargs: Any) -> Any:
        result = forward_chunk(**kwargs)
        tell(cache.current_seq_len, total)
        return result

    model.forward_chunk = forward_and_tell
    try:
        yield
    finally:
        del model.forward_chunk  # the class's own again, and no cycle keeps the model alive
