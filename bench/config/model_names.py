"""What a model on disk is called, as people know it: a folder's name alone often says nothing."""

from __future__ import annotations

import re
from pathlib import Path

from bench.core.printable import printable

# A folder of the Hugging Face cache: models--ORG--NAME/snapshots/HASH.
_CACHED = re.compile(r"models--(.+)")
# What a folder is called where the one above it names the model: 4.0bpw, 6_0-h8, exl2-4.25bpw, 5.0bpw-h6-exl2, exl2.
_BITS = r"(?:bpw[-_]?|b)?(?P<bits>\d+(?:[._]\d+)?)(?:[-_ ]?(?:bpw|bits?))?"
_QUANTISATION = re.compile(rf"exl2|(?:exl2[-_ ])?{_BITS}(?:[-_ ]?h(?:ead|b)?[-_]?\d+)?(?:[-_ ]exl2)?", re.IGNORECASE)
_MOST_PARTS = 4


def name_of(directory: Path) -> str:
    """`ORG/NAME` of a folder of the Hugging Face cache, `MODEL/4.0bpw` of one called by its bits; else its own name.

    `directory` is resolved.
    """
    parts: list[str] = []
    for folder in [directory, *directory.parents][:_MOST_PARTS]:
        cached = _CACHED.fullmatch(folder.parent.parent.name) if folder.parent.name == "snapshots" else None
        if cached:
            return printable("/".join([_repository(cached[1], folder), *reversed(parts)]))
        if folder.name:
            parts.append(folder.name)
        if not _is_quantisation(folder.name):
            break
    return printable("/".join(reversed(parts))) or directory.anchor


def _is_quantisation(name: str) -> bool:
    found = _QUANTISATION.fullmatch(name)
    if found is None:
        return False
    return found["bits"] is None or 1 <= float(found["bits"].replace("_", ".")) <= 16


def _repository(name: str, snapshot: Path) -> str:
    """The repository, and the branch or tag of the snapshot where that is not main: `ORG/NAME@4.0bpw`."""
    repository = name.replace("--", "/", 1)
    refs = snapshot.parent.parent / "refs"
    revisions = sorted(str(path.relative_to(refs)) for path in refs.rglob("*") if _holds(path, snapshot.name))
    if not revisions or "main" in revisions:
        return repository
    return f"{repository}@{revisions[0].replace('/', '-')}"


def _holds(ref: Path, commit: str) -> bool:
    try:
        return ref.is_file() and ref.read_text(encoding="utf-8").strip() == commit
    except (OSError, ValueError):
        return False
