"""What a terminal shows of the names of columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def broken_within_words(names: Iterable[str], shown: Sequence[str], first_cell: str) -> list[str]:
    """What the lines above the rows show that is no whole word, and no whole parts between underscores, of `names`.

    `shown` are a table's lines, its title first; each row begins with `first_cell`, or is numbered.
    """
    whole = {part for name in (*names, "#") for word in name.split() for part in _parts(word)}
    words: list[str] = []
    above: list[str] | None = []  # of this piece of the table; None below its names
    for line in shown[1:]:
        if not line.strip():
            above = []
        elif above is not None and line.split()[0] in (first_cell, "1"):
            words += above
            above = None
        elif above is not None:
            above += line.split()
    assert words  # nothing would be tested
    return [word for word in words if word not in whole]


def _parts(word: str) -> set[str]:
    """`max_seq_len`, `max_`, `seq_len`, ..."""
    parts = re.findall(r"[^_]*_+|[^_]+", word)
    return {"".join(parts[i:j]) for i in range(len(parts)) for j in range(i + 1, len(parts) + 1)}
