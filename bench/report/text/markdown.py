"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], words: Collection[str]) -> list[str]:
    """The lines of a table; columns that `words` names are aligned to the left, the others are numbers."""
    rule = ["---" if name in words else "---:" for name in header]
    return ["| " + " | ".join(row) + " |" for row in (header, rule, *rows)]
