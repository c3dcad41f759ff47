"""Which files of a folder this program wrote there: what an earlier report left behind is removed, and nothing else."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

# Names, each with its size and the time of its last change: what somebody else wrote since is theirs.
_MANIFEST = ".vram-bench-report.json"

_Mark = list[int]


def in_short(files: Sequence[Path]) -> list[str]:
    """The page of a report to open, and how many files of each kind there are where; `files` are all that it wrote."""
    kinds = Counter(file.suffix.removeprefix(".").upper() for file in files)
    kinds["Markdown"] = kinds.pop("MD", 0)
    others = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()) if count and kind != "HTML")
    pages = [file for file in files if file.suffix == ".html"]
    folders = dict.fromkeys(str(file.parent) for file in files)
    return [*(f"open {page}" for page in pages), *(f"beside it in {folder}: {others}" for folder in folders)]


def keep_only(folder: Path, files: Iterable[Path]) -> list[Path]:
    """Notes that `files` in `folder` were written now, and removes those that an earlier call noted and are as they
    were then. Returns the files that were removed.
    """
    now = {file.name: _mark(file) for file in files if file.parent == folder}
    removed = []
    for name, mark in _noted(folder).items():
        old = folder / name
        with contextlib.suppress(OSError):
            if name not in now and not old.is_symlink() and _mark(old) == mark:
                old.unlink()
                removed.append(old)
    (folder / _MANIFEST).write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
    return removed


def _noted(folder: Path) -> dict[str, _Mark]:
    """What an earlier call wrote; only names of files in this very folder."""
    try:
        noted = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(noted, dict):
        return {}
    return {name: mark for name, mark in noted.items() if name and Path(name).name == name}


def _mark(file: Path) -> _Mark:
    state = file.stat()
    return [state.st_size, state.st_mtime_ns]
