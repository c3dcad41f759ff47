"""What rows note as assumed, as sentences for people who do not know the columns."""

from __future__ import annotations

from collections.abc import Iterable

_WHERE = "docs/simulation.md"
_TAKES = {
    "context_bytes": "the CUDA context takes (context_bytes)",
    "workspace_bytes": "cuBLAS takes for its workspace (workspace_bytes)",
}
# How the notes of the rows end (bench/run, bench/commands), and what that means.
_UNTIL = {
    " assumed": "assumed, as nobody measured it on such a card; a real one may fit a little more or less",
    " assumed until a case was measured on this GPU": "assumed until a case was measured on this GPU",
}
_SENTENCES = {
    "expert routing assumed balanced": "Each expert is assumed to get an equal share of the tokens; real text may "
    f"send more to one, and take more memory ({_WHERE}).",
}


def in_words(notes: Iterable[str]) -> list[str]:
    """The same notes, each once; those that are columns and no words become a sentence together."""
    told = dict.fromkeys(notes)
    sentences = []
    for ending, meaning in _UNTIL.items():
        taken = [what for name, what in _TAKES.items() if name + ending in told]
        if taken:
            sentences.append(f"What {' and what '.join(taken)} is {meaning} ({_WHERE}).")
    columns = {name + ending for name in _TAKES for ending in _UNTIL}
    return sentences + sorted(_SENTENCES.get(note, note) for note in told if note not in columns)
