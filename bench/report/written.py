"""Which files of a folder this program wrote there: what an earlier report left behind is removed, and nothing else."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

# Names, each with its size and the time of its last change: what somebody else wrote since is theirs.
_MANIFEST = ".vram-bench-report.json"

_Mark = list[int]


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
