"""A setting as something to copy: exllamav3's Python and TabbyAPI's config.yml."""

from __future__ import annotations

from bench.engines.base import Chosen, Snippet


def snippets(chosen: Chosen) -> list[Snippet]:
    """The engine by itself, and the server that uses it."""
    return []
